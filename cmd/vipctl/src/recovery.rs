//! `backup`, `restore`, `recover`.

use crate::Failure;
use crate::run::Ctl;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use tonic::Request;
use vip_proto::v1;

/// Of one message.
const PART: usize = 256 << 10;
/// As the daemon has it.
const LONGEST: u64 = 64 << 20;

fn in_file(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |e| Failure::Failed(format!("{}: {e}", path.display()))
}

impl Ctl {
    pub(crate) async fn backup(&mut self, path: &Path) -> Result<(), Failure> {
        let request = self.request(v1::BackupRequest {});
        let mut parts = self.client.backup(request).await?.into_inner();
        let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        // Of mode 0600, and in its place only when it is whole.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(in_file(path))?;
        let (mut bytes, mut fresh) = (0, false);
        while let Some(part) = parts.message().await? {
            file.write_all(&part.data).map_err(in_file(path))?;
            bytes += part.data.len();
            fresh = part.fresh;
        }
        file.as_file().sync_all().map_err(in_file(path))?;
        file.persist(path).map_err(|e| in_file(path)(e.error))?;
        std::fs::File::open(directory).and_then(|dir| dir.sync_all()).map_err(in_file(path))?;
        if !fresh {
            eprintln!("vipctl: no leader answered: this is what this node knew last");
        }
        let name = path.display().to_string();
        let value = json!({ "file": name, "bytes": bytes, "fresh": fresh });
        let text = format!(
            "{name} has what the cluster knows, and no private key: keep the root's key beside it"
        );
        self.done(value, &text)
    }

    pub(crate) async fn restore(&mut self, path: &Path) -> Result<(), Failure> {
        let length = std::fs::metadata(path).map_err(in_file(path))?.len();
        if length > LONGEST {
            return Err(Failure::Usage(format!("{} is no backup: too long", path.display())));
        }
        let bytes = std::fs::read(path).map_err(in_file(path))?;
        let part = |data: &[u8]| v1::BackupPart { data: data.to_vec(), fresh: true };
        let parts: Vec<_> = bytes.chunks(PART).map(part).collect();
        let mut request = Request::new(tokio_stream::iter(parts));
        request.set_timeout(self.timeout);
        let made = self.client.restore(request).await?.into_inner();
        self.made(&made)
    }

    pub(crate) async fn recover(&mut self, others_are_off: bool) -> Result<(), Failure> {
        let request = self.request(v1::RecoverRequest { others_are_off });
        let made = self.client.recover(request).await?.into_inner();
        let value = json!({
            "cluster": made.cluster, "node": made.node, "before": made.before, "lost": made.lost,
        });
        let text = format!(
            "{} is the only node of a new cluster {}; what it had before is in {}.\nOf the old one \
             these may be alive: {}.\n\nEach VIP \
             comes when the network does not answer for it. Tokens and people's certificates are \
             void. Have new\nnodes join (`vipctl token create`); an old one first has to `vipctl \
             leave --force`. The lost voters had the issuing key:\nif anybody may have got it, \
             `vipctl ca rotate`.",
            made.node,
            made.cluster,
            made.before,
            if made.lost.is_empty() { "none".to_owned() } else { made.lost.join(", ") }
        );
        self.done(value, &text)
    }
}
