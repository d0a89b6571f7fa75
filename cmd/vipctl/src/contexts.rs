//! Contexts: certificates of `vipctl login`, one file of mode 0600 each.

use crate::Failure;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A remote cluster and who this user is there.
#[derive(Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) address: String,
    pub(crate) server_name: String,
    pub(crate) key: String,
    pub(crate) chain: String,
    pub(crate) expires_ms: u64,
}

fn path(name: &str) -> Result<PathBuf, Failure> {
    name.parse::<vip_core::Name>().map_err(|e| Failure::Usage(e.to_string()))?;
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    let home =
        home.ok_or_else(|| Failure::Failed("neither XDG_CONFIG_HOME nor HOME is set".into()))?;
    Ok(home.join("vipctl").join(format!("{name}.json")))
}

impl Context {
    pub(crate) fn load(name: &str) -> Result<Self, Failure> {
        let path = path(name)?;
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Failure::Usage(format!(
                "there is no context {name} ({}: {e}); make one with `vipctl login` on a node",
                path.display()
            ))
        })?;
        serde_json::from_str(&text)
            .map_err(|e| Failure::Failed(format!("{} is damaged: {e}", path.display())))
    }

    pub(crate) fn store(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = path(name)?;
        let failed = |e: std::io::Error| Failure::Failed(format!("{}: {e}", path.display()));
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let text =
            serde_json::to_string_pretty(self).map_err(|e| Failure::Failed(e.to_string()))?;
        vip_pki::write_secret(&path, text.as_bytes()).map_err(failed)?;
        Ok(path)
    }
}
