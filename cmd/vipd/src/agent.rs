//! The agent process.

use crate::Options;
use crate::supervised::{asked_to_stop, ready};
use vip_agent::{AgentError, Config};

/// Threads beside the lease thread: commands are rare and short.
const WORKERS: usize = 2;

pub(crate) fn run(_: &Options, config: Config) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let result = runtime.block_on(async {
        Ok::<_, anyhow::Error>(vip_agent::run(config, asked_to_stop()?, ready).await)
    })?;
    runtime.shutdown_background();
    match result {
        Err(AgentError::Config(e)) => Err(e.into()),
        other => Ok(other?),
    }
}
