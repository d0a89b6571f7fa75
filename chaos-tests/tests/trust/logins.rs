//! Certificates of people.

use crate::attacker::{Attacker, LIMIT, on};
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options};
use vip_core::NodeId;
use vip_pki::{Connector, NodeIdentity, NodeKey, PkiDir, node_server_name};
use vip_proto::{ALPN_GRPC, v1};

/// Somebody with a voter's issuing key signs what it likes, and the log lists
/// none of it.
#[test]
fn a_stolen_issuing_key_makes_no_admin() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 2, ..Options::default() })?;
    let n1 = cluster.host("n1");
    let issuer = PkiDir::new(&n1.dir().join("data")).load_issuer()?.context("an issuer")?;
    let ours = Attacker::with_key_of(n1)?;
    let key = NodeKey::generate()?;
    let (eve, role) = ("eve".parse()?, vip_core::AdminRole::Admin);
    let chain = issuer.sign_user(&key.csr()?, &eve, role, &ours.cluster)?;
    let forged = NodeIdentity { key, chain };
    let refused = on(&cluster.lab, "n2", async || {
        let connector = Connector {
            address: "10.77.0.1:7400".into(),
            server_name: node_server_name(NodeId(1), &ours.cluster),
            config: vip_pki::user_config(&forged, ALPN_GRPC)?,
            timeout: LIMIT,
            unacknowledged: LIMIT,
        };
        let channel = connector.connected_channel().await?;
        let mut admin = v1::tokens_client::TokensClient::new(channel);
        let request = v1::CreateTokenRequest::default();
        admin.create_token(request).await.err().context("a token was made")
    })?;
    assert!(std::error::Error::source(&refused).is_some(), "no connection at all: {refused}");
    assert!(!n1.ctl_ok(&["token", "list"])?.contains("eve"));
    Ok(())
}

/// Reads what the command prints, until it ends by itself.
fn followed(cluster: &Cluster, home: &str) -> Result<std::process::Child> {
    let ctl = chaos_tests::binaries()?.join("vipctl");
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", &cluster.lab.namespace("n2"), "env", home]).arg(ctl);
    command.args(["--context", "test", "events", "--follow"]);
    Ok(command.stdout(std::process::Stdio::null()).spawn()?)
}

#[test]
fn a_login_is_listed_and_ends_when_it_is_revoked() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 2, ..Options::default() })?;
    let ctl = chaos_tests::binaries()?.join("vipctl").display().to_string();
    let home = format!("XDG_CONFIG_HOME={}", cluster.dir().display());
    // By a follower, and used there at once.
    cluster.host("n2").login(cluster.dir(), "eve", "admin")?;
    let remote = |arguments: &[&str]| {
        let context = [home.as_str(), &ctl, "--context", "test"];
        cluster.host("n1").exec("env", &[&context, arguments].concat())
    };
    remote(&["token", "create"])?.ok()?;
    let listed = remote(&["login", "list"])?.ok()?;
    assert!(listed.contains("eve") && listed.contains("admin"), "{listed}");
    let mut follows = followed(&cluster, &home)?;
    chaos_tests::wait_for("eve follows", LIMIT, || {
        let open = cluster.host("n2").exec("ss", &["-Htn", "state", "established"]);
        open.ok().filter(|out| out.stdout.lines().any(|l| l.contains(":7400"))).map(|_| ())
    })?;

    cluster.host("n1").ctl_ok(&["login", "revoke", "eve"])?;
    let refused = remote(&["status"])?;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    chaos_tests::wait_for("what eve followed ends", LIMIT, || follows.try_wait().ok().flatten())?;
    let events = cluster.host("n1").ctl_ok(&["events"])?;
    for what in ["eve was given a certificate as admin", "all certificates of eve were revoked"] {
        assert!(events.contains(what), "{events}");
    }
    assert!(!cluster.host("n1").ctl_ok(&["login", "list"])?.contains("eve"));
    let again = cluster.host("n1").ctl(&["login", "revoke", "eve"])?;
    assert!(again.stderr.contains("eve has no login"), "{again:?}");
    Ok(())
}
