//! With which keys calls are signed: the environment's, those of a file, or the instance's.

use super::imds::Imds;
use crate::Environment;
use aws_credential_types::Credentials;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Deserialize;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;

/// New ones are asked for so long before the old ones are over: an instance has new ones five
/// minutes before that at the latest (AWS, "Retrieve security credentials").
const BEFORE_END: Duration = Duration::from_secs(4 * 60);

/// Who they are given by, as their library wants to know.
const NAME: &str = "vipd";

/// Where they may come from, in this order.
#[derive(Debug)]
pub(super) struct Chain {
    environment: Environment,
    imds: Imds,
    /// The instance's, until they are over.
    kept: Mutex<Option<Credentials>>,
}

/// As instance metadata say them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfInstance {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

impl Chain {
    pub(super) fn new(environment: Environment, imds: Imds) -> Self {
        Self { environment, imds, kept: Mutex::new(None) }
    }

    /// # Errors
    /// There are none, as a sentence.
    pub(super) async fn get(&self) -> Result<(Credentials, &'static str), String> {
        if let Some(credentials) = self.of_environment() {
            return Ok((credentials, "the environment"));
        }
        if let Some(credentials) = self.of_file()? {
            return Ok((credentials, "a file"));
        }
        Ok((self.of_instance().await?, "the instance's role"))
    }

    /// They were refused: they are asked for anew.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    fn of_environment(&self) -> Option<Credentials> {
        let get = |name| self.environment.get(name).map(ToOwned::to_owned);
        let (key, secret) = (get("AWS_ACCESS_KEY_ID")?, get("AWS_SECRET_ACCESS_KEY")?);
        let token = get("AWS_SESSION_TOKEN");
        Some(Credentials::new(key, secret, token, None, NAME))
    }

    /// Read each time: whoever changes them there need not restart anything.
    fn of_file(&self) -> Result<Option<Credentials>, String> {
        let environment = &self.environment;
        let home = || environment.path("HOME").map(|home| home.join(".aws/credentials"));
        let said = environment.path("AWS_SHARED_CREDENTIALS_FILE");
        let Some(path) = said.clone().or_else(home) else { return Ok(None) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) if said.is_none() => return Ok(None),
            Err(error) => return Err(format!("no credentials in {}: {error}", path.display())),
        };
        let profile = environment.get("AWS_PROFILE").unwrap_or("default");
        let found = of_profile(&text, profile);
        let missing = || missing(&path, profile);
        if said.is_some() { found.ok_or_else(missing).map(Some) } else { Ok(found) }
    }

    async fn of_instance(&self) -> Result<Credentials, String> {
        let mut kept = self.kept.lock().await;
        let until = |time| kept.as_ref().filter(|kept| kept.expiry() > Some(time)).cloned();
        let now = SystemTime::now();
        if let Some(good) = until(now + BEFORE_END) {
            return Ok(good);
        }
        let still_good = until(now);
        match (self.asked().await, still_good) {
            (Ok(new), _) => {
                *kept = Some(new.clone());
                Ok(new)
            }
            (Err(_), Some(old)) => Ok(old),
            (Err(why), None) => Err(why),
        }
    }

    /// What the instance says now.
    async fn asked(&self) -> Result<Credentials, String> {
        let none = |why| {
            format!(
                "no AWS credentials in the environment, in a file, or of this instance's role: \
                 {why}"
            )
        };
        let roles = self.imds.get("iam/security-credentials/").await.map_err(none)?;
        let role = roles.lines().next().unwrap_or_default();
        let path = format!("iam/security-credentials/{role}");
        let text = self.imds.get(&path).await.map_err(none)?;
        let of: OfInstance = serde_json::from_str(&text)
            .map_err(|_| format!("what instance metadata say of {role} are no credentials"))?;
        let until = DateTime::from_str(&of.expiration, Format::DateTime).ok();
        let until = until.and_then(|until| SystemTime::try_from(until).ok());
        let (key, secret) = (of.access_key_id, of.secret_access_key);
        Ok(Credentials::new(key, secret, Some(of.token), until, NAME))
    }
}

fn missing(path: &std::path::Path, profile: &str) -> String {
    format!("{} has no credentials for the profile {profile}", path.display())
}

/// Those of a profile, in the file that AWS's own tools read ("Configuration and credential
/// file settings").
fn of_profile(text: &str, profile: &str) -> Option<Credentials> {
    let (mut is_here, mut said) = (false, std::collections::BTreeMap::new());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_here = name.trim() == profile;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_here) {
            said.insert(key.trim(), value.trim().to_owned());
        }
    }
    let (key, secret) = (said.remove("aws_access_key_id")?, said.remove("aws_secret_access_key")?);
    Some(Credentials::new(key, secret, said.remove("aws_session_token"), None, NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_good_is_used_while_nothing_new_can_be_had() {
        let silent = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")];
        let environment = Environment::from(silent);
        let chain = Chain::new(environment.clone(), Imds::new(&environment));
        let until = |end| Credentials::new("A", "S", None, Some(end), NAME);
        let now = SystemTime::now();
        for (end, is_used) in [
            (now + BEFORE_END * 2, true),
            (now + BEFORE_END / 2, true),
            (now - Duration::from_secs(1), false),
        ] {
            *chain.kept.lock().await = Some(until(end));
            assert_eq!(chain.get().await.is_ok(), is_used, "{end:?}");
        }
    }

    #[test]
    fn a_file_has_a_key_for_each_profile() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=S/=+\n\n\
                    [ other ]\naws_access_key_id=B\naws_secret_access_key=T\n\
                    aws_session_token = U\n[half]\naws_access_key_id=C\n";
        let of = |profile| {
            let found = of_profile(text, profile)?;
            let token = found.session_token().map(ToOwned::to_owned);
            Some((found.access_key_id().to_owned(), found.secret_access_key().to_owned(), token))
        };
        assert_eq!(of("default"), Some(("A".into(), "S/=+".into(), None)));
        assert_eq!(of("other"), Some(("B".into(), "T".into(), Some("U".into()))));
        assert_eq!((of("half"), of("none")), (None, None));
    }
}
