//! How long addresses live by themselves.

use super::*;

/// When the lives of addresses are renewed, from `from` on, for so long, while
/// something is prepared every 500 ms.
fn refreshes(guard: &mut Guard, lasting: Duration, prepares: bool) -> Vec<Duration> {
    let (mut now, mut all) = (START, vec![]);
    while now < START + lasting {
        now = now + ms(100);
        if prepares && now.since(START).as_millis().is_multiple_of(500) {
            let number = u64::try_from(now.since(START).as_millis()).expect("short") / 500 + 10;
            let (vip, epoch, probe, known) = (VipUid(number), Epoch(1), Probe::No, [].into());
            let addresses = vec![address(u8::try_from(number).expect("few"))];
            let order = VipOrder::Prepare { vip, epoch, addresses, probe, known };
            guard.step(now, GuardEvent::Order(order));
        }
        let refreshed = |a: &GuardAction| matches!(a, GuardAction::RefreshAddresses(_));
        if guard.step(now, GuardEvent::Tick).iter().any(refreshed) {
            all.push(now.since(START));
        }
    }
    all
}

/// The kernel would delete those that are there while others come.
#[test]
fn what_comes_does_not_put_off_that_addresses_live_on() {
    let mut guard = guard(true);
    guard.step(START, prepare(3));
    let all = refreshes(&mut guard, ms(10_000), true);
    let gaps = all.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.chain(all.first().copied()).max().expect("some");
    assert!(longest < address_life(1, true) / 2, "{all:?}");
}

/// What a thousand cost must not be a thousand times what one costs.
#[test]
fn many_addresses_live_longer_and_are_renewed_as_much_less_often() {
    let mut guard = guard(true);
    let addresses = (0..200).map(address).collect();
    let (epoch, probe, known) = (Epoch(1), Probe::No, [].into());
    let order = VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known };
    guard.step(START, GuardEvent::Order(order));
    let all = refreshes(&mut guard, ms(30_000), false);
    // As soon as one of them alone would be, then by the life that all have.
    assert!(all[0] < address_life(1, true) / 2, "{all:?}");
    assert!(all[1] - all[0] > address_life(200, true) / 4, "{all:?}");
    assert!(all[1] - all[0] < address_life(200, true) / 2, "{all:?}");
    // One that comes is renewed as one that is alone: so long it lives as yet.
    let late = START + ms(31_000);
    let (vip, addresses) = (VipUid(9), vec![address(250)]);
    let known = [].into();
    let order = VipOrder::Prepare { vip, epoch, addresses, probe, known };
    guard.step(late, GuardEvent::Order(order));
    assert!(guard.next_tick().is_some_and(|at| at <= late + address_life(1, true) / 2));
    assert_eq!(address_life(200, false), address_life(1, false), "nothing else lets go of it");
}
