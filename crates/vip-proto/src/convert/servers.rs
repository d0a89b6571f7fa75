//! `servers.proto`.

use super::checks::check;
use super::policy::policy;
use super::{FieldError, invalid, port, read, same};
use crate::v1;
use vip_core::{
    Engine, Forward, Name, NamedReal, Policy, Ports, Protocol, RealPlace, RealSpec, Scheduler,
    Server, ServerOp, ServerSpec, TableSize,
};

same!(Protocol = v1::Protocol { Tcp, Udp });
same!(Scheduler = v1::Scheduler { Mh, Sh, Rr, Wrr, Lc, Wlc });
same!(Forward = v1::Forward { Auto, Dr, Nat, Tun, Proxy });
same!(Engine = v1::Engine { Auto, Ebpf, Ipvs, Proxy });

fn table_size(slots: u32) -> Result<TableSize, FieldError> {
    let size = u16::try_from(slots).unwrap_or(u16::MAX);
    TableSize::try_from(size).map_err(|e| invalid("table size", e))
}

fn ports(written: &str) -> Result<Ports, FieldError> {
    written.parse().map_err(|e| invalid("port", e))
}

/// Those by address, and those by name.
fn reals(written: &[String]) -> Result<(Vec<RealSpec>, Vec<NamedReal>), FieldError> {
    let (named, by_address): (Vec<_>, Vec<_>) =
        written.iter().partition(|one| NamedReal::is_meant(one));
    let name = |one: &String| one.parse().map_err(|e| invalid("real server", e));
    let mut names = named.into_iter().map(name).collect::<Result<Vec<_>, _>>()?;
    // In any order they mean the same.
    names.sort();
    Ok((by_address.into_iter().map(|one| real(one)).collect::<Result<_, _>>()?, names))
}

fn real(written: &str) -> Result<RealSpec, FieldError> {
    if NamedReal::is_meant(written) {
        let text = format!(
            "{written:?} is a name: `vipctl vs set NAME --real` takes names, and lists all real \
             servers that there are to be"
        );
        return Err(invalid("real server", text));
    }
    written.parse().map_err(|e| invalid("real server", e))
}

/// A real server where its weight is known already.
fn place(written: &str) -> Result<RealPlace, FieldError> {
    if written.contains('@') {
        return Err(invalid("real server", format!("{written:?} has a weight: use ADDR[:PORT]")));
    }
    let RealSpec { ip, port, weight: _ } = real(written)?;
    Ok(RealPlace { ip, port })
}

fn weight(number: u32) -> Result<u16, FieldError> {
    u16::try_from(number).map_err(|_| invalid("weight", format!("{number} is too large")))
}

impl TryFrom<v1::ServerSpec> for ServerSpec {
    type Error = FieldError;
    fn try_from(message: v1::ServerSpec) -> Result<Self, FieldError> {
        let v1::ServerSpec {
            name,
            vip,
            ports: which,
            protocol,
            scheduler,
            forward,
            engine,
            table_size: size,
            reals: written,
            real_nodes,
            check: how,
            policy: short,
        } = message;
        let (reals, names) = reals(&written)?;
        let spec = Self {
            name: name.parse().map_err(|e| invalid("name", e))?,
            vip: vip.parse().map_err(|e| invalid("vip", e))?,
            ports: ports(&which)?,
            protocol: read::<v1::Protocol, _>("protocol", protocol)?.unwrap_or_default(),
            scheduler: read::<v1::Scheduler, _>("scheduler", scheduler)?.unwrap_or_default(),
            forward: read::<v1::Forward, _>("forward", forward)?.unwrap_or_default(),
            engine: read::<v1::Engine, _>("engine", engine)?.unwrap_or_default(),
            table_size: size.map(table_size).transpose()?,
            reals,
            names,
            real_nodes: real_nodes.map(|number| port("real nodes", number)).transpose()?,
            check: check(how, None)?,
            policy: policy(short, Policy::default())?,
        };
        spec.check()?;
        Ok(spec)
    }
}

impl v1::SetServerRequest {
    /// What is wanted instead of what there is.
    ///
    /// # Errors
    /// What would not make sense.
    pub fn changes(self, old: &Server) -> Result<ServerSpec, FieldError> {
        let Self {
            name: _,
            vip,
            ports: which,
            protocol,
            scheduler,
            forward,
            engine,
            table_size: size,
            reals: written,
            real_nodes,
            check: how,
            policy: short,
            no_wait: _,
        } = self;
        let mut spec = old.spec.clone();
        if spec.real_nodes.is_none() {
            let own = old.reals.iter().filter(|real| real.name.is_none());
            spec.reals = own.map(|real| real.spec).collect();
        }
        if let Some(vip) = vip {
            spec.vip = vip.parse().map_err(|e| invalid("vip", e))?;
        }
        if let Some(which) = which {
            spec.ports = ports(&which)?;
        }
        macro_rules! said {
            ($field:ident: $proto:ty) => {
                let said = $field.map(|number| read::<$proto, _>(stringify!($field), number));
                spec.$field = said.transpose()?.flatten().unwrap_or(spec.$field);
            };
        }
        said!(protocol: v1::Protocol);
        said!(scheduler: v1::Scheduler);
        said!(forward: v1::Forward);
        said!(engine: v1::Engine);
        if let Some(size) = size {
            spec.table_size = Some(table_size(size)?);
        }
        if !written.is_empty() {
            (spec.reals, spec.names) = reals(&written)?;
            spec.real_nodes = None;
        }
        if let Some(number) = real_nodes {
            (spec.reals, spec.names) = reals(&written)?;
            spec.real_nodes = Some(port("real nodes", number)?);
        }
        spec.check = check(how, spec.check.take())?;
        spec.policy = policy(short, spec.policy)?;
        spec.check()?;
        Ok(spec)
    }
}

fn known(server: &str) -> Result<Name, FieldError> {
    server.parse().map_err(|e| invalid("virtual server", e))
}

impl TryFrom<v1::AddRealRequest> for ServerOp {
    type Error = FieldError;
    fn try_from(message: v1::AddRealRequest) -> Result<Self, FieldError> {
        let v1::AddRealRequest { server, real: written } = message;
        Ok(Self::AddReal { server: known(&server)?, real: real(&written)? })
    }
}

impl TryFrom<v1::RemoveRealRequest> for ServerOp {
    type Error = FieldError;
    fn try_from(message: v1::RemoveRealRequest) -> Result<Self, FieldError> {
        let v1::RemoveRealRequest { server, real } = message;
        Ok(Self::RemoveReal { server: known(&server)?, place: place(&real)? })
    }
}

impl TryFrom<v1::DrainRealRequest> for ServerOp {
    type Error = FieldError;
    fn try_from(message: v1::DrainRealRequest) -> Result<Self, FieldError> {
        let v1::DrainRealRequest { server, real, drained } = message;
        Ok(Self::DrainReal { server: known(&server)?, place: place(&real)?, drained })
    }
}

impl TryFrom<v1::WeighRealRequest> for ServerOp {
    type Error = FieldError;
    fn try_from(message: v1::WeighRealRequest) -> Result<Self, FieldError> {
        let v1::WeighRealRequest { server, real, weight: number } = message;
        let weight = weight(number)?;
        Ok(Self::WeighReal { server: known(&server)?, place: place(&real)?, weight })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use vip_core::{Generation, Real, ServerUid, VipUid};

    pub(in crate::convert) fn message() -> v1::ServerSpec {
        v1::ServerSpec {
            name: "front".to_owned(),
            vip: "web".to_owned(),
            ports: "80".to_owned(),
            scheduler: v1::Scheduler::Sh.into(),
            table_size: Some(1021),
            reals: vec!["10.0.0.11".to_owned(), "10.0.0.12:8080@3".to_owned()],
            ..Default::default()
        }
    }

    pub(in crate::convert) fn server() -> Server {
        let spec = ServerSpec::try_from(message()).expect("a spec");
        Server {
            uid: ServerUid(1),
            vip: VipUid(1),
            forward: Forward::Nat,
            table_size: TableSize::Tiny,
            seed: 1,
            reals: spec.reals.iter().map(|spec| Real::new(*spec, false)).collect(),
            answers: std::collections::BTreeMap::new(),
            spec: ServerSpec { reals: vec![], ..spec },
            generation: Generation(1),
            before: None,
            revision: 0,
            added_ms: None,
            is_short: false,
        }
    }

    #[test]
    fn what_is_written_is_what_is_meant() {
        let spec = ServerSpec::try_from(message()).expect("a spec");
        assert_eq!((spec.protocol, spec.scheduler), (Protocol::Tcp, Scheduler::Sh));
        assert_eq!((spec.ports.single(), spec.table_size), (Some(80), Some(TableSize::Tiny)));
        assert_eq!(spec.reals[1].to_string(), "10.0.0.12:8080@3");
    }

    #[test]
    fn what_a_change_does_not_name_stays() {
        let nothing = v1::SetServerRequest { name: "front".to_owned(), ..Default::default() };
        let same = nothing.clone().changes(&server()).expect("a spec");
        assert_eq!(same, ServerSpec::try_from(message()).expect("a spec"));
        let reals = vec!["10.0.0.13".to_owned()];
        let other = v1::SetServerRequest { reals, ports: Some("443".into()), ..nothing.clone() };
        let other = other.changes(&server()).expect("a spec");
        assert_eq!((other.ports.single(), other.reals.len()), (Some(443), 1));
        assert_eq!((other.scheduler, other.table_size), (same.scheduler, same.table_size));
        let nodes = v1::SetServerRequest { real_nodes: Some(80), ..nothing };
        let nodes = nodes.changes(&server()).expect("a spec");
        assert_eq!((nodes.real_nodes, nodes.reals), (Some(80), vec![]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_wrong() {
        for (message, said) in [
            (v1::ServerSpec { name: "C!".into(), ..message() }, "name: "),
            (v1::ServerSpec { ports: "0".into(), ..message() }, "port: "),
            (v1::ServerSpec { table_size: Some(70_000), ..message() }, "table size: "),
            (v1::ServerSpec { table_size: Some(1000), ..message() }, "table size: 1000"),
            (v1::ServerSpec { protocol: 9, ..message() }, "protocol: 9 is of a later version"),
            (v1::ServerSpec { reals: vec!["x".into()], ..message() }, "real server: "),
            (v1::ServerSpec { real_nodes: Some(0), ..message() }, "real nodes: 0 is no port"),
            (v1::ServerSpec { reals: vec![], ..message() }, "virtual server front names no real"),
        ] {
            let error = ServerSpec::try_from(message).expect_err(said).to_string();
            assert!(error.starts_with(said), "{error}");
        }
        assert!(place("10.0.0.1:80@3").is_err());
        assert_eq!(place("10.0.0.1:80").map(|place| place.port), Ok(Some(80)));
        assert!(weight(70_000).is_err());
    }
}
