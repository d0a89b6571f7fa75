//! One call of EC2's query API, signed (AWS, "Signature Version 4").

use super::At;
use super::credentials::Chain;
use crate::Environment;
use crate::http::{ask, outward};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::{Client, Url};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

const VERSION: &str = "2016-11-15";
/// How long one call may take: what was sent on a connection that leads nowhere any more is
/// asked for again on another.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// There are too many calls, of whomever, in this account (AWS, "Error codes for the Amazon EC2
/// API").
const BUSY: [&str; 7] = [
    "RequestLimitExceeded",
    "EC2ThrottledException",
    "Throttling",
    "ThrottlingException",
    "Unavailable",
    "InternalError",
    "ServiceUnavailable",
];
/// What is asked for as a trial would have been done (AWS, "Actions", `DryRun`).
const WOULD_HAVE: &str = "DryRunOperation";
/// The credentials are over, or were never good.
const REFUSED: [&str; 3] = ["RequestExpired", "AuthFailure", "ExpiredToken"];

/// Where calls go.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) region: String,
    endpoint: Url,
}

impl Target {
    /// # Errors
    /// It is no address, as a sentence.
    pub(super) fn new(region: String, endpoint: Option<String>) -> Result<Self, String> {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if region.is_empty() || !plain(&region) {
            return Err(format!("{region:?} is no AWS region"));
        }
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let text = endpoint.unwrap_or_else(|| format!("https://ec2.{region}.{suffix}"));
        let endpoint = Url::parse(&text).map_err(|e| format!("AWS endpoint {text:?}: {e}"))?;
        Ok(Self { region, endpoint })
    }
}

/// Why nothing came of a call, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// It answered that it does not.
    #[error("AWS {action}: {code}: {message}")]
    Api { action: &'static str, code: String, message: String },
    #[error("{0}")]
    Other(String),
}

impl CallError {
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Api { code, .. } => code,
            Self::Other(_) => "",
        }
    }

    /// Others fare no better now.
    pub(super) fn is_busy(&self) -> bool {
        // Who answers for them may say it in words of its own.
        let code = self.code();
        BUSY.contains(&code) || code.starts_with("HTTP 5") || code == "HTTP 429"
    }
}

#[derive(Debug)]
pub(super) struct Ec2 {
    /// Or why there is none. Made when it is needed: it reads all certificates of this host.
    client: OnceLock<Result<Client, String>>,
    environment: Environment,
    chain: Chain,
}

/// What came of a call.
pub(super) struct Said {
    /// XML that was read once.
    pub(super) body: String,
    pub(super) date: Option<SystemTime>,
}

impl Ec2 {
    pub(super) fn new(environment: Environment, chain: Chain) -> Self {
        Self { client: OnceLock::new(), environment, chain }
    }

    /// # Errors
    /// There are none.
    pub(super) async fn credentials_from(&self) -> Result<&'static str, CallError> {
        self.chain.get().await.map(|(_, from)| from).map_err(CallError::Other)
    }

    /// # Errors
    /// It says no, or nothing that can be read, or nothing in time.
    pub(super) async fn call(
        &self,
        target: &Target,
        action: &'static str,
        parameters: &[(&str, &str)],
    ) -> Result<Said, CallError> {
        let client = self.client.get_or_init(|| {
            const NAME: &str = "AWS_CA_BUNDLE";
            let trusts = self.environment.path(NAME);
            outward(trusts.as_deref().map(|path| (NAME, path)))
        });
        let client = client.as_ref();
        let client = client.map_err(|why| CallError::Other(why.clone()))?;
        let request = self.signed(client, target, action, parameters).await;
        let answer = ask(client, request.map_err(CallError::Other)?, ANSWER).await;
        let answer = answer.map_err(|why| CallError::Other(format!("AWS {action}: {why}")))?;
        if answer.status == 200 {
            let date = answer.date();
            return Ok(Said { body: answer.body, date });
        }
        let refused = refusal(&answer.body);
        let (code, message) = refused.unwrap_or_else(|| {
            (format!("HTTP {}", answer.status), "it says nothing that can be read".to_owned())
        });
        if REFUSED.contains(&code.as_str()) {
            self.chain.forget().await;
        }
        Err(CallError::Api { action, code, message })
    }

    /// Whether a call would be done.
    ///
    /// # Errors
    /// It would not.
    pub(super) async fn would(
        &self,
        target: &Target,
        action: &'static str,
        parameters: &[(&str, &str)],
    ) -> Result<(), CallError> {
        let trial = [parameters, &[("DryRun", "true")]].concat();
        match self.call(target, action, &trial).await {
            Err(error) if error.code() == WOULD_HAVE => Ok(()),
            // Whoever knows of no trials did it.
            other => other.map(|_| ()),
        }
    }

    async fn signed(
        &self,
        client: &Client,
        target: &Target,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<reqwest::Request, String> {
        let identity = self.chain.get().await?.0.into();
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("Action", action).append_pair("Version", VERSION);
        body.extend_pairs(parameters);
        let body = body.finish();
        let unsigned = |e: &dyn std::fmt::Display| format!("AWS {action} cannot be signed: {e}");
        let signing = v4::SigningParams::builder()
            .identity(&identity)
            .region(&target.region)
            .name("ec2")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| unsigned(&e))?
            .into();
        let url = target.endpoint.as_str();
        let host = target.endpoint.authority();
        let kind = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        let headers = [("host", host), kind];
        let bytes = SignableBody::Bytes(body.as_bytes());
        let signable = SignableRequest::new("POST", url, headers.into_iter(), bytes)
            .map_err(|e| unsigned(&e))?;
        let (instructions, _) = sign(signable, &signing).map_err(|e| unsigned(&e))?.into_parts();
        let mut request = client.post(target.endpoint.clone()).header(kind.0, kind.1);
        for (name, value) in instructions.headers() {
            let mut value: http::HeaderValue = value.parse().map_err(|e| unsigned(&e))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        request.body(body).build().map_err(|e| unsigned(&e))
    }
}

/// Code and message of an answer that says no.
fn refusal(body: &str) -> Option<(String, String)> {
    let document = roxmltree::Document::parse(body).ok()?;
    let text = |name| text_of(document.root(), name).map(ToOwned::to_owned);
    Some((text("Code")?, text("Message").unwrap_or_default()))
}

/// The text of the first element of that name below one.
pub(super) fn text_of<'a>(node: roxmltree::Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.descendants().find(|child| child.is_named(name)).and_then(|child| child.text())
}

/// Names with whatever namespace: it has the version in it.
pub(super) trait Named {
    fn is_named(&self, name: &str) -> bool;
}

impl Named for roxmltree::Node<'_, '_> {
    fn is_named(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

/// What is known of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// What is neither from nor for its own addresses is dropped.
    pub(super) checks_destination: bool,
    pub(super) vpc: String,
}

/// This node's own.
pub(super) async fn described(at: &At<'_>) -> Result<(Described, Option<SystemTime>), CallError> {
    let action = "DescribeNetworkInterfaces";
    let parameters = [("NetworkInterfaceId.1", at.interface)];
    let said = at.ec2.call(at.target, action, &parameters).await?;
    let document = parsed(action, &said.body)?;
    let checks = text_of(document.root(), "sourceDestCheck") == Some("true");
    let vpc = text_of(document.root(), "vpcId").unwrap_or_default().to_owned();
    Ok((Described { checks_destination: checks, vpc }, said.date))
}

/// # Errors
/// It is no XML.
pub(super) fn parsed<'a>(
    action: &str,
    body: &'a str,
) -> Result<roxmltree::Document<'a>, CallError> {
    let parsed = roxmltree::Document::parse(body);
    parsed.map_err(|e| CallError::Other(format!("AWS {action}: what it says is no XML: {e}")))
}
