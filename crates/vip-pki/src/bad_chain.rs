//! Why a certificate does not hold, in words for people.

use rustls_pki_types::UnixTime;

/// Why a chain of certificates does not lead to the root today.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChain {
    /// It begins later, by this host's clock.
    #[error(
        "its certificate is valid from {} on, and this host's clock says {}: set the one that is \
         wrong",
        moment(.from),
        moment(.now)
    )]
    NotYet {
        /// By this host's clock.
        now: UnixTime,
        /// When it begins.
        from: UnixTime,
    },
    /// It ended, by this host's clock.
    #[error(
        "its certificate ended on {}, and this host's clock says {}: set the one that is wrong, \
         or see on that host why it was not renewed",
        moment(.until),
        moment(.now)
    )]
    Ended {
        /// By this host's clock.
        now: UnixTime,
        /// When it ended.
        until: UnixTime,
    },
    /// Not signed by who should have, or not for this.
    #[error("its certificate does not lead to this cluster's root ({0:?})")]
    Other(webpki::Error),
}

fn moment(at: &UnixTime) -> String {
    vip_core::moment(at.as_secs().saturating_mul(1000))
}

impl From<webpki::Error> for BadChain {
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::CertNotValidYet { time, not_before } => {
                Self::NotYet { now: time, from: not_before }
            }
            webpki::Error::CertExpired { time, not_after } => {
                Self::Ended { now: time, until: not_after }
            }
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_times_are_named() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let early = webpki::Error::CertNotValidYet { time: at(0), not_before: at(86_400) };
        let text = BadChain::from(early).to_string();
        assert!(text.contains("from 1970-01-02T00:00:00Z on"), "{text}");
        assert!(text.contains("clock says 1970-01-01T00:00:00Z"), "{text}");
    }
}
