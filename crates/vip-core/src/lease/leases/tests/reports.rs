//! What a node says of itself.

use super::*;

/// What the leader knows is not said again; what it may not have heard is.
#[test]
fn a_report_is_made_once_to_each_leader_and_again_when_it_changes_or_is_lost() {
    let led_by = |node, term| Vote { term: Term(term), node: NodeId(node), committed: true };
    let mut leases = one_of_three(ME, LAN, Vote::default());
    let reports = |leases: &mut Leases, at, event| {
        let made = leases.step(at, event).into_iter().filter_map(|action| match action {
            LeaseAction::Report(vote, report) => Some((vote, *report)),
            _ => None,
        });
        made.collect::<Vec<_>>()
    };
    let mut now = START;
    for leader in [led_by(2, 1), led_by(3, 2)] {
        leases.saving_vote(now, leader);
        leases.vote_is_durable(START, leader);
        assert_eq!(leases.heard_of(now, leader, LAN.promise), PromiseReply::Promised);
        let told = reports(&mut leases, now, LeaseEvent::Tick);
        let [(to, report)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((*to, report.id), (leader, leases.latest_report()));
        // On its way, then lost: it may be known, at the next heartbeat, or not.
        assert_eq!(reports(&mut leases, now, LeaseEvent::Tick), []);
        assert_eq!(reports(&mut leases, now, LeaseEvent::Unreported(report.id)), []);
        now = now + LAN.heartbeat;
        assert_eq!(reports(&mut leases, now, LeaseEvent::Tick), told);
        now = now + LAN.heartbeat;
        assert_eq!(reports(&mut leases, now, LeaseEvent::Tick), []);
        now = now + LAN.promise;
        leases.heard_of(now, leader, LAN.promise);
        let again = reports(&mut leases, now, LeaseEvent::Tick);
        assert_eq!(again, told);
        now = now + LAN.promise;
        leases.renewed_by(now, leader, LAN.promise, report.id);
        assert_eq!(reports(&mut leases, now, LeaseEvent::Tick), []);
        // News goes at once.
        let last = u8::try_from(leader.node.0).expect("small");
        let mac = Mac([2, 0, 0, 0, 0, last]);
        let news = reports(&mut leases, now, LeaseEvent::Interfaces([mac].into()));
        assert_eq!(news.len(), 1, "{news:?}");
        assert_eq!(news[0].1.macs, [mac].into());
    }
}

fn made(leases: &mut Leases, at: Mono) -> Vec<Report> {
    let made = leases.step(at, LeaseEvent::Tick).into_iter().filter_map(|action| match action {
        LeaseAction::Report(_, report) => Some(*report),
        _ => None,
    });
    made.collect()
}

/// A node of a leader that it hears, with a guard, and nothing said yet.
fn led() -> Leases {
    let mut leases = one_of_three(ME, LAN, Vote::default());
    leases.saving_vote(START, LEADER);
    leases.vote_is_durable(START, LEADER);
    leases.step(START, LeaseEvent::GuardUp(SESSION));
    leases.heard_of(START, LEADER, LAN.promise);
    leases
}

/// Two heartbeats are enough for it to get there.
#[test]
fn a_report_that_nobody_speaks_of_is_made_again_after_its_time() {
    let mut leases = led();
    let [first] = made(&mut leases, START).try_into().expect("one");
    let half = LAN.heartbeat / 2;
    for halves in 1..4 {
        let at = START + half * halves;
        leases.heard_of(at, LEADER, LAN.promise);
        assert_eq!(made(&mut leases, at), []);
    }
    assert_eq!(made(&mut leases, START + LAN.heartbeat * 2), [first]);
}

#[test]
fn nothing_is_said_to_a_leader_that_is_not_heard_any_more() {
    let mut leases = led();
    assert_eq!(made(&mut leases, START + LAN.promise), []);
    leases.heard_of(START + LAN.promise, LEADER, LAN.promise);
    assert_eq!(made(&mut leases, START + LAN.promise).len(), 1);
}

/// What changes by time alone is looked at with each heartbeat.
#[test]
fn a_guard_that_stays_away_is_reported_at_the_next_heartbeat() {
    let mut leases = led();
    made(&mut leases, START);
    leases.step(START, LeaseEvent::GuardDown);
    let mut at = START;
    let mut tick = |after| {
        at = at + after;
        leases.renewed_by(at, LEADER, LAN.promise, leases.latest_report());
        made(&mut leases, at)
    };
    for _ in 0..12 {
        assert_eq!(tick(LAN.heartbeat), []);
    }
    let off_beat = Duration::from_millis(30);
    assert_eq!(tick(off_beat), [], "half a second is over, and no heartbeat");
    let reports = tick(LAN.heartbeat - off_beat);
    let says: Vec<_> = reports.iter().map(|report| report.fitness).collect();
    assert_eq!(says, [Fitness::NoGuard]);
}

/// By that a leader tells what an earlier process said.
#[test]
fn a_report_is_of_the_process_that_makes_it() {
    let start = LeasesStart {
        me: ME,
        timing: LAN,
        run: 9,
        saved: Vote::default(),
        in_doubt: false,
        longest: Duration::ZERO,
        interfaces: BTreeMap::new(),
    };
    assert_eq!(Leases::new(START, start).latest_report(), ReportId { run: 9, seq: 0 });
}

/// Of what a node said before its agent was restarted nothing may be true.
#[test]
fn what_an_earlier_process_said_does_not_count() {
    let mut leases = leading();
    leases.step(START, LeaseEvent::Applied(Arc::new(state_with_two_vips(NodeId(2)))));
    let fit = |leases: &Leases| leases.fitness_of(START, NodeId(2));
    assert_eq!(fit(&leases), Some(Fitness::Fit));
    let report = ReportId { run: 9, seq: 1 };
    acknowledged(&mut leases, 2, report);
    assert_eq!(fit(&leases), None);
    leases.reported_by(START, NodeId(2), Report { id: report, ..report_of(0) });
    assert_eq!(fit(&leases), Some(Fitness::Fit));
    // What the earlier one sent comes late.
    promised(&mut leases, START);
    assert_eq!(fit(&leases), Some(Fitness::Fit));
    // It is restarted twice more, and what the first one sent comes even later.
    for run in [10, 11] {
        let id = ReportId { run, seq: 0 };
        assert!(leases.reported_by(START, NodeId(2), Report { id, ..report_of(0) }));
    }
    let unfit = Report { fitness: Fitness::Disk, ..report_of(9) };
    leases.reported_by(START, NodeId(2), unfit);
    assert_eq!(fit(&leases), Some(Fitness::Fit));
}

/// The grant that an epoch is bound by may be the later message of the two.
#[test]
fn a_release_counts_when_it_is_known_whose_it_is() {
    let mut leases = leading();
    let mut state = state_with_two_vips(NodeId(2));
    leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
    let held = Grantee { vip: VipUid(1), epoch: Epoch(1), incarnation: Incarnation(8) };
    leases.reported_by(START, NodeId(2), Report { released: [held].into(), ..report_of(1) });
    assert_eq!(leases.leader_work(START).releases, []);
    apply(&mut state, VipOp::Settle { grants: vec![held], nested: false });
    leases.step(START, LeaseEvent::Applied(Arc::new(state)));
    leases.take_changed();
    promised(&mut leases, START);
    assert!(leases.take_changed(), "somebody may wait for it");
    assert_eq!(leases.leader_work(START).releases, [held]);
}

/// One of its VIPs may be open by an epoch that was, and another by this one's number.
#[test]
fn a_vip_answers_when_its_holder_has_that_very_epoch_of_it_open() {
    let mut leases = leading();
    let state = state_with_two_vips(NodeId(2));
    leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
    let incarnation = Incarnation(8);
    let open = |vip, epoch| Grantee { vip: VipUid(vip), epoch: Epoch(epoch), incarnation };
    for (seq, (said, answers)) in
        (1..).zip([(open(1, 2), false), (open(2, 1), false), (open(1, 1), true)])
    {
        let report = Report { open: [said].into(), ..report_of(seq) };
        assert!(leases.reported_by(START, NodeId(2), report));
        let found = leases.answers(state.vip(VipUid(1)).expect("there"));
        assert_eq!((found.open, found.whole), (answers, answers), "{said:?}");
    }
}

/// What it leads and holds itself it does not report to itself.
#[test]
fn a_leader_knows_of_its_own_vips_whether_they_answer() {
    let (mut leases, state) = holding_two_vips();
    let vip = state.vip(VipUid(1)).expect("there");
    assert!(!leases.answers(vip).open);
    leases.step(START, LeaseEvent::Notices(vec![prepared(1)]));
    let opened = GuardNotice::Opened { vip: VipUid(1), epoch: Epoch(1) };
    leases.step(START, LeaseEvent::Notices(vec![opened]));
    assert!(leases.answers(vip).open);
}

#[test]
fn a_node_says_that_it_stops_from_when_it_does() {
    let mut leases = assigned_by_another();
    let mut says = |stops: bool, at| {
        if stops {
            leases.stop_holding(at);
        }
        leases.heard_of(at, LEADER, LAN.promise);
        leases.step(at, LeaseEvent::Tick);
        (leases.is_stopping(), leases.reporting.latest.stopping)
    };
    assert_eq!(says(false, START + LAN.heartbeat), (false, false));
    assert_eq!(says(true, START + LAN.heartbeat * 2), (true, true));
}

/// Others may wait for what is new, and for nothing else.
#[test]
fn what_a_member_says_is_told_once() {
    let mut leases = leading();
    leases.take_changed();
    promised(&mut leases, START);
    assert!(!leases.take_changed(), "it was heard before, and says the same");
    promised_by(&mut leases, NodeId(3), OWN, START);
    assert!(leases.take_changed(), "it was never heard in this term");
    let disk = Report { fitness: Fitness::Disk, ..report_of(1) };
    leases.reported_by(START, NodeId(2), disk.clone());
    assert!(leases.take_changed());
    let id = ReportId { run: 0, seq: 2 };
    leases.reported_by(START, NodeId(2), Report { id, ..disk });
    assert!(!leases.take_changed(), "another message says the same");
}

#[test]
fn an_acknowledgement_alone_is_news_of_who_was_never_heard() {
    let mut leases = leading();
    leases.take_changed();
    acknowledged(&mut leases, 2, ReportId::default());
    assert!(!leases.take_changed());
    acknowledged(&mut leases, 3, ReportId::default());
    assert!(leases.take_changed());
}

/// Nobody waits for it.
#[test]
fn a_release_that_ended_its_epoch_before_is_no_news() {
    let (mut leases, held) = leading_a_holder();
    let report = Report { released: [held].into(), ..report_of(1) };
    leases.reported_by(START, NodeId(2), report.clone());
    leases.take_changed();
    acknowledged(&mut leases, 2, report.id);
    assert!(!leases.take_changed(), "it is said again");
}

/// By what it says of itself; one that says nothing yet is given the benefit of the
/// doubt as long as the leader is new.
#[test]
fn a_member_that_cannot_hold_is_passed_over() {
    let mut leases = leading();
    let state = state_of([1, 2, 3].map(voter));
    leases.step(START, LeaseEvent::Applied(Arc::new(state)));
    let able = |leases: &Leases, now| leases.node_views(now)[&NodeId(2)].able;
    assert!(able(&leases, START));
    leases.reported_by(START, NodeId(2), Report { fitness: Fitness::Disk, ..report_of(1) });
    assert!(!able(&leases, START));
    let silent = |now| leases.node_views(now).get(&NodeId(3)).map(|view| view.able);
    assert_eq!(silent(START), Some(true));
    assert_eq!(silent(START + LAN.promise * 100), Some(false));
}

#[test]
fn a_leader_remembers_when_it_heard_each() {
    let mut leases = leading();
    let later = START + LAN.heartbeat;
    promised(&mut leases, later);
    promised_by(&mut leases, NodeId(3), OWN, START);
    let heard = leases.leader.leading().map(|leading| leading.heard());
    assert_eq!(heard, Some([(NodeId(2), later), (NodeId(3), START)].into()));
}
