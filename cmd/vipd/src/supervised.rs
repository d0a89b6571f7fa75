//! What a process of vipd and whoever supervises it tell each other.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

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

/// Whenever SIGHUP comes; several at once are one. From this call on it does not end the
/// process.
///
/// # Errors
/// No handler can be installed.
pub(crate) fn asked_to_hand_over() -> io::Result<mpsc::Receiver<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (ask, asked) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let _ = ask.try_send(());
        }
    });
    Ok(asked)
}

/// Tells systemd, if it is there, that the process serves.
pub(crate) fn ready() {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}
