//! Each command as its call.

use crate::cli::{CaCommand, Cli, Command};
use crate::contexts::Context;
use crate::ctl::Ctl;
use crate::{Failure, connect};

pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    if cli.context.is_some() && cli.command.needs_root_key() {
        let text = "the root's key is used on a voter, and sent nowhere: without --context";
        return Err(Failure::Usage(text.into()));
    }
    if cli.context.is_some() && cli.command.is_local() {
        let text = "this makes a cluster of the node that it runs on: without --context";
        return Err(Failure::Usage(text.into()));
    }
    let channel = match &cli.context {
        Some(name) => connect::remote(&Context::load(name)?).await?,
        None => connect::local(&cli.socket).await?,
    };
    let ctl = Ctl { channel, format: cli.output, timeout: cli.timeout };
    match cli.command {
        Command::Init { name } => ctl.init(name).await,
        Command::Token(command) => ctl.token(command).await,
        Command::Join { addresses, token_file } => ctl.join(addresses, token_file).await,
        Command::Leave { force } => ctl.leave(force).await,
        Command::Status { watch } => ctl.status(watch).await,
        Command::Node(command) => ctl.node(command).await,
        Command::Vip(command) => ctl.vip(command).await,
        Command::Vs(command) => ctl.vs(command).await,
        Command::Real(command) => ctl.real(command).await,
        Command::Events { follow } => ctl.events(follow).await,
        Command::Login(login) => match login.command {
            Some(command) => ctl.logins(command).await,
            None => ctl.login(login.user, login.role, login.name).await,
        },
        Command::Ca(CaCommand::Rotate { root_key_file }) => ctl.rotate_ca(root_key_file).await,
        Command::Doctor => ctl.doctor().await,
        Command::Backup { file } => ctl.backup(&file).await,
        Command::Restore { file } => ctl.restore(&file).await,
        Command::Recover { force_new_cluster: _, others_are_off } => {
            ctl.recover(others_are_off).await
        }
    }
}
