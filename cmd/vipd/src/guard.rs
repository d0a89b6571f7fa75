//! The guard process.

use crate::Options;
use crate::supervised::{asked_to_stop, ready};
use anyhow::Context;
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use vip_agent::{Config, ConfigError};
use vip_guard::GuardConfig;

fn guard_config(config: Config) -> Result<GuardConfig, ConfigError> {
    Ok(GuardConfig {
        allow: prefixes("guard.allow", &config.guard.allow)?,
        allow_real: prefixes("guard.allow_real", &config.guard.allow_real)?,
        gate_optional: config.guard.gate == "optional",
        socket: config.guard.socket,
    })
}

fn prefixes(key: &'static str, written: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let prefix = |text: &String| {
        let why = || format!("{text:?} is no prefix such as 192.0.2.0/24");
        text.parse::<IpNet>().map_err(|_| ConfigError::Value { key, why: why() })
    };
    written.iter().map(prefix).collect()
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(crate) fn run(_: &Options, config: Config) -> anyhow::Result<()> {
    serve(guard_config(config)?)
}

pub(crate) fn stand_by(_: &Options, config: Config) -> anyhow::Result<()> {
    let config = guard_config(config)?;
    vip_guard::wait_in_line(&config.socket)?;
    serve(config)
}

fn serve(config: GuardConfig) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        // Of all processes of a service the agent alone is meant by it.
        drop(signal(SignalKind::user_defined1())?);
        vip_guard::run(config, asked_to_stop()?, ready).await.context("the guard stopped")
    })
}

pub(crate) fn purge(_: &Options, _: Config) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        for ip in vip_guard::purge().await? {
            println!("removed {ip}");
        }
        Ok(())
    })
}
