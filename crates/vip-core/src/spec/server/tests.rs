use super::*;
use crate::testing::server as spec;
use crate::{CheckKind, CheckWords};

fn refused(spec: &ServerSpec) -> String {
    spec.check().expect_err("refused").to_string()
}

#[test]
fn a_virtual_server_needs_real_servers_of_one_kind() {
    assert_eq!(spec(&["10.0.0.7", "10.0.0.8:80", "10.0.0.9@0"]).check(), Ok(()));
    let at = |port: &str| ServerSpec { ports: port.parse().expect("ports"), ..spec(&[]) };
    let nodes = ServerSpec { real_nodes: Some(6443), ..at("6443") };
    for other in ["80", "any", "6443-6444"] {
        let other = ServerSpec { real_nodes: Some(6443), ..at(other) };
        assert!(refused(&other).contains("to be 6443 alone"));
    }
    assert_eq!(nodes.check(), Ok(()));
    assert!(refused(&spec(&[])).contains("names no real server"));
    let both = ServerSpec { real_nodes: Some(6443), ..spec(&["10.0.0.7"]) };
    assert!(refused(&both).contains("use one of them"));
    let by_nat = ServerSpec { forward: Forward::Nat, ..nodes };
    assert_eq!(by_nat.check(), Err(ServerSpecError::NodesByNat));
    assert!(refused(&spec(&["10.0.0.7", "2001:db8::7"])).contains("mixes IPv4 and IPv6"));
    let many: Vec<String> =
        (0..=1000).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(spec(&many[..1000]).check(), Ok(()));
    assert!(refused(&spec(&many)).contains("1001 real servers"));
    let full = RealSpec { weight: 256, ..spec(&["10.0.0.7"]).reals[0] };
    assert_eq!(ServerSpec { reals: vec![full], ..spec(&[]) }.check(), Ok(()));
    let heavy = RealSpec { weight: 257, ..spec(&["10.0.0.7"]).reals[0] };
    let heavy = ServerSpec { reals: vec![heavy], ..spec(&[]) };
    assert!(refused(&heavy).contains("weights are 0 to 256"));
}

/// What it would do with a connection decides whether two are the same.
#[test]
fn a_real_server_is_there_once() {
    assert!(refused(&spec(&["10.0.0.7", "10.0.0.7:80@2"])).contains("10.0.0.7:80@2 twice"));
    assert_eq!(spec(&["10.0.0.7", "10.0.0.7:81"]).check(), Ok(()));
}

#[test]
fn a_port_is_changed_by_nat_alone_and_only_where_there_is_one() {
    let other = spec(&["10.0.0.7:8080"]);
    assert_eq!(other.port_of(&other.reals[0]), Some(8080));
    assert_eq!(other.check(), Ok(()));
    let by_dr = ServerSpec { forward: Forward::Dr, ..other.clone() };
    assert!(refused(&by_dr).contains("use --forward nat, or the port 80"));
    let same = ServerSpec { forward: Forward::Dr, ..spec(&["10.0.0.7:80", "10.0.0.8"]) };
    assert_eq!(same.check(), Ok(()));
    let any = ServerSpec { ports: Ports::ANY, ..other };
    assert!(refused(&any).contains("a connection keeps its port"));
    let kept = ServerSpec { ports: Ports::ANY, ..spec(&["10.0.0.7"]) };
    assert_eq!((kept.check(), kept.port_of(&kept.reals[0])), (Ok(()), None));
}

/// By its name, with who will have it.
#[test]
fn what_no_engine_has_is_refused_by_name() {
    let of = |scheduler: &str, forward: &str, engine: &str| ServerSpec {
        scheduler: scheduler.parse().expect("a scheduler"),
        forward: forward.parse().expect("a method"),
        engine: engine.parse().expect("an engine"),
        ..spec(&["10.0.0.7"])
    };
    for forward in ["auto", "dr", "nat"] {
        for (scheduler, engine) in [("mh", "auto"), ("sh", "ebpf")] {
            assert_eq!(of(scheduler, forward, engine).engine(), Ok(Engine::Ebpf));
        }
    }
    for (scheduler, forward, engine, said) in [
        ("rr", "auto", "auto", "scheduler rr needs the engine ipvs, which this version"),
        ("wlc", "dr", "ebpf", "scheduler wlc needs the engine ipvs; ebpf does not have it"),
        ("rr", "auto", "ipvs", "scheduler rr needs the engine ipvs, which this version"),
        ("mh", "auto", "ipvs", "--engine ipvs needs the engine ipvs, which this version"),
        ("mh", "tun", "auto", "forwarding by tun needs the engine ipvs, which this version"),
        ("rr", "proxy", "auto", "forwarding by proxy needs the engine proxy, which this version"),
        ("mh", "proxy", "ebpf", "forwarding by proxy needs the engine proxy; ebpf does not"),
    ] {
        let refused = refused(&of(scheduler, forward, engine));
        assert!(refused.starts_with(said), "{refused}");
    }
}

#[test]
fn a_spec_is_read_as_it_was_written_and_says_little_of_what_is_usual() {
    let all = ServerSpec {
        protocol: Protocol::Udp,
        scheduler: Scheduler::Sh,
        forward: Forward::Nat,
        engine: Engine::Ebpf,
        table_size: Some(TableSize::Small),
        ports: "any".parse().expect("ports"),
        ..spec(&["10.0.0.7@3"])
    };
    let nodes = ServerSpec { real_nodes: Some(6443), ..spec(&[]) };
    for spec in [all, nodes] {
        let text = serde_json::to_string(&spec).expect("plain");
        assert_eq!(serde_json::from_str::<ServerSpec>(&text).ok(), Some(spec), "{text}");
    }
    let short = r#"{"name":"front","vip":"web","ports":"80","reals":["10.0.0.7"]}"#;
    assert_eq!(serde_json::from_str::<ServerSpec>(short).ok(), Some(spec(&["10.0.0.7"])));
}

/// Of one real server too.
#[test]
fn a_check_says_something_of_who_is_served() {
    let kind = |text: &str| CheckKind::try_from(CheckWords::of(text)).expect("a kind");
    let checked = |check: CheckSpec| ServerSpec { check: Some(check), ..spec(&["10.0.0.7"]) };
    let of_udp = |check| ServerSpec { protocol: Protocol::Udp, ..checked(check) };
    let own = |check: Option<CheckKind>, check_port| {
        let one = RealCheck::as_others([10, 0, 0, 7].into(), None);
        vec![RealCheck { check: check.map(Into::into), check_port, ..one }]
    };
    for by in ["dns:a/A", "udp:00", "icmp", "exec:a"] {
        assert_eq!(of_udp(kind(by).into()).check(), Ok(()), "{by}");
    }
    assert!(refused(&of_udp(kind("tcp").into())).contains("says nothing of that"));
    let at = |port| CheckSpec { port, ..kind("tcp").into() };
    assert_eq!(of_udp(at(Some(80))).check(), Ok(()));
    let dns = || CheckSpec::from(kind("dns:a/A"));
    let otherwise = CheckSpec { otherwise: own(Some(kind("tcp")), None), ..dns() };
    assert!(refused(&of_udp(otherwise)).contains("says nothing of that"));
    let otherwise = CheckSpec { otherwise: own(Some(kind("tcp")), Some(80)), ..dns() };
    assert_eq!(of_udp(otherwise).check(), Ok(()));

    let any = |check| ServerSpec { ports: "any".parse().expect("ports"), ..checked(check) };
    assert!(refused(&any(at(None))).contains("--check-port"));
    assert_eq!(any(at(Some(80))).check(), Ok(()));
    assert_eq!(any(kind("icmp").into()).check(), Ok(()));

    let many = (0..=MAX_OTHERWISE).flat_map(|_| own(None, Some(80))).collect();
    let many = CheckSpec { otherwise: many, ..at(None) };
    assert!(refused(&checked(many)).contains("65 real servers that are checked otherwise"));
    let slow_start = MOST_SLOW_START + Duration::from_secs(1);
    assert!(refused(&checked(CheckSpec { slow_start, ..at(None) })).contains("at most"));
}
