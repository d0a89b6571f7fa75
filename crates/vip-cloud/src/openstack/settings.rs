//! Where OpenStack is and who calls it, as its own tools are told: by `OS_*` variables, or by a
//! cloud of `clouds.yaml` (openstacksdk, "Configuring OpenStack SDK Applications").

use crate::Environment;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where that file is, if nobody says and there is no home.
const CLOUDS: &str = "/etc/openstack/clouds.yaml";

/// See the module.
pub(super) struct Settings {
    /// Of the identity service, with its version.
    pub(super) auth_url: String,
    /// Who calls and for which project, as the identity service is told. There are secrets in
    /// it.
    pub(super) who: Value,
    /// The same, for people.
    pub(super) by: &'static str,
    pub(super) region: Option<String>,
    /// Which of a service's endpoints.
    pub(super) interface: String,
    /// Where the network service is, whatever the catalogue says.
    pub(super) endpoint: Option<String>,
    /// A file of certificates that is trusted, and who says so.
    pub(super) trusts: Option<(String, PathBuf)>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { auth_url, by, region, .. } = self;
        f.debug_struct("Settings")
            .field("at", auth_url)
            .field("by", by)
            .field("of", region)
            .finish()
    }
}

/// What is said, by names as in the file and without the `OS_` of variables.
type Said = BTreeMap<String, String>;

impl Settings {
    /// # Errors
    /// Nothing is said, or something is missing, as a sentence.
    pub(super) fn of(environment: &Environment) -> Result<Self, String> {
        let said = said(environment)?;
        let get = |name: &str| said.get(name).filter(|text| !text.is_empty());
        let auth_url = get("auth_url").ok_or("OpenStack: no auth_url is said")?;
        let auth_url = auth_url.trim_end_matches('/');
        let has_version = auth_url.rsplit('/').next().is_some_and(|last| last.starts_with("v3"));
        let version = if has_version { "" } else { "/v3" };
        let (by, who) = who(&said)?;
        let interface = get("interface").or_else(|| get("endpoint_type"));
        // As it was called once.
        let interface = interface.map_or("public", |text| text.trim_end_matches("URL"));
        Ok(Self {
            auth_url: format!("{auth_url}{version}"),
            who,
            by,
            region: get("region_name").cloned(),
            interface: interface.to_owned(),
            endpoint: get("network_endpoint_override").cloned(),
            trusts: get("cacert").map(|path| ("OpenStack's cacert".to_owned(), path.into())),
        })
    }
}

fn said(environment: &Environment) -> Result<Said, String> {
    match (environment.get("OS_CLOUD"), environment.get("OS_AUTH_URL")) {
        (None, Some(_)) => Ok(environment.beginning_with("OS_")),
        (cloud, None) | (cloud @ Some(_), Some(_)) => of_file(environment, cloud),
    }
}

/// One that a file has; `None`: the only one.
fn of_file(environment: &Environment, cloud: Option<&str>) -> Result<Said, String> {
    let home = || environment.path("HOME").map(|home| home.join(".config/openstack/clouds.yaml"));
    let path = match environment.path("OS_CLIENT_CONFIG_FILE") {
        Some(said) => said,
        None => home().filter(|path| path.exists()).unwrap_or_else(|| CLOUDS.into()),
    };
    if cloud.is_none() && !path.exists() {
        return Err(format!("no OpenStack is said: no OS_AUTH_URL, no OS_CLOUD, no {CLOUDS}"));
    }
    let mut said = read(&path, cloud)?;
    // Secrets may be in a file of their own beside it.
    let secure = path.with_file_name("secure.yaml");
    if secure.exists() {
        // It need not have each.
        said.extend(read(&secure, cloud).unwrap_or_default());
    }
    Ok(said)
}

fn read(path: &Path, cloud: Option<&str>) -> Result<Said, String> {
    let bad = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| bad(&e))?;
    // What cannot be read is not shown: there are secrets in it.
    let file: Value = serde_norway::from_str(&text).map_err(|_| bad(&"it is no YAML"))?;
    let clouds = file["clouds"].as_object().ok_or_else(|| bad(&"it has no clouds"))?;
    let found = match cloud {
        Some(name) => clouds.get(name),
        None if clouds.len() == 1 => clouds.values().next(),
        None => return Err(bad(&"it has several clouds, and OS_CLOUD names none")),
    };
    let found = found
        .and_then(Value::as_object)
        .ok_or_else(|| bad(&format!("it has no cloud {:?}", cloud.unwrap_or_default())))?;
    let auth = found.get("auth").and_then(Value::as_object);
    let all = auth.into_iter().flatten().chain(found);
    Ok(all.filter_map(|(name, value)| Some((name.clone(), scalar(value)?))).collect())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Keystone API v3, "Authentication and token management".
fn who(said: &Said) -> Result<(&'static str, Value), String> {
    let get = |name: &str| said.get(name).filter(|text| !text.is_empty());
    let domain = |of: &str| {
        let id = get(&format!("{of}_domain_id")).map(|id| json!({ "id": id }));
        let name = || get(&format!("{of}_domain_name")).map(|name| json!({ "name": name }));
        id.or_else(name).unwrap_or_else(|| json!({ "id": "default" }))
    };
    let user = || {
        let named = |name| json!({ "name": name, "domain": domain("user") });
        let id = get("user_id").map(|id| json!({ "id": id }));
        id.or_else(|| get("username").map(named)).ok_or("OpenStack: no username is said")
    };
    if let Some(secret) = get("application_credential_secret") {
        let mut credential = json!({ "secret": secret });
        match (get("application_credential_id"), get("application_credential_name")) {
            (Some(id), _) => credential["id"] = json!(id),
            (None, Some(name)) => {
                credential["name"] = json!(name);
                credential["user"] = user()?;
            }
            (None, None) => return Err("OpenStack: no application_credential_id is said".into()),
        }
        let methods = ["application_credential"];
        let identity = json!({ "methods": methods, "application_credential": credential });
        return Ok(("an application credential", json!({ "auth": { "identity": identity } })));
    }
    let mut user = user()?;
    let password = get("password").ok_or("OpenStack: no password is said")?;
    user["password"] = json!(password);
    let identity = json!({ "methods": ["password"], "password": { "user": user } });
    let id = get("project_id").map(|id| json!({ "id": id }));
    let named = |name| json!({ "name": name, "domain": domain("project") });
    let project = id.or_else(|| get("project_name").map(named));
    let project = project.ok_or("OpenStack: no project_name is said")?;
    let auth = json!({ "identity": identity, "scope": { "project": project } });
    Ok(("a password", json!({ "auth": auth })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_say_who_calls() {
        let all = [
            ("OS_AUTH_URL", "https://cloud:5000/"),
            ("OS_USERNAME", "vipd"),
            ("OS_PASSWORD", "x"),
            ("OS_PROJECT_NAME", "p"),
            ("OS_PROJECT_DOMAIN_NAME", "d"),
            ("OS_REGION_NAME", "one"),
            ("OS_ENDPOINT_TYPE", "internalURL"),
        ];
        let settings = Settings::of(&Environment::from(all)).expect("all is said");
        assert_eq!(settings.auth_url, "https://cloud:5000/v3");
        assert_eq!((settings.interface.as_str(), settings.by), ("internal", "a password"));
        let auth = &settings.who["auth"];
        assert_eq!(auth["scope"]["project"], json!({ "name": "p", "domain": { "name": "d" } }));
        let user = &auth["identity"]["password"]["user"];
        assert_eq!(user["domain"], json!({ "id": "default" }));
        assert!(!format!("{settings:?}").contains('x'), "{settings:?}");
        let few = [("OS_AUTH_URL", "https://cloud"), ("OS_USERNAME", "vipd")];
        let why = Settings::of(&Environment::from(few)).expect_err("no password");
        assert_eq!(why, "OpenStack: no password is said");
    }

    #[test]
    fn a_file_has_clouds_and_another_one_their_secrets() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("clouds.yaml");
        let text = "clouds:\n  one:\n    region_name: r1\n    cacert: /ca.pem\n    auth:\n      \
                    auth_url: https://cloud/identity/v3\n      application_credential_id: 7\n  \
                    two:\n    auth: {}\n";
        std::fs::write(&file, text).expect("written");
        let secret = "clouds:\n  one:\n    auth:\n      application_credential_secret: s\n";
        std::fs::write(dir.path().join("secure.yaml"), secret).expect("written");
        let path = file.to_str().expect("text");
        let of = |cloud| {
            let all = [("OS_CLIENT_CONFIG_FILE", path), ("OS_CLOUD", cloud)];
            Settings::of(&Environment::from(all))
        };
        let settings = of("one").expect("all is said");
        assert_eq!(settings.auth_url, "https://cloud/identity/v3");
        let credential = &settings.who["auth"]["identity"]["application_credential"];
        assert_eq!(*credential, json!({ "id": "7", "secret": "s" }));
        assert_eq!(settings.trusts.expect("a file").1, Path::new("/ca.pem"));
        for (cloud, why) in [("three", "no cloud \"three\""), ("", "several clouds")] {
            let said = of(cloud).expect_err("it is not there");
            assert!(said.contains(why) && said.contains(path), "{said}");
        }
        std::fs::write(&file, "clouds: [secret").expect("written");
        assert!(!of("one").expect_err("no YAML").contains("secret"));
    }
}
