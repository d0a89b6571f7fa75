//! Join tokens: opening, revoking, sweeping.

use super::State;
use crate::{JoinProof, Level, Outcome, Refusal, Role, TokenError, TokenId};
use aws_lc_rs::signature;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Log time for which a used or expired token is still listed.
const TOKEN_KEPT_MS: u64 = 24 * 3600 * 1000;

/// A token as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
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
    pub used: Vec<String>,
    /// Revoked by an admin.
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

/// A change of join tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenOp {
    /// Opens a join token.
    Create {
        id: TokenId,
        /// Its public half, hex.
        verifier: String,
        /// What it admits.
        role: Role,
        /// Until when, log time in ms since 1970.
        expires_ms: u64,
        /// How many nodes.
        max_uses: u32,
    },
    /// Closes a join token.
    Revoke { id: TokenId },
}

/// What happened to a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenEvent {
    /// A token was made.
    Created {
        /// Its id.
        token: String,
        /// What it admits.
        role: Role,
    },
    /// A token was revoked.
    Revoked {
        /// Its id.
        token: String,
    },
}

impl TokenOp {
    /// Since when there is such an operation.
    #[must_use]
    pub const fn since(&self) -> Level {
        match self {
            Self::Create { .. } | Self::Revoke { .. } => Level::FIRST,
        }
    }
}

impl State {
    pub(super) fn apply_to_token(&mut self, actor: &str, op: &TokenOp) -> Result<Outcome, Refusal> {
        match op {
            TokenOp::Create { id, verifier, role, expires_ms, max_uses } => {
                let token = Token {
                    id: id.clone(),
                    verifier: verifier.clone(),
                    role: *role,
                    expires_ms: *expires_ms,
                    max_uses: *max_uses,
                    used: vec![],
                    revoked: false,
                    created_by: actor.to_owned(),
                };
                self.create_token(actor, token)
            }
            TokenOp::Revoke { id } => self.revoke_token(actor, id),
        }
    }

    fn create_token(&mut self, actor: &str, token: Token) -> Result<Outcome, Refusal> {
        let (id, role) = (token.id.clone(), token.role);
        if self.tokens.contains_key(&id) {
            return Err(Refusal::Spec { text: format!("there is a token {id} already") });
        }
        let (now, tokens) = (self.time_ms, Arc::make_mut(&mut self.tokens));
        tokens.retain(|_, t| t.expires_ms.saturating_add(TOKEN_KEPT_MS) > now);
        tokens.insert(id.clone(), Arc::new(token));
        self.record(actor, TokenEvent::Created { token: id.0, role });
        Ok(Outcome::Done)
    }

    fn revoke_token(&mut self, actor: &str, id: &TokenId) -> Result<Outcome, Refusal> {
        let unknown = || Refusal::UnknownToken { token: id.clone() };
        if self.tokens.get(id).ok_or_else(unknown)?.revoked {
            return Ok(Outcome::Unchanged);
        }
        if let Some(token) = Arc::make_mut(&mut self.tokens).get_mut(id) {
            Arc::make_mut(token).revoked = true;
        }
        self.record(actor, TokenEvent::Revoked { token: id.0.clone() });
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, TokenText, join_statement};

    #[test]
    fn a_proof_fits_one_key_only() {
        let text = TokenText::new(Role::Voter, [1; 5], [2; 32], [3; 32]);
        let secret = text.secret;
        let token = Token {
            id: text.id,
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
}
