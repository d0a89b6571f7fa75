//! The agent process.

use crate::Options;
use tokio::signal::unix::{SignalKind, signal};
use vip_agent::{AgentError, Config};

/// Threads beside the lease thread: commands are rare and short.
const WORKERS: usize = 2;

pub(crate) fn run(_: &Options, config: Config) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
        };
        let ready = || {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        };
        Ok::<_, anyhow::Error>(vip_agent::run(config, stop, ready).await)
    })?;
    runtime.shutdown_background();
    match result {
        Err(AgentError::Config(e)) => Err(e.into()),
        other => Ok(other?),
    }
}
