//! Speakers and a router that nobody here wrote: gobgpd on two hosts, and BIRD that hears both,
//! all of them on loopback.

use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use vip_cloud::{Ask, BgpSection, Environment, Providers, Sections};
use vip_core::{CloudReply, Verb, Via, VipSpec};

const LIMIT: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(30);
const VIP: &str = "10.99.0.10";
/// What somebody else announces.
const OTHER: &str = "10.98.0.0/24";

fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/unpacked/usr")
}

/// A program of a package: where `cargo xtask` unpacked it, or of this machine.
fn program(name: &str) -> Command {
    let files = ["sbin", "bin"].map(|folder| unpacked().join(folder).join(name));
    let file = files.into_iter().find(|file| file.exists());
    let mut command = Command::new(file.unwrap_or_else(|| name.into()));
    let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    command.env("LD_LIBRARY_PATH", unpacked().join(libraries));
    command
}

/// It ends with the value.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command) -> Self {
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(silent.spawn().expect("it starts: run `cargo xtask test` once"))
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("it runs");
        assert!(sent.success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A router, and hosts of one autonomous system that are its neighbours.
struct Network {
    dir: tempfile::TempDir,
    router: Option<Daemon>,
    speakers: Vec<Daemon>,
    port: u16,
    apis: Vec<u16>,
}

/// One that is free on all of loopback, and that no connection is given by chance.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed))
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("a port")
}

fn address(host: usize) -> String {
    format!("127.0.0.{}", host + 2)
}

impl Network {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let apis = vec![port(), port()];
        let mut network = Self { dir, router: None, speakers: vec![], port: port(), apis };
        network.start_router();
        for host in 0..2 {
            let speaker = network.speaker(host);
            network.speakers.push(speaker);
        }
        network.wait_until_established();
        network
    }

    fn start_router(&mut self) {
        let port = self.port;
        let neighbours: String = (0..2)
            .map(|host| {
                format!(
                    "protocol bgp h{host} {{ local 127.0.0.1 port {port} as 65000; \
                     neighbor {} port {port} as 65001; multihop 2; strict bind yes; \
                     hold time 3; connect delay time 1; error wait time 1, 1; \
                     ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}\n",
                    address(host)
                )
            })
            .collect();
        let config = format!("router id 127.0.0.1;\nprotocol device {{}}\n{neighbours}");
        let (file, socket) = (self.dir.path().join("bird.conf"), self.socket());
        std::fs::write(&file, config).expect("it is written");
        let mut bird = program("bird");
        self.router = Some(Daemon::start(bird.arg("-f").arg("-c").arg(file).arg("-s").arg(socket)));
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("bird.ctl")
    }

    fn speaker(&self, host: usize) -> Daemon {
        let (own, port) = (address(host), self.port);
        let config = format!(
            "[global.config]\nas = 65001\nrouter-id = \"{own}\"\nport = {port}\n\
             local-address-list = [\"{own}\"]\n\
             [[neighbors]]\n[neighbors.config]\nneighbor-address = \"127.0.0.1\"\n\
             peer-as = 65000\n[neighbors.transport.config]\nremote-port = {port}\n\
             local-address = \"{own}\"\n[neighbors.ebgp-multihop.config]\nenabled = true\n\
             multihop-ttl = 2\n[neighbors.timers.config]\nconnect-retry = 1\nhold-time = 3\n\
             keepalive-interval = 1\nidle-hold-time-after-reset = 1\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
             afi-safi-name = \"ipv4-unicast\"\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
             afi-safi-name = \"ipv6-unicast\"\n"
        );
        let file = self.dir.path().join(format!("gobgpd-{host}.toml"));
        std::fs::write(&file, config).expect("it is written");
        let api = format!("--api-hosts=127.0.0.1:{}", self.apis[host]);
        Daemon::start(program("gobgpd").arg("-f").arg(file).arg(api).arg("--pprof-disable"))
    }

    fn wait_until_established(&self) {
        for host in 0..2 {
            until(&format!("host {host} to have a neighbour"), || {
                let said = self.gobgp(host, &["neighbor"]);
                said.contains("Establ").then_some(())
            });
        }
    }

    /// What somebody at a host's own speaker is answered.
    fn gobgp(&self, host: usize, args: &[&str]) -> String {
        let port = self.apis[host].to_string();
        let out = program("gobgp").args(["-p", &port]).args(args).output().expect("it runs");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// A node's process: another one begins anew.
    fn node(&self, host: usize) -> Providers {
        let bgp = BgpSection { api: format!("127.0.0.1:{}", self.apis[host]) };
        let sections = Sections { bgp, ..Sections::default() };
        Providers::new(sections, Environment::default(), address(host).parse().ok())
    }

    /// One that members reach by another address.
    fn node_at(&self, host: usize, own: &str) -> Providers {
        let bgp = BgpSection { api: format!("127.0.0.1:{}", self.apis[host]) };
        let sections = Sections { bgp, ..Sections::default() };
        Providers::new(sections, Environment::default(), own.parse().ok())
    }

    /// What the router has of an address, best first.
    fn routes(&self, to: &str) -> String {
        let show = format!("show route for {to} all");
        let mut birdc = program("birdc");
        let out = birdc.arg("-s").arg(self.socket()).args(show.split(' ')).output();
        String::from_utf8_lossy(&out.expect("it runs").stdout).into_owned()
    }

    /// Which host the router sends it to.
    fn best(&self, to: &str) -> Option<usize> {
        let routes = self.routes(to);
        let best = routes.lines().find(|line| line.contains('*'))?;
        (0..2).find(|host| best.contains(&format!("[h{host} ")))
    }

    fn wait_for_best(&self, to: &str, host: Option<usize>) {
        let what = format!("{to} to be at {host:?}: {}", self.routes(to));
        until(&what, || (self.best(to) == host).then_some(()));
    }
}

fn until<T>(what: &str, found: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn vip(addresses: &[&str]) -> VipSpec {
    let prefixed = |ip: &&str| format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 });
    VipSpec {
        name: "web".parse().expect("a name"),
        addresses: addresses.iter().map(|ip| prefixed(ip).parse().expect("valid")).collect(),
        interface: None,
        placement: vip_core::Placement::Sticky,
        no_probe: false,
        via: Via::Bgp,
        params: [("community".to_owned(), "65001:10".to_owned())].into(),
    }
}

async fn call_of(node: &Providers, spec: &VipSpec, verb: Verb, rank: u64) -> CloudReply {
    let announced = Some(rank);
    node.call(&Ask { spec: spec.clone(), verb, limit: LIMIT, announced }).await
}

async fn call(node: &Providers, verb: Verb, rank: u64) -> CloudReply {
    call_of(node, &vip(&[VIP]), verb, rank).await
}

async fn failed(node: &Providers, verb: Verb) -> String {
    match call(node, verb, 1).await {
        CloudReply::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

/// What was seen a moment ago counts for a moment.
async fn until_seen(node: &Providers, token: &str) {
    let end = Instant::now() + SOON;
    while call(node, Verb::Observe, 1).await != elsewhere(token) {
        assert!(Instant::now() < end, "waited in vain for {token}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn take() -> Verb {
    Verb::Take("none".to_owned())
}

fn elsewhere(token: &str) -> CloudReply {
    CloudReply::Elsewhere(token.to_owned())
}

#[tokio::test]
async fn the_later_announcement_counts_whoever_goes_on() {
    let network = Network::start();
    let [one, two] = [0, 1].map(|host| network.node(host));
    assert_eq!(call(&one, Verb::Observe, 1).await, elsewhere("none"));
    assert_eq!(call(&one, take(), 1).await, CloudReply::Done);
    assert_eq!(call(&one, Verb::Observe, 1).await, CloudReply::Here);
    network.wait_for_best(VIP, Some(0));
    let said = network.routes(VIP);
    assert!(said.contains("BGP.community: (65001,10)") && said.contains("BGP.med: 4294967294"));
    assert!(said.contains("BGP.next_hop: 127.0.0.2"), "{said}");

    // The next holder is preferred while the former one goes on, and when it says it again.
    assert_eq!(call(&two, take(), 2).await, CloudReply::Done);
    network.wait_for_best(VIP, Some(1));
    assert_eq!(call(&one, take(), 1).await, CloudReply::Done);
    assert_eq!(network.gobgp(0, &["neighbor", "127.0.0.1", "softresetout"]).trim(), "");
    until("both to be heard", || (network.routes(VIP).matches("[h").count() == 2).then_some(()));
    assert_eq!(network.best(VIP), Some(1));
    assert_eq!(call(&one, Verb::Release, 1).await, CloudReply::Done);
    assert_eq!(call(&one, Verb::Observe, 1).await, elsewhere("none"));
    until("one to be left", || (network.routes(VIP).matches("[h").count() == 1).then_some(()));

    // What is let go of late is an earlier assignment's alone.
    assert_eq!(call(&two, Verb::Release, 1).await, CloudReply::Done);
    assert_eq!(call(&two, Verb::Observe, 2).await, CloudReply::Here);
    assert_eq!(call(&two, Verb::Observe, 3).await, elsewhere("rank 2"));
    assert_eq!(call(&two, Verb::Release, 2).await, CloudReply::Done);
    network.wait_for_best(VIP, None);
}

#[tokio::test]
async fn what_an_earlier_process_announced_is_taken_back_and_nobody_elses() {
    let network = Network::start();
    network.gobgp(0, &["global", "rib", "add", OTHER]);
    let earlier = network.node(0);
    assert_eq!(call(&earlier, take(), 1).await, CloudReply::Done);
    network.wait_for_best(VIP, Some(0));
    drop(earlier);
    network.node(0).begin().await;
    network.wait_for_best(VIP, None);
    assert_eq!(network.best(OTHER), Some(0), "somebody else's");

    // One that ends takes back its own.
    let last = network.node(0);
    assert_eq!(call(&last, take(), 2).await, CloudReply::Done);
    network.wait_for_best(VIP, Some(0));
    last.leave().await;
    network.wait_for_best(VIP, None);
    assert_eq!(network.best(OTHER), Some(0), "somebody else's");
    assert_eq!(failed(&last, take()).await, "this node is stopping");
}

#[tokio::test]
async fn an_address_that_a_vip_has_no_more_is_announced_no_more() {
    const SECOND: &str = "10.99.0.11";
    let network = Network::start();
    let (one, both) = (network.node(0), vip(&[VIP, SECOND]));
    assert_eq!(call_of(&one, &both, take(), 1).await, CloudReply::Done);
    network.wait_for_best(SECOND, Some(0));
    assert_eq!(call(&one, Verb::Observe, 1).await, CloudReply::Here);
    network.wait_for_best(SECOND, None);
    assert_eq!(network.best(VIP), Some(0));
}

/// The sessions are IPv4's: their addresses are no next hops of such a route.
#[tokio::test]
async fn a_route_leads_to_an_address_of_its_own_family() {
    const VIP: &str = "2001:db8::10";
    let network = Network::start();
    let spec = vip(&[VIP]);
    let why = network.node(0).check(&spec).await.expect_err("an IPv4 session");
    assert!(why.contains("no neighbour takes IPv6 routes"), "{why}");
    let node = ("next-hop".to_owned(), "node".to_owned());
    let spec = VipSpec { params: [node].into(), ..spec };
    for (own, text) in [("127.0.0.2", "is no next hop"), ("n1.example", "by a name")] {
        let one = network.node_at(0, own);
        let why = one.check(&spec).await.expect_err(own);
        assert!(why.contains(text), "{why}");
        let taken = call_of(&one, &spec, take(), 1).await;
        assert!(matches!(&taken, CloudReply::Failed(why) if why.contains(text)), "{taken:?}");
    }
    let one = network.node_at(0, "2001:db8::1");
    assert_eq!(one.check(&spec).await, Ok(()));
    assert_eq!(call_of(&one, &spec, take(), 1).await, CloudReply::Done);
    assert_eq!(call_of(&one, &spec, Verb::Observe, 1).await, CloudReply::Here);
    network.wait_for_best(VIP, Some(0));
    assert!(network.routes(VIP).contains("BGP.next_hop: 2001:db8::1"), "{}", network.routes(VIP));
    assert_eq!(call_of(&one, &spec, Verb::Release, 1).await, CloudReply::Done);
    network.wait_for_best(VIP, None);
}

/// Of an earlier assignment something is let go of late; what is announced now is known still.
#[tokio::test]
async fn whoever_ends_takes_back_what_it_announced_last() {
    let network = Network::start();
    let one = network.node(0);
    for rank in [1, 2] {
        assert_eq!(call(&one, take(), rank).await, CloudReply::Done);
    }
    assert_eq!(call(&one, Verb::Release, 1).await, CloudReply::Done);
    assert_eq!(call(&one, Verb::Observe, 2).await, CloudReply::Here);
    network.wait_for_best(VIP, Some(0));
    one.leave().await;
    network.wait_for_best(VIP, None);
}

/// A look that hangs is one for all that ask meanwhile.
#[tokio::test]
async fn a_speaker_that_hangs_costs_as_much_for_many_as_for_one() {
    let network = Network::start();
    let one = std::sync::Arc::new(network.node(0));
    network.speakers[0].signal("-STOP");
    let began = Instant::now();
    let mut asked = tokio::task::JoinSet::new();
    for last in 0..40 {
        let one = one.clone();
        let spec = vip(&[&format!("10.99.1.{last}")]);
        asked.spawn(async move { call_of(&one, &spec, Verb::Observe, 1).await });
    }
    let replies = asked.join_all().await;
    assert!(replies.iter().all(|reply| matches!(reply, CloudReply::Failed(_))), "{replies:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_node_without_a_neighbour_takes_nothing() {
    let mut network = Network::start();
    let one = network.node(0);
    assert_eq!(one.check(&vip(&[VIP])).await, Ok(()));
    assert_eq!(call(&one, take(), 1).await, CloudReply::Done);
    network.router = None;
    let gone = || !network.gobgp(0, &["neighbor"]).contains("Establ");
    until("it to be missed", || gone().then_some(()));
    until_seen(&one, "no-neighbour").await;
    let why = failed(&one, take()).await;
    assert!(why.contains("no neighbour takes IPv4 routes from this node now"), "{why}");
    assert!(why.contains("127.0.0.1: "), "{why}");
    let provider = vip_core::Provider::Bgp;
    let found = one.examine(provider, &[vip(&[VIP])]).await;
    assert!(found[0].is_well && found[0].text.contains("AS 65001, 127.0.0.2"), "{found:?}");
    assert!(found.iter().filter(|finding| !finding.is_well).count() == 2, "{found:?}");
    // It can be taken back all the same.
    assert_eq!(call(&one, Verb::Release, 1).await, CloudReply::Done);
    network.start_router();
    network.wait_until_established();
    until_seen(&one, "none").await;
}

#[tokio::test]
async fn a_speaker_that_begins_anew_is_told_again_and_one_that_hangs_is_not_waited_for() {
    let mut network = Network::start();
    let one = network.node(0);
    assert_eq!(call(&one, take(), 1).await, CloudReply::Done);
    network.wait_for_best(VIP, Some(0));
    network.speakers[0].signal("-KILL");
    network.wait_for_best(VIP, None);
    let why = failed(&one, Verb::Observe).await;
    assert!(why.starts_with("gobgpd at 127.0.0.1:"), "{why}");
    network.speakers[0] = network.speaker(0);
    network.wait_until_established();
    until_seen(&one, "none").await;
    assert_eq!(call(&one, take(), 1).await, CloudReply::Done);
    network.wait_for_best(VIP, Some(0));

    // Its stale route comes back by itself, and counts for less.
    network.speakers[0].signal("-STOP");
    let began = Instant::now();
    let why = failed(&one, Verb::Release).await;
    assert!(began.elapsed() < LIMIT / 2, "{why}");
    let two = network.node(1);
    assert_eq!(call(&two, take(), 2).await, CloudReply::Done);
    network.wait_for_best(VIP, Some(1));
    network.speakers[0].signal("-CONT");
    network.wait_until_established();
    until("both to be heard", || (network.routes(VIP).matches("[h").count() == 2).then_some(()));
    assert_eq!(network.best(VIP), Some(1));
    assert_eq!(call(&one, Verb::Release, 1).await, CloudReply::Done);
    until("one to be left", || (network.routes(VIP).matches("[h").count() == 1).then_some(()));
}

#[tokio::test]
async fn whoever_is_no_speaker_is_named_and_costs_little() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address");
    let said = std::thread::spawn(move || {
        use std::io::Write;
        for client in listener.incoming().take(2).flatten() {
            let _ = (&client).write_all(&[b'x'; 1 << 16]);
        }
    });
    let began = Instant::now();
    for api in [at.to_string(), "127.0.0.1:1".to_owned(), "no address".to_owned()] {
        let own: Option<IpAddr> = None;
        let sections = Sections { bgp: BgpSection { api: api.clone() }, ..Sections::default() };
        let node = Providers::new(sections, Environment::default(), own);
        let why = failed(&node, Verb::Observe).await;
        assert!(why.contains(&api) && why.len() < 400, "{why}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(said);
}
