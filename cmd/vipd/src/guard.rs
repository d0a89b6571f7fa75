//! The guard process.

use crate::Options;
use crate::supervised::{asked_to_hand_over, asked_to_stop, ready};
use anyhow::Context;
use ipnet::IpNet;
use std::os::fd::RawFd;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use vip_agent::{Config, ConfigError};
use vip_guard::{Begin, GuardConfig, Succession};

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

pub(crate) fn run(options: &Options, config: Config) -> anyhow::Result<()> {
    serve(options, guard_config(config)?, Begin::Anew)
}

pub(crate) fn stand_by(options: &Options, config: Config) -> anyhow::Result<()> {
    let config = guard_config(config)?;
    vip_guard::wait_in_line(&config.socket)?;
    serve(options, config, Begin::Anew)
}

pub(crate) fn resume(options: &Options, config: Config, left: RawFd) -> anyhow::Result<()> {
    serve(options, guard_config(config)?, Begin::After(left))
}

/// Whether this program, with this configuration, could go on from what another has.
pub(crate) fn accepts(config: Config, left: RawFd) -> anyhow::Result<()> {
    Ok(vip_guard::accept(&guard_config(config)?, left, std::io::stdout())?)
}

fn serve(options: &Options, config: GuardConfig, begin: Begin) -> anyhow::Result<()> {
    // As it was named, which may lead to another one by then; or before that takes its place.
    let named = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
    let program = named.map_or_else(std::env::current_exe, Ok);
    let program = program.context("the program's own file is not to be found")?;
    runtime()?.block_on(async {
        // Of all processes of a service the agent alone is meant by it.
        drop(signal(SignalKind::user_defined1())?);
        let arguments = std::iter::once("guard".to_owned()).chain(options.arguments());
        let arguments = arguments.map(Into::into).collect();
        let succession = Succession { asked: asked_to_hand_over()?, program, arguments };
        let stop = asked_to_stop()?;
        vip_guard::run(config, begin, succession, stop, ready).await.context("the guard stopped")
    })
}

pub(crate) fn purge() -> anyhow::Result<()> {
    runtime()?.block_on(async {
        for ip in vip_guard::purge().await? {
            println!("removed {ip}");
        }
        Ok(())
    })
}
