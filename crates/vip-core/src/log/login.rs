//! Certificates of people: issuing, revoking, sweeping.

use super::State;
use crate::words::words;
use crate::{Level, Name, Outcome, Refusal};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    /// Look.
    Viewer,
    /// Move, add and remove VIPs; drain.
    Operator,
    /// Everything: members and tokens too.
    Admin,
}

words!(AdminRole, "role" { Viewer => "viewer", Operator => "operator", Admin => "admin" });

/// A certificate that a person was given. What is not listed is no login,
/// whoever signed it: a stolen issuing key makes none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    pub user: Name,
    /// What they may.
    pub role: AdminRole,
    /// SHA-256 of the public key (SPKI), hex.
    pub spki: String,
    /// Until when, log time in ms since 1970.
    pub expires_ms: u64,
    /// The key (SPKI hash) of the CA that signed it.
    pub issuer: String,
    pub issued_by: String,
}

/// Logins at a time: many people, many times a day.
const MAX_LOGINS: usize = 1000;

/// A change of people's certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginOp {
    /// A person is given a certificate.
    Issue {
        /// Whose, and for what.
        login: Login,
    },
    /// All certificates of a person end.
    Revoke { user: Name },
}

/// What happened to somebody's certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginEvent {
    /// A person was given a certificate.
    Issued {
        user: Name,
        /// For what.
        role: AdminRole,
    },
    /// All certificates of a person ended.
    Revoked { user: Name },
}

impl LoginOp {
    /// Since when there is such an operation.
    #[must_use]
    pub const fn since(&self) -> Level {
        match self {
            Self::Issue { .. } | Self::Revoke { .. } => Level::FIRST,
        }
    }
}

impl State {
    pub(super) fn apply_to_login(&mut self, actor: &str, op: &LoginOp) -> Result<Outcome, Refusal> {
        match op {
            LoginOp::Issue { login } => self.log_in(actor, login),
            LoginOp::Revoke { user } => self.revoke_login(actor, user),
        }
    }

    fn log_in(&mut self, actor: &str, login: &Login) -> Result<Outcome, Refusal> {
        let (now, logins) = (self.time_ms, Arc::make_mut(&mut self.logins));
        logins.retain(|_, login| login.expires_ms > now);
        if logins.contains_key(&login.spki) {
            return Err(Refusal::Spec { text: "this key has a certificate already".into() });
        }
        if logins.len() >= MAX_LOGINS {
            let text = format!("{MAX_LOGINS} logins are open; revoke some, or wait until they end");
            return Err(Refusal::Spec { text });
        }
        let login = Login { issued_by: actor.to_owned(), ..login.clone() };
        let (user, role) = (login.user.clone(), login.role);
        logins.insert(login.spki.clone(), login);
        self.record(actor, LoginEvent::Issued { user, role });
        Ok(Outcome::Done)
    }

    fn revoke_login(&mut self, actor: &str, user: &Name) -> Result<Outcome, Refusal> {
        let before = self.logins.len();
        let logins = Arc::make_mut(&mut self.logins);
        logins.retain(|_, login| login.user != *user);
        if logins.len() == before {
            return Err(Refusal::UnknownLogin { user: user.to_string() });
        }
        self.record(actor, LoginEvent::Revoked { user: user.clone() });
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{state_of, voter};
    use crate::{Actor, AdminRole, Command, LoginOp, Op};

    fn apply(state: &mut State, op: impl Into<Op>) -> Outcome {
        let command =
            Command { time_ms: 1, actor: Actor("root@n1".into()), term: None, op: op.into() };
        state.apply(1, &command)
    }

    fn login(user: &str, spki: String, expires_ms: u64) -> Op {
        let (user, role) = (user.parse().expect("a name"), AdminRole::Admin);
        let (issuer, issued_by) = Default::default();
        let login = Login { user, role, spki, expires_ms, issuer, issued_by };
        LoginOp::Issue { login }.into()
    }

    #[test]
    fn a_revoked_user_has_no_login_and_others_keep_theirs() {
        let mut state = state_of([voter(1)]);
        for (user, spki) in [("eve", "a"), ("eve", "b"), ("bob", "c")] {
            let done = apply(&mut state, login(user, spki.to_owned(), u64::MAX));
            assert_eq!(done, Outcome::Done);
        }
        let eve: Name = "eve".parse().expect("a name");
        assert_eq!(apply(&mut state, LoginOp::Revoke { user: eve.clone() }), Outcome::Done);
        assert_eq!(state.logins.keys().collect::<Vec<_>>(), ["c"]);
        let again = apply(&mut state, LoginOp::Revoke { user: eve });
        assert!(matches!(again, Outcome::Refused(Refusal::UnknownLogin { .. })));
    }

    #[test]
    fn the_list_has_a_bound_and_what_ended_leaves_it() {
        let mut state = state_of([voter(1)]);
        state.time_ms = 10;
        for n in 0..MAX_LOGINS {
            let done = apply(&mut state, login("eve", n.to_string(), 20));
            assert_eq!(done, Outcome::Done);
        }
        let one_more = apply(&mut state, login("eve", "more".into(), 30));
        assert!(matches!(one_more, Outcome::Refused(Refusal::Spec { .. })));
        state.time_ms = 20;
        assert_eq!(apply(&mut state, login("eve", "more".into(), 30)), Outcome::Done);
        assert_eq!(state.logins.len(), 1);
    }
}
