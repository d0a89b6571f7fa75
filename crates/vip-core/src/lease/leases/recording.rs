//! What happened to a node's leases lately, so that it can happen again elsewhere:
//! where they began, what came in, and what was decided.

use super::{GrantAnswer, LeaseAction, LeaseEvent, LeaseInput, LeaseOutput, Leases};
use crate::{Level, Mono, Report, Runs, State, VipOrder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

/// A recording begins anew after so long; the one before is kept beside it. So
/// what is kept goes back for as long as this at least, and twice as long at most.
const SPAN: Duration = Duration::from_mins(1);
/// Or with so many bytes, as far as they can be told: a node with a thousand VIPs
/// orders and asks for all of them at each heartbeat, and keeps a shorter time.
const MOST_BYTES: usize = 16 << 20;
/// A turn without what is in a list: measured on busy nodes, and rounded up.
const TURN_BYTES: usize = 400;
/// An item of a list: a grantee, a deadline.
const ITEM_BYTES: usize = 32;
/// An item with texts in it: an address, an obstacle.
const LONG_ITEM_BYTES: usize = 200;
/// A VIP or a member, as it is written.
const RECORD_BYTES: usize = 500;
/// Of the format.
const FORMAT: u32 = 3;

/// One turn of the leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Turn {
    at: Mono,
    input: LeaseInput,
    /// Nothing: it did not come to that.
    output: Option<LeaseOutput>,
}

/// A stretch of turns.
#[derive(Clone, Debug)]
pub struct Recording {
    runs: Runs,
    begun: Mono,
    start: Box<Leases>,
    turns: Vec<Turn>,
    bytes: usize,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    vipd_recording: u32,
    runs: Runs,
    begun: Mono,
}

/// Why a text is no recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It is something else, or was cut off.
    #[error("line {line} is none of a recording of vipd")]
    Line {
        /// From 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It was made by another version.
    #[error("it was made by vipd {made} (level {level}): replay it with that version", level = made.level)]
    OtherVersion { made: Runs },
}

/// What a turn came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// When, as its clock had it.
    pub at: Mono,
    /// What came in.
    pub input: LeaseInput,
    /// What was decided then. Nothing: the process ended over it.
    pub recorded: Option<LeaseOutput>,
    /// What is decided now.
    pub decided: LeaseOutput,
}

impl Recording {
    fn of(now: Mono, leases: &Leases) -> Self {
        let (runs, mut start) = (Runs::here(), Box::new(leases.clone()));
        start.scene.state = Arc::new(start.scene.state.of_leases());
        Self { runs, begun: now, start, turns: vec![], bytes: 0 }
    }

    /// Writes it, a line for each turn.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let runs = self.runs.clone();
        let head = Head { vipd_recording: FORMAT, runs, begun: self.begun };
        writeln!(to, "{}", serde_json::to_string(&head)?)?;
        writeln!(to, "{}", serde_json::to_string(&self.start)?)?;
        for turn in &self.turns {
            writeln!(to, "{}", serde_json::to_string(turn)?)?;
        }
        Ok(())
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`RecordingError`].
    pub fn read(from: &mut impl BufRead) -> Result<Self, RecordingError> {
        let mut lines = from.lines();
        let mut next = || lines.next().transpose().map(Option::unwrap_or_default);
        let bad = |line| move |source| RecordingError::Line { line, source };
        let Head { vipd_recording, runs, begun } =
            serde_json::from_str(&next()?).map_err(bad(1))?;
        if vipd_recording != FORMAT || runs.level > Level::HERE {
            return Err(RecordingError::OtherVersion { made: runs });
        }
        let start = serde_json::from_str(&next()?).map_err(bad(2))?;
        let mut turns = vec![];
        for (line, text) in (3..).zip(lines) {
            match serde_json::from_str(&text?) {
                Ok(turn) => turns.push(turn),
                // Whoever wrote it was ended over it.
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(bad(line)(error)),
            }
        }
        Ok(Self { runs, begun, start, turns, bytes: 0 })
    }

    /// Has all of it happen again.
    pub fn replay(self) -> impl Iterator<Item = Replayed> {
        let mut leases = self.start;
        self.turns.into_iter().map(move |Turn { at, input, output }| {
            let decided = leases.enter(at, input.clone());
            Replayed { at, input, recorded: output, decided }
        })
    }

    /// When it begins.
    #[must_use]
    pub fn begun(&self) -> Mono {
        self.begun
    }

    /// How many turns it has.
    #[must_use]
    pub fn turns(&self) -> usize {
        self.turns.len()
    }
}

/// Keeps the latest two.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder {
    before: Option<Recording>,
    now: Option<Recording>,
    /// Is to be dropped where nobody waits for it.
    spent: Option<Recording>,
}

impl Recorder {
    /// A turn is about to be made on the lease thread: no other thread pays for a
    /// new stretch.
    pub(super) fn begin(&mut self, now: Mono, leases: &Leases) {
        let full = |r: &Recording| now >= r.begun + SPAN || r.bytes >= MOST_BYTES;
        if self.now.as_ref().is_none_or(full) {
            let before = self.now.replace(Recording::of(now, leases));
            self.spent = std::mem::replace(&mut self.before, before);
        }
    }

    pub(super) fn decided(&mut self, output: LeaseOutput) {
        let bytes = bytes_out(&output);
        let latest = self.now.as_mut().and_then(|recording| recording.turns.last_mut());
        if let Some(turn) = latest {
            turn.output = Some(output);
        }
        if let Some(recording) = &mut self.now {
            recording.bytes += bytes;
        }
    }

    pub(super) fn note(&mut self, at: Mono, input: LeaseInput) {
        let input = match input {
            LeaseInput::Event(LeaseEvent::Applied(state)) => {
                LeaseInput::Event(LeaseEvent::Applied(Arc::new(state.of_leases())))
            }
            other => other,
        };
        if let Some(recording) = &mut self.now {
            recording.bytes += TURN_BYTES + bytes_in(&input);
            recording.turns.push(Turn { at, input, output: None });
        }
    }
}

fn of_report(report: &Report) -> usize {
    let short = report.open.len() + report.released.len() + report.unable.len();
    let short = short + report.revisions.len();
    let long = report.obstacles.len() + report.conflicts.len() + report.macs.len();
    let long = long + report.tokens.len();
    short * ITEM_BYTES + long * LONG_ITEM_BYTES
}

/// As it is written: in memory states share what did not change.
fn of_state(state: &State) -> usize {
    let records = state.vips.len() + state.nodes.len() + state.tombstones.len();
    let records = records + state.retired_vips().count();
    let obstacles = state.obstacles.values().map(BTreeMap::len).sum::<usize>();
    let conflicts = state.conflicts.values().map(BTreeMap::len).sum::<usize>();
    records * RECORD_BYTES + (obstacles + conflicts) * LONG_ITEM_BYTES
}

fn of_answer(answer: &GrantAnswer) -> usize {
    (answer.granted.len() + answer.denied.len()) * ITEM_BYTES
}

fn bytes_in(input: &LeaseInput) -> usize {
    use LeaseEvent as E;
    match input {
        LeaseInput::Event(E::Applied(state)) => of_state(state),
        LeaseInput::Event(E::Hindered(all)) => all.len() * LONG_ITEM_BYTES,
        LeaseInput::Event(E::Notices(all)) => all.len() * LONG_ITEM_BYTES,
        LeaseInput::Event(E::Answered { answer, .. }) => answer.as_ref().map_or(0, of_answer),
        LeaseInput::Report(_, report) => of_report(report),
        LeaseInput::Request(_, wanted) => wanted.named().len() * ITEM_BYTES,
        _ => 0,
    }
}

fn bytes_out(output: &LeaseOutput) -> usize {
    let of_order = |order: &VipOrder| match order {
        VipOrder::Extend { deadlines, .. } => deadlines.len() * ITEM_BYTES,
        VipOrder::Prepare { addresses, known, .. } => {
            addresses.len() * LONG_ITEM_BYTES + known.len() * ITEM_BYTES
        }
        VipOrder::Release { .. } | VipOrder::ExtendAll { .. } => ITEM_BYTES,
    };
    let of_action = |action: &LeaseAction| match action {
        LeaseAction::Order(orders) => orders.iter().map(of_order).sum(),
        LeaseAction::Consider(all) => all.len() * LONG_ITEM_BYTES,
        LeaseAction::Ask(ask) => ask.wanted.named().len() * ITEM_BYTES,
        LeaseAction::Report(_, report) => of_report(report),
        LeaseAction::Renew { known, .. } => known.len() * ITEM_BYTES,
        _ => 0,
    };
    match output {
        LeaseOutput::Actions(actions) => actions.iter().map(of_action).sum(),
        LeaseOutput::Answer(answer, _) => of_answer(answer),
        _ => 0,
    }
}

impl Leases {
    /// From now on what happens is kept for a while.
    pub fn record(&mut self) {
        self.recorder = Some(Box::default());
    }

    /// What is kept no longer. Dropping it takes milliseconds, which the leases are
    /// not to wait for.
    pub fn take_spent(&mut self) -> Option<Recording> {
        self.recorder.as_mut()?.spent.take()
    }

    /// What was kept, the earlier first; it begins anew.
    pub fn take_recordings(&mut self) -> Vec<Recording> {
        let Some(recorder) = &mut self.recorder else { return vec![] };
        let Recorder { before, now, spent: _ } = std::mem::take(recorder.as_mut());
        before.into_iter().chain(now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{START, leading, state_with_two_vips};
    use super::super::{Ask, Asked, Wanted};
    use super::*;
    use crate::{
        Address, Conflict, Denial, Epoch, Grantee, GuardNotice, Incarnation, Mac, NodeId, Obstacle,
        Probe, ReportId, Tombstone, VipUid, Vote, Why,
    };
    use std::net::IpAddr;

    /// Each applied state is written whole, and a report as long as a message may be.
    #[test]
    fn states_and_reports_count_as_what_they_are() {
        let mut state = state_with_two_vips(NodeId(2));
        let two = of_state(&state);
        assert!(two >= 2 * RECORD_BYTES);
        let written = serde_json::to_string(&state.of_leases()).expect("text").len();
        assert!(two >= written, "{two} for {written}");
        for last in 1..=50 {
            let spec = crate::testing::vip(&format!("v{last}"), 100 + last);
            crate::testing::apply(&mut state, crate::VipOp::Add { spec });
        }
        let written = serde_json::to_string(&state.of_leases()).expect("text").len();
        let counted = of_state(&state);
        assert!(counted >= written && counted < 2 * written, "{counted} for {written}");
        let revisions = (0..1000).map(|n| (VipUid(n), 1)).collect();
        let report = Report { revisions, ..Report::default() };
        assert!(of_report(&report) >= 1000 * ITEM_BYTES);
    }

    fn grantees(count: u64) -> impl Iterator<Item = Grantee> {
        let incarnation = Incarnation(8);
        (0..count).map(move |vip| Grantee { vip: VipUid(vip), epoch: Epoch(1), incarnation })
    }

    fn a_report() -> Report {
        let ip = IpAddr::from([10, 0, 0, 9]);
        let uids = |count| (0..count).map(VipUid);
        Report {
            open: grantees(1).collect(),
            released: grantees(2).collect(),
            unable: uids(4).collect(),
            revisions: uids(8).map(|vip| (vip, 1)).collect(),
            obstacles: uids(16).map(|vip| (vip, Obstacle { ip, why: Why::NoRoute })).collect(),
            conflicts: uids(32).map(|vip| (vip, Conflict { ip, mac: Mac([2; 6]) })).collect(),
            macs: (0..64).map(|n| Mac([n; 6])).collect(),
            ..Report::default()
        }
    }

    const OF_A_REPORT: usize = 15 * ITEM_BYTES + 112 * LONG_ITEM_BYTES;

    fn an_answer() -> GrantAnswer {
        let denied = grantees(4).map(|grantee| (grantee, Denial::Ended)).collect();
        GrantAnswer { granted: grantees(3).collect(), denied, covered: None }
    }

    /// Whatever has lists counts by how long they are.
    #[test]
    fn what_comes_in_counts_by_what_it_carries() {
        use LeaseEvent as E;
        let ip = IpAddr::from([10, 0, 0, 9]);
        let hindered: BTreeMap<_, _> =
            (0..5).map(|n| (VipUid(n), Obstacle { ip, why: Why::NoRoute })).collect();
        let notices = vec![GuardNotice::TryAgain; 6];
        let answered = E::Answered {
            session: None,
            sent_at: START,
            asked: Asked::First,
            answer: Some(an_answer()),
        };
        let wanted = Wanted::All(grantees(9).collect());
        let state = state_with_two_vips(NodeId(2));
        let of_two_vips = of_state(&state);
        for (input, bytes) in [
            (LeaseInput::Event(E::Hindered(hindered)), 5 * LONG_ITEM_BYTES),
            (LeaseInput::Event(E::Notices(notices)), 6 * LONG_ITEM_BYTES),
            (LeaseInput::Event(answered), 7 * ITEM_BYTES),
            (LeaseInput::Report(NodeId(2), Box::new(a_report())), OF_A_REPORT),
            (LeaseInput::Request(NodeId(2), wanted), 9 * ITEM_BYTES),
            (LeaseInput::Event(E::Applied(Arc::new(state))), of_two_vips),
            (LeaseInput::Stop, 0),
        ] {
            assert_eq!(bytes_in(&input), bytes, "{input:?}");
        }
    }

    #[test]
    fn what_goes_out_counts_by_what_it_carries() {
        let (vip, epoch, incarnation) = (VipUid(1), Epoch(1), Incarnation(8));
        let address = |last: u8| Address {
            ip: [10, 0, 0, last].into(),
            prefix: 24,
            interface: "eth0".into(),
        };
        let prepare = VipOrder::Prepare {
            vip,
            epoch,
            addresses: (0..2).map(address).collect(),
            probe: Probe::No,
            known: (0..3).map(|n| Mac([n; 6])).collect(),
        };
        let extend = VipOrder::Extend { incarnation, deadlines: vec![(vip, epoch, START); 4] };
        let release = VipOrder::Release { vip, epoch };
        let orders = 2 * LONG_ITEM_BYTES + (3 + 4 + 1) * ITEM_BYTES;
        let ask = |wanted| Box::new(Ask { leader: NodeId(2), session: None, wanted });
        let known = (0..7).map(|n| (NodeId(n), ReportId::default())).collect();
        let vote = Vote::default();
        for (action, bytes) in [
            (LeaseAction::Order(vec![prepare, extend, release]), orders),
            (LeaseAction::Consider(vec![(vip, vec![]); 5]), 5 * LONG_ITEM_BYTES),
            (LeaseAction::Ask(ask(Wanted::First(grantees(6).collect()))), 6 * ITEM_BYTES),
            (LeaseAction::Report(vote, Box::new(a_report())), OF_A_REPORT),
            (LeaseAction::Renew { vote, promise: Duration::ZERO, known }, 7 * ITEM_BYTES),
            (LeaseAction::Ping, 0),
        ] {
            let output = LeaseOutput::Actions(vec![action.clone(), action]);
            assert_eq!(bytes_out(&output), 2 * bytes, "{output:?}");
        }
        assert_eq!(bytes_out(&LeaseOutput::Answer(an_answer(), None)), 7 * ITEM_BYTES);
    }

    #[test]
    fn a_state_counts_by_its_records() {
        let mut state = state_with_two_vips(NodeId(2));
        assert_eq!(of_state(&state), 4 * RECORD_BYTES);
        let ip = IpAddr::from([10, 0, 0, 9]);
        let obstacle = Obstacle { ip, why: Why::NoRoute };
        let hindered = (0..3).map(|node| (NodeId(node), obstacle.clone())).collect();
        Arc::make_mut(&mut state.obstacles).insert(VipUid(1), hindered);
        let conflict = Conflict { ip, mac: Mac([2; 6]) };
        let heard = (0..2).map(|node| (NodeId(node), conflict)).collect();
        Arc::make_mut(&mut state.conflicts).insert(VipUid(1), heard);
        assert_eq!(of_state(&state), 4 * RECORD_BYTES + 5 * LONG_ITEM_BYTES);
        // One that somebody may still answer for is in it as well.
        let one = state.vips.values().next().expect("two").clone();
        Arc::make_mut(&mut state.retired).extend([one.clone(), one.clone(), one]);
        let removed = |name: &str| Tombstone {
            name: name.parse().expect("valid"),
            spki: String::new(),
            macs: [].into(),
            removed: None,
            cut_off: false,
        };
        let tombstones = [(NodeId(8), removed("n8")), (NodeId(9), removed("n9"))];
        Arc::make_mut(&mut state.tombstones).extend(tombstones);
        assert_eq!(of_state(&state), 9 * RECORD_BYTES + 5 * LONG_ITEM_BYTES);
    }

    /// A node asks for a thousand VIPs at each heartbeat, for longer than is kept.
    #[test]
    fn what_is_kept_has_a_bound_whatever_is_held() {
        let mut leases = leading();
        leases.record();
        leases.step(START, LeaseEvent::Applied(Arc::new(state_with_two_vips(NodeId(2)))));
        let grantee =
            |vip| Grantee { vip: VipUid(vip), epoch: Epoch(1), incarnation: Incarnation(8) };
        let wanted = Wanted::All((1..=1000).map(grantee).collect());
        let (mut most, mut at) = (0, START);
        for _ in 0..4000 {
            at = at + Duration::from_millis(40);
            leases.granted_to(at, NodeId(2), &wanted);
            leases.step(at, LeaseEvent::Tick);
            let recorder = leases.recorder.as_ref().expect("it records");
            let kept = [&recorder.before, &recorder.now].into_iter().flatten();
            let items = |turn: &Turn| match (&turn.input, &turn.output) {
                (LeaseInput::Request(_, wanted), Some(LeaseOutput::Answer(answer, _))) => {
                    size_of_val(wanted.named()) + size_of_val(answer.denied.as_slice())
                }
                _ => 0,
            };
            let bytes = kept.flat_map(|recording| &recording.turns).map(items).sum();
            most = most.max(bytes);
        }
        assert!(most > MOST_BYTES, "{most}");
        assert!(most < 3 * MOST_BYTES, "{most}");
        assert!(leases.take_spent().is_some() && leases.take_spent().is_none());
    }

    /// Three turns, and what is written of them.
    fn a_recording() -> (Recording, String) {
        let mut leases = leading();
        leases.record();
        for at in [START, START + Duration::from_millis(40), START + Duration::from_millis(80)] {
            leases.step(at, LeaseEvent::Tick);
        }
        let recording = leases.take_recordings().pop().expect("one");
        let mut written = vec![];
        recording.write(&mut written).expect("written");
        (recording, String::from_utf8(written).expect("text"))
    }

    fn read(text: &str) -> Result<Recording, RecordingError> {
        Recording::read(&mut text.as_bytes())
    }

    #[test]
    fn what_was_written_is_read_and_happens_again() {
        let (recording, written) = a_recording();
        assert_eq!((recording.begun(), recording.turns()), (START, 3));
        let again = read(&written).expect("read");
        assert_eq!((again.begun(), again.turns()), (START, 3));
        let replayed: Vec<_> = again.replay().collect();
        assert_eq!(replayed.len(), 3);
        for (turn, made) in replayed.iter().zip(&recording.turns) {
            assert_eq!((turn.at, &turn.input), (made.at, &made.input));
            assert_eq!(
                (turn.recorded.as_ref(), Some(&turn.decided)),
                (made.output.as_ref(), made.output.as_ref())
            );
        }
    }

    /// A later version decides by what this one does not know.
    #[test]
    fn a_recording_of_another_format_or_of_a_later_level_is_refused() {
        let (recording, written) = a_recording();
        let (_, rest) = written.split_once('\n').expect("lines");
        let made_by = |format, level| {
            let runs = Runs { level: Level(level), ..recording.runs.clone() };
            let head = Head { vipd_recording: format, runs, begun: START };
            read(&format!("{}\n{rest}", serde_json::to_string(&head).expect("text")))
        };
        let here = Level::HERE.0;
        for (format, level, is_read) in [
            (FORMAT, here, true),
            (FORMAT, here - 1, true),
            (FORMAT, here + 1, false),
            (FORMAT + 1, here, false),
            (FORMAT - 1, here, false),
        ] {
            let was_read = match made_by(format, level) {
                Ok(_) => true,
                Err(RecordingError::OtherVersion { .. }) => false,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(was_read, is_read, "{format} {level}");
        }
    }

    /// The disk was full, or the process ended over it.
    #[test]
    fn a_recording_that_was_cut_off_is_read_as_far_as_it_goes_and_a_damaged_one_is_not() {
        let (_, written) = a_recording();
        let cut = &written[..written.len() - 10];
        assert_eq!(read(cut).map(|cut| cut.turns()).ok(), Some(2));
        let damaged = format!("{written}no turn\n");
        assert!(matches!(read(&damaged), Err(RecordingError::Line { line: 6, .. })));
    }

    #[test]
    fn what_is_kept_goes_back_for_its_span() {
        let mut leases = leading();
        leases.record();
        let mut at = START;
        while at < START + SPAN * 3 {
            leases.step(at, LeaseEvent::Tick);
            at = at + Duration::from_millis(40);
        }
        let kept = leases.take_recordings();
        let [before, now] = kept.as_slice() else { panic!("{} stretches", kept.len()) };
        assert!(before.begun() < now.begun() && before.begun() + SPAN <= at);
        assert!(before.begun() + SPAN * 2 >= at - Duration::from_secs(1));
        assert!(leases.take_recordings().is_empty(), "it begins anew");
    }
}
