//! What a process of vipd and whoever supervises it tell each other.

use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Ends with SIGTERM or SIGINT. From this call on neither ends the process by
/// itself.
///
/// # Errors
/// No handler can be installed.
pub(crate) fn asked_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

/// Tells systemd, if it is there, that the process serves.
pub(crate) fn ready() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}
