//! From the wire to `vip_core` and back, one file for each .proto file.

mod checks;
mod edges;
mod lease;
mod logins;
mod nodes;
mod policy;
mod servers;
mod tables;
mod types;
mod vips;

/// A field that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A message lacks a part.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A text does not parse.
    #[error("{field}: {why}")]
    Invalid {
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// What is wanted makes no sense, and says why itself.
    #[error(transparent)]
    Spec(#[from] vip_core::VipSpecError),
    /// The same of a virtual server.
    #[error(transparent)]
    ServerSpec(#[from] vip_core::ServerSpecError),
}

/// What an enum's number says; `None`: nothing.
///
/// # Errors
/// A value that only a later version knows.
pub fn read<Proto, Core>(field: &'static str, number: i32) -> Result<Option<Core>, FieldError>
where
    Proto: TryFrom<i32>,
    Option<Core>: From<Proto>,
{
    let unknown = |_| invalid(field, format!("{number} is of a later version"));
    Ok(Proto::try_from(number).map_err(unknown)?.into())
}

/// Two enums of the same values, both ways.
macro_rules! same {
    ($core:ty = $proto:ty { $($variant:ident),+ $(,)? }) => {
        impl From<$core> for $proto {
            fn from(value: $core) -> Self {
                match value { $(<$core>::$variant => Self::$variant),+ }
            }
        }

        impl From<$proto> for Option<$core> {
            fn from(value: $proto) -> Self {
                match value {
                    <$proto>::Unspecified => None,
                    $(<$proto>::$variant => Some(<$core>::$variant)),+
                }
            }
        }
    };
}
use same;

fn port(field: &'static str, number: u32) -> Result<u16, FieldError> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| invalid(field, format!("{number} is no port")))
}

fn invalid(field: &'static str, why: impl std::fmt::Display) -> FieldError {
    FieldError::Invalid { field, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Word, v1};
    use vip_core::{
        AdminRole, Cause, Engine, Forward, NodeState, Placement, Profile, Protocol, Role,
        Scheduler, Via,
    };

    /// What vipctl prints is what the log, the command line and the daemon say.
    #[test]
    fn an_enum_has_the_same_words_on_the_wire() {
        fn all<P: Word + Into<i32> + From<C>, C: Copy>(values: &[C], word: fn(C) -> &'static str) {
            for value in values {
                assert_eq!(P::word(P::from(*value).into()), Some(word(*value)));
            }
        }
        all::<v1::Role, _>(Role::ALL, Role::as_str);
        all::<v1::Protocol, _>(Protocol::ALL, Protocol::as_str);
        all::<v1::Scheduler, _>(Scheduler::ALL, Scheduler::as_str);
        all::<v1::Forward, _>(Forward::ALL, Forward::as_str);
        all::<v1::Engine, _>(Engine::ALL, Engine::as_str);
        all::<v1::AdminRole, _>(AdminRole::ALL, AdminRole::as_str);
        all::<v1::Profile, _>(Profile::ALL, Profile::as_str);
        all::<v1::Placement, _>(Placement::ALL, Placement::as_str);
        all::<v1::Via, _>(Via::ALL, Via::as_str);
        all::<v1::NodeState, _>(NodeState::ALL, NodeState::as_str);
        all::<v1::Cause, _>(Cause::ALL, Cause::as_str);
    }

    #[test]
    fn a_number_is_read_or_says_nothing_or_is_of_a_later_version() {
        let read = |number| read::<v1::Role, Role>("role", number);
        assert_eq!(read(v1::Role::Witness.into()), Ok(Some(Role::Witness)));
        assert_eq!(read(0), Ok(None));
        let error = read(77).expect_err("unknown").to_string();
        assert_eq!(error, "role: 77 is of a later version");
    }
}
