//! Tables beside those of an implementation in another language, which was written
//! from the paper.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use vip_core::{MAX_REALS, Plan, RealServer, TableSize};

/// A large table takes the other one a second.
const CASES: usize = 20;

/// Ended with the test, also when that fails.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn real() -> impl Strategy<Value = RealServer> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::from(std::net::Ipv6Addr::from(octets))),
    ];
    let weight = prop_oneof![0..=3u16, any::<u16>()];
    (ip, any::<u16>(), weight).prop_map(|(ip, port, weight)| RealServer { ip, port, weight })
}

fn plan() -> impl Strategy<Value = Plan> {
    let few = proptest::collection::vec(real(), 0..24);
    let many = proptest::collection::vec(real(), MAX_REALS);
    let reals = prop_oneof![9 => few, 1 => many];
    let size = proptest::sample::select(TableSize::ALL.to_vec());
    (any::<u64>(), size, reals)
        .prop_map(|(seed, size, reals)| Plan::new(seed, size, reals).expect("nobody twice"))
}

#[test]
fn another_implementation_comes_to_the_same_tables() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/maglev.py");
    let mut python = Command::new("python3");
    python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = Other(python.spawn().expect("python3 is installed"));
    let mut asked = other.0.stdin.take().expect("piped");
    let mut answers = BufReader::new(other.0.stdout.take().expect("piped")).lines();
    let mut runner = TestRunner::default();
    for _ in 0..CASES {
        let plan = plan().new_tree(&mut runner).expect("a plan").current();
        writeln!(asked, "{}", serde_json::to_string(&plan).expect("plain")).expect("it reads");
        let answer = answers.next().expect("it answers").expect("text");
        let slots: Vec<u16> = serde_json::from_str(&answer).expect("indices");
        assert!(plan.slots() == slots, "{plan:?}");
    }
}
