//! `logins.proto`.

use crate::v1;
use vip_core::Login;

impl From<&Login> for v1::Login {
    fn from(Login { user, role, spki, expires_ms, issuer: _, issued_by }: &Login) -> Self {
        Self {
            user: user.to_string(),
            role: v1::AdminRole::from(*role).into(),
            expires_ms: *expires_ms,
            issued_by: issued_by.clone(),
            key: spki.clone(),
        }
    }
}
