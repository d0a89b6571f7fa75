//! Each command as its call.

use crate::Failure;
use crate::cli::{
    CaCommand, Cli, Command, Format, LoginCommand, NodeCommand, TokenCommand, VipCommand,
};
use crate::contexts::Context;
use crate::output::{self, Check, Event, Login, Node, Status, Token, Vip, print};
use crate::{connect, contexts};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio_stream::StreamExt;
use tonic::Request;
use tonic::transport::Channel;
use vip_pki::NodeKey;
use vip_proto::v1;
use vip_proto::v1::admin_client::AdminClient;
use zeroize::Zeroizing;

/// Environment variable with a join token.
const TOKEN_VARIABLE: &str = "VIPD_JOIN_TOKEN";
/// `status --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// No token or key on standard input is longer.
const MAX_SECRET: u64 = 4096;

pub(crate) struct Ctl {
    pub(crate) client: AdminClient<Channel>,
    format: Format,
    pub(crate) timeout: Duration,
}

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
    let client = AdminClient::new(channel);
    let mut ctl = Ctl { client, format: cli.output, timeout: cli.timeout };
    match cli.command {
        Command::Init { name } => ctl.init(name).await,
        Command::Token(command) => ctl.token(command).await,
        Command::Join { addresses, token_file } => ctl.join(addresses, token_file).await,
        Command::Leave { force } => {
            let request = ctl.request(v1::LeaveRequest { force });
            ctl.client.leave(request).await?;
            ctl.done(json!({ "left": true }), "this node is in no cluster any more")
        }
        Command::Status { watch } => ctl.status(watch).await,
        Command::Node(command) => ctl.node(command).await,
        Command::Vip(command) => ctl.vip(command).await,
        Command::Events { follow } => ctl.events(follow).await,
        Command::Login(login) => match login.command {
            Some(command) => ctl.logins(command).await,
            None => ctl.login(login.user, login.role, login.name).await,
        },
        Command::Ca(CaCommand::Rotate { root_key_file }) => {
            ctl.rotate(root_key_file).await?;
            let text = "a new CA signs certificates, every member has one of it, and the one \
                        before is refused";
            ctl.done(json!({ "issuer_replaced": true }), text)
        }
        Command::Doctor => ctl.doctor().await,
        Command::Backup { file } => ctl.backup(&file).await,
        Command::Restore { file } => ctl.restore(&file).await,
        Command::Recover { force_new_cluster: _, others_are_off } => {
            ctl.recover(others_are_off).await
        }
    }
}

/// A secret from a file, or from standard input.
fn secret(path: &Path) -> Result<String, Failure> {
    if path.as_os_str() == "-" {
        return from_standard_input().map_err(|e| Failure::Usage(format!("standard input: {e}")));
    }
    std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// All of it; of a terminal what is pasted up to the end of the line.
fn from_standard_input() -> std::io::Result<String> {
    let (mut text, input) = (String::new(), std::io::stdin());
    if input.is_terminal() {
        input.lock().take(MAX_SECRET).read_line(&mut text)?;
    } else {
        input.lock().take(MAX_SECRET).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// How another machine joins. What is pasted to a program no shell remembers;
/// here documents and here strings stand in its history.
fn how_to_join(command: &str, token: &str) -> String {
    format!(
        "  {command}\n\nand paste this line to it, with Enter (or give it a file of mode 0600 \
         instead of -):\n\n  {token}"
    )
}

fn token(file: Option<PathBuf>) -> Result<String, Failure> {
    let text = match file {
        Some(path) => secret(&path)?,
        None => std::env::var(TOKEN_VARIABLE).map_err(|_| {
            Failure::Usage(format!(
                "no token: give --token-file FILE (or -), or set {TOKEN_VARIABLE}"
            ))
        })?,
    };
    let text = text.trim().to_owned();
    if text.is_empty() {
        return Err(Failure::Usage("no token was given; nothing was changed".into()));
    }
    Ok(text)
}

impl Ctl {
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    pub(crate) fn done(&self, value: serde_json::Value, text: &str) -> Result<(), Failure> {
        print(self.format, &value, |_| text.to_owned())
    }

    async fn init(&mut self, name: String) -> Result<(), Failure> {
        let request = self.request(v1::InitRequest { name });
        let made = self.client.init(request).await?.into_inner();
        self.made(&made)
    }

    pub(crate) fn made(&self, made: &v1::InitReply) -> Result<(), Failure> {
        let value = json!({
            "cluster": made.cluster, "node": made.node, "token": made.token,
            "join_command": made.join_command, "recovery_file": made.recovery_file,
        });
        self.done(
            value,
            &format!(
                "cluster {} made; {} leads it.\n\nOn another machine, within the hour:\n\n\
                 {}\n\nThe key of the root CA is in {}. It is needed only to replace the \
                 issuing CA:\nmove it to a safe place, off this machine.",
                made.cluster,
                made.node,
                how_to_join(&made.join_command, &made.token),
                made.recovery_file
            ),
        )
    }

    async fn token(&mut self, command: TokenCommand) -> Result<(), Failure> {
        match command {
            TokenCommand::Create { role, ttl, uses, quiet } => {
                if ttl < Duration::from_secs(1) || uses == 0 {
                    let text = "a token lives for 1s at least, and admits one node at least";
                    return Err(Failure::Usage(text.into()));
                }
                let request =
                    self.request(v1::CreateTokenRequest { role, ttl_s: ttl.as_secs(), uses });
                let made = self.client.create_token(request).await?.into_inner();
                if quiet {
                    let told = output::say(&made.token);
                    return self.told(&made.id, told).await;
                }
                let value = json!({
                    "id": made.id, "token": made.token, "expires_ms": made.expires_ms,
                    "join_command": made.join_command,
                });
                let told = self.done(
                    value,
                    &format!(
                        "token {} is good until {}. On another machine:\n\n{}",
                        made.id,
                        output::moment(made.expires_ms),
                        how_to_join(&made.join_command, &made.token)
                    ),
                );
                self.told(&made.id, told).await
            }
            TokenCommand::List => {
                let request = self.request(v1::ListTokensRequest {});
                let reply = self.client.list_tokens(request).await?.into_inner();
                let tokens: Vec<Token> = reply.tokens.into_iter().map(Into::into).collect();
                print(self.format, &tokens, |t| output::tokens(t))
            }
            TokenCommand::Revoke { id } => {
                let request = self.request(v1::RevokeTokenRequest { id: id.clone() });
                self.client.revoke_token(request).await?;
                self.done(json!({ "revoked": id }), &format!("token {id} is revoked"))
            }
        }
    }

    /// A token that nobody was told is closed again.
    async fn told(&mut self, id: &str, told: Result<(), Failure>) -> Result<(), Failure> {
        let Err(failure) = told else { return Ok(()) };
        let why = match failure {
            Failure::Failed(text) | Failure::Unprinted(text) => text,
            _ => "nobody reads it".to_owned(),
        };
        let request = self.request(v1::RevokeTokenRequest { id: id.to_owned() });
        Err(Failure::Failed(match self.client.revoke_token(request).await {
            Ok(_) => format!("the token could not be shown ({why}), and was revoked"),
            Err(e) => format!("token {id} could not be shown ({why}); revoke it: {}", e.message()),
        }))
    }

    async fn join(&mut self, addresses: Vec<String>, file: Option<PathBuf>) -> Result<(), Failure> {
        let token = token(file)?;
        let request = self.request(v1::JoinClusterRequest { addresses, token });
        let joined = self.client.join(request).await?.into_inner();
        let value = json!({ "cluster": joined.cluster, "node": joined.node, "role": joined.role });
        let text = format!("{} is a {} of cluster {}", joined.node, joined.role, joined.cluster);
        self.done(value, &text)
    }

    async fn status(&mut self, watch: bool) -> Result<(), Failure> {
        loop {
            let request = self.request(v1::StatusRequest {});
            let status: Status = self.client.status(request).await?.into_inner().into();
            if watch && self.format == Format::Table && std::io::stdout().is_terminal() {
                // Clear the screen, as watch(1) does.
                output::say("\x1b[2J\x1b[H")?;
            }
            print(self.format, &status, output::status)?;
            if watch && self.format == Format::Table && !std::io::stdout().is_terminal() {
                output::say("")?;
            }
            if !watch {
                return Ok(());
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    async fn nodes(&mut self) -> Result<Vec<Node>, Failure> {
        let request = self.request(v1::ListNodesRequest {});
        let reply = self.client.list_nodes(request).await?.into_inner();
        Ok(reply.nodes.into_iter().map(Into::into).collect())
    }

    async fn node(&mut self, command: NodeCommand) -> Result<(), Failure> {
        match command {
            NodeCommand::List => {
                let nodes = self.nodes().await?;
                self.warn_of_age(nodes.iter().all(|node| node.fresh));
                print(self.format, &nodes, |n| output::nodes_in_full(n))
            }
            NodeCommand::Show { name } => {
                let nodes = self.nodes().await?;
                let unknown = || Failure::Failed(format!("there is no node {name}"));
                let node = nodes.into_iter().find(|n| n.name == name).ok_or_else(unknown)?;
                print(self.format, &node, output::node_in_full)
            }
            NodeCommand::Drain { name } => self.drain(name, true).await,
            NodeCommand::Undrain { name } => self.drain(name, false).await,
            NodeCommand::Remove { name, for_cause, root_key_file } => {
                if root_key_file.is_some() {
                    let request = self.request(v1::StatusRequest {});
                    if self.client.status(request).await?.into_inner().node == name {
                        let text = format!(
                            "this is {name}: the root's key must not come near it. Run this on \
                             another voter. Nothing was changed"
                        );
                        return Err(Failure::Usage(text));
                    }
                }
                let removed = loop {
                    let message = v1::RemoveNodeRequest { name: name.clone(), for_cause };
                    match self.client.remove_node(self.request(message)).await {
                        Ok(reply) => break reply.into_inner(),
                        // The leader itself is removed: it handed over first.
                        Err(status) if status.code() == tonic::Code::Aborted => {}
                        Err(status) => return Err(status.into()),
                    }
                };
                for warning in &removed.warnings {
                    eprintln!("vipctl: {name}: {warning}");
                }
                let mut value = json!({ "removed": name, "warnings": removed.warnings });
                let mut text = format!("{name} is no member any more");
                match root_key_file {
                    Some(file) => {
                        self.rotate(file).await.map_err(|e| e.after(&text))?;
                        value["issuer_replaced"] = true.into();
                        text += ", and the CA whose key it had is replaced";
                    }
                    None if for_cause => {
                        text += ". It may have kept the issuing key: run `vipctl ca rotate \
                                 --root-key-file FILE` on a voter";
                    }
                    None => {}
                }
                self.done(value, &text)
            }
        }
    }

    /// The removal is done by now, and waits for no key.
    async fn rotate(&mut self, file: PathBuf) -> Result<(), Failure> {
        let root_key = Zeroizing::new(secret(&file)?);
        let request = self.request(v1::RotateCaRequest { root_key: root_key.to_string() });
        self.client.rotate_ca(request).await?;
        Ok(())
    }

    async fn drain(&mut self, name: String, drain: bool) -> Result<(), Failure> {
        let request = self.request(v1::DrainNodeRequest { name: name.clone(), drain });
        self.client.drain_node(request).await?;
        let text = if drain {
            format!("{name} holds nothing now")
        } else {
            format!("{name} may hold VIPs again")
        };
        self.done(json!({ "node": name, "drained": drain }), &text)
    }

    async fn vip(&mut self, command: VipCommand) -> Result<(), Failure> {
        let vip = match command {
            VipCommand::Add(add) => {
                let spec = v1::VipSpec {
                    name: add.name,
                    addresses: add.addresses,
                    interface: add.interface,
                    placement: add.placement,
                    no_probe: add.no_probe,
                };
                let request =
                    self.request(v1::AddVipRequest { spec: Some(spec), no_wait: add.no_wait });
                self.client.add_vip(request).await?.into_inner().vip
            }
            VipCommand::Move { name, to, auto: _ } => {
                let to = to.unwrap_or_default();
                let request = self.request(v1::MoveVipRequest { name, to });
                self.client.move_vip(request).await?.into_inner().vip
            }
            VipCommand::Set(set) => {
                let request = self.request(v1::SetVipRequest {
                    name: set.name,
                    addresses: set.addresses,
                    interface: set.interface,
                    placement: set.placement,
                    no_probe: set.no_probe.then_some(true),
                });
                self.client.set_vip(request).await?.into_inner().vip
            }
            VipCommand::List => {
                let vips = self.vips().await?;
                self.warn_of_age(vips.iter().all(|vip| vip.fresh));
                return print(self.format, &vips, |v| output::vips(v));
            }
            VipCommand::Show { name } => {
                let unknown = || Failure::Failed(format!("there is no VIP {name}"));
                let vips = self.vips().await?;
                let vip = vips.into_iter().find(|v| v.name == name).ok_or_else(unknown)?;
                return print(self.format, &vip, output::vip_in_full);
            }
            VipCommand::Remove { name } => {
                let request = self.request(v1::RemoveVipRequest { name: name.clone() });
                self.client.remove_vip(request).await?;
                return self.done(json!({ "removed": name }), &format!("VIP {name} is gone"));
            }
        };
        let vip: Vip = vip.unwrap_or_default().into();
        print(self.format, &vip, |vip| match &vip.holder {
            Some(holder) if vip.answers => {
                format!("VIP {} answers on {holder} at epoch {}", vip.name, vip.epoch)
            }
            _ => format!("VIP {} is as wanted in the log, and does not answer yet", vip.name),
        })
    }

    /// For people; scripts look at `fresh`.
    fn warn_of_age(&self, fresh: bool) {
        if !fresh && self.format == Format::Table {
            eprintln!("vipctl: no leader answered: this is what this node knew last");
        }
    }

    async fn vips(&mut self) -> Result<Vec<Vip>, Failure> {
        let request = self.request(v1::ListVipsRequest {});
        let reply = self.client.list_vips(request).await?.into_inner();
        Ok(reply.vips.into_iter().map(Into::into).collect())
    }

    async fn events(&mut self, follow: bool) -> Result<(), Failure> {
        // Following has no end, so no timeout.
        let mut request = Request::new(v1::EventsRequest { follow, after: 0 });
        if !follow {
            request.set_timeout(self.timeout);
        }
        let mut events = self.client.events(request).await?.into_inner();
        while let Some(event) = events.next().await {
            let event: Event = event?.into();
            match self.format {
                Format::Table => output::say(&output::event(&event, SystemTime::now()))?,
                // One object a line, so that a stream can be read.
                Format::Json | Format::Yaml => {
                    let line = serde_json::to_string(&event);
                    output::say(&line.map_err(|e| Failure::Failed(e.to_string()))?)?;
                }
            }
        }
        Ok(())
    }

    async fn logins(&mut self, command: LoginCommand) -> Result<(), Failure> {
        match command {
            LoginCommand::List => {
                let request = self.request(v1::ListLoginsRequest {});
                let reply = self.client.list_logins(request).await?.into_inner();
                let logins: Vec<Login> = reply.logins.into_iter().map(Into::into).collect();
                print(self.format, &logins, |l| output::logins(l))
            }
            LoginCommand::Revoke { name } => {
                let request = self.request(v1::RevokeLoginRequest { user: name.clone() });
                self.client.revoke_login(request).await?;
                let text = format!("{name} has no certificate any more");
                self.done(json!({ "revoked": name }), &text)
            }
        }
    }

    async fn login(
        &mut self,
        user: String,
        role: String,
        name: Option<String>,
    ) -> Result<(), Failure> {
        let failed = |e: &dyn std::error::Error| Failure::Failed(e.to_string());
        let key = NodeKey::generate().map_err(|e| failed(&e))?;
        let csr = key.csr().map_err(|e| failed(&e))?;
        let request = self.request(v1::LoginRequest { user, role, csr });
        let reply = self.client.login(request).await?.into_inner();
        let name = match name {
            Some(name) => name,
            None => {
                let request = self.request(v1::StatusRequest {});
                self.client.status(request).await?.into_inner().cluster
            }
        };
        let context = Context {
            address: reply.address,
            server_name: reply.server_name,
            key: key.pem().to_string(),
            chain: vip_pki::chain_pem(&reply.chain),
            expires_ms: reply.expires_ms,
        };
        let path = contexts::Context::store(&context, &name)?;
        let until = output::moment(context.expires_ms);
        self.done(
            json!({ "context": name, "file": path, "expires_ms": context.expires_ms }),
            &format!(
                "context {name} is good until {until}; use it with `vipctl --context {name}`, \
                 also after copying {} to another machine",
                path.display()
            ),
        )
    }

    async fn doctor(&mut self) -> Result<(), Failure> {
        let request = self.request(v1::DoctorRequest {});
        let reply = self.client.doctor(request).await?.into_inner();
        let check =
            |c: v1::doctor_reply::Check| Check { name: c.name, result: c.result, text: c.text };
        let checks: Vec<Check> = reply.checks.into_iter().map(check).collect();
        let bad = checks.iter().any(|c| c.result == "error");
        print(self.format, &checks, |c| output::checks(c))?;
        if bad { Err(Failure::Failed("this host has errors".into())) } else { Ok(()) }
    }
}
