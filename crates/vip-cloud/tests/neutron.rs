//! OpenStack's network service and identity service, as they are: Neutron and Keystone.

#[allow(dead_code, reason = "one test needs all of it")]
mod proxy;

use proxy::{Does, Proxy};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vip_cloud::{Ask, Environment, OpenStackSection, Providers, Sections};
use vip_core::{CloudReply, Provider, Verb, Via, VipSpec};

const LIMIT: Duration = Duration::from_secs(20);
const VIP: &str = "10.77.0.100";
const USER: &str = "vipd";

/// Both services, with a network of three hosts; they end with the value.
struct Cloud {
    process: Child,
    made: Value,
    _dir: tempfile::TempDir,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port().to_string()
}

impl Cloud {
    fn start() -> Self {
        let python = here("../../target/openstack/bin/python");
        assert!(python.exists(), "no Neutron: run `cargo xtask test` once");
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join("cloud");
        let mut command = Command::new(python);
        command.arg(here("tests/neutron_cloud.py")).arg(&place).args(["127.0.0.1", &port()]);
        command.arg(port()).args(["10.77.0.11", "10.77.0.12", "10.77.0.13"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("it starts");
        let mut cloud = Self { process, made: Value::Null, _dir: dir };
        let until = Instant::now() + Duration::from_secs(120);
        cloud.made = loop {
            if let Ok(text) = std::fs::read_to_string(&place) {
                break serde_json::from_str(&text).expect("JSON");
            }
            let ended = cloud.process.try_wait().expect("a process");
            assert!(ended.is_none() && Instant::now() < until, "it does not answer: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        cloud
    }

    fn text(&self, key: &str) -> &str {
        self.made[key].as_str().expect("a text")
    }

    fn port(&self, host: usize) -> &str {
        self.made["ports"][host].as_str().expect("a port")
    }

    fn network(&self) -> SocketAddr {
        self.text("network").trim_start_matches("http://").parse().expect("an address")
    }

    /// One of its hosts, as a user calls; what else its environment says.
    fn host_as(&self, host: usize, user: &str, more: &[(&'static str, &str)]) -> Providers {
        let project = self.text("project");
        let mut all = vec![
            ("OS_AUTH_URL", self.text("identity")),
            ("OS_USERNAME", user),
            ("OS_PASSWORD", self.text("password")),
            ("OS_PROJECT_ID", project),
            ("OS_REGION_NAME", "one"),
        ];
        all.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        all.extend(more);
        let openstack = OpenStackSection { port: self.port(host).to_owned() };
        let sections = Sections { openstack, ..Sections::default() };
        Providers::new(sections, all.into_iter().collect(), None)
    }

    /// By an application credential.
    fn host_with(&self, host: usize, key: &str, more: &[(&'static str, &str)]) -> Providers {
        let of = |at: usize| self.made[key][at].as_str().expect("a text");
        let credential =
            [("OS_APPLICATION_CREDENTIAL_ID", of(0)), ("OS_APPLICATION_CREDENTIAL_SECRET", of(1))];
        self.host_as(host, USER, &[&credential[..], more].concat())
    }

    /// As it is shipped.
    fn host(&self, host: usize) -> Providers {
        self.host_with(host, "credential", &[])
    }

    /// Behind a proxy.
    fn host_behind(&self, host: usize, proxy: &Proxy) -> Providers {
        let endpoint = proxy.endpoint();
        self.host_with(host, "credential", &[("OS_NETWORK_ENDPOINT_OVERRIDE", &endpoint)])
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// By `openstack-port`.
fn moved(addresses: &[&str]) -> VipSpec {
    VipSpec {
        name: "web".parse().expect("a name"),
        addresses: addresses.iter().map(|ip| format!("{ip}/24").parse().expect("valid")).collect(),
        interface: None,
        placement: vip_core::Placement::Sticky,
        no_probe: false,
        via: Via::OpenstackPort,
        params: [].into(),
    }
}

/// By `openstack-pair`.
fn paired(address: &str, port: &str) -> VipSpec {
    let params = [("port".to_owned(), port.to_owned())].into();
    VipSpec { via: Via::OpenstackPair, params, ..moved(&[address]) }
}

async fn call(node: &Providers, spec: &VipSpec, verb: Verb) -> CloudReply {
    node.call(&Ask { spec: spec.clone(), verb, limit: LIMIT, announced: None }).await
}

/// What it says of where it is.
async fn token(node: &Providers, spec: &VipSpec) -> String {
    match call(node, spec, Verb::Observe).await {
        CloudReply::Elsewhere(token) => token,
        other => panic!("{other:?}"),
    }
}

async fn take(node: &Providers, spec: &VipSpec, token: &str) -> CloudReply {
    call(node, spec, Verb::Take(token.to_owned())).await
}

/// Why nothing came of it, be that for now.
async fn failed(node: &Providers, spec: &VipSpec, verb: Verb) -> String {
    match call(node, spec, verb).await {
        CloudReply::Failed(why) | CloudReply::Busy(why) => why,
        other => panic!("{other:?}"),
    }
}

/// One after the other, in one cloud: it takes ten seconds to start.
#[tokio::test]
async fn all_of_it() {
    let cloud = Cloud::start();
    an_address_is_at_one_port_and_a_late_call_is_refused(&cloud).await;
    two_addresses_move_together_from_wherever_they_are(&cloud).await;
    many_move_at_once(&cloud).await;
    what_a_port_keeps_and_what_is_elsewhere_is_no_vip(&cloud).await;
    a_takeover_by_pairs_waits_for_no_api(&cloud).await;
    who_calls_counts(&cloud).await;
    a_token_that_is_refused_is_asked_for_once_more(&cloud).await;
    what_goes_wrong_on_the_way_is_said(&cloud).await;
    an_examination_says_what_it_found(&cloud).await;
}

async fn an_address_is_at_one_port_and_a_late_call_is_refused(cloud: &Cloud) {
    let (spec, [one, two]) = (moved(&[VIP]), [0, 1].map(|host| cloud.host(host)));
    let first = token(&one, &spec).await;
    assert!(first.ends_with(" none"), "{first}");
    assert_eq!(take(&one, &spec, &first).await, CloudReply::Done);
    assert_eq!(call(&one, &spec, Verb::Observe).await, CloudReply::Here);
    let at_one = token(&two, &spec).await;
    assert!(at_one.contains(cloud.port(0)), "{at_one}");

    // Between the two changes that this takes.
    let seen_by_one = first.clone();
    let proxy = Proxy::before(cloud.network(), "PUT /v2.0/ports", Does::Loses);
    let half = take(&cloud.host_behind(1, &proxy), &spec, &at_one).await;
    assert!(matches!(&half, CloudReply::Failed(why) if why.contains("port update")), "{half:?}");
    let nowhere = token(&two, &spec).await;
    assert!(nowhere.ends_with(" none"), "{nowhere}");
    assert_eq!(take(&two, &spec, &nowhere).await, CloudReply::Done);
    assert_eq!(call(&two, &spec, Verb::Observe).await, CloudReply::Here);

    // Late calls of the earlier holder, by all that it ever saw.
    for seen in [&seen_by_one, &token(&one, &spec).await.replace('@', "@9")] {
        let late = failed(&one, &spec, Verb::Take(seen.clone())).await;
        assert!(late.contains("HTTP 412") || late.contains("HTTP 409"), "{late}");
        assert_eq!(call(&two, &spec, Verb::Observe).await, CloudReply::Here);
    }
    // Even by its own port as it is now: nobody else's is touched.
    let now = token(&one, &spec).await;
    let (own, _) = now.split_once(' ').expect("a revision");
    let late = failed(&one, &spec, Verb::Take(format!("{own} none"))).await;
    assert!(late.contains("HTTP 409") && late.contains("already allocated"), "{late}");
    assert_eq!(call(&two, &spec, Verb::Observe).await, CloudReply::Here);

    assert_eq!(call(&one, &spec, Verb::Release).await, CloudReply::Done);
    assert_eq!(call(&two, &spec, Verb::Observe).await, CloudReply::Here, "it was not one's");
    assert_eq!(call(&two, &spec, Verb::Release).await, CloudReply::Done);
    assert!(token(&two, &spec).await.ends_with(" none"));
    // It is nobody's, and is taken for no late call.
    let late = failed(&one, &spec, Verb::Take(seen_by_one)).await;
    assert!(late.contains("HTTP 412"), "{late}");
    assert!(token(&two, &spec).await.ends_with(" none"));
    // What else the ports have stays.
    for host in 0..2 {
        let own = moved(&[&format!("10.77.0.{}", 11 + host)]);
        assert_eq!(call(&cloud.host(host), &own, Verb::Observe).await, CloudReply::Here);
    }
}

async fn two_addresses_move_together_from_wherever_they_are(cloud: &Cloud) {
    let ips = ["10.77.0.101", "10.77.0.102"];
    let [one, two, three] = [0, 1, 2].map(|host| cloud.host(host));
    for (node, ip) in [(&one, ips[0]), (&two, ips[1])] {
        let spec = moved(&[ip]);
        let seen = token(node, &spec).await;
        assert_eq!(take(node, &spec, &seen).await, CloudReply::Done);
    }
    let both = moved(&ips);
    let seen = token(&three, &both).await;
    assert!(seen.contains(cloud.port(0)) && seen.contains(cloud.port(1)), "{seen}");
    assert!(seen.len() <= vip_core::MAX_TOKEN / 2, "{seen}");
    assert_eq!(take(&three, &both, &seen).await, CloudReply::Done);
    assert_eq!(call(&three, &both, Verb::Observe).await, CloudReply::Here);
    // From one port, as one change.
    let seen = token(&one, &both).await;
    assert_eq!(take(&one, &both, &seen).await, CloudReply::Done);
    assert_eq!(call(&one, &both, Verb::Release).await, CloudReply::Done);
}

/// All of them change the same ports, each from what it saw before the others did.
async fn many_move_at_once(cloud: &Cloud) {
    let specs: Vec<_> = (200..208).map(|last| moved(&[&format!("10.77.0.{last}")])).collect();
    for host in [0, 1] {
        let node = Arc::new(cloud.host(host));
        let mut seen = vec![];
        for spec in &specs {
            seen.push(token(&node, spec).await);
        }
        let mut taken = tokio::task::JoinSet::new();
        for (spec, seen) in specs.iter().cloned().zip(seen) {
            let node = node.clone();
            taken.spawn(async move { take(&node, &spec, &seen).await });
        }
        for reply in taken.join_all().await {
            assert_eq!(reply, CloudReply::Done);
        }
        for spec in &specs {
            assert_eq!(call(&node, spec, Verb::Observe).await, CloudReply::Here);
        }
    }
    let last = cloud.host(1);
    for spec in &specs {
        assert_eq!(call(&last, spec, Verb::Release).await, CloudReply::Done);
    }
}

async fn what_a_port_keeps_and_what_is_elsewhere_is_no_vip(cloud: &Cloud) {
    let one = cloud.host(0);
    for (ip, why) in [
        ("10.77.0.12", "10.77.0.12 is the address that port"),
        ("10.78.0.1", "is in no subnet of the network"),
    ] {
        let said = one.check(&moved(&[ip])).await.expect_err(ip);
        assert!(said.contains(why), "{said}");
    }
    let theirs = moved(&["10.77.0.12"]);
    let seen = token(&one, &theirs).await;
    let said = failed(&one, &theirs, Verb::Take(seen)).await;
    assert!(said.contains("take one that is free"), "{said}");
    assert_eq!(one.check(&moved(&[VIP])).await, Ok(()));
    assert!(token(&one, &moved(&[VIP])).await.ends_with(" none"), "it was a trial");
}

async fn a_takeover_by_pairs_waits_for_no_api(cloud: &Cloud) {
    let spec = paired("10.77.0.120", cloud.text("reserved"));
    let [one, two] = [0, 1].map(|host| cloud.host(host));
    assert_eq!(one.check(&spec).await, Ok(()));
    let seen = token(&one, &spec).await;
    assert_eq!(take(&one, &spec, &seen).await, CloudReply::Done);
    assert_eq!(call(&one, &spec, Verb::Observe).await, CloudReply::Here);
    let late = failed(&cloud.host(0), &paired("10.77.0.121", ""), Verb::Take(seen)).await;
    assert!(late.contains("HTTP 412"), "{late}");
    // The next one is let do so before it is needed; and then nothing is asked.
    two.keep_warm(Provider::OpenStack, std::slice::from_ref(&spec)).await;
    let proxy = Proxy::before(cloud.network(), "GET /v2.0/ports/", Does::Hangs);
    assert_eq!(call(&two, &spec, Verb::Observe).await, CloudReply::Here);
    let cut_off = cloud.host_behind(1, &proxy);
    assert!(failed(&cut_off, &spec, Verb::Observe).await.contains("no answer"));
    two.keep_warm(Provider::OpenStack, std::slice::from_ref(&spec)).await;
    assert_eq!(call(&two, &spec, Verb::Observe).await, CloudReply::Here);
    for (port, why) in [
        (cloud.port(1), "does not keep 10.77.0.120 from others"),
        ("01234567-89ab-cdef-0123-456789abcdef", "HTTP 404"),
    ] {
        let said = one.check(&paired("10.77.0.120", port)).await.expect_err(port);
        assert!(said.contains(why), "{said}");
    }
}

async fn who_calls_counts(cloud: &Cloud) {
    let spec = moved(&[VIP]);
    let reader = cloud.host_as(0, "reader", &[]);
    let seen = token(&reader, &spec).await;
    for said in [
        failed(&reader, &spec, Verb::Take(seen)).await,
        reader.check(&spec).await.expect_err("it may not"),
    ] {
        assert!(said.contains("HTTP 403") && said.contains("disallowed by policy"), "{said}");
    }
    let by_password = cloud.host_as(0, USER, &[]);
    assert_eq!(by_password.check(&spec).await, Ok(()));
    // By the access rules that are shipped, less the one that changes anything.
    let looks = cloud.host_with(0, "looks", &[]);
    let seen = token(&looks, &spec).await;
    let said = failed(&looks, &spec, Verb::Take(seen)).await;
    assert!(said.contains("port update: HTTP 401"), "{said}");
    let wrong = cloud.host_as(0, USER, &[("OS_PASSWORD", "wrong-secret")]);
    let said = failed(&wrong, &spec, Verb::Observe).await;
    assert!(said.contains("identity: HTTP 401") && !said.contains("wrong-secret"), "{said}");
    let nowhere = cloud.host_as(0, USER, &[("OS_REGION_NAME", "two")]);
    let said = failed(&nowhere, &spec, Verb::Observe).await;
    assert!(said.contains("no public network service in two"), "{said}");
    let none = Providers::new(Sections::default(), Environment::default(), None);
    let said = failed(&none, &spec, Verb::Observe).await;
    assert!(said.contains("cloud.openstack.port"), "{said}");
}

async fn a_token_that_is_refused_is_asked_for_once_more(cloud: &Cloud) {
    let (spec, one) = (moved(&[VIP]), cloud.host(0));
    let proxy = Proxy::before(
        cloud.network(),
        "GET /v2.0/ports/",
        Does::Says("401 Unauthorized", json!({ "error": { "message": "revoked" } }).to_string()),
    );
    let revoked = cloud.host_behind(0, &proxy);
    let said = failed(&revoked, &spec, Verb::Observe).await;
    assert!(said.contains("HTTP 401: revoked"), "twice: {said}");
    assert!(token(&one, &spec).await.ends_with(" none"));
}

async fn what_goes_wrong_on_the_way_is_said(cloud: &Cloud) {
    let spec = moved(&[VIP]);
    let says = |status, body: &str| Does::Says(status, body.to_owned());
    for (does, busy, text) in [
        (says("429 Too Many Requests", r#"{"error":"slow down"}"#), true, "slow down"),
        (says("503 Service Unavailable", "<html>"), true, "HTTP 503"),
        (says("302 Found", ""), false, "HTTP 302"),
        (says("200 OK", "{}"), false, "what it says is none"),
        (says("200 OK", "[]"), false, "what it says is none"),
        (says("200 OK", "nonsense"), false, "no JSON"),
        (says("200 OK", &"x".repeat(5 << 20)), false, "more than"),
        (says("404 Not Found", r#"{"NeutronError":{"message":"gone\nfar"}}"#), false, "gone far"),
        (Does::Hangs, false, "no answer within"),
    ] {
        let proxy = Proxy::before(cloud.network(), "GET /v2.0/ports/", does);
        let reply = call(&cloud.host_behind(0, &proxy), &spec, Verb::Observe).await;
        let (CloudReply::Busy(said) | CloudReply::Failed(said)) = &reply else {
            panic!("{reply:?}")
        };
        assert_eq!(matches!(reply, CloudReply::Busy(_)), busy, "{reply:?}");
        assert!(said.contains(text) && said.len() < 400, "{text}: {said}");
    }
}

async fn an_examination_says_what_it_found(cloud: &Cloud) {
    let all = [moved(&[VIP]), moved(&["10.77.0.50"])];
    let found = cloud.host(1).examine(Provider::OpenStack, &all).await;
    let said = |is_well, text: &str| {
        found.iter().any(|finding| finding.is_well == is_well && finding.text.contains(text))
    };
    assert!(said(true, cloud.port(1)) && said(true, "by an application credential"), "{found:?}");
    assert!(said(true, "VIP web can be moved here"), "{found:?}");
    assert!(said(false, "10.77.0.50 is in an allocation pool"), "{found:?}");
    assert!(!said(false, "10.77.0.100"), "{found:?}");
}
