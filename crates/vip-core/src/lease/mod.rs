//! Who may answer, vote and lead, until when: decided by each node for itself.

mod authority;
mod claims;
mod clock_rate;
mod detector;
mod grants;
mod leader_lease;
mod leases;
mod promise;
mod wall_clock;

pub use authority::{Presumption, Speaker, Standing, TERM_LEAP, standing};
pub use claims::{Answering, CalledLease, ClaimAction, ClaimEvent, Claims, Holding};
pub use clock_rate::{Steering, TooFast};
pub use detector::{Detector, rank};
pub use grants::{Denial, Grants, Request, Verdict};
pub use leader_lease::{LeaderLease, Voters};
pub use leases::{
    Acknowledgement, Answers, Ask, Asked, FIRST_GRANT_WAIT, Frontage, GrantAnswer, HAND_OVER_POLL,
    HandOver, HandOverStep, LEADER_LOOKS, LeaderWork, LeaseAction, LeaseEvent, LeaseInput,
    LeaseOutput, LeaseSnapshot, Leases, LeasesStart, NoClients, RaftView, Recording,
    RecordingError, Replayed, Waiting, WaitingStep, Wanted,
};
pub use promise::{PATIENCE_IN_DOUBT, Promise, PromiseReply, PromiseTicket, Refused, Vote};
pub use wall_clock::{CLOCKS_FAR_APART, OwnClockFar, WallClocks};
