//! The issuing keys that this node has: the one in use, and one that it made
//! and that the log does not name yet.

use super::MemberError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vip_pki::{Issuer, PkiDir};

/// See the module.
pub(super) struct IssuerKeys(Mutex<Keys>);

struct Keys {
    current: Option<Arc<Issuer>>,
    next: Option<Arc<Issuer>>,
}

impl IssuerKeys {
    pub(super) fn load(pki: &PkiDir) -> Result<Self, MemberError> {
        let current = pki.load_issuer()?.map(Arc::new);
        let mut next = pki.load_next_issuer()?.map(Arc::new);
        let spki = |issuer: &Option<Arc<Issuer>>| issuer.as_ref().and_then(|i| i.spki().ok());
        if next.is_some() && spki(&next) == spki(&current) {
            pki.forget_next_issuer()?;
            next = None;
        }
        Ok(Self(Mutex::new(Keys { current, next })))
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one with this key (SPKI hash).
    pub(super) fn of(&self, spki: &str) -> Option<Arc<Issuer>> {
        let keys = self.lock();
        let has = |issuer: &&Arc<Issuer>| issuer.spki().is_ok_and(|own| own == spki);
        keys.current.iter().chain(&keys.next).find(has).cloned()
    }

    /// The one that the log did not name yet when it was made.
    pub(super) fn next(&self) -> Option<Arc<Issuer>> {
        self.lock().next.clone()
    }

    /// One that the log does not name yet.
    pub(super) fn set_next(&self, issuer: Issuer) -> Arc<Issuer> {
        let issuer = Arc::new(issuer);
        self.lock().next = Some(issuer.clone());
        issuer
    }

    /// Whether this is the one in use.
    pub(super) fn is_current(&self, issuer: &Arc<Issuer>) -> bool {
        self.lock().current.as_ref().is_some_and(|current| Arc::ptr_eq(current, issuer))
    }

    /// The one in use from now on. One that was made here since stays: the log
    /// may name it yet.
    pub(super) fn set_current(&self, issuer: Arc<Issuer>) {
        let mut keys = self.lock();
        keys.next = keys.next.take().filter(|next| !Arc::ptr_eq(next, &issuer));
        keys.current = Some(issuer);
    }
}
