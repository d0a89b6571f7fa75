//! What becomes of a virtual server without a quorum, in `servers.proto`.

use super::{FieldError, invalid};
use crate::v1;
use vip_core::{Policy, RealSpec};

/// What is wanted, where so much was wanted before.
pub(super) fn policy(
    message: Option<v1::Policy>,
    mut policy: Policy,
) -> Result<Policy, FieldError> {
    let v1::Policy { quorum_up, sorry, all_down, on_down } = message.unwrap_or_default();
    if let Some(text) = quorum_up {
        policy.quorum = text.parse().map_err(|e| invalid("quorum up", e))?;
    }
    if let Some(text) = sorry {
        let sorry = Some(text).filter(|text| !text.is_empty());
        let sorry = sorry.map(|text| text.parse::<RealSpec>());
        policy.sorry = sorry.transpose().map_err(|e| invalid("sorry", e))?;
    }
    if let Some(text) = all_down {
        policy.all_down = text.parse().map_err(|e| invalid("all down", e))?;
    }
    if let Some(text) = on_down {
        policy.on_down = text.parse().map_err(|e| invalid("on down", e))?;
    }
    Ok(policy)
}

impl From<&Policy> for v1::Policy {
    fn from(policy: &Policy) -> Self {
        let Policy { quorum, sorry, all_down, on_down } = policy;
        Self {
            quorum_up: Some(quorum.to_string()),
            sorry: sorry.map(|sorry| sorry.to_string()),
            all_down: Some(all_down.to_string()),
            on_down: Some(on_down.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vip_core::AllDown;

    #[test]
    fn a_policy_is_what_was_said_and_otherwise_as_before() {
        let text = |text: &str| Some(text.to_owned());
        let said = v1::Policy {
            quorum_up: text("2,1"),
            sorry: text("10.0.0.99:80"),
            all_down: text("keep-last"),
            on_down: None,
        };
        let first = policy(Some(said), Policy::default()).expect("good");
        assert_eq!((first.quorum.up, first.all_down), (2, AllDown::KeepLast));
        assert_eq!(policy(None, first.clone()), Ok(first.clone()));
        assert_eq!(policy(Some((&first).into()), Policy::default()), Ok(first.clone()));
        let none = v1::Policy { sorry: text(""), ..Default::default() };
        let without = policy(Some(none), first.clone()).expect("good");
        assert_eq!(without, Policy { sorry: None, ..first });
        for (bad, says) in [
            (v1::Policy { quorum_up: text("0"), ..Default::default() }, "quorum up: "),
            (v1::Policy { sorry: text("nobody"), ..Default::default() }, "sorry: "),
            (v1::Policy { all_down: text("panic"), ..Default::default() }, "all down: "),
            (v1::Policy { on_down: text("ask"), ..Default::default() }, "on down: "),
        ] {
            let error = policy(Some(bad), Policy::default()).expect_err(says).to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
