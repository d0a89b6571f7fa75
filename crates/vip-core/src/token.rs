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
/// Log time for which a used or expired token is still listed.
pub(crate) const TOKEN_KEPT_MS: u64 = 24 * 3600 * 1000;

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
    /// Its id.
    pub id: TokenId,
    /// Its secret.
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

/// A token as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Public key that its proofs verify with, hex.
    pub verifier: String,
    /// What it admits.
    pub role: Role,
    /// Log time after which it admits nobody, ms since 1970.
    pub expires_ms: u64,
    /// How many nodes it may admit.
    pub max_uses: u32,
    /// Keys (SPKI hashes) it admitted.
    #[serde(default)]
    pub used: Vec<String>,
    /// Revoked by an admin.
    #[serde(default)]
    pub revoked: bool,
    /// Who made it.
    pub created_by: String,
}

const STAND_IN: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

impl Token {
    /// A token that admits nobody, to be looked at where there is none. Its
    /// verifier is the public key of RFC 8032 section 7.1, test 1.
    pub(crate) fn stand_in() -> Self {
        Self {
            id: TokenId(String::new()),
            verifier: STAND_IN.to_owned(),
            role: Role::Learner,
            expires_ms: 0,
            max_uses: 0,
            used: vec![],
            revoked: true,
            created_by: String::new(),
        }
    }

    /// Whether it admits the holder of `spki`, at log time `now_ms`.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(
        &self,
        now_ms: u64,
        spki: &str,
        statement: &[u8],
        proof: &JoinProof,
    ) -> Result<(), TokenError> {
        let verifier = HEXLOWER.decode(self.verifier.as_bytes()).map_err(|_| TokenError::Proof)?;
        let proof = HEXLOWER.decode(proof.0.as_bytes()).map_err(|_| TokenError::Proof)?;
        // Before everything else: what the token's state is, only its owner learns.
        signature::UnparsedPublicKey::new(&signature::ED25519, verifier)
            .verify(statement, &proof)
            .map_err(|_| TokenError::Proof)?;
        if self.used.iter().any(|used| used == spki) {
            return Ok(());
        }
        if self.revoked {
            return Err(TokenError::Revoked);
        }
        if self.used.len() >= self.max_uses as usize {
            return Err(TokenError::Used);
        }
        if now_ms >= self.expires_ms {
            return Err(TokenError::Expired);
        }
        Ok(())
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

    #[test]
    fn a_proof_fits_one_key_only() {
        let secret = text().secret;
        let token = Token {
            id: text().id,
            verifier: secret.verifier(),
            role: Role::Voter,
            expires_ms: 1000,
            max_uses: 1,
            used: vec![],
            revoked: false,
            created_by: "root@n1".into(),
        };
        let name: Name = "n2".parse().expect("valid");
        let statement =
            |spki: &str| join_statement("c", &token.id, Role::Voter, &name, "10.0.0.2:7400", spki);
        let proof = secret.sign(&statement("aa"));

        assert_eq!(token.admits(999, "aa", &statement("aa"), &proof), Ok(()));
        assert_eq!(token.admits(999, "bb", &statement("bb"), &proof), Err(TokenError::Proof));
        assert_eq!(token.admits(1000, "aa", &statement("aa"), &proof), Err(TokenError::Expired));
        let used = Token { used: vec!["aa".into()], ..token.clone() };
        assert_eq!(used.admits(2000, "aa", &statement("aa"), &proof), Ok(()), "lost reply");
        let other = secret.sign(&statement("bb"));
        assert_eq!(used.admits(1, "bb", &statement("bb"), &other), Err(TokenError::Used));
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
