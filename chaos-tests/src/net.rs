//! Namespaces, a switch, cables. Everything has a prefix of its own and is
//! removed when the lab is dropped, also by a failing test.

use crate::command::{Outcome, run};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};

/// An Ethernet address.
pub type Mac = [u8; 6];

static LABS: AtomicU32 = AtomicU32::new(0);

/// A set of hosts on one switch.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    hosts: Vec<String>,
    /// Hosts that are not on the switch.
    bare: Vec<String>,
}

/// Runs `ip`.
///
/// # Errors
/// It failed; with its message.
fn ip(arguments: &[&str]) -> Result<String> {
    run("ip", arguments)?.ok().with_context(|| format!("ip {}", arguments.join(" ")))
}

impl Lab {
    /// A lab with `nodes` hosts `n1`… and a client.
    ///
    /// # Errors
    /// Not root, or no iproute2.
    pub fn new(nodes: u8) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root");
        }
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        // Interface names have 15 characters at most.
        let prefix = format!("v{:x}{number}", std::process::id());
        let mut lab = Self { prefix, hosts: vec![], bare: vec![] };
        lab.build(nodes)?;
        Ok(lab)
    }

    fn build(&mut self, nodes: u8) -> Result<()> {
        let switch = self.namespace("sw");
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for number in 1..=nodes {
            self.add_host(&format!("n{number}"), number)?;
        }
        self.add_host("client", 250)
    }

    /// Adds a host with the addresses `10.77.0.LAST/24` and `fd77::LAST/64`.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn add_host(&mut self, name: &str, last: u8) -> Result<()> {
        let (switch, host) = (self.namespace("sw"), self.namespace(name));
        ip(&["netns", "add", &host])?;
        self.hosts.push(name.to_owned());
        let port = self.port(name);
        ip(&[
            "link", "add", &port, "netns", &switch, "type", "veth", "peer", "name", "eth0",
            "netns", &host,
        ])?;
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", &host, "link", "set", "lo", "up"])?;
        ip(&["-n", &host, "link", "set", "eth0", "up"])?;
        ip(&["-n", &host, "address", "add", &format!("10.77.0.{last}/24"), "dev", "eth0"])?;
        let v6 = format!("fd77::{last}/64");
        ip(&["-n", &host, "address", "add", &v6, "dev", "eth0", "nodad"])?;
        Ok(())
    }

    /// A host without an interface but its loopback.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn add_bare_host(&mut self, name: &str) -> Result<()> {
        let host = self.namespace(name);
        ip(&["netns", "add", &host])?;
        self.bare.push(name.to_owned());
        ip(&["-n", &host, "link", "set", "lo", "up"]).map(|_| ())
    }

    /// The namespace of a host, or of the switch ("sw").
    #[must_use]
    pub fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// The switch's port for a host.
    #[must_use]
    pub fn port(&self, name: &str) -> String {
        format!("p{name}")
    }

    /// Takes a host off the network. Its link stays up, so it is not told.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn isolate(&self, name: &str) -> Result<()> {
        let switch = self.namespace("sw");
        ip(&["-n", &switch, "link", "set", &self.port(name), "nomaster"]).map(|_| ())
    }

    /// Puts some hosts on a switch of their own, apart from the rest.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn split(&self, names: &[&str]) -> Result<()> {
        let switch = self.namespace("sw");
        let there = ip(&["-n", &switch, "-j", "link", "show"])?.contains("\"br1\"");
        if !there {
            ip(&["-n", &switch, "link", "add", "br1", "type", "bridge", "mcast_snooping", "0"])?;
            ip(&["-n", &switch, "link", "set", "br1", "up"])?;
        }
        for name in names {
            ip(&["-n", &switch, "link", "set", &self.port(name), "master", "br1", "up"])?;
        }
        Ok(())
    }

    /// Puts it back.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn heal(&self, name: &str) -> Result<()> {
        let switch = self.namespace("sw");
        ip(&["-n", &switch, "link", "set", &self.port(name), "master", "br0", "up"]).map(|_| ())
    }

    /// Pulls or plugs the cable: the host's link goes down or comes up.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn cable(&self, name: &str, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        ip(&["-n", &self.namespace("sw"), "link", "set", &self.port(name), state]).map(|_| ())
    }

    /// Runs `ip` inside a host.
    ///
    /// # Errors
    /// It failed.
    pub fn ip(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let namespace = self.namespace(name);
        ip(&[&["-n", &namespace], arguments].concat())
    }

    /// Runs a program inside a host.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn exec(&self, name: &str, program: &str, arguments: &[&str]) -> Result<Outcome> {
        exec(&self.namespace(name), program, arguments)
    }

    /// The Ethernet address of a host.
    ///
    /// # Errors
    /// There is none.
    pub fn mac(&self, name: &str) -> Result<Mac> {
        self.mac_of(name, "eth0")
    }

    /// The Ethernet address of one interface of a host.
    ///
    /// # Errors
    /// There is none.
    pub fn mac_of(&self, name: &str, interface: &str) -> Result<Mac> {
        let json = self.ip(name, &["-j", "link", "show", "dev", interface])?;
        let links: serde_json::Value = serde_json::from_str(&json)?;
        let text = links[0]["address"].as_str().context("no address")?;
        let mut mac = [0; 6];
        for (byte, part) in mac.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(part, 16)?;
        }
        Ok(mac)
    }

    /// The Ethernet addresses of all hosts but the client.
    ///
    /// # Errors
    /// One has none.
    pub fn host_macs(&self) -> Result<Vec<Mac>> {
        self.hosts.iter().filter(|h| *h != "client").map(|h| self.mac(h)).collect()
    }

    /// Whether a host has an address configured.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn has_address(&self, name: &str, address: &str) -> Result<bool> {
        let json = self.ip(name, &["-j", "address", "show", "dev", "eth0"])?;
        Ok(json.contains(&format!("\"{address}\"")))
    }

    /// Moves the calling thread into a host's network namespace.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn enter(&self, name: &str) -> Result<()> {
        enter(&self.namespace(name))
    }
}

/// Runs a program inside a namespace.
///
/// # Errors
/// It cannot be started.
pub(crate) fn exec(namespace: &str, program: &str, arguments: &[&str]) -> Result<Outcome> {
    run("ip", &[&["netns", "exec", namespace, program], arguments].concat())
}

pub(crate) fn enter(namespace: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{namespace}"))?;
    Ok(nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?)
}

impl Drop for Lab {
    fn drop(&mut self) {
        let all = self.bare.iter().chain(&self.hosts).map(String::as_str);
        for name in all.chain(["sw"]) {
            let namespace = self.namespace(name);
            // Whatever still runs in it is ours.
            let pids = run("ip", &["netns", "pids", &namespace]).map(|o| o.stdout);
            for pid in pids.unwrap_or_default().lines().filter_map(|l| l.parse().ok()) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = run("ip", &["netns", "delete", &namespace]);
        }
    }
}
