//! A real server that is checked otherwise than the others of its virtual one.

use super::CheckKind;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// Most of one virtual server: who has more of them has several virtual servers.
pub const MAX_OTHERWISE: usize = 64;

/// See the module. What is absent is as for the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealCheck {
    pub ip: IpAddr,
    /// Where connections go; `None`: all at the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Arc<CheckKind>>,
    /// What is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_port: Option<u16>,
}

impl RealCheck {
    /// One that is as the others.
    #[must_use]
    pub const fn as_others(ip: IpAddr, port: Option<u16>) -> Self {
        Self { ip, port, check: None, check_port: None }
    }

    /// Whether it says nothing.
    #[must_use]
    pub const fn is_as_others(&self) -> bool {
        self.check.is_none() && self.check_port.is_none()
    }

    /// Whether it is of the real server that connections go to there.
    #[must_use]
    pub fn is_of(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.ip == ip && (self.port.is_none() || self.port == port)
    }
}
