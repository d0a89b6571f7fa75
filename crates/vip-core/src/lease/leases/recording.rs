//! What happened to a node's leases lately, so that it can happen again elsewhere:
//! where they began, what came in, and what was decided.

use super::{LeaseEvent, LeaseInput, LeaseOutput, Leases};
use crate::{Level, Mono, Runs};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

/// A recording begins anew after so long; the one before is kept beside it. So
/// what is kept goes back for as long as this at least, and twice as long at most.
const SPAN: Duration = Duration::from_mins(1);
/// Or after so many turns: with some 300 bytes each, what is kept stays below 20 MB
/// on a node that has more to do than any.
const MOST: usize = 30_000;
/// Of the format.
const FORMAT: u32 = 1;

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
    OtherVersion {
        /// Which.
        made: Runs,
    },
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
        start.state = Arc::new(start.state.of_leases());
        Self { runs, begun: now, start, turns: vec![] }
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
            turns.push(serde_json::from_str(&text?).map_err(bad(line))?);
        }
        Ok(Self { runs, begun, start, turns })
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
}

impl Recorder {
    /// A turn is about to be made.
    pub(super) fn begin(&mut self, now: Mono, leases: &Leases) {
        let full = |r: &Recording| now >= r.begun + SPAN || r.turns.len() >= MOST;
        if self.now.as_ref().is_none_or(full) {
            self.before = self.now.replace(Recording::of(now, leases));
        }
    }

    pub(super) fn decided(&mut self, output: LeaseOutput) {
        let latest = self.now.as_mut().and_then(|recording| recording.turns.last_mut());
        if let Some(turn) = latest {
            turn.output = Some(output);
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
            recording.turns.push(Turn { at, input, output: None });
        }
    }
}

impl Leases {
    /// From now on what happens is kept for a while.
    pub fn record(&mut self) {
        self.recorder = Some(Box::default());
    }

    /// What was kept, the earlier first; it begins anew.
    pub fn take_recordings(&mut self) -> Vec<Recording> {
        let Some(recorder) = &mut self.recorder else { return vec![] };
        let Recorder { before, now } = std::mem::take(recorder.as_mut());
        before.into_iter().chain(now).collect()
    }
}
