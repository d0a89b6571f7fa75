//! Telling those outside the cluster on which node a VIP is: the APIs of clouds, and routers.
//! What is asked and told when is decided in [`vip_core::Cloud`].

mod aws;
mod bgp;
mod environment;
mod finding;
mod http;
mod openstack;
mod providers;

pub use aws::{Aws, AwsSection};
pub use bgp::{Bgp, BgpSection};
pub use environment::Environment;
pub use finding::Finding;
pub use openstack::{OpenStack, OpenStackSection};
pub use providers::{Providers, Sections};

use std::time::Duration;
use vip_core::{Verb, VipSpec};

/// What a provider is asked about a VIP.
#[derive(Clone, Debug)]
pub struct Ask {
    pub spec: VipSpec,
    pub verb: Verb,
    /// How long it may take, with all calls that it needs.
    pub limit: Duration,
    /// Of what each node announces: the rank ([`vip_core::Vip::rank`]).
    pub announced: Option<u64>,
}

/// Longest of what a provider says that is passed on: it goes to lists, events and the log.
const LONGEST: usize = 300;

fn one_line(message: &str) -> String {
    message.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
