//! `vipctl init`, `join`, `leave`, `ca`, `doctor`, `restore`, `recover`.

use crate::Failure;
use crate::ctl::Ctl;
use crate::output::{in_file, print, table, word};
use crate::secrets::{secret, token};
use crate::tokens::how_to_join;
use serde_json::json;
use std::path::{Path, PathBuf};
use tonic::Request;
use vip_proto::v1;
use vip_proto::v1::host_client::HostClient;
use zeroize::Zeroizing;

/// Of one message of a backup.
const PART: usize = 256 << 10;
/// Longest backup, as the daemon has it.
const LONGEST: u64 = 64 << 20;

impl Ctl {
    fn host(&self) -> HostClient<tonic::transport::Channel> {
        HostClient::new(self.channel.clone())
    }

    pub(crate) async fn init(&self, name: Option<String>) -> Result<(), Failure> {
        let request = self.request(v1::InitRequest { name });
        let made = self.host().init(request).await?.into_inner();
        self.made(&made)
    }

    fn made(&self, made: &v1::InitReply) -> Result<(), Failure> {
        print(self.format, made, |made| {
            format!(
                "cluster {} made; {} leads it.\n\nOn another machine, within the hour:\n\n\
                 {}\n\nThe key of the root CA is in {}. It is needed only to replace the \
                 issuing CA:\nmove it to a safe place, off this machine.",
                made.cluster,
                made.node,
                how_to_join(&made.join_command, &made.token),
                made.recovery_file
            )
        })
    }

    pub(crate) async fn join(
        &self,
        addresses: Vec<String>,
        file: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let token = token(file)?;
        let request = self.request(v1::JoinClusterRequest { addresses, token });
        let joined = self.host().join(request).await?.into_inner();
        print(self.format, &joined, |joined| {
            let role = word::<v1::Role>(joined.role);
            format!("{} is a {role} of cluster {}", joined.node, joined.cluster)
        })
    }

    pub(crate) async fn leave(&self, force: bool) -> Result<(), Failure> {
        let request = self.request(v1::LeaveRequest { force });
        self.host().leave(request).await?;
        self.done(json!({ "left": true }), "this node is in no cluster any more")
    }

    pub(crate) async fn rotate_ca(&self, root_key_file: PathBuf) -> Result<(), Failure> {
        self.rotate(root_key_file).await?;
        let text = "a new CA signs certificates, every member has one of it, and the one before is \
                    refused";
        self.done(json!({ "issuer_replaced": true }), text)
    }

    /// The removal is done by now, and waits for no key.
    pub(crate) async fn rotate(&self, file: PathBuf) -> Result<(), Failure> {
        let root_key = Zeroizing::new(secret(&file)?);
        let request = self.request(v1::RotateCaRequest { root_key: root_key.to_string() });
        self.host().rotate_ca(request).await?;
        Ok(())
    }

    pub(crate) async fn doctor(&self) -> Result<(), Failure> {
        let request = self.request(v1::DoctorRequest {});
        let reply = self.host().doctor(request).await?.into_inner();
        let bad = reply.checks.iter().any(|check| check.result() == v1::CheckResult::Error);
        print(self.format, &reply.checks, |checks| table_of(checks))?;
        if bad { Err(Failure::Failed("this host has errors".into())) } else { Ok(()) }
    }

    pub(crate) async fn restore(&self, path: &Path) -> Result<(), Failure> {
        let length = std::fs::metadata(path).map_err(in_file(path))?.len();
        if length > LONGEST {
            return Err(Failure::Usage(format!("{} is no backup: too long", path.display())));
        }
        let bytes = std::fs::read(path).map_err(in_file(path))?;
        let part = |data: &[u8]| v1::BackupPart { data: data.to_vec(), fresh: true };
        let parts: Vec<_> = bytes.chunks(PART).map(part).collect();
        let mut request = Request::new(tokio_stream::iter(parts));
        request.set_timeout(self.timeout);
        let made = self.host().restore(request).await?.into_inner();
        self.made(&made)
    }

    pub(crate) async fn recover(&self, others_are_off: bool) -> Result<(), Failure> {
        let request = self.request(v1::RecoverRequest { others_are_off });
        let made = self.host().recover(request).await?.into_inner();
        print(self.format, &made, |made| {
            format!(
                "{} is the only node of a new cluster {}; what it had before is in {}.\nOf the old \
                 one these may be alive: {}.\n\nEach VIP comes when the network does not answer for \
                 it. \
                 Tokens and people's certificates are void. Have new\nnodes join (`vipctl token \
                 create`); an old one first has to `vipctl leave --force`. The lost voters had the \
                 issuing key:\nif anybody may have got it, `vipctl ca rotate`.",
                made.node,
                made.cluster,
                made.before,
                if made.lost.is_empty() { "none".to_owned() } else { made.lost.join(", ") }
            )
        })
    }
}

fn table_of(checks: &[v1::Check]) -> String {
    let result = |c: &v1::Check| word::<v1::CheckResult>(c.result).to_uppercase();
    let row = |c: &v1::Check| vec![result(c), c.name.clone(), c.text.clone()];
    table(&["RESULT", "CHECK", ""], checks.iter().map(row))
}
