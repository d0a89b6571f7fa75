//! Rules of the safety algorithm, each switched off at the place where the
//! agent or the guard would keep it. A simulator that catches none of them
//! proves nothing.

use clap::ValueEnum;

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Mutant {
    /// L longer than P (C1).
    LeaseLongerThanPromise,
    /// A lease counts from when the acknowledgement came.
    AckAtReceiveTime,
    /// A restarted node votes at once.
    NoQuarantine,
    /// A voter votes in spite of its promise.
    NoVoteFilter,
    /// W is nothing.
    NoWait,
    /// A new leader takes an epoch of which nobody knows whether it was granted
    /// for granted.
    UnsettledRenewed,
    /// A grant of an earlier epoch opens the gate for the present one.
    StaleEpoch,
    /// Whatever a node says that it has is renewed, what was taken from it as well.
    CoverIgnored,
    /// A grant to an earlier guard session opens the gate of this one.
    EarlierSession,
    /// A lease goes on over a membership change as it was.
    LeaseKeptOverMembership,
    /// A leader whose lease ended goes on renewing promises.
    RenewAfterLeaseEnd,
    /// A leader nests what it holds before a longer deadline ran out.
    NestedAtOnce,
    /// An epoch counts as nested whoever led in between.
    NestedForever,
    /// A leader that stepped down votes while its gate may be open.
    LeaseForgotten,
    /// Leadership is given up with a gate open.
    AbdicatedWhileOpen,
    /// Leadership is transferred in whatever term Raft leads when it gets there.
    TransferUnbound,
    /// A vote counts though a promise rose while it was saved.
    RacedVoteKept,
    /// Somebody is promised to whose vote a restart would not find.
    PromisedBeforeDurable,
    /// A vote counts if no promise rose until it was saved; while it is, the
    /// leader before it is promised to.
    OlderPromisedMeanwhile,
    /// A candidacy reaches the disk inside a promise, where a restart takes it
    /// for proof that there was none.
    BoundCandidacy,
    /// A new interface answers until the guard has put the gate on it.
    NoSecondGate,
    /// What the kernel refuses counts as done.
    FailureUnnoticed,
    /// A clock that is slewed counts as true.
    SlewUnnoticed,
    /// A guard starts without shutting what an earlier one left open.
    NoPurge,
    /// A VIP is opened before its guard has the tables.
    OpenedBeforeTables,
    /// Tables follow a log that may be older than what is in force.
    OldLogFollowed,
    /// A node decides for itself what keeps tables apart.
    SeedOfItsOwn,
    /// Nobody goes by the table before a change.
    BeforeForgotten,
    /// What a change moved is not remembered over the next.
    MovedForgotten,
    /// What is said to be in force is not.
    TableSwallowed,
    /// What an observer saw is told once, and not when it is lost, or sees something else.
    ToldOnce,
    /// What silent nodes said counts for good.
    SilentHeard,
    /// Who has to know where a VIP is is asked and told after the lease, and the log is not
    /// waited for.
    CallsWithoutLease,
    /// A holder looks once whether they say that it is here.
    LooksOnce,
    /// What a node announces it goes on to announce after its lease.
    GoesOnAnnouncing,
}

impl Mutant {
    /// All of them.
    #[must_use]
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }
}
