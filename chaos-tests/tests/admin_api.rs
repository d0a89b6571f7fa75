//! The admin API from outside: a client of stock tools, and who may call what.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// For a Python with grpcio-tools.
fn script() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admin_client.py").display().to_string()
}

fn two_nodes() -> Result<Cluster> {
    Cluster::formed(&Options { nodes: 2, ..Options::default() })
}

#[test]
fn a_client_made_by_stock_protoc_does_the_main_job() -> Result<()> {
    let cluster = two_nodes()?;
    let socket = cluster.host("n1").dir().join("admin.sock").display().to_string();
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto").display().to_string();
    let python = chaos_tests::python()?.display().to_string();
    let out = chaos_tests::run(&python, &[&script(), "local", &socket, &protos])?.ok()?;
    assert_eq!(out.trim(), "ok");
    Ok(())
}

const LOCAL_ONLY: [&str; 6] =
    ["Host/Init", "Host/Join", "Host/Leave", "Host/RotateCa", "Host/Recover", "Host/Restore"];
/// Root's, on a voter, which passes it on.
const ROOT_OF_VOTER: [&str; 1] = ["Logins/Login"];
const VIEWER: [&str; 9] = [
    "Tokens/ListTokens",
    "Logins/ListLogins",
    "Overview/Status",
    "Nodes/ListNodes",
    "Vips/ListVips",
    "Servers/ListServers",
    "Servers/ShowServer",
    "Overview/Events",
    "Host/Doctor",
];
const OPERATOR: [&str; 13] = [
    "Nodes/DrainNode",
    "Vips/AddVip",
    "Vips/MoveVip",
    "Vips/SetVip",
    "Vips/RemoveVip",
    "Servers/AddServer",
    "Servers/SetServer",
    "Servers/RemoveServer",
    "Servers/AddReal",
    "Servers/RemoveReal",
    "Servers/CheckServer",
    "Servers/DrainReal",
    "Servers/WeighReal",
];
const ADMIN: [&str; 5] = [
    "Tokens/CreateToken",
    "Tokens/RevokeToken",
    "Logins/RevokeLogin",
    "Nodes/RemoveNode",
    "Overview/Backup",
];
const MEMBERS: [&str; 20] = [
    "Raft/Append",
    "Raft/Vote",
    "Raft/PreVote",
    "Raft/InstallSnapshot",
    "Raft/TransferLeader",
    "Cluster/Activate",
    "Cluster/RenewCertificate",
    "Cluster/Reissued",
    "Cluster/RotateIssuer",
    "Cluster/LookBack",
    "Cluster/HowFar",
    "Cluster/FetchIssuer",
    "Lease/Renew",
    "Lease/Grant",
    "Lease/Report",
    "Lease/Abdicate",
    "Tables/LookAtTable",
    "Edges/TellEdges",
    "Probes/Hasten",
    "Probes/ProbeNow",
];
const ANYBODY: [&str; 2] = ["Cluster/Identify", "Cluster/Join"];
/// On connections of their own (ALPN), so not served here to anybody.
const ELSEWHERE: &str = "/vip.v1.Lease/";
const STANDARD: [&str; 2] =
    ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"];

fn ours(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("/vip.v1.{name}")).collect()
}

/// Every RPC of our .proto files, read from the files themselves, so that a
/// new one cannot be forgotten here.
fn all_rpcs() -> Result<BTreeSet<String>> {
    let mut rpcs: BTreeSet<String> = STANDARD.map(str::to_owned).into();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/vip/v1");
    for file in std::fs::read_dir(dir)? {
        let text = std::fs::read_to_string(file?.path())?;
        let mut service = String::new();
        for line in text.lines() {
            let mut words = line.split([' ', '(', '{']).filter(|w| !w.is_empty());
            match words.next() {
                Some("service") => service = words.next().context("a name")?.to_owned(),
                Some("rpc") => {
                    let name = words.next().context("a name")?;
                    rpcs.insert(format!("/vip.v1.{service}/{name}"));
                }
                _ => {}
            }
        }
    }
    Ok(rpcs)
}

#[test]
fn every_rpc_is_denied_to_everybody_it_is_not_for() -> Result<()> {
    let cluster = two_nodes()?;
    let (n1, dir) = (cluster.host("n1"), cluster.dir().clone());
    let mut certificates = vec!["nobody=".to_owned()];
    let mut server_name = String::new();
    for role in ["viewer", "operator", "admin"] {
        let home = dir.join(role);
        let ctl = chaos_tests::binaries()?.join("vipctl").display().to_string();
        let home_variable = format!("XDG_CONFIG_HOME={}", home.display());
        let context = n1.login(&home, "eve", role)?;
        for part in ["key", "chain"] {
            std::fs::write(home.join(part), context[part].as_str().context("text")?)?;
        }
        server_name = context["server_name"].as_str().context("text")?.to_owned();
        certificates.push(format!("{role}={0}/key,{0}/chain", home.display()));
        // And by vipctl itself, from another host.
        let remote = [home_variable.as_str(), &ctl, "--context", "test", "-o", "json", "status"];
        let status = cluster.host("n2").exec("env", &remote)?.ok()?;
        assert!(status.contains("\"cluster\": \"test\""), "{status}");
    }
    let pki = cluster.host("n2").dir().join("data/pki");
    certificates.push(format!("node={0}/node.key,{0}/node.crt", pki.display()));
    let chain = std::fs::read_to_string(dir.join("viewer/chain"))?;
    let root = chain.rfind("-----BEGIN").map(|at| &chain[at..]).context("a root")?;
    std::fs::write(dir.join("root"), root)?;

    let rpcs = all_rpcs()?;
    let rules = serde_json::to_string(&rpcs)?;
    let root = dir.join("root").display().to_string();
    let (python, script) = (chaos_tests::python()?.display().to_string(), script());
    let fixed = [script.as_str(), "access", "10.77.0.1:7400", &server_name, &root, &rules];
    let arguments: Vec<&str> =
        fixed.into_iter().chain(certificates.iter().map(String::as_str)).collect();
    // From the other node's host: the network is a namespace.
    let out = cluster.host("n2").exec(&python, &arguments)?.ok()?;
    let open: Value = serde_json::from_str(out.trim())?;
    let open_to = |who: &str| -> BTreeSet<String> {
        let list = open[who].as_array().into_iter().flatten();
        list.filter_map(|p| p.as_str().map(str::to_owned)).collect()
    };
    let standard: BTreeSet<String> = STANDARD.map(str::to_owned).into();
    let served = |paths: BTreeSet<String>| -> BTreeSet<String> {
        paths.into_iter().filter(|p| !p.starts_with(ELSEWHERE)).collect()
    };
    let anybody = ours(&ANYBODY);
    let viewer = &(&ours(&VIEWER) | &standard) | &anybody;
    let operator = &viewer | &ours(&OPERATOR);
    let administrator = &operator | &ours(&ADMIN);
    let node = &(&administrator | &ours(&MEMBERS)) | &ours(&ROOT_OF_VOTER);

    assert_eq!(open_to("nobody"), anybody);
    assert_eq!(open_to("viewer"), viewer);
    assert_eq!(open_to("operator"), operator);
    assert_eq!(open_to("admin"), administrator);
    assert_eq!(served(open_to("node")), served(node.clone()));
    // Nothing was left out above.
    let local = ours(&LOCAL_ONLY);
    assert_eq!(&node | &local, rpcs);
    Ok(())
}

/// A person's certificate ends at the removal of the cluster's trust in it:
/// one that was made elsewhere is worth nothing.
#[test]
fn a_certificate_of_another_cluster_is_refused() -> Result<()> {
    let cluster = Cluster::bare(&Options { nodes: 2, ..Options::default() })?;
    let ctl = chaos_tests::binaries()?.join("vipctl").display().to_string();
    for name in ["n1", "n2"] {
        cluster.host(name).ctl_ok(&["init", "--name", name])?;
    }
    let home = format!("XDG_CONFIG_HOME={}", cluster.dir().display());
    let socket = cluster.host("n2").dir().join("admin.sock").display().to_string();
    chaos_tests::run("env", &[&home, &ctl, "--socket", &socket, "login", "--role", "admin"])?
        .ok()?;
    // Its holder points it at the other cluster.
    let path = cluster.dir().join("vipctl/n2.json");
    let text = std::fs::read_to_string(&path)?.replace("10.77.0.2:7400", "10.77.0.1:7400");
    std::fs::write(&path, text)?;
    let outcome = cluster.host("n2").exec("env", &[&home, &ctl, "--context", "n2", "status"])?;
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    wait_for("n1 is untouched", Duration::from_secs(5), || {
        cluster.status("n1").ok().filter(|s| s.quorum)
    })?;
    Ok(())
}
