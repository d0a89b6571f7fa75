//! Tokens of the identity service, and where it says that the network service is.

use super::error::CallError;
use super::settings::Settings;
use crate::Environment;
use crate::http::{ask, outward};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use http::HeaderValue;
use reqwest::Client;
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Mutex, OnceCell};

/// A new one is asked for so long before the old one is over.
const BEFORE_END: Duration = Duration::from_secs(4 * 60);
/// It is not asked more often: whoever is refused is no better off a moment later, and somebody
/// may count that.
const AGAIN: Duration = Duration::from_secs(5);
/// How long one call may take.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Identity {
    environment: Environment,
    ready: OnceCell<Ready>,
    kept: Mutex<Kept>,
}

/// The last one, and how it was with asking for one.
#[derive(Debug, Default)]
struct Kept {
    token: Option<Token>,
    asked: Option<Instant>,
    /// Why there is none.
    why: String,
}

/// What does not change while this process runs.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) settings: Settings,
    pub(super) client: Client,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    /// It is never shown.
    pub(super) value: HeaderValue,
    /// Where the network service is.
    pub(super) network: String,
    until: SystemTime,
}

impl Identity {
    pub(super) fn new(environment: Environment) -> Self {
        Self { environment, ready: OnceCell::new(), kept: Mutex::default() }
    }

    /// # Errors
    /// Nothing is said of it, or what is said cannot be used. Asked again it is looked at anew.
    pub(super) async fn ready(&self) -> Result<&Ready, CallError> {
        let made = self.ready.get_or_try_init(async || {
            let settings = Settings::of(&self.environment)?;
            let trusts = settings.trusts.as_ref().map(|(who, path)| (who.as_str(), path.as_path()));
            let client = outward(trusts)?;
            Ok(Ready { settings, client })
        });
        made.await.map_err(CallError::Other)
    }

    /// One that is good; the one that is there, while no other can be had.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn token(&self) -> Result<Token, CallError> {
        let mut kept = self.kept.lock().await;
        let now = SystemTime::now();
        let good = |at| kept.token.as_ref().filter(|token: &&Token| token.until > at).cloned();
        if let Some(token) = good(now + BEFORE_END) {
            return Ok(token);
        }
        let still_good = good(now);
        if kept.asked.is_some_and(|at| at.elapsed() < AGAIN) {
            let why = || CallError::Other(kept.why.clone());
            return still_good.ok_or_else(why);
        }
        kept.asked = Some(Instant::now());
        match (self.asked().await, still_good) {
            (Ok(new), _) => {
                kept.why = "OpenStack: a new token was refused, too (access rules?)".to_owned();
                Ok(kept.token.insert(new).clone())
            }
            (Err(error), still_good) => {
                kept.why = error.to_string();
                still_good.ok_or(error)
            }
        }
    }

    /// It was refused: another one is asked for.
    pub(super) async fn forget(&self, refused: &HeaderValue) {
        let mut kept = self.kept.lock().await;
        kept.token = kept.token.take().filter(|token| token.value != *refused);
    }

    async fn asked(&self) -> Result<Token, CallError> {
        const WHAT: &str = "identity";
        let Ready { settings, client } = self.ready().await?;
        let other = |e: &dyn std::fmt::Display| CallError::Other(format!("OpenStack {WHAT}: {e}"));
        let request = client
            .post(format!("{}/auth/tokens", settings.auth_url))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(settings.who.to_string())
            .build()
            .map_err(|_| other(&format!("{:?} is no address", settings.auth_url)))?;
        let answer = ask(client, request, ANSWER).await.map_err(|why| other(&why))?;
        if answer.status != 201 {
            return Err(CallError::refused(WHAT, &answer));
        }
        let value = answer.headers.get("x-subject-token");
        let mut value = value.ok_or_else(|| other(&"it gave no token"))?.clone();
        value.set_sensitive(true);
        let body: Value =
            serde_json::from_str(&answer.body).map_err(|_| other(&"what it says is no JSON"))?;
        let token = &body["token"];
        let until = token["expires_at"].as_str().unwrap_or_default();
        let until = DateTime::from_str(until, Format::DateTime).ok();
        let until = until.and_then(|until| SystemTime::try_from(until).ok());
        let network = match &settings.endpoint {
            Some(said) => said.clone(),
            None => network_of(token, settings).map_err(|why| other(&why))?,
        };
        let until = until.ok_or_else(|| other(&"it does not say how long a token is good"))?;
        Ok(Token { value, network: network.trim_end_matches('/').to_owned(), until })
    }
}

/// Where the catalogue says that the network service is.
fn network_of(token: &Value, settings: &Settings) -> Result<String, String> {
    let services = token["catalog"].as_array().into_iter().flatten();
    let network = services.filter(|service| service["type"] == "network");
    let mut endpoints = network.flat_map(|service| service["endpoints"].as_array()).flatten();
    let is_meant = |endpoint: &&Value| {
        let region = settings.region.as_ref();
        let is_there = region.is_none_or(|region| {
            endpoint["region_id"] == **region || endpoint["region"] == **region
        });
        endpoint["interface"] == *settings.interface && is_there
    };
    let found = endpoints.find(is_meant).and_then(|endpoint| endpoint["url"].as_str());
    found.map(ToOwned::to_owned).ok_or_else(|| {
        let region = settings.region.as_deref().map_or(String::new(), |r| format!(" in {r}"));
        format!("the catalogue has no {} network service{region}", settings.interface)
    })
}
