//! All whom this node can tell where VIPs are.

use crate::{
    Ask, Aws, AwsSection, Bgp, BgpSection, Environment, Finding, OpenStack, OpenStackSection,
};
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::Arc;
use vip_core::{CloudReply, Provider, VipSpec};

/// What a configuration says of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Sections {
    pub aws: AwsSection,
    pub bgp: BgpSection,
    pub openstack: OpenStackSection,
}

/// See the module.
#[derive(Debug)]
pub struct Providers {
    aws: Aws,
    bgp: Arc<Bgp>,
    openstack: OpenStack,
}

impl Providers {
    /// `own`: where members reach this node, if that is an address.
    #[must_use]
    pub fn new(sections: Sections, environment: Environment, own: Option<IpAddr>) -> Self {
        Self {
            aws: Aws::new(sections.aws, environment.clone(), own),
            bgp: Arc::new(Bgp::new(&sections.bgp, own)),
            openstack: OpenStack::new(sections.openstack, environment, own),
        }
    }

    /// Asks or tells one thing. Dropped, nobody waits for it any more; what was sent is done
    /// all the same.
    pub async fn call(&self, ask: &Ask) -> CloudReply {
        match ask.spec.via.provider() {
            Some(Provider::Aws) => self.aws.call(ask).await,
            Some(Provider::Bgp) => self.bgp.call(ask).await,
            Some(Provider::OpenStack) => self.openstack.call(ask).await,
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
            Some(Provider::OpenStack) => self.openstack.check(spec).await,
            None => Ok(()),
        }
    }

    /// Looks at all that moving these VIPs, which are the provider's, rests on.
    pub async fn examine(&self, provider: Provider, vips: &[VipSpec]) -> Vec<Finding> {
        match provider {
            Provider::Aws => self.aws.examine(vips).await,
            Provider::Bgp => self.bgp.examine(vips).await,
            Provider::OpenStack => self.openstack.examine(vips).await,
        }
    }

    /// Keeps at hand what a call needs that moves one of these VIPs, which are the provider's.
    pub async fn keep_warm(&self, provider: Provider, vips: &[VipSpec]) {
        let warm = match provider {
            Provider::Aws => self.aws.keep_warm().await,
            Provider::Bgp => self.bgp.clean().await,
            Provider::OpenStack => self.openstack.keep_warm(vips).await,
        };
        if let Err(error) = warm {
            tracing::warn!(%provider, error, "a VIP could not come here now");
        }
    }

    /// Has nothing announced that an earlier process of this node left, if its speaker answers:
    /// else what is announced is gone with it, or looked for later.
    pub async fn begin(&self) {
        if let Err(error) = self.bgp.clean().await {
            tracing::debug!(error, "no speaker answers");
        }
    }

    /// Takes back what this node alone can: it ends.
    pub async fn leave(&self) {
        self.bgp.leave().await;
    }
}
