//! `vips.proto`.

use super::{FieldError, invalid, read, same};
use crate::v1;
use vip_core::{Placement, VipAddress, VipSpec};

same!(Placement = v1::Placement { Leader, Sticky });

fn addresses(written: &[String]) -> Result<Vec<VipAddress>, FieldError> {
    let read = written.iter().map(|one| one.parse());
    read.collect::<Result<_, _>>().map_err(|e| invalid("addresses", e))
}

fn placement(number: i32) -> Result<Option<Placement>, FieldError> {
    read::<v1::Placement, _>("placement", number)
}

/// An empty name of an interface is none.
fn interface(name: String) -> Option<String> {
    Some(name).filter(|name| !name.is_empty())
}

impl TryFrom<v1::VipSpec> for VipSpec {
    type Error = FieldError;
    fn try_from(message: v1::VipSpec) -> Result<Self, FieldError> {
        let v1::VipSpec { name, addresses: written, interface: on, placement: how, no_probe } =
            message;
        let spec = Self {
            name: name.parse().map_err(|e| invalid("name", e))?,
            addresses: addresses(&written)?,
            interface: on.and_then(interface),
            placement: placement(how)?.unwrap_or_default(),
            no_probe,
        };
        spec.check().map_err(|e| invalid("spec", e))?;
        Ok(spec)
    }
}

impl v1::SetVipRequest {
    /// What is wanted instead of `old`.
    ///
    /// # Errors
    /// What would not make sense.
    pub fn changes(self, old: &VipSpec) -> Result<VipSpec, FieldError> {
        let Self { name: _, addresses: written, interface: on, placement: how, no_probe } = self;
        let mut spec = old.clone();
        if !written.is_empty() {
            spec.addresses = addresses(&written)?;
        }
        if let Some(name) = on {
            spec.interface = interface(name);
        }
        if let Some(how) = how {
            spec.placement = placement(how)?.unwrap_or_default();
        }
        spec.no_probe = no_probe.unwrap_or(spec.no_probe);
        spec.check().map_err(|e| invalid("spec", e))?;
        Ok(spec)
    }
}
