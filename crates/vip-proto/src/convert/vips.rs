//! `vips.proto`.

use super::{FieldError, invalid, read, same};
use crate::v1;
use vip_core::{Placement, Via, VipAddress, VipSpec};

same!(Placement = v1::Placement { Leader, Sticky });
same!(Via = v1::Via { Garp, Lb, Exec, AwsRoute, AwsPrivateIp, Bgp, OpenstackPort, OpenstackPair });

fn addresses(written: &[String]) -> Result<Vec<VipAddress>, FieldError> {
    let read = written.iter().map(|one| one.parse());
    read.collect::<Result<_, _>>().map_err(|e| invalid("addresses", e))
}

fn placement(number: i32) -> Result<Option<Placement>, FieldError> {
    read::<v1::Placement, _>("placement", number)
}

fn via(number: i32) -> Result<Option<Via>, FieldError> {
    read::<v1::Via, _>("via", number)
}

/// An empty name of an interface is none.
fn interface(name: String) -> Option<String> {
    Some(name).filter(|name| !name.is_empty())
}

impl TryFrom<v1::VipSpec> for VipSpec {
    type Error = FieldError;
    fn try_from(message: v1::VipSpec) -> Result<Self, FieldError> {
        let v1::VipSpec {
            name,
            addresses: written,
            interface: on,
            placement: how,
            no_probe,
            via: by,
            params,
        } = message;
        let spec = Self {
            name: name.parse().map_err(|e| invalid("name", e))?,
            addresses: addresses(&written)?,
            interface: on.and_then(interface),
            placement: placement(how)?.unwrap_or_default(),
            no_probe,
            via: via(by)?.unwrap_or_default(),
            params: params.into_iter().collect(),
        };
        spec.check()?;
        Ok(spec)
    }
}

impl v1::SetVipRequest {
    /// What is wanted instead of `old`.
    ///
    /// # Errors
    /// What would not make sense.
    pub fn changes(self, old: &VipSpec) -> Result<VipSpec, FieldError> {
        let Self {
            name: _,
            addresses: written,
            interface: on,
            placement: how,
            no_probe,
            via: by,
            params,
        } = self;
        let mut spec = old.clone();
        if !written.is_empty() {
            spec.addresses = addresses(&written)?;
        }
        if let Some(name) = on {
            spec.interface = interface(name);
        }
        if let Some(how) = how.map(placement).transpose()?.flatten() {
            spec.placement = how;
        }
        spec.no_probe = no_probe.unwrap_or(spec.no_probe);
        if let Some(by) = by.map(via).transpose()?.flatten() {
            // What was said of another way says nothing of this one.
            if by != spec.via {
                spec.params.clear();
            }
            spec.via = by;
        }
        spec.params.extend(params);
        spec.check()?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> VipSpec {
        let message = v1::VipSpec {
            name: "web".to_owned(),
            addresses: vec!["192.0.2.9/24".to_owned()],
            interface: Some("eth0".to_owned()),
            placement: v1::Placement::Sticky.into(),
            no_probe: true,
            via: v1::Via::Garp.into(),
            params: [].into(),
        };
        message.try_into().expect("a spec")
    }

    #[test]
    fn what_a_change_does_not_name_stays() {
        let nothing = v1::SetVipRequest { name: "web".to_owned(), ..Default::default() };
        assert_eq!(nothing.clone().changes(&web()), Ok(web()));
        // Named, and said nothing of.
        let unspecified = v1::SetVipRequest { placement: Some(0), ..nothing.clone() };
        assert_eq!(unspecified.changes(&web()), Ok(web()));
        let placement = Some(v1::Placement::Leader.into());
        let (interface, no_probe) = (Some(String::new()), Some(false));
        let addresses = vec!["192.0.2.10/24".to_owned()];
        let all = v1::SetVipRequest { placement, interface, no_probe, addresses, ..nothing };
        let changed = all.changes(&web()).expect("a spec");
        assert_eq!((changed.placement, changed.no_probe), (Placement::Leader, false));
        assert_eq!((&changed.interface, changed.addresses.len()), (&None, 1));
        assert_eq!(changed.addresses[0].to_string(), "192.0.2.10/24");
        let by = |via: v1::Via| v1::SetVipRequest { via: Some(via.into()), ..Default::default() };
        let error = by(v1::Via::Lb).changes(&web()).expect_err("it has an interface").to_string();
        assert!(error.contains("VIP web cannot be on eth0: by lb"), "{error}");
        let lb = by(v1::Via::Lb).changes(&changed).expect("a spec");
        assert_eq!((lb.via, by(v1::Via::Garp).changes(&lb)), (Via::Lb, Ok(changed)));
    }

    #[test]
    fn a_spec_that_makes_no_sense_is_refused_with_what_is_wrong() {
        for (message, said) in [
            (v1::VipSpec { name: "C!".to_owned(), ..Default::default() }, "name: "),
            (
                v1::VipSpec {
                    name: "web".to_owned(),
                    addresses: vec!["192.0.2.9/24".to_owned()],
                    placement: 99,
                    ..Default::default()
                },
                "placement: 99 is of a later version",
            ),
            (
                v1::VipSpec { name: "web".to_owned(), ..Default::default() },
                "VIP web has no address",
            ),
        ] {
            let error = VipSpec::try_from(message).expect_err("refused").to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
