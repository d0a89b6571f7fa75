use super::*;

const WEB: VipUid = VipUid(1);
const START: Mono = Mono(10_000_000_000);
const EPOCH: Epoch = Epoch(3);
const SECOND: Duration = Duration::from_secs(1);
const PACE: Pace = Pace {
    pause: SECOND,
    pause_max: Duration::from_secs(5),
    watch: SECOND,
    watch_max: Duration::from_secs(10),
    watch_near: Duration::from_secs(2),
    settles: Duration::from_secs(5),
    longest: Duration::from_secs(30),
};

struct Node {
    cloud: Cloud,
    leased: BTreeMap<VipUid, CalledLease>,
    token: Option<ViaToken>,
    is_gone: bool,
}

fn node() -> Node {
    let until = START + Duration::from_secs(600);
    let lease = CalledLease { epoch: EPOCH, until, open: false, announced: None };
    let leased = [(WEB, lease)].into();
    let cloud = Cloud::new(PACE, 7);
    Node { cloud, leased, token: None, is_gone: false }
}

impl Node {
    fn at(&mut self, now: Mono) -> Vec<CloudAction> {
        let token = self.token.clone();
        let logged = Logged::Held(EPOCH, token.as_ref());
        let logged = if self.is_gone { Logged::Nothing } else { logged };
        self.cloud.step(now, &self.leased, |_| logged)
    }

    fn replied(&mut self, now: Mono, number: u64, reply: CloudReply) -> Vec<CloudAction> {
        self.cloud.replied(now, CallId { vip: WEB, number }, reply, &self.leased)
    }

    /// A look finds it elsewhere, and the log takes that down.
    fn sees(&mut self, now: Mono, number: u64, text: &str) {
        let said = self.replied(now, number, CloudReply::Elsewhere(text.into()));
        assert_eq!(said, [CloudAction::Saw(WEB, saw(number, text))]);
        self.token = Some(saw(number, text));
    }

    fn holds(&mut self) {
        self.leased.get_mut(&WEB).expect("leased").open = true;
    }
}

fn call(number: u64, verb: Verb) -> CloudAction {
    let id = CallId { vip: WEB, number };
    CloudAction::Call { id, epoch: EPOCH, verb, limit: PACE.longest, announced: None }
}

/// By a look of that number.
fn saw(number: u64, text: &str) -> ViaToken {
    ViaToken { epoch: EPOCH, number, text: text.into() }
}

#[test]
fn what_was_seen_is_written_down_before_it_is_changed_and_looked_at_after() {
    let mut node = node();
    assert_eq!(node.at(START), [call(1, Verb::Observe)]);
    assert_eq!(node.at(START), [], "it is under way");
    let elsewhere = node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
    assert_eq!(elsewhere, [CloudAction::Saw(WEB, saw(1, "e7"))]);
    let earlier = ViaToken { epoch: Epoch(2), ..saw(1, "e7") };
    for other in [None, Some(earlier), Some(saw(1, "e6")), Some(saw(0, "e7"))] {
        node.token = other;
        assert_eq!(node.at(START), [], "{:?}", node.token);
    }
    node.token = Some(saw(1, "e7"));
    assert_eq!(node.at(START), [call(2, Verb::Take("e7".into()))]);
    assert_eq!(node.replied(START, 2, CloudReply::Done), []);
    assert_eq!(node.at(START), [call(3, Verb::Observe)], "an answer is not believed");
    assert_eq!(node.replied(START, 3, CloudReply::Here), [CloudAction::Taken(WEB, EPOCH)]);
}

#[test]
fn a_call_is_made_again_only_after_a_look_and_a_while() {
    let mut node = node();
    node.at(START);
    node.sees(START, 1, "e7");
    node.at(START);
    assert_eq!(node.replied(START, 2, CloudReply::Failed("throttled".into())), []);
    assert_eq!(node.at(START), []);
    let next = node.cloud.next().expect("it is tried again");
    assert!(START + PACE.pause * 3 / 4 <= next && next <= START + PACE.pause, "{next:?}");
    assert_eq!(node.at(next), [call(3, Verb::Observe)], "it may have done it");
    // It had: the answer was lost.
    assert_eq!(node.replied(next, 3, CloudReply::Here), [CloudAction::Taken(WEB, EPOCH)]);
}

#[test]
fn what_they_said_is_done_is_waited_for_and_not_for_ever() {
    let mut node = node();
    node.at(START);
    node.sees(START, 1, "e7");
    node.at(START);
    node.replied(START, 2, CloudReply::Done);
    let mut now = START;
    let mut takes = 1;
    let mut last = vec![];
    for number in 3..60 {
        assert!(last.is_empty(), "{last:?}");
        let due = node.at(now);
        let CloudAction::Call { verb, .. } = &due[0] else { panic!("{due:?}") };
        last = match verb {
            Verb::Take(_) => {
                takes += 1;
                node.replied(now, number, CloudReply::Done)
            }
            _ => node.replied(now, number, CloudReply::Elsewhere(format!("e{number}"))),
        };
        if let [CloudAction::Saw(_, token)] = &last[..] {
            node.token = Some(token.clone());
            last.clear();
            continue;
        }
        if !last.is_empty() {
            break;
        }
        now = node.cloud.next().expect("it looks again").max(now);
    }
    // Each time they had as long as they may take, and others are let after a minute.
    assert!(matches!(last[..], [CloudAction::NotTaken(WEB, EPOCH, _)]), "{last:?}");
    assert_eq!(takes, PATIENCE / FAILED);
    let spent = now.since(START);
    assert!(PACE.settles * takes <= spent && spent < SECOND * 60, "{spent:?}");
}

/// It may be the one before who is late.
#[test]
fn what_was_seen_here_and_is_where_it_was_before_is_taken_back() {
    let mut node = node();
    node.at(START);
    node.sees(START, 1, "e7");
    node.at(START);
    node.replied(START, 2, CloudReply::Done);
    node.at(START);
    node.replied(START, 3, CloudReply::Here);
    let next = node.cloud.next().expect("it looks again");
    assert_eq!(node.at(next), [call(4, Verb::Observe)]);
    let late = node.replied(next, 4, CloudReply::Elsewhere("e7".into()));
    assert_eq!(late, [CloudAction::Saw(WEB, saw(4, "e7"))]);
    node.token = Some(saw(4, "e7"));
    assert_eq!(node.at(next), [call(5, Verb::Take("e7".into()))]);
}

#[test]
fn a_lease_that_ends_cuts_off_what_is_under_way() {
    let mut node = node();
    node.at(START);
    let id = CallId { vip: WEB, number: 1 };
    let until = node.leased[&WEB].until;
    assert_eq!(node.at(until), [CloudAction::CutOff(id)]);
    assert_eq!(node.replied(until, 1, CloudReply::Here), [], "it comes too late");
    // The next epoch looks for itself.
    let later = until + PACE.longest;
    let lease = CalledLease { epoch: Epoch(4), until: later, open: false, announced: None };
    node.leased.insert(WEB, lease);
    assert_eq!(node.at(until).len(), 1);
    node.leased.clear();
    assert_eq!(node.at(until), [CloudAction::CutOff(CallId { vip: WEB, number: 2 })]);
}

/// Its lease may have gone on meanwhile.
#[test]
fn an_answer_that_came_too_late_for_its_lease_is_asked_for_again() {
    let mut node = node();
    node.at(START);
    let until = node.leased[&WEB].until;
    assert_eq!(node.replied(until, 1, CloudReply::Here), []);
    node.leased.get_mut(&WEB).expect("leased").until = until + PACE.longest;
    assert_eq!(node.at(until), [call(2, Verb::Observe)]);
}

#[test]
fn whoever_is_refused_again_and_again_leaves_it_to_others() {
    let not = || CloudAction::NotTaken(WEB, EPOCH, "no".into());
    for (reply, calls) in [
        (CloudReply::Failed("no".into()), PATIENCE / FAILED),
        (CloudReply::Busy("no".into()), PATIENCE / BUSY),
    ] {
        let (mut node, mut now) = (node(), START);
        for number in 1..=u64::from(calls) {
            assert_eq!(node.at(now), [call(number, Verb::Observe)]);
            let failed = node.replied(now, number, reply.clone());
            let last = number == u64::from(calls);
            assert_eq!(failed, if last { vec![not()] } else { vec![] });
            now = now + PACE.pause_max;
        }
    }
}

#[test]
fn a_holder_that_cannot_take_back_what_was_moved_away_leaves_it_to_others() {
    let (mut node, mut now) = (node(), START + PACE.watch);
    node.holds();
    node.at(START);
    node.at(now);
    // Nobody could be asked for a while, which is another matter.
    for number in 1..20 {
        assert_eq!(node.replied(now, number, CloudReply::Failed("no answer".into())), []);
        now = now + PACE.pause_max;
        node.at(now);
    }
    node.sees(now, 20, "e9");
    let mut last = vec![];
    for number in 21..=20 + u64::from(PATIENCE / FAILED) {
        assert_eq!(last, []);
        assert_eq!(node.at(now).len(), 1);
        last = node.replied(now, number, CloudReply::Failed("no permission".into()));
        now = now + PACE.pause_max;
    }
    assert!(matches!(last[..], [CloudAction::NotTaken(WEB, EPOCH, _)]), "{last:?}");
}

#[test]
fn a_holder_looks_now_and_then_and_takes_back_what_was_moved_away() {
    let mut node = node();
    node.holds();
    assert_eq!(node.at(START), [], "it was confirmed just now");
    let mut now = START;
    // What an earlier holder asked for may be done late: it looks soon, then less often.
    for (number, wait) in (1..).zip([1, 1, 2, 4, 8, 10, 10]) {
        let next = node.cloud.next().expect("it looks again");
        assert!(now + SECOND * wait * 3 / 4 <= next && next <= now + SECOND * wait, "{number}");
        assert_eq!(node.at(next), [call(number, Verb::Observe)]);
        assert_eq!(node.replied(next, number, CloudReply::Here), []);
        now = next;
    }
    now = now + PACE.watch_max;
    node.at(now);
    for number in 8..20 {
        let failed = node.replied(now, number, CloudReply::Failed("no answer".into()));
        assert_eq!(failed, [], "it goes on");
        now = now + PACE.pause_max;
        assert_eq!(node.at(now), [call(number + 1, Verb::Observe)]);
    }
    let saw_it = CloudAction::Saw(WEB, saw(20, "e9"));
    assert_eq!(node.replied(now, 20, CloudReply::Elsewhere("e9".into())), [saw_it]);
    node.token = Some(saw(20, "e9"));
    assert_eq!(node.at(now), [call(21, Verb::Take("e9".into()))]);
    node.replied(now, 21, CloudReply::Done);
    node.at(now);
    assert_eq!(node.replied(now, 22, CloudReply::Here), []);
}

#[test]
fn what_is_nobodys_any_more_is_let_go_of_by_who_had_it_last() {
    let mut node = node();
    node.at(START);
    node.replied(START, 1, CloudReply::Here);
    node.leased.clear();
    assert_eq!(node.at(START), [], "it may be leased here again");
    node.is_gone = true;
    assert_eq!(node.at(START), [call(2, Verb::Release)]);
    assert_eq!(node.at(START), []);
    node.replied(START, 2, CloudReply::Failed("throttled".into()));
    let mut now = node.cloud.next().expect("it is tried again");
    assert_eq!(node.at(now), [call(3, Verb::Release)]);
    let last = 1 + u64::from(RELEASES);
    for number in 3..=last {
        let said = node.replied(now, number, CloudReply::Failed("no permission".into()));
        let not = CloudAction::NotReleased(WEB, EPOCH, "no permission".into());
        assert_eq!(said, if number == last { vec![not] } else { vec![] });
        now = now + PACE.pause_max;
        assert_eq!(node.at(now).len(), usize::from(number < last));
    }
}

#[test]
fn what_somebody_else_has_by_now_is_theirs() {
    let mut node = node();
    node.at(START);
    node.replied(START, 1, CloudReply::Here);
    node.leased.clear();
    node.at(START);
    let logged = |_| Logged::Held(Epoch(4), None);
    assert_eq!(node.cloud.step(START, &node.leased, logged), []);
    node.is_gone = true;
    assert_eq!(node.at(START), []);
}

#[test]
fn what_another_vip_has_by_now_is_not_let_go_of() {
    let mut node = node();
    node.at(START);
    node.replied(START, 1, CloudReply::Here);
    node.leased.clear();
    node.is_gone = true;
    assert_eq!(node.at(START), [call(2, Verb::Release)]);
    let id = CallId { vip: WEB, number: 2 };
    let reused = node.cloud.step(START, &node.leased, |_| Logged::Reused);
    assert_eq!(reused, [CloudAction::CutOff(id)]);
    assert!(!node.cloud.knows(WEB, EPOCH));
}

#[test]
fn what_was_asked_for_and_no_more_is_let_go_of_too() {
    let mut node = node();
    node.at(START);
    let mut looked = node.cloud.clone();
    node.sees(START, 1, "e7");
    node.at(START);
    node.leased.clear();
    node.is_gone = true;
    let cut_off = |number| CloudAction::CutOff(CallId { vip: WEB, number });
    assert_eq!(node.at(START), [cut_off(2), call(3, Verb::Release)]);
    let only = looked.step(START, &node.leased, |_| Logged::Nothing);
    assert_eq!(only, [cut_off(1)], "it was only looked at");
}

/// What each node announces for itself: under `EPOCH` with a rank, and then not any more.
fn announces(rank: u64) -> Node {
    let mut node = node();
    node.leased.get_mut(&WEB).expect("leased").announced = Some(rank);
    node.at(START);
    node.replied(START, 1, CloudReply::Here);
    node.holds();
    node
}

fn ranked(number: u64, verb: Verb, rank: u64) -> CloudAction {
    let id = CallId { vip: WEB, number };
    CloudAction::Call { id, epoch: EPOCH, verb, limit: PACE.longest, announced: Some(rank) }
}

#[test]
fn what_a_node_announces_it_takes_back_once_its_lease_is_over_whoever_has_it_then() {
    for logged in [Logged::Held(Epoch(4), None), Logged::Nothing, Logged::Reused] {
        let mut node = announces(7);
        node.leased.clear();
        let due = node.cloud.step(START, &node.leased, |_| logged);
        assert_eq!(due, [ranked(2, Verb::Release, 7)], "{logged:?}");
        assert_eq!(node.replied(START, 2, CloudReply::Done), []);
        // What was cut off may have been done after it.
        let again = START + PACE.settles;
        assert_eq!(node.cloud.next(), Some(again));
        assert_eq!(node.at(START), []);
        assert_eq!(node.at(again), [ranked(3, Verb::Release, 7)]);
        assert_eq!(node.replied(again, 3, CloudReply::Done), []);
        assert!(!node.cloud.knows(WEB, EPOCH));
    }
}

#[test]
fn what_a_node_announces_it_takes_back_however_often_it_has_to_try() {
    let mut node = announces(7);
    node.leased.clear();
    node.at(START);
    let mut now = START;
    let mut said = 0;
    for number in 2..100 {
        let not = CloudAction::NotReleased(WEB, EPOCH, "it hangs".into());
        let due = node.replied(now, number, CloudReply::Failed("it hangs".into()));
        assert!(due.is_empty() || due == [not], "{due:?}");
        said += due.len();
        let next = node.cloud.next().expect("it is tried again");
        assert!(now < next && next <= now + PACE.pause_max, "{next:?}");
        now = next;
        assert_eq!(node.at(now), [ranked(number + 1, Verb::Release, 7)]);
    }
    assert_eq!(said, 1, "it is said once");
}

/// It has it under another epoch: what it said under the last one goes, and nothing else.
#[test]
fn what_a_node_announces_anew_it_takes_back_only_as_it_was() {
    let mut node = announces(7);
    let lease = node.leased.get_mut(&WEB).expect("leased");
    (lease.epoch, lease.announced, lease.open) = (Epoch(4), Some(8), false);
    let due = node.cloud.step(START, &node.leased, |_| Logged::Held(Epoch(4), None));
    let CloudAction::Call { verb: Verb::Observe, announced: Some(8), .. } = due[0] else {
        panic!("{due:?}")
    };
    assert_eq!((due.len(), &due[1]), (2, &ranked(3, Verb::Release, 7)));
    assert!(node.cloud.knows(WEB, EPOCH) && node.cloud.knows(WEB, Epoch(4)));
    node.replied(START, 2, CloudReply::Here);
    node.replied(START, 3, CloudReply::Done);
    let again = START + PACE.settles;
    let due = node.cloud.step(again, &node.leased, |_| Logged::Held(Epoch(4), None));
    assert_eq!(due[1], ranked(5, Verb::Release, 7));
    node.replied(again, 5, CloudReply::Done);
    assert!(!node.cloud.knows(WEB, EPOCH) && node.cloud.knows(WEB, Epoch(4)));
}

#[test]
fn what_was_changed_is_announced_anew_at_once() {
    let mut node = announces(7);
    assert_eq!(node.at(START), []);
    node.leased.get_mut(&WEB).expect("leased").announced = Some(8);
    assert_eq!(node.at(START), [ranked(2, Verb::Take(String::new()), 8)]);
    assert_eq!(node.at(START), [], "it is under way");
    node.replied(START, 2, CloudReply::Done);
    assert_eq!(node.at(START), [ranked(3, Verb::Observe, 8)]);
    // While something is under way, after that.
    node.leased.get_mut(&WEB).expect("leased").announced = Some(9);
    assert_eq!(node.at(START), []);
    assert_eq!(node.replied(START, 3, CloudReply::Here), []);
    assert_eq!(node.at(START), [ranked(4, Verb::Take(String::new()), 9)]);
}

#[test]
fn a_node_that_does_not_know_whether_it_announces_a_vip_leaves_it_to_others() {
    let mut node = announces(7);
    let mut now = START;
    for number in 2..=5 {
        now = node.cloud.next().expect("it looks");
        assert_eq!(node.at(now), [ranked(number, Verb::Observe, 7)]);
        let said = node.replied(now, number, CloudReply::Failed("it hangs".into()));
        let not = CloudAction::NotTaken(WEB, EPOCH, "it hangs".into());
        assert_eq!(said, if number == 5 { vec![not] } else { vec![] });
    }
    assert!(now < START + PACE.watch_near * 8, "{now:?}");
}

#[test]
fn a_lease_that_ended_for_a_moment_is_the_same_and_what_it_announces_stays() {
    let mut node = announces(7);
    let lease = node.leased[&WEB];
    // While it is taken back, and after that.
    for done in [false, true] {
        node.leased.clear();
        let first = if done { 4 } else { 2 };
        assert_eq!(node.at(START), [ranked(first, Verb::Release, 7)]);
        if done {
            node.replied(START, first, CloudReply::Done);
        }
        node.leased.insert(WEB, lease);
        let cut = CloudAction::CutOff(CallId { vip: WEB, number: first });
        let looks = ranked(first + 1, Verb::Observe, 7);
        let due = if done { vec![looks] } else { vec![cut, looks] };
        assert_eq!(node.at(START), due, "it looks at once what became of it");
        node.replied(START, first + 1, CloudReply::Here);
    }
    let mut now = START;
    for number in 6..20 {
        now = node.cloud.next().expect("it looks");
        assert_eq!(node.at(now), [ranked(number, Verb::Observe, 7)], "and nothing else");
        node.replied(now, number, CloudReply::Here);
    }
    assert!(now > START + PACE.settles);
    // Over once more before it heard what became of it.
    let shut = CalledLease { open: false, ..lease };
    for leased in [None, Some(shut), None] {
        node.leased.clear();
        node.leased.extend(leased.map(|lease| (WEB, lease)));
        let due = node.at(now);
        let releases =
            |action: &&CloudAction| matches!(action, CloudAction::Call { verb: Verb::Release, .. });
        assert_eq!(due.iter().filter(releases).count(), usize::from(leased.is_none()), "{due:?}");
    }
}

#[test]
fn what_a_node_announces_no_more_it_announces_again_and_the_log_hears_nothing() {
    let mut node = announces(7);
    let now = node.cloud.next().expect("it looks");
    assert_eq!(node.at(now), [ranked(2, Verb::Observe, 7)]);
    assert_eq!(node.replied(now, 2, CloudReply::Elsewhere("none".into())), []);
    assert_eq!(node.cloud.next(), Some(now), "at once");
    assert_eq!(node.at(now), [ranked(3, Verb::Take(String::new()), 7)]);
    assert_eq!(node.replied(now, 3, CloudReply::Done), []);
    assert_eq!(node.at(now), [ranked(4, Verb::Observe, 7)]);
    assert_eq!(node.replied(now, 4, CloudReply::Here), []);
    // No router hears of it.
    let mut now = node.cloud.next().expect("it looks");
    for number in (5..).step_by(2) {
        node.at(now);
        assert_eq!(node.replied(now, number, CloudReply::Elsewhere("no-neighbour".into())), []);
        assert_eq!(node.at(now), [ranked(number + 1, Verb::Take(String::new()), 7)]);
        let said = node.replied(now, number + 1, CloudReply::Failed("no neighbour".into()));
        if number == 11 {
            assert_eq!(said, [CloudAction::NotTaken(WEB, EPOCH, "no neighbour".into())]);
            break;
        }
        assert_eq!(said, []);
        now = node.cloud.next().expect("it tries on");
    }
}
