//! What this node sees of real servers, and what it looks with.

use crate::config::ProbeSection;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use vip_core::{Observed, Opinion, Target};
use vip_probe::{Identity, Prober};

/// Members' questions at once, of which each has real servers probed: who asks more is told
/// so. None must have others probe for it without an end.
const QUESTIONS: usize = 4;

/// Words of who is to be looked at sooner that may wait.
const HASTENED: usize = 64;

/// By real server, with how it was looked at.
type Sees = BTreeMap<Observed, (Target, Opinion)>;

/// See the module.
pub(crate) struct Sights {
    sees: Mutex<Sees>,
    changed: watch::Sender<()>,
    prober: Arc<Prober>,
    questions: Semaphore,
    hastened: mpsc::Sender<Vec<Observed>>,
    to_hasten: Mutex<Option<mpsc::Receiver<Vec<Observed>>>>,
}

impl Sights {
    pub(crate) fn new(config: &ProbeSection) -> Self {
        let identity = config.identity().map(|(certificate, key)| Identity {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        });
        let programs = config.programs().map(|_| config.exec_socket.clone());
        let prober = Prober::new(programs, identity);
        let (sees, changed) = Default::default();
        let (hastened, to_hasten) = mpsc::channel(HASTENED);
        Self {
            sees,
            changed,
            prober: prober.into(),
            questions: Semaphore::new(QUESTIONS),
            hastened,
            to_hasten: Mutex::new(Some(to_hasten)),
        }
    }

    /// All of it.
    pub(crate) fn all(&self) -> Sees {
        self.sees.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// From now on.
    pub(crate) fn are(&self, sees: &Sees) {
        self.sees.lock().unwrap_or_else(PoisonError::into_inner).clone_from(sees);
        self.changed.send_replace(());
    }

    pub(crate) fn prober(&self) -> Arc<Prober> {
        self.prober.clone()
    }

    /// These are to be looked at sooner, if there is room for the word.
    pub(crate) fn hasten(&self, observed: Vec<Observed>) {
        let _ = self.hastened.try_send(observed);
    }

    /// Whom others want looked at sooner; once.
    pub(crate) fn hastened(&self) -> Option<mpsc::Receiver<Vec<Observed>>> {
        self.to_hasten.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Room for a question, for as long as it is kept; `None`: others are being answered.
    pub(crate) fn question(&self) -> Option<SemaphorePermit<'_>> {
        self.questions.try_acquire().ok()
    }
}
