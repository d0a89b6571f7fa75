//! `vipd.toml`: what a node must know before it can join.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use vip_cloud::{AwsSection, BgpSection, OpenStackSection, Sections};
use vip_core::{Name, Profile};

/// Port of peers and remote admins.
const DEFAULT_PORT: u16 = 7400;
/// Of load balancers and orchestrators.
const DEFAULT_HTTP_PORT: u16 = 7480;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}")]
    Read {
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not parse, or has a key that does not exist.
    #[error("{origin}: {why}")]
    Parse {
        /// File, or `--set`.
        origin: String,
        /// Where and what.
        why: String,
    },
    /// A value makes no sense.
    #[error("{key}: {why}")]
    Value {
        key: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub node: NodeSection,
    pub admin: AdminSection,
    pub guard: GuardSection,
    pub probe: ProbeSection,
    pub http: HttpSection,
    pub cloud: CloudSection,
}

/// `[cloud]`: those who have to know where VIPs are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudSection {
    pub aws: AwsSection,
    pub bgp: BgpSection,
    pub openstack: OpenStackSection,
    pub exec: ExecSection,
}

impl CloudSection {
    /// Of those whose APIs are called.
    pub(crate) fn providers(&self) -> Sections {
        let Self { aws, bgp, openstack, exec: _ } = self.clone();
        Sections { aws, bgp, openstack }
    }
}

/// `[cloud.exec]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecSection {
    /// The folder of the programs that may move VIPs, root's alone to change; empty: none is
    /// run.
    pub dir: PathBuf,
}

impl ExecSection {
    /// The folder, if there is one.
    #[must_use]
    pub fn programs(&self) -> Option<&Path> {
        is_said(&self.dir)
    }
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSection {
    /// Default: the host name.
    pub name: Option<String>,
    /// Keys, log, snapshots.
    pub data_dir: PathBuf,
    /// Where peers and remote admins connect; by default at every address, of
    /// IPv4 too.
    pub listen: SocketAddr,
    /// What to tell them; default: the address of the default route's interface.
    pub advertise: Option<String>,
    /// Used by `init`; later it is the cluster's.
    pub profile: Profile,
    /// Cluster-wide names of this node's interfaces.
    pub interfaces: BTreeMap<String, String>,
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSection {
    /// For vipctl; root only.
    pub socket: PathBuf,
}

/// `[guard]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardSection {
    /// Between agent and guard.
    pub socket: PathBuf,
    /// "required" or "optional".
    pub gate: String,
    /// Prefixes that VIPs may be in; empty: any unicast address that is not a
    /// gateway or another address of the host.
    pub allow: Vec<String>,
    /// Prefixes that real servers may be in; empty: networks that this host is connected
    /// to, and private ones.
    pub allow_real: Vec<String>,
}

/// `[probe]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeSection {
    /// The folder of the programs that checks may name, root's alone to change; empty: none
    /// is run.
    pub exec_dir: PathBuf,
    /// Between agent and who runs them.
    pub exec_socket: PathBuf,
    /// PEM files: what real servers are shown that ask by TLS who asks; empty: nothing.
    pub client_certificate: PathBuf,
    pub client_key: PathBuf,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Where load balancers and orchestrators ask; "" turns it off.
    #[serde(deserialize_with = "address_or_nothing")]
    pub listen: Option<SocketAddr>,
    /// By VIP, where to listen only while clients of it are served here.
    pub tcp: BTreeMap<String, SocketAddr>,
    /// What is meant for this host alone is for everybody.
    pub public: bool,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            name: None,
            data_dir: "/var/lib/vipd".into(),
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT)),
            advertise: None,
            profile: Profile::default(),
            interfaces: BTreeMap::new(),
        }
    }
}

impl Default for AdminSection {
    fn default() -> Self {
        Self { socket: "/run/vipd/admin.sock".into() }
    }
}

impl Default for GuardSection {
    fn default() -> Self {
        let socket = "/run/vipd/guard.sock".into();
        Self { socket, gate: "required".into(), allow: vec![], allow_real: vec![] }
    }
}

impl Default for ProbeSection {
    fn default() -> Self {
        let none = PathBuf::new;
        Self {
            exec_dir: none(),
            exec_socket: "/run/vipd-exec.sock".into(),
            client_certificate: none(),
            client_key: none(),
        }
    }
}

fn is_said(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

impl ProbeSection {
    /// The folder, if there is one.
    #[must_use]
    pub fn programs(&self) -> Option<&Path> {
        is_said(&self.exec_dir)
    }

    /// This host's own certificate and its key, if it has them.
    #[must_use]
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        is_said(&self.client_certificate).zip(is_said(&self.client_key))
    }
}

fn address_or_nothing<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = |_| D::Error::custom(format!("{text:?} is not an address with a port"));
    (!text.is_empty()).then(|| text.parse().map_err(wrong)).transpose()
}

impl HttpSection {
    fn check(&self) -> Result<(), ConfigError> {
        let value = |why| Err(ConfigError::Value { key: "http.tcp", why });
        for (name, address) in &self.tcp {
            if let Err(why) = name.parse::<Name>() {
                return value(why.to_string());
            }
            let taken = |other: &(&String, &SocketAddr)| other.0 != name && other.1 == address;
            if self.listen == Some(*address) || self.tcp.iter().any(|other| taken(&other)) {
                return value(format!("{address} of {name} is listened at for something else"));
            }
        }
        Ok(())
    }
}

impl Default for HttpSection {
    fn default() -> Self {
        let listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_HTTP_PORT)));
        Self { listen, tcp: BTreeMap::new(), public: false }
    }
}

impl Config {
    /// Reads the file, if there is one or it was asked for, then the settings
    /// of `--set KEY=VALUE`.
    ///
    /// # Errors
    /// [`ConfigError`]: what is wrong, with file and line.
    pub fn load(path: &Path, explicit: bool, settings: &[String]) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !explicit => String::new(),
            result => {
                result.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?
            }
        };
        // First alone, so that an error has its line.
        let parse =
            |origin: String, e: toml::de::Error| ConfigError::Parse { origin, why: e.to_string() };
        let origin = || path.display().to_string();
        let plain: Self = toml::from_str(&text).map_err(|e| parse(origin(), e))?;
        if settings.is_empty() {
            return plain.checked();
        }
        let mut table: toml::Table = toml::from_str(&text).map_err(|e| parse(origin(), e))?;
        for setting in settings {
            set(&mut table, setting)?;
        }
        let with: Self = table.try_into().map_err(|e| parse("--set".into(), e))?;
        with.checked()
    }

    fn checked(self) -> Result<Self, ConfigError> {
        if let Some(name) = &self.node.name {
            name.parse::<Name>()
                .map_err(|e| ConfigError::Value { key: "node.name", why: e.to_string() })?;
        }
        // What is on loopback nobody else is told of.
        if let Some((name, _)) = self.node.interfaces.iter().find(|(_, on)| *on == "lo") {
            let why = format!("{name} = \"lo\": a VIP that is announced cannot be on loopback");
            return Err(ConfigError::Value { key: "node.interfaces", why });
        }
        if !matches!(self.guard.gate.as_str(), "required" | "optional") {
            let why = format!("{:?} is neither \"required\" nor \"optional\"", self.guard.gate);
            return Err(ConfigError::Value { key: "guard.gate", why });
        }
        if self.probe.programs().is_some_and(Path::is_relative) {
            let why = format!("{} does not begin with /", self.probe.exec_dir.display());
            return Err(ConfigError::Value { key: "probe.exec_dir", why });
        }
        if self.cloud.exec.programs().is_some_and(Path::is_relative) {
            let why = format!("{} does not begin with /", self.cloud.exec.dir.display());
            return Err(ConfigError::Value { key: "cloud.exec.dir", why });
        }
        let [certificate, key] =
            [&self.probe.client_certificate, &self.probe.client_key].map(|path| is_said(path));
        if certificate.is_some() != key.is_some() {
            let why = "the certificate wants client_key beside it, and the key a certificate";
            return Err(ConfigError::Value { key: "probe.client_certificate", why: why.into() });
        }
        self.http.check()?;
        Ok(self)
    }

    /// This node's name.
    ///
    /// # Errors
    /// The host name is no valid name and none is set.
    pub fn node_name(&self) -> Result<Name, ConfigError> {
        let host = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok());
        let text = match &self.node.name {
            Some(name) => name.clone(),
            None => host.unwrap_or_default().split('.').next().unwrap_or_default().to_lowercase(),
        };
        text.parse().map_err(|e: vip_core::NameError| ConfigError::Value {
            key: "node.name",
            why: format!("{e} (set it in vipd.toml)"),
        })
    }

    /// Where peers reach this node.
    ///
    /// # Errors
    /// None is set and this host has no default route.
    pub fn advertise(&self) -> Result<String, ConfigError> {
        let value = |why: String| ConfigError::Value { key: "node.advertise", why };
        if let Some(text) = &self.node.advertise {
            let ok = text.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0)
            });
            return if ok {
                Ok(text.clone())
            } else {
                Err(value(format!("{text:?} is not an address with a port")))
            };
        }
        let listen = self.node.listen;
        if !listen.ip().is_unspecified() {
            return Ok(listen.to_string());
        }
        let ip = default_source().ok_or_else(|| {
            value("this host has no default route; set node.advertise in vipd.toml".into())
        })?;
        Ok(SocketAddr::new(ip, listen.port()).to_string())
    }
}

/// The source address that the kernel would use towards the default route, by
/// IPv4 if it can. Connecting a UDP socket sends nothing.
fn default_source() -> Option<IpAddr> {
    // TEST-NET-3 (RFC 5737) and the prefix for documentation (RFC 3849), never
    // routed specially.
    let somewhere = [("0.0.0.0:0", "203.0.113.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    somewhere.into_iter().find_map(|(any, there)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(there).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    })
}

fn set(table: &mut toml::Table, setting: &str) -> Result<(), ConfigError> {
    let bad =
        |why: &str| ConfigError::Parse { origin: format!("--set {setting}"), why: why.to_owned() };
    let (key, text) = setting.split_once('=').ok_or_else(|| bad("not KEY=VALUE"))?;
    // A value that is no TOML is taken as a string, so that quotes are optional.
    let value = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    let value = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().filter(|l| !l.is_empty()).ok_or_else(|| bad("no key"))?;
    let mut at = table;
    for part in parts {
        let entry = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = entry.as_table_mut().ok_or_else(|| bad("not a table"))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, settings: &[&str]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("vipd.toml");
        std::fs::write(&path, text).expect("written");
        let settings: Vec<_> = settings.iter().map(|s| (*s).to_owned()).collect();
        Config::load(&path, true, &settings)
    }

    #[test]
    fn an_empty_file_is_a_whole_configuration() {
        let config = load("", &[]).expect("valid");
        assert_eq!(config.node.listen.port(), DEFAULT_PORT);
        assert_eq!(config.guard.gate, "required");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = load("[node]\nname = \"n1\"\nprofil = \"lan\"\n", &[]).expect_err("unknown");
        let text = error.to_string();
        assert!(text.contains("profil") && text.contains("line 3"), "{text}");
    }

    #[test]
    fn settings_override_the_file_and_need_no_quotes() {
        let settings = ["node.name=n2", "node.profile=fast", "guard.allow=[\"10.0.0.0/8\"]"];
        let config = load("[node]\nname = \"n1\"\n", &settings).expect("valid");
        assert_eq!(config.node.name.as_deref(), Some("n2"));
        assert_eq!(config.node.profile, Profile::Fast);
        assert_eq!(config.guard.allow, ["10.0.0.0/8"]);
        assert!(load("", &["node.nam=x"]).is_err());
        assert!(load("", &["nonsense"]).is_err());
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for text in [
            "[node]\nname = \"N 1\"",
            "[guard]\ngate = \"maybe\"",
            "[node.interfaces]\nlan = \"lo\"",
            "[probe]\nexec_dir = \"checks\"",
            "[cloud.exec]\ndir = \"movers\"",
            "[probe]\nclient_certificate = \"/a\"",
            "[probe]\nclient_key = \"/a\"",
            "[http]\ntcp = { WEB = \"127.0.0.1:9000\" }",
            "[http]\ntcp = { a = \"127.0.0.1:9000\", b = \"127.0.0.1:9000\" }",
            "[http]\ntcp = { a = \"127.0.0.1:7480\" }",
        ] {
            assert!(matches!(load(text, &[]), Err(ConfigError::Value { .. })), "{text}");
        }
    }

    #[test]
    fn where_http_listens_is_an_address_or_nothing() {
        let listen =
            |text: &str| load(&format!("[http]\nlisten = {text:?}"), &[]).map(|c| c.http.listen);
        assert_eq!(listen("").expect("valid"), None);
        assert_eq!(load("", &[]).expect("valid").http.listen, "127.0.0.1:7480".parse().ok());
        let error = listen("x").expect_err("no address").to_string();
        assert!(error.contains("\"x\" is not an address with a port"), "{error}");
        let config = load("", &["http.tcp.web=10.0.0.1:9000"]).expect("valid");
        assert_eq!(config.http.tcp.get("web").copied(), "10.0.0.1:9000".parse().ok());
    }

    #[test]
    fn a_missing_file_is_an_error_only_if_it_was_asked_for() {
        let path = Path::new("/nonexistent/vipd.toml");
        assert!(Config::load(path, false, &[]).is_ok());
        assert!(Config::load(path, true, &[]).is_err());
    }

    proptest::proptest! {
        /// Whatever is in the file: an error with a place, or a configuration
        /// that holds what is said of it.
        #[test]
        fn a_file_is_refused_or_makes_sense(
            text in "(\\[(node|guard|admin|http)\\]\n)?((name|listen|gate|profile|data_dir|interfaces) = (\"[a-z0-9.:/-]{0,20}\"|[0-9]{1,3}|\\{\\}|\\PC{0,8})\n){0,4}",
            setting in "[a-z]{0,5}(\\.[a-z_]{0,9}){0,3}=?\\PC{0,12}",
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("vipd.toml");
            std::fs::write(&path, &text).expect("written");
            for settings in [vec![], vec![setting]] {
                let Ok(config) = Config::load(&path, true, &settings) else { continue };
                let gate = config.guard.gate.as_str();
                proptest::prop_assert!(matches!(gate, "required" | "optional"));
                if let Some(name) = &config.node.name {
                    proptest::prop_assert!(name.parse::<Name>().is_ok());
                }
            }
        }
    }
}
