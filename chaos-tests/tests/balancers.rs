//! Load balancers and orchestrators that ask by HTTP and TCP where clients are served.

use anyhow::{Context, Result, ensure};
use chaos_tests::{
    Asked, Cluster, Daemon, Options, Process, RealServer, V4, connect, wait_for, within,
};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const SOON: Duration = Duration::from_secs(15);
/// More than there is place for.
const MANY: usize = 600;

fn options() -> Options {
    let settings = ["http.listen=[::]:7480", "http.tcp.web=0.0.0.0:7481"];
    Options { settings: settings.map(Into::into).into(), ..Options::default() }
}

fn node(name: &str, port: u16) -> SocketAddr {
    let last = name[1..].parse().expect("a number");
    SocketAddr::new(V4.at(last).parse().expect("an address"), port)
}

fn ask(cluster: &Cluster, name: &str, path: &str) -> Result<Asked> {
    Asked::by(&cluster.lab, "client", node(name, 7480), "GET", path)
}

fn is_open(cluster: &Cluster, name: &str) -> bool {
    connect(&cluster.lab, "client", node(name, 7481)).is_ok()
}

/// Those that say that clients of `web` are served there.
fn well(cluster: &Cluster) -> Vec<&'static str> {
    let is_well = |name: &&str| ask(cluster, name, "/v1/vip/web").is_ok_and(|it| it.status == 200);
    NODES.into_iter().filter(is_well).collect()
}

/// Until one node alone is well by HTTP and by TCP.
fn wait_for_one(cluster: &Cluster, wanted: &str) -> Result<()> {
    let all = || (well(cluster), NODES.into_iter().filter(|n| is_open(cluster, n)).collect());
    let there: (Vec<&str>, Vec<&str>) = (vec![wanted], vec![wanted]);
    wait_for("one alone is well", SOON, || (all() == there).then_some(()))
        .with_context(|| format!("{wanted}, not {:?}", all()))
}

#[test]
fn the_holder_alone_is_well_and_says_so_by_the_clock() -> Result<()> {
    let mut cluster = Cluster::bare(&options())?;
    wait_for("it listens", SOON, || ask(&cluster, "n1", "/livez").ok())?;
    for (path, status) in
        [("/livez", 200), ("/readyz", 503), ("/healthz", 503), ("/v1/vip/web", 503)]
    {
        let asked = ask(&cluster, "n1", path)?;
        ensure!(asked.status == status, "{path}: {asked:?}");
        ensure!(path == "/livez" || asked.body.contains("in no cluster"), "{asked:?}");
    }
    cluster.form()?;
    for name in NODES {
        wait_for("all runs that should", SOON, || {
            ask(&cluster, name, "/healthz").ok().filter(|asked| asked.status == 200)
        })?;
        assert_eq!(ask(&cluster, name, "/readyz")?.status, 200);
    }
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"])?;
    n1.ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
    wait_for_one(&cluster, "n2")?;
    let asked = ask(&cluster, "n2", "/v1/vip/web")?;
    let epoch = asked.says("vip-epoch").context("an epoch")?;
    let body: serde_json::Value = serde_json::from_str(&asked.body)?;
    let expected: u64 = epoch.parse()?;
    let all = serde_json::json!({"vip": "web", "node": "n2", "answers": true, "epoch": expected});
    assert_eq!(body, all);
    assert_eq!(
        (asked.says("connection"), asked.says("cache-control")),
        (Some("close"), Some("no-store"))
    );
    let other = ask(&cluster, "n3", "/v1/vip/web")?;
    ensure!(other.body.contains("VIP web is held by n2"), "{other:?}");
    let wrong = ask(&cluster, "n2", "/v1/vip/wbe")?;
    ensure!(wrong.status == 503 && wrong.body.contains("no VIP wbe"), "{wrong:?}");
    by_other_methods(&cluster)?;

    // Frozen, it says nothing; another does, and not before.
    let frozen = [Process::Parent, Process::Agent, Process::Guard];
    cluster.host("n2").signal(&frozen, Signal::SIGSTOP)?;
    let next = wait_for("another holds it", SOON, || match well(&cluster)[..] {
        [one] if one != "n2" => Some(one),
        _ => None,
    })?;
    cluster.host("n2").signal(&frozen, Signal::SIGCONT)?;
    wait_for_one(&cluster, next)?;
    wait_for("all runs again", SOON, || {
        ask(&cluster, "n2", "/healthz").ok().filter(|asked| asked.status == 200)
    })?;

    // Without its guard it holds nothing, and is not what it should be.
    cluster.host("n2").signal(&[Process::Guard], Signal::SIGSTOP)?;
    let sick = wait_for("that is seen", SOON, || {
        ask(&cluster, "n2", "/healthz").ok().filter(|asked| asked.status == 503)
    })?;
    ensure!(sick.body.contains(r#"{"name":"guard","ok":false"#), "{sick:?}");
    assert_eq!(ask(&cluster, "n2", "/livez")?.status, 200);
    cluster.host("n2").signal(&[Process::Guard], Signal::SIGCONT)?;

    // Ended in order, it is gone for who asks before it is gone.
    cluster.host_mut(next).stop()?;
    let last =
        cluster.wait_for_takeover(NODES.into_iter().find(|n| *n != next).unwrap_or("n1"), next)?;
    wait_for("one alone is well", SOON, || (well(&cluster) == [last.as_str()]).then_some(()))
}

fn by_other_methods(cluster: &Cluster) -> Result<()> {
    let by = |from: &str, method: &str, path: &str| {
        let at = if from == "client" { node("n2", 7480) } else { ([127, 0, 0, 1], 7480).into() };
        Asked::by(&cluster.lab, from, at, method, path)
    };
    let head = by("client", "HEAD", "/v1/vip/web")?;
    ensure!(
        head.status == 200 && head.body.is_empty() && head.says("vip-epoch").is_some(),
        "{head:?}"
    );
    let post = by("client", "POST", "/v1/vip/web")?;
    ensure!(post.status == 405 && post.says("allow") == Some("get, head"), "{post:?}");
    // A page for people is this host's own.
    assert_eq!(by("client", "GET", "/")?.status, 404);
    let page = by("n2", "GET", "/")?;
    ensure!(page.status == 200 && page.body.contains("/v1/vip/web ok"), "{page:?}");
    Ok(())
}

#[test]
fn a_holder_whose_real_servers_are_down_is_passed_by() -> Result<()> {
    let mut cluster = Cluster::formed(&options())?;
    let _at_vip = V4.by_dr(&mut cluster.lab, "r1", 11)?;
    let place = SocketAddr::new(V4.at(11).parse()?, 80);
    let real = RealServer::start(&cluster.lab, "r1", place)?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"])?;
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real", "10.77.0.11"];
    let check = ["--check", "tcp", "--check-interval", "200ms", "--check-timeout", "100ms"];
    n1.ctl_ok(&[&add[..], &check].concat())?;
    wait_for_one(&cluster, &holder)?;
    drop(real);
    let down = wait_for("its real server is seen down", SOON, || {
        ask(&cluster, &holder, "/v1/vip/web").ok().filter(|asked| asked.status == 503)
    })?;
    ensure!(down.body.contains("virtual server front has too few real servers up"), "{down:?}");
    wait_for("its port is shut", SOON, || (!is_open(&cluster, &holder)).then_some(()))?;
    let _real = RealServer::start(&cluster.lab, "r1", place)?;
    wait_for_one(&cluster, &holder)
}

/// Whoever only sits there is in nobody's way.
#[test]
fn strangers_keep_no_balancer_from_its_answer() -> Result<()> {
    let cluster = Cluster::formed(&options())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    let at = node(&holder, 7480);
    let open = || connect(&cluster.lab, "client", at);
    let mut idle = vec![];
    for number in 0..MANY {
        let mut stream = open()?;
        // Some have begun to ask.
        if number % 2 == 0 {
            stream.write_all(b"GET /v1/vip/web HTTP/1.1\r\nHost: ")?;
        }
        idle.push(stream);
        if number % 100 == 99 {
            let asked = ask(&cluster, &holder, "/v1/vip/web")?;
            ensure!(asked.status == 200, "beside {number}: {asked:?}");
        }
    }
    let ends = |stream: &mut TcpStream| -> Result<Duration> {
        let began = Instant::now();
        stream.set_read_timeout(Some(SOON))?;
        let mut rest = vec![];
        // Ended or reset.
        let _ = stream.read_to_end(&mut rest);
        Ok(began.elapsed())
    };
    let last = idle.last_mut().context("the last one")?;
    ensure!(ends(last)? < Duration::from_secs(8), "it may sit there for ever");
    drop(idle);

    let mut big = open()?;
    let line = format!("GET /v1/vip/web HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let _ = big.write_all(line.as_bytes());
    let refused = Asked::read(big);
    ensure!(refused.as_ref().map_or(true, |it| it.status == 431), "{refused:?}");

    // A byte at a time for ever.
    let (mut slow, began) = (open()?, Instant::now());
    let mut sent = Ok(());
    while sent.is_ok() && began.elapsed() < SOON {
        sent = slow.write_all(b"G");
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(began.elapsed() < Duration::from_secs(8), "it may send for ever");
    assert_eq!(ask(&cluster, &holder, "/v1/vip/web")?.status, 200);
    Ok(())
}

/// `haproxy.cfg`: a page by whoever is well by HTTP, and one by whose port is open.
fn haproxy() -> String {
    let servers = |check: &str| -> String {
        let one = |n| format!("    server n{n} {}:7480 {check}\n", V4.at(n));
        (1..=3).map(one).collect()
    };
    format!(
        "global\n    maxconn 64\n\
         defaults\n    mode http\n    timeout connect 500ms\n    timeout client 5s\n    \
         timeout server 5s\n    timeout check 500ms\n\
         listen http\n    bind 127.0.0.1:8000\n    option httpchk GET /v1/vip/web\n\
         {}\
         listen tcp\n    bind 127.0.0.1:8001\n\
         {}",
        servers("check inter 200ms fall 1 rise 1"),
        servers("check port 7481 inter 200ms fall 1 rise 1"),
    )
}

/// `nginx.conf`: it asks the next one where one is not well.
fn nginx() -> String {
    let servers: String = (1..=3).map(|n| format!("server {}:7480;", V4.at(n))).collect();
    format!(
        "pid nginx.pid; error_log stderr warn; worker_processes 1; events {{}}\n\
         http {{ access_log off; client_body_temp_path b; proxy_temp_path p; \
         fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
         upstream holder {{ {servers} }}\n\
         server {{ listen 127.0.0.1:8002; location / {{ proxy_pass http://holder; \
         proxy_connect_timeout 500ms; proxy_read_timeout 1s; \
         proxy_next_upstream error timeout http_503; }} }} }}\n"
    )
}

#[test]
fn haproxy_and_nginx_follow_the_holder() -> Result<()> {
    let mut cluster = Cluster::formed(&options())?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"])?;
    let balancers = [("haproxy", "haproxy.cfg", haproxy()), ("nginx", "nginx.conf", nginx())];
    let place = |name: &str| cluster.dir().join(name);
    for (name, file, text) in balancers {
        std::fs::create_dir_all(place(name))?;
        std::fs::write(place(name).join(file), text)?;
    }
    let _haproxy = Daemon::haproxy(&cluster.lab, "client", &place("haproxy"))?;
    let _nginx = Daemon::nginx(&cluster.lab, "client", &place("nginx"))?;
    let through = |cluster: &Cluster, port: u16| -> Option<String> {
        let at = ([127, 0, 0, 1], port).into();
        let asked = Asked::through(&cluster.lab, "client", at, "/v1/vip/web").ok()?;
        let body: serde_json::Value = serde_json::from_str(&asked.body).ok()?;
        (asked.status == 200).then(|| body["node"].as_str().map(Into::into))?
    };
    let follow = |cluster: &Cluster, holder: &str| -> Result<()> {
        for port in [8000, 8001, 8002] {
            let began = Instant::now();
            within(SOON, || (through(cluster, port)? == holder).then_some(())).with_context(
                || format!("{port} goes to {:?}, not {holder}", through(cluster, port)),
            )?;
            println!("by {port} at {holder} after {:?}", began.elapsed());
        }
        Ok(())
    };
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    follow(&cluster, &holder)?;
    let to = NODES.into_iter().find(|name| *name != holder).context("another")?;
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
    follow(&cluster, to)?;
    cluster.host_mut(to).kill_all();
    let from = NODES.into_iter().find(|name| *name != to).context("another")?;
    let last = cluster.wait_for_takeover(from, to)?;
    follow(&cluster, &last)
}
