//! Join tokens: opening, revoking, sweeping.

use super::State;
use crate::token::TOKEN_KEPT_MS;
use crate::{EventKind, Outcome, Refusal, Role, Token, TokenId};

impl State {
    pub(super) fn create_token(
        &mut self,
        actor: &str,
        id: &TokenId,
        verifier: &str,
        role: Role,
        expires_ms: u64,
        max_uses: u32,
    ) -> Result<Outcome, Refusal> {
        if self.tokens.contains_key(id) {
            return Err(Refusal::Spec { text: format!("there is a token {id} already") });
        }
        let now = self.time_ms;
        self.tokens.retain(|_, t| t.expires_ms.saturating_add(TOKEN_KEPT_MS) > now);
        let token = Token {
            id: id.clone(),
            verifier: verifier.to_owned(),
            role,
            expires_ms,
            max_uses,
            used: vec![],
            revoked: false,
            created_by: actor.to_owned(),
        };
        self.tokens.insert(id.clone(), token);
        self.record(actor, EventKind::TokenCreated { token: id.0.clone(), role });
        Ok(Outcome::Done)
    }

    pub(super) fn revoke_token(&mut self, actor: &str, id: &TokenId) -> Result<Outcome, Refusal> {
        let Some(token) = self.tokens.get_mut(id) else {
            return Err(Refusal::UnknownToken { token: id.clone() });
        };
        if token.revoked {
            return Ok(Outcome::Unchanged);
        }
        token.revoked = true;
        self.record(actor, EventKind::TokenRevoked { token: id.0.clone() });
        Ok(Outcome::Done)
    }
}
