//! `vipctl token`.

use crate::Failure;
use crate::cli::TokenCommand;
use crate::ctl::Ctl;
use crate::output::{moment, print, say, table, word};
use serde_json::json;
use std::time::Duration;
use vip_proto::v1;
use vip_proto::v1::tokens_client::TokensClient;

/// How another machine joins. What is pasted to a program no shell remembers;
/// here documents and here strings stand in its history.
pub(crate) fn how_to_join(command: &str, token: &str) -> String {
    format!(
        "  {command}\n\nand paste this line to it, with Enter (or give it a file of mode 0600 \
         instead of -):\n\n  {token}"
    )
}

impl Ctl {
    fn tokens(&self) -> TokensClient<tonic::transport::Channel> {
        TokensClient::new(self.channel.clone())
    }

    pub(crate) async fn token(&self, command: TokenCommand) -> Result<(), Failure> {
        match command {
            TokenCommand::Create { role, ttl, uses, quiet } => {
                if ttl < Duration::from_secs(1) || uses == 0 {
                    let text = "a token lives for 1s at least, and admits one node at least";
                    return Err(Failure::Usage(text.into()));
                }
                let request = self.request(v1::CreateTokenRequest {
                    role: v1::Role::from(role).into(),
                    ttl_s: Some(ttl.as_secs()),
                    uses: Some(uses),
                });
                let made = self.tokens().create_token(request).await?.into_inner();
                if quiet {
                    let told = say(&made.token);
                    return self.told(&made.id, told).await;
                }
                let told = print(self.format, &made, |made| {
                    format!(
                        "token {} is good until {}. On another machine:\n\n{}",
                        made.id,
                        moment(made.expires_ms),
                        how_to_join(&made.join_command, &made.token)
                    )
                });
                self.told(&made.id, told).await
            }
            TokenCommand::List => {
                let request = self.request(v1::ListTokensRequest {});
                let tokens = self.tokens().list_tokens(request).await?.into_inner().tokens;
                print(self.format, &tokens, |t| table_of(t))
            }
            TokenCommand::Revoke { id } => {
                let request = self.request(v1::RevokeTokenRequest { id: id.clone() });
                self.tokens().revoke_token(request).await?;
                self.done(json!({ "revoked": id }), &format!("token {id} is revoked"))
            }
        }
    }

    /// A token that nobody was told is closed again.
    async fn told(&self, id: &str, told: Result<(), Failure>) -> Result<(), Failure> {
        let Err(failure) = told else { return Ok(()) };
        let why = match failure {
            Failure::Failed(text) | Failure::Unprinted(text) => text,
            _ => "nobody reads it".to_owned(),
        };
        let request = self.request(v1::RevokeTokenRequest { id: id.to_owned() });
        Err(Failure::Failed(match self.tokens().revoke_token(request).await {
            Ok(_) => format!("the token could not be shown ({why}), and was revoked"),
            Err(e) => format!("token {id} could not be shown ({why}); revoke it: {}", e.message()),
        }))
    }
}

fn table_of(tokens: &[v1::Token]) -> String {
    let row = |t: &v1::Token| {
        let uses = format!("{}/{}", t.uses, t.max_uses);
        vec![
            t.id.clone(),
            word::<v1::Role>(t.role),
            word::<v1::TokenState>(t.state),
            uses,
            moment(t.expires_ms),
            t.created_by.clone(),
        ]
    };
    table(&["TOKEN", "ROLE", "STATE", "USES", "EXPIRES", "CREATED BY"], tokens.iter().map(row))
}
