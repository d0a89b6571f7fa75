//! The command line. Scripts rely on it.

use crate::flags::{VsAdd, VsSet};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use vip_core::{AdminRole, Placement, Role, Via};

#[derive(Parser)]
#[command(
    name = "vipctl",
    version,
    about = "Virtual IPs over Raft: control",
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no quorum, 4 the daemon \
                  cannot be reached.\nBegin with `vipctl init` on the first node; look with \
                  `vipctl status`; `vipctl doctor` checks this host."
)]
pub(crate) struct Cli {
    /// The daemon's admin socket.
    #[arg(long, global = true, default_value = "/run/vipd/admin.sock", value_name = "PATH")]
    #[arg(help_heading = GLOBAL)]
    pub(crate) socket: PathBuf,
    /// Use a remote cluster that `vipctl login` made a context for.
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub(crate) context: Option<String>,
    /// What to print: a table for people, or JSON or YAML for scripts, whose
    /// fields only ever become more.
    #[arg(short, long, global = true, default_value = "table", help_heading = GLOBAL)]
    pub(crate) output: Format,
    /// How long the effect of a command is waited for; a number alone is
    /// seconds. Without a quorum it fails sooner.
    #[arg(long, global = true, default_value = "30s", value_parser = timeout)]
    #[arg(value_name = "DURATION", help_heading = GLOBAL)]
    pub(crate) timeout: Duration,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Stands over the options that every command has.
const GLOBAL: &str = "Options of every command";

/// A duration; a number alone is seconds.
fn timeout(text: &str) -> Result<Duration, humantime::DurationError> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    }
}

/// Where members are reached unless they say otherwise.
const PORT: u16 = 7400;

/// An address of a member, with its port; an IPv6 address needs no brackets
/// without one.
fn member(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        // More likely than an address that ends so.
        if let Some(before) = text.strip_suffix(&format!(":{PORT}")) {
            return Err(format!("with a port an IPv6 address has brackets: [{before}]:{PORT}"));
        }
        return Ok(SocketAddr::new(ip, PORT).to_string());
    }
    match text.split_once(':') {
        None if !text.is_empty() => Ok(format!("{text}:{PORT}")),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("not an address such as n1, 192.0.2.1:7400 or [2001:db8::1]:7400".to_owned()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a cluster of this node; prints the command that others join with.
    Init {
        /// Name of the cluster.
        #[arg(long)]
        name: Option<String>,
    },
    /// Open, list and close the tokens that nodes join with.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make this node a member of a cluster.
    Join {
        /// Addresses of members, of which one has to answer; the port is 7400
        /// unless one is given.
        #[arg(value_delimiter = ',', required = true, value_parser = member)]
        addresses: Vec<String>,
        /// File with the token, "-" for standard input, of a terminal its next
        /// line; or VIPD_JOIN_TOKEN in the environment. Never on the command line.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// Take this node out of its cluster; hands over what it holds first.
    Leave {
        /// Without the cluster's consent: no quorum, or removed already.
        #[arg(long)]
        force: bool,
    },
    /// The cluster at a glance: who leads, who holds what, what is wrong.
    Status {
        /// Again each second, until it is interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// List members, keep VIPs off one, or remove one.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Add, list, move, change and remove virtual IPs.
    #[command(subcommand)]
    Vip(VipCommand),
    /// Add, list, change and remove virtual servers: which of a VIP's ports are forwarded,
    /// and to whom.
    #[command(subcommand)]
    Vs(VsCommand),
    /// Add and remove the real servers of a virtual one, drain them, weigh them.
    #[command(subcommand)]
    Real(RealCommand),
    /// What happened, oldest first: what moved when and why, who changed what. In
    /// JSON one object a line.
    Events {
        /// Go on as things happen, until it is interrupted.
        #[arg(long)]
        follow: bool,
    },
    /// Issue a certificate for remote use and keep it as a context; list and
    /// revoke those there are.
    #[command(args_conflicts_with_subcommands = true)]
    Login(Login),
    /// Replace the CA that signs certificates.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Check this host: what it needs, before it joins and after.
    Doctor,
    /// Write what the cluster knows to a file; no private key is in it.
    Backup {
        /// The file; an older one is replaced once the new one is whole.
        file: PathBuf,
    },
    /// Make a new cluster of this node, which is in none, with a backup's VIPs,
    /// names and events.
    Restore {
        /// The backup.
        file: PathBuf,
    },
    /// The last resort after the loss of a majority: make a new cluster of this
    /// voter. If others of the old one are alive, two clusters claim the VIPs.
    Recover {
        /// That it is to be a new cluster.
        #[arg(long, required = true)]
        force_new_cluster: bool,
        /// That vipd runs on none of the others, and will not by itself.
        #[arg(long, required = true)]
        others_are_off: bool,
    },
}

impl Command {
    /// Whether it is about this host and no other.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Restore { .. } | Self::Recover { .. })
    }

    /// Whether it changes anything.
    pub(crate) fn changes(&self) -> bool {
        use {NodeCommand as N, TokenCommand as T, VipCommand as V, VsCommand as S};
        match self {
            Self::Status { .. } | Self::Events { .. } | Self::Doctor | Self::Backup { .. } => false,
            Self::Token(command) => !matches!(command, T::List),
            Self::Node(command) => !matches!(command, N::List | N::Show { .. }),
            Self::Vip(command) => !matches!(command, V::List | V::Show { .. }),
            Self::Vs(command) => !matches!(command, S::List | S::Show { .. }),
            Self::Login(login) => !matches!(login.command, Some(LoginCommand::List)),
            Self::Init { .. }
            | Self::Real(_)
            | Self::Join { .. }
            | Self::Leave { .. }
            | Self::Ca(_)
            | Self::Restore { .. }
            | Self::Recover { .. } => true,
        }
    }

    /// Whether it is given the root CA's key.
    pub(crate) fn needs_root_key(&self) -> bool {
        match self {
            Self::Node(NodeCommand::Remove { root_key_file, .. }) => root_key_file.is_some(),
            Self::Ca(CaCommand::Rotate { .. }) => true,
            _ => false,
        }
    }
}

#[derive(Args)]
pub(crate) struct Login {
    #[command(subcommand)]
    pub(crate) command: Option<LoginCommand>,
    /// Who.
    #[arg(long, default_value = "root")]
    pub(crate) user: String,
    /// viewer, operator or admin.
    #[arg(long, default_value = "viewer")]
    pub(crate) role: AdminRole,
    /// Name of the context; default: the cluster's name.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum LoginCommand {
    /// Who has a certificate.
    List,
    /// End all certificates of a person, and their connections.
    Revoke {
        /// The user.
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum CaCommand {
    /// Replace it: on a voter, with the root CA's key. Members take new
    /// certificates without an interruption; people log in again.
    Rotate {
        /// File with the root CA's key, "-" for standard input. Used on this
        /// node, passed on to no other.
        #[arg(long, value_name = "FILE")]
        root_key_file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Open a token.
    Create {
        /// voter, learner or witness.
        #[arg(long, default_value = "voter")]
        role: Role,
        /// How long it is good for, at most 24h.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// How many nodes it admits.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// Print the token alone.
        #[arg(short, long)]
        quiet: bool,
    },
    /// List tokens, without their secrets.
    List,
    /// Close a token.
    Revoke {
        /// Its id.
        id: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// All members, and which VIPs they cannot hold.
    List,
    /// One member, and what it cannot hold.
    Show {
        /// Its name.
        name: String,
    },
    /// Keep VIPs off a node.
    Drain {
        /// Its name.
        name: String,
    },
    /// Let them back.
    Undrain {
        /// Its name.
        name: String,
    },
    /// End a membership for good.
    Remove {
        /// Its name.
        name: String,
        /// Somebody may have broken into it: replace the issuing CA too, whose
        /// key it may have kept. Without the root's key, status warns until
        /// `vipctl ca rotate` has done it.
        #[arg(long)]
        for_cause: bool,
        /// File with the root CA's key, "-" for standard input. Read after the
        /// removal, used on this node, passed on to no other.
        #[arg(long, value_name = "FILE", requires = "for_cause")]
        root_key_file: Option<PathBuf>,
    },
}

fn param(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let pair = pair.ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

#[derive(Args)]
pub(crate) struct VipAdd {
    /// Its name.
    pub(crate) name: String,
    /// Address with prefix length; several move together.
    #[arg(long = "address", required = true, value_name = "CIDR")]
    pub(crate) addresses: Vec<String>,
    /// Cluster-wide interface name; default: the one in whose subnet it is.
    #[arg(long)]
    pub(crate) interface: Option<String>,
    /// leader or sticky.
    #[arg(long, default_value = "leader")]
    pub(crate) placement: Placement,
    /// How the network is told where it is: garp (it is announced), lb (a load balancer asks
    /// each node for /v1/vip/NAME, and the address is on loopback), or exec (a program on the
    /// holder moves it).
    #[arg(long, default_value = "garp")]
    pub(crate) via: Via,
    /// What that has to know: file=NAME of a program, with --via exec.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = param)]
    pub(crate) params: Vec<(String, String)>,
    /// Claim the addresses although another host answers for them; a member's
    /// answer refuses in any case.
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// Return when the cluster knows of it, and keep it though no node can hold
    /// it.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct VipSet {
    /// Its name.
    pub(crate) name: String,
    /// All addresses that it is to have, with their prefix lengths.
    #[arg(long = "address", value_name = "CIDR", group = "what")]
    pub(crate) addresses: Vec<String>,
    /// Cluster-wide interface name; "": the one in whose subnet it is.
    #[arg(long, group = "what")]
    pub(crate) interface: Option<String>,
    /// leader or sticky.
    #[arg(long, group = "what")]
    pub(crate) placement: Option<Placement>,
    /// How the network is told where it is: garp, lb or exec.
    #[arg(long, group = "what")]
    pub(crate) via: Option<Via>,
    /// What that has to know.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = param, group = "what")]
    pub(crate) params: Vec<(String, String)>,
    /// Claim the addresses although another host answers for them; a member's
    /// answer refuses in any case.
    #[arg(long, group = "what")]
    pub(crate) no_probe: bool,
}

#[derive(Subcommand)]
pub(crate) enum VipCommand {
    /// Add a VIP.
    Add(VipAdd),
    /// All VIPs, and which nodes cannot hold them.
    List,
    /// One VIP, and which nodes cannot hold it.
    Show {
        /// Its name.
        name: String,
    },
    /// Move a VIP to a node and pin it there, or let placement decide again.
    #[command(group = clap::ArgGroup::new("where").required(true))]
    Move {
        /// Its name.
        name: String,
        /// The node; the VIP stays there until that fails, or `--auto`.
        #[arg(long, group = "where")]
        to: Option<String>,
        /// Where its placement wants it; ends a pin.
        #[arg(long, group = "where")]
        auto: bool,
    },
    /// Change a VIP while it answers. What it is to have as well is prepared
    /// first, and nothing is changed if that cannot be; what it has falls silent
    /// for a moment only if addresses go or the interface changes.
    Set(VipSet),
    /// Remove a VIP.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum VsCommand {
    /// Add a virtual server. Returns when the VIP's holder forwards for it.
    Add(Box<VsAdd>),
    /// All virtual servers.
    List,
    /// One virtual server: its real servers, what was forwarded to them, and what each
    /// node has of it.
    Show {
        /// Its name.
        name: String,
        /// What has to be set up on its real servers.
        #[arg(long)]
        setup: bool,
    },
    /// Have every observer probe the real servers now, and print what each sees. No verdict
    /// follows.
    Check {
        /// Its name.
        name: String,
        /// One real server; default: all.
        #[arg(value_name = "ADDR[:PORT]")]
        real: Option<String>,
    },
    /// Change a virtual server. Connections stay with the real servers that they have.
    Set(Box<VsSet>),
    /// Remove a virtual server, and with it its connections.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Args)]
pub(crate) struct RealPlace {
    /// The virtual server.
    pub(crate) vs: String,
    /// The real server.
    #[arg(value_name = "ADDR[:PORT]")]
    pub(crate) real: String,
}

#[derive(Subcommand)]
pub(crate) enum RealCommand {
    /// Add a real server.
    Add {
        /// The virtual server.
        vs: String,
        /// The real server.
        #[arg(value_name = "ADDR[:PORT][@WEIGHT]")]
        real: String,
    },
    /// Remove a real server, and with it its connections.
    Remove(RealPlace),
    /// Keep new connections off a real server; it keeps those that it has.
    Drain(RealPlace),
    /// Let them back.
    Undrain(RealPlace),
    /// Another share of new connections; 0: none.
    SetWeight {
        /// Which.
        #[command(flatten)]
        place: RealPlace,
        /// 0 to 256.
        weight: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_a_port_however_its_address_is_written() {
        for (written, meant) in [
            ("n1", "n1:7400"),
            ("n1:7500", "n1:7500"),
            ("192.0.2.1", "192.0.2.1:7400"),
            ("2001:db8::1", "[2001:db8::1]:7400"),
            ("[2001:db8::1]", "[2001:db8::1]:7400"),
            ("[2001:db8::1]:7500", "[2001:db8::1]:7500"),
        ] {
            assert_eq!(member(written).as_deref(), Ok(meant));
        }
        for bad in ["", ":7400", "n1:", "n1:http", "2001:db8::xyz", "n1:99999", "fd50::1:7400"] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_alone_is_seconds() {
        assert_eq!(timeout("30"), Ok(Duration::from_secs(30)));
        assert_eq!(timeout("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(timeout("soon").is_err());
    }

    #[test]
    fn a_move_needs_a_place_and_one_only() {
        let parse = |words: &[&str]| {
            Cli::try_parse_from([&["vipctl", "vip", "move", "web"], words].concat())
        };
        let missing = parse(&[]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(missing.contains("--to") && missing.contains("--auto"), "{missing}");
        assert!(parse(&["--to", "n1", "--auto"]).is_err());
        assert!(parse(&["--to", "n1"]).is_ok() && parse(&["--auto"]).is_ok());
    }
}
