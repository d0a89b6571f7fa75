//! `vipctl node`.

use crate::Failure;
use crate::cli::NodeCommand;
use crate::ctl::Ctl;
use crate::output::{all_of, few, or_dash, print, table, word};
use serde_json::json;
use vip_proto::v1;
use vip_proto::v1::nodes_client::NodesClient;

impl Ctl {
    fn nodes(&self) -> NodesClient<tonic::transport::Channel> {
        NodesClient::new(self.channel.clone())
    }

    async fn list_nodes(&self) -> Result<Vec<v1::Node>, Failure> {
        let request = self.request(v1::ListNodesRequest {});
        Ok(self.nodes().list_nodes(request).await?.into_inner().nodes)
    }

    pub(crate) async fn node(&self, command: NodeCommand) -> Result<(), Failure> {
        match command {
            NodeCommand::List => {
                let nodes = self.list_nodes().await?;
                self.warn_of_age(nodes.iter().all(|node| node.fresh));
                print(self.format, &nodes, |n| all_in_full(n))
            }
            NodeCommand::Show { name } => {
                let nodes = self.list_nodes().await?;
                let unknown = || Failure::Failed(format!("there is no node {name}"));
                let node = nodes.into_iter().find(|n| n.name == name).ok_or_else(unknown)?;
                print(self.format, &node, in_full)
            }
            NodeCommand::Drain { name } => self.drain(name, true).await,
            NodeCommand::Undrain { name } => self.drain(name, false).await,
            NodeCommand::Remove { name, for_cause, root_key_file } => {
                if root_key_file.is_some() && self.overview().await?.node == name {
                    let text = format!(
                        "this is {name}: the root's key must not come near it. Run this on \
                         another voter. Nothing was changed"
                    );
                    return Err(Failure::Usage(text));
                }
                let removed = loop {
                    let message = v1::RemoveNodeRequest { name: name.clone(), for_cause };
                    match self.nodes().remove_node(self.request(message)).await {
                        Ok(reply) => break reply.into_inner(),
                        // The leader itself is removed: it handed over first.
                        Err(status) if status.code() == tonic::Code::Aborted => {}
                        Err(status) => return Err(status.into()),
                    }
                };
                for warning in &removed.warnings {
                    eprintln!("vipctl: {name}: {warning}");
                }
                let mut value = json!({ "removed": name, "warnings": removed.warnings });
                let mut text = format!("{name} is no member any more");
                match root_key_file {
                    Some(file) => {
                        self.rotate(file).await.map_err(|e| e.after(&text))?;
                        value["issuer_replaced"] = true.into();
                        text += ", and the CA whose key it had is replaced";
                    }
                    None if for_cause => {
                        text += ". It may have kept the issuing key: run `vipctl ca rotate \
                                 --root-key-file FILE` on a voter";
                    }
                    None => {}
                }
                self.done(value, &text)
            }
        }
    }

    async fn drain(&self, name: String, drain: bool) -> Result<(), Failure> {
        let request = self.request(v1::DrainNodeRequest { name: name.clone(), drain });
        self.nodes().drain_node(request).await?;
        let text = if drain {
            format!("{name} holds nothing now")
        } else {
            format!("{name} may hold VIPs again")
        };
        self.done(json!({ "node": name, "drained": drain }), &text)
    }
}

const NODE_COLUMNS: [&str; 5] = ["NODE", "ROLE", "STATE", "ADDRESS", "VIPS"];

fn node_row(n: &v1::Node) -> Vec<String> {
    let role = word::<v1::Role>(n.role);
    let role = if n.leader { format!("{role} (leader)") } else { role };
    let vips = if n.vips.is_empty() { "-".into() } else { few(&n.vips) };
    vec![n.name.clone(), role, word::<v1::NodeState>(n.state), n.address.clone(), vips]
}

fn troubles(nodes: &[v1::Node]) -> String {
    let trouble = |node: &v1::Node| {
        let why = node.trouble.as_ref()?;
        Some(format!("\n{} can hold no VIP: {why}", node.name))
    };
    nodes.iter().filter_map(trouble).collect()
}

pub(crate) fn table_of(nodes: &[v1::Node]) -> String {
    table(&NODE_COLUMNS, nodes.iter().map(node_row)) + &troubles(nodes)
}

fn in_full(node: &v1::Node) -> String {
    all_in_full(std::slice::from_ref(node)) + &all_of(&node.name, "VIPs", &node.vips)
}

/// The same, with what they run, and which VIPs they cannot hold.
fn all_in_full(nodes: &[v1::Node]) -> String {
    let version = |n: &v1::Node| or_dash(n.version.as_deref());
    let row = |n: &v1::Node| [node_row(n), vec![version(n)]].concat();
    let columns = [&NODE_COLUMNS[..], &["VERSION"]].concat();
    let mut text = table(&columns, nodes.iter().map(row)) + &troubles(nodes);
    for v1::Hindrance { vip, node, why } in nodes.iter().flat_map(|node| &node.hindered) {
        text += &format!("\n{vip} cannot be on {node}: {why}");
    }
    text
}
