//! Telling the APIs of clouds on which node a VIP is. What is asked and told when is decided
//! in [`vip_core::Cloud`].

mod aws;
mod environment;
mod finding;
mod http;

pub use aws::{Aws, AwsSection};
pub use environment::Environment;
pub use finding::Finding;

use std::time::Duration;
use vip_core::{Verb, VipSpec};

/// What an API is asked about a VIP.
#[derive(Clone, Debug)]
pub struct Ask {
    pub spec: VipSpec,
    pub verb: Verb,
    /// How long it may take, with all calls that it needs.
    pub limit: Duration,
}
