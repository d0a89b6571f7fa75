//! What an agent kept happens again, through a file, and decides the same.

use std::io::BufReader;
use vip_core::{LeaseInput, LeaseOutput, Recording};
use vip_sim::recordings;

const SEEDS: u64 = 40;

fn written(recording: &Recording) -> Vec<u8> {
    let mut file = vec![];
    recording.write(&mut file).expect("written");
    file
}

fn read(file: &[u8]) -> Recording {
    Recording::read(&mut BufReader::new(file)).expect("read")
}

#[test]
fn what_was_recorded_happens_again_and_is_decided_as_it_was() {
    let (mut turns, mut actions, mut grants) = (0, 0, 0);
    for seed in 0..SEEDS {
        for recording in recordings(seed) {
            for turn in read(&written(&recording)).replay() {
                assert_eq!(Some(&turn.decided), turn.recorded.as_ref(), "seed {seed}: {turn:?}");
                turns += 1;
                actions += match &turn.decided {
                    LeaseOutput::Actions(due) => due.len(),
                    _ => 0,
                };
                grants += usize::from(matches!(turn.input, LeaseInput::Request(..)));
            }
        }
    }
    // An empty recording is a faithful one.
    assert!(turns > 10_000 && actions > turns / 10 && grants > 100, "{turns} {actions} {grants}");
}

/// A check that cannot fail is none.
#[test]
fn a_decision_that_was_another_one_is_found() {
    let recording = recordings(0).into_iter().max_by_key(Recording::turns).expect("one");
    let file = String::from_utf8(written(&recording)).expect("text");
    let asked = "\"may\":true";
    assert!(file.contains(asked), "nobody asked");
    let other = file.replacen(asked, "\"may\":false", 1);
    let differ = |file: &str| {
        read(file.as_bytes())
            .replay()
            .filter(|turn| Some(&turn.decided) != turn.recorded.as_ref())
            .count()
    };
    assert_eq!((differ(&file), differ(&other)), (0, 1));
    // The process ended while it wrote, or somebody changed it.
    let cut = &file.as_bytes()[..file.len() / 2];
    let turns = Recording::read(&mut BufReader::new(cut)).expect("what is whole").turns();
    assert!(turns > 0 && turns < recording.turns(), "{turns}");
    let broken = file.replacen("\"output\"", "\"outcome\"", 9).replacen("\"at\"", "\"when\"", 1);
    assert!(Recording::read(&mut BufReader::new(broken.as_bytes())).is_err());
}
