//! `vipctl login`.

use crate::Failure;
use crate::cli::LoginCommand;
use crate::contexts::Context;
use crate::ctl::Ctl;
use crate::output::{moment, print, table, word};
use serde_json::json;
use vip_core::AdminRole;
use vip_pki::NodeKey;
use vip_proto::v1;
use vip_proto::v1::logins_client::LoginsClient;

impl Ctl {
    fn login_client(&self) -> LoginsClient<tonic::transport::Channel> {
        LoginsClient::new(self.channel.clone())
    }

    pub(crate) async fn logins(&self, command: LoginCommand) -> Result<(), Failure> {
        match command {
            LoginCommand::List => {
                let request = self.request(v1::ListLoginsRequest {});
                let logins = self.login_client().list_logins(request).await?.into_inner().logins;
                print(self.format, &logins, |l| table_of(l))
            }
            LoginCommand::Revoke { name } => {
                let request = self.request(v1::RevokeLoginRequest { user: name.clone() });
                self.login_client().revoke_login(request).await?;
                let text = format!("{name} has no certificate any more");
                self.done(json!({ "revoked": name }), &text)
            }
        }
    }

    pub(crate) async fn login(
        &self,
        user: String,
        role: AdminRole,
        name: Option<String>,
    ) -> Result<(), Failure> {
        let failed = |e: &dyn std::error::Error| Failure::Failed(e.to_string());
        let key = NodeKey::generate().map_err(|e| failed(&e))?;
        let csr = key.csr().map_err(|e| failed(&e))?;
        let request =
            self.request(v1::LoginRequest { user, role: v1::AdminRole::from(role).into(), csr });
        let reply = self.login_client().login(request).await?.into_inner();
        let name = match name {
            Some(name) => name,
            None => self.overview().await?.cluster,
        };
        let context = Context {
            address: reply.address,
            server_name: reply.server_name,
            key: key.pem().to_string(),
            chain: vip_pki::chain_pem(&reply.chain),
            expires_ms: reply.expires_ms,
        };
        let path = Context::store(&context, &name)?;
        let until = moment(context.expires_ms);
        self.done(
            json!({ "context": name, "file": path, "expires_ms": context.expires_ms }),
            &format!(
                "context {name} is good until {until}; use it with `vipctl --context {name}`, \
                 also after copying {} to another machine",
                path.display()
            ),
        )
    }
}

fn table_of(logins: &[v1::Login]) -> String {
    let row = |l: &v1::Login| {
        let until = moment(l.expires_ms);
        vec![l.user.clone(), word::<v1::AdminRole>(l.role), until, l.issued_by.clone()]
    };
    table(&["USER", "ROLE", "EXPIRES", "ISSUED BY"], logins.iter().map(row))
}
