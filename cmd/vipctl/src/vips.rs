//! `vipctl vip`.

use crate::Failure;
use crate::cli::VipCommand;
use crate::ctl::Ctl;
use crate::output::{ago, all_of, few, print, table, word};
use serde_json::json;
use std::time::SystemTime;
use vip_proto::v1;
use vip_proto::v1::vips_client::VipsClient;

impl Ctl {
    fn vips(&self) -> VipsClient<tonic::transport::Channel> {
        VipsClient::new(self.channel.clone())
    }

    pub(crate) async fn vip(&self, command: VipCommand) -> Result<(), Failure> {
        let vip = match command {
            VipCommand::Add(add) => {
                let spec = v1::VipSpec {
                    name: add.name,
                    addresses: add.addresses,
                    interface: add.interface,
                    placement: v1::Placement::from(add.placement).into(),
                    no_probe: add.no_probe,
                    via: v1::Via::from(add.via).into(),
                    params: add.params.into_iter().collect(),
                };
                let request =
                    self.request(v1::AddVipRequest { spec: Some(spec), no_wait: add.no_wait });
                self.vips().add_vip(request).await?.into_inner().vip
            }
            VipCommand::Move { name, to, auto: _ } => {
                let request = self.request(v1::MoveVipRequest { name, to });
                self.vips().move_vip(request).await?.into_inner().vip
            }
            VipCommand::Set(set) => {
                let request = self.request(v1::SetVipRequest {
                    name: set.name,
                    addresses: set.addresses,
                    interface: set.interface,
                    placement: set.placement.map(|how| v1::Placement::from(how).into()),
                    no_probe: set.no_probe.then_some(true),
                    via: set.via.map(|by| v1::Via::from(by).into()),
                    params: set.params.into_iter().collect(),
                });
                self.vips().set_vip(request).await?.into_inner().vip
            }
            VipCommand::List => {
                let vips = self.list_vips().await?;
                self.warn_of_age(vips.iter().all(|vip| vip.fresh));
                return print(self.format, &vips, |v| table_of(v));
            }
            VipCommand::Show { name } => {
                let unknown = || Failure::Failed(format!("there is no VIP {name}"));
                let vips = self.list_vips().await?;
                let vip = vips.into_iter().find(|v| v.name == name).ok_or_else(unknown)?;
                return print(self.format, &vip, in_full);
            }
            VipCommand::Remove { name } => {
                let request = self.request(v1::RemoveVipRequest { name: name.clone() });
                self.vips().remove_vip(request).await?;
                return self.done(json!({ "removed": name }), &format!("VIP {name} is gone"));
            }
        };
        let vip = vip.unwrap_or_default();
        print(self.format, &vip, |vip| match &vip.holder {
            Some(holder) if vip.answers => {
                format!("VIP {} answers on {holder} at epoch {}", vip.name, vip.epoch)
            }
            _ => format!("VIP {} is as wanted in the log, and does not answer yet", vip.name),
        })
    }

    async fn list_vips(&self) -> Result<Vec<v1::Vip>, Failure> {
        let request = self.request(v1::ListVipsRequest {});
        Ok(self.vips().list_vips(request).await?.into_inner().vips)
    }
}

fn cause(vip: &v1::Vip) -> String {
    vip.cause.map_or_else(|| "-".to_owned(), word::<v1::Cause>)
}

fn holder(vip: &v1::Vip) -> String {
    match (&vip.holder, vip.answers) {
        (Some(holder), true) => holder.clone(),
        (Some(holder), false) if vip.silent => format!("{holder} (silent)"),
        (Some(holder), false) if !vip.fresh => format!("{holder} (unknown)"),
        (Some(holder), false) => format!("{holder} (not yet)"),
        (None, _) => "-".into(),
    }
}

pub(crate) fn table_of(vips: &[v1::Vip]) -> String {
    let now = SystemTime::now();
    let row = |v: &v1::Vip| {
        let placement = word::<v1::Placement>(v.placement);
        let placement = match &v.pinned {
            Some(node) => format!("{placement} (pinned to {node})"),
            None => placement,
        };
        let (epoch, cause) = (v.epoch.to_string(), cause(v));
        let since = ago(v.since_ms, now);
        vec![v.name.clone(), few(&v.addresses), holder(v), epoch, since, cause, placement]
    };
    let header = ["VIP", "ADDRESSES", "HOLDER", "EPOCH", "SINCE", "CAUSE", "PLACEMENT"];
    let mut text = table(&header, vips.iter().map(row));
    for vip in vips {
        for v1::Hindrance { node, why, .. } in &vip.hindered {
            text += &format!("\n{} cannot be on {node}: {why}", vip.name);
        }
    }
    text
}

fn in_full(vip: &v1::Vip) -> String {
    let by = match vip.via() {
        v1::Via::Unspecified | v1::Via::Garp => String::new(),
        v1::Via::Lb => format!(
            "\n{0} is announced nowhere: load balancers ask each node for /v1/vip/{0}",
            vip.name
        ),
        v1::Via::Exec => format!(
            "\n{} is moved by the program {} on its holder",
            vip.name,
            vip.params.get("file").map_or("?", String::as_str)
        ),
        v1::Via::AwsRoute => format!(
            "\n{} is moved by a route of {} in AWS, which compares nothing: what an earlier holder \
             asked for late is found and undone within seconds",
            vip.name,
            vip.params.get("route-table").map_or("?", String::as_str)
        ),
        v1::Via::AwsPrivateIp => format!(
            "\n{} is moved as a secondary private address in AWS: unassigned from whoever was seen \
             to have it, and assigned if nobody has it, which a late call finds otherwise",
            vip.name
        ),
        v1::Via::OpenstackPort => format!(
            "\n{} is moved as a fixed address in OpenStack, where no two ports have the same; a late \
             call finds that its port was changed since",
            vip.name
        ),
        v1::Via::OpenstackPair => format!(
            "\n{} is announced from ports that OpenStack lets send as it; port {} keeps it from \
             others",
            vip.name,
            vip.params.get("port").map_or("?", String::as_str)
        ),
        v1::Via::Bgp => format!(
            "\n{} is announced by its holder's BGP speaker: routers prefer it to what an earlier \
             holder announces still",
            vip.name
        ),
    };
    table_of(std::slice::from_ref(vip)) + &by + &all_of(&vip.name, "addresses", &vip.addresses)
}

/// VIPs in the columns that a terminal has beside names.
pub(crate) fn at_a_glance(vips: &[v1::Vip], now: SystemTime) -> String {
    let row = |v: &v1::Vip| {
        let without_prefix = |cidr: &String| cidr.split('/').next().unwrap_or(cidr).to_owned();
        let addresses: Vec<_> = v.addresses.iter().map(without_prefix).collect();
        vec![v.name.clone(), holder(v), ago(v.since_ms, now), cause(v), few(&addresses)]
    };
    table(&["VIP", "HOLDER", "SINCE", "CAUSE", "ADDRESSES"], vips.iter().map(row))
}
