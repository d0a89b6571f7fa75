//! Join tokens: `vipt1_<role>_<id>_<secret>_<pin>_<crc>`.
//!
//! The secret never leaves the machine that joins: an Ed25519 key is derived
//! from it (HKDF, RFC 5869) and signs what the node wants to be. The log holds
//! the public half, so that every replica can check the proof and nobody who
//! reads log or snapshot can join.

use crate::{Name, Role, TokenId};
use aws_lc_rs::signature::KeyPair;
use aws_lc_rs::{digest, hkdf, signature};
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of a verifier, an Ed25519 public key.
pub const VERIFIER_LEN: usize = 32;
const SECRET_LEN: usize = 32;
const PIN_LEN: usize = 32;
/// Bytes of the id; it only has to be unique among the tokens of a cluster.
const ID_LEN: usize = 5;
/// The prefix is for leak scanners; the number for later formats.
const PREFIX: &str = "vipt1";
/// Binds derived keys and statements to this use.
const CONTEXT: &[u8] = b"vipd join token v1";

/// Why a token does not admit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenError {
    /// Not a token at all, or mistyped.
    #[error(
        "it is not a join token, or a character is missing: copy it whole from `vipctl token create`"
    )]
    Malformed,
    /// Not of this cluster, or swept away long ago.
    #[error(
        "this cluster does not know it; tokens of another cluster or from long ago do not work"
    )]
    Unknown,
    /// Past its time.
    #[error("it expired; make a new one with `vipctl token create`")]
    Expired,
    /// Used up.
    #[error("it was used already; make a new one with `vipctl token create`")]
    Used,
    /// Revoked.
    #[error("it was revoked")]
    Revoked,
    /// The signature does not fit.
    #[error(
        "the proof does not fit it: the request was altered on its way, or the token is forged"
    )]
    Proof,
}

/// The secret half of a token.
pub struct TokenSecret([u8; SECRET_LEN]);

impl Drop for TokenSecret {
    fn drop(&mut self) {
        // Best effort: the text it was parsed from is the caller's.
        self.0 = std::hint::black_box([0; SECRET_LEN]);
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

impl TokenSecret {
    /// From 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    fn key(&self) -> signature::Ed25519KeyPair {
        let mut seed = [0u8; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, CONTEXT)
            .extract(&self.0)
            .expand(&[b"ed25519 seed"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut seed))
            .expect("32 bytes are within HKDF's limit");
        signature::Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed has 32 bytes")
    }

    /// The public half, for the log; hex.
    #[must_use]
    pub fn verifier(&self) -> String {
        HEXLOWER.encode(self.key().public_key().as_ref())
    }

    /// Signs a statement made by [`join_statement`].
    #[must_use]
    pub fn sign(&self, statement: &[u8]) -> JoinProof {
        JoinProof(HEXLOWER.encode(self.key().sign(statement).as_ref()))
    }
}

/// A signature by a token's secret over what the joiner wants to be; hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinProof(pub String);

/// What a joiner signs: cluster, token, role, and the identity that it asks
/// for. Each part is preceded by its length, so that no two statements agree.
#[must_use]
pub fn join_statement(
    cluster: &str,
    token: &TokenId,
    role: Role,
    name: &Name,
    advertise: &str,
    spki: &str,
) -> Vec<u8> {
    let mut statement = CONTEXT.to_vec();
    for part in [cluster, &token.0, role.as_str(), name.as_str(), advertise, spki] {
        statement.extend_from_slice(&(part.len() as u64).to_be_bytes());
        statement.extend_from_slice(part.as_bytes());
    }
    statement
}

/// A token as its owner carries it.
#[derive(Debug)]
pub struct TokenText {
    /// What it says it admits. A hint: the log's record rules.
    pub role: Role,
    pub id: TokenId,
    pub secret: TokenSecret,
    /// SHA-256 of the root key (SPKI) of the cluster.
    pub pin: [u8; PIN_LEN],
}

fn encode(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()?.try_into().ok()
}

/// Four bytes that tell a mistyped token from a wrong one.
fn checksum(text: &str) -> [u8; 4] {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let mut sum = [0; 4];
    sum.copy_from_slice(&hash.as_ref()[..4]);
    sum
}

impl TokenText {
    /// A new token from random bytes.
    #[must_use]
    pub fn new(role: Role, id: [u8; ID_LEN], secret: [u8; SECRET_LEN], pin: [u8; PIN_LEN]) -> Self {
        Self { role, id: TokenId(encode(&id)), secret: TokenSecret(secret), pin }
    }

    /// The text to hand to the joining node. Whoever reads it can join.
    #[must_use]
    pub fn reveal(&self) -> String {
        let body = format!(
            "{PREFIX}_{}_{}_{}_{}",
            self.role,
            self.id,
            encode(&self.secret.0),
            encode(&self.pin)
        );
        let sum = encode(&checksum(&body));
        format!("{body}_{sum}")
    }

    /// Reads a token; surrounding white space is ignored.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] for everything that is not one, whole.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        Self::parse_parts(text.trim()).ok_or(TokenError::Malformed)
    }

    fn parse_parts(text: &str) -> Option<Self> {
        let (body, sum) = text.rsplit_once('_')?;
        if decode::<4>(sum)? != checksum(body) {
            return None;
        }
        let parts: Vec<&str> = body.split('_').collect();
        let [PREFIX, role, id, secret, pin] = parts[..] else { return None };
        decode::<ID_LEN>(id)?;
        Some(Self {
            role: role.parse().ok()?,
            id: TokenId(id.to_owned()),
            secret: TokenSecret(decode(secret)?),
            pin: decode(pin)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> TokenText {
        TokenText::new(Role::Voter, [1; ID_LEN], [2; SECRET_LEN], [3; PIN_LEN])
    }

    #[test]
    fn a_token_survives_being_written_and_read() {
        let written = text().reveal();
        assert!(written.starts_with("vipt1_voter_"));
        let read = TokenText::parse(&format!(" {written}\n")).expect("valid");
        assert_eq!((read.role, read.id, read.pin), (Role::Voter, text().id, [3; PIN_LEN]));
        assert_eq!(read.secret.verifier(), text().secret.verifier());
    }

    #[test]
    fn any_single_change_of_a_character_is_noticed() {
        let written = text().reveal();
        for at in 0..written.len() {
            let mut bytes = written.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(bytes).expect("ascii");
            assert!(TokenText::parse(&changed).is_err(), "position {at}");
            assert!(TokenText::parse(&written[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let secret = encode(&[2; SECRET_LEN]);
        assert!(!format!("{:?}", text()).contains(&secret));
    }

    proptest::proptest! {
        /// Whatever somebody pastes.
        #[test]
        fn what_is_read_as_a_token_is_one(
            text in "(vipt1_(voter|learner|witness)?_)?[a-z2-7_]{0,200}|\\PC{0,300}",
        ) {
            if let Ok(token) = TokenText::parse(&text) {
                proptest::prop_assert_eq!(token.reveal(), text.trim());
            }
        }

        #[test]
        fn a_token_with_a_change_is_none(at in 0..200_usize, with in "\\PC?") {
            let written = text().reveal();
            let mut letters: Vec<String> = written.chars().map(String::from).collect();
            let at = at % letters.len();
            letters[at] = with;
            let changed = letters.concat();
            if let Ok(token) = TokenText::parse(&changed) {
                proptest::prop_assert_eq!(token.reveal(), written);
            }
        }
    }
}
