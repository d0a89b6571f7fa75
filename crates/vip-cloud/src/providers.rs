//! All whom this node can tell where VIPs are.

use crate::{Ask, Aws, AwsSection, Bgp, BgpSection, Environment, Finding};
use std::net::IpAddr;
use vip_core::{CloudReply, Provider, VipSpec};

/// See the module.
#[derive(Debug)]
pub struct Providers {
    aws: Aws,
    bgp: Bgp,
}

impl Providers {
    /// `own`: where members reach this node, if that is an address.
    #[must_use]
    pub fn new(
        (aws, bgp): (AwsSection, &BgpSection),
        environment: Environment,
        own: Option<IpAddr>,
    ) -> Self {
        Self { aws: Aws::new(aws, environment, own), bgp: Bgp::new(bgp, own) }
    }

    /// Asks or tells one thing. Dropped, nobody waits for it any more; what was sent is done
    /// all the same.
    pub async fn call(&self, ask: &Ask) -> CloudReply {
        match ask.spec.via.provider() {
            Some(Provider::Aws) => self.aws.call(ask).await,
            Some(Provider::Bgp) => self.bgp.call(ask).await,
            None => CloudReply::Failed(format!("nobody is called for {}", ask.spec.via)),
        }
    }

    /// Whether a VIP could be moved by this node, as far as can be said without moving it.
    ///
    /// # Errors
    /// What stands against it, as a sentence.
    pub async fn check(&self, spec: &VipSpec) -> Result<(), String> {
        match spec.via.provider() {
            Some(Provider::Aws) => self.aws.check(spec).await,
            Some(Provider::Bgp) => self.bgp.check(spec).await,
            None => Ok(()),
        }
    }

    /// Looks at all that moving these VIPs, which are the provider's, rests on.
    pub async fn examine(&self, provider: Provider, vips: &[VipSpec]) -> Vec<Finding> {
        match provider {
            Provider::Aws => self.aws.examine(vips).await,
            Provider::Bgp => self.bgp.examine(vips).await,
        }
    }

    /// Keeps what a call needs at hand.
    pub async fn keep_warm(&self, provider: Provider) {
        let warm = match provider {
            Provider::Aws => self.aws.keep_warm().await,
            Provider::Bgp => self.bgp.keep_warm().await,
        };
        if let Err(error) = warm {
            tracing::warn!(%provider, error, "it could not be told now where a VIP is");
        }
    }

    /// Has nothing announced that an earlier process of this node left, if its speaker answers:
    /// else what is announced is gone with it, or found when it is told something.
    pub async fn begin(&self) {
        if let Err(error) = self.bgp.keep_warm().await {
            tracing::debug!(error, "no speaker answers");
        }
    }

    /// Takes back what this node alone can: it ends.
    pub async fn leave(&self) {
        self.bgp.leave().await;
    }
}
