//! `edges.proto`.

use super::{FieldError, invalid};
use crate::v1;
use std::net::IpAddr;
use v1::hindered::What;
use v1::sighting::Sees;
use vip_core::{Generation, Hindrance, Observed, Opinion, ServerUid, Sighting};

impl From<(ServerUid, Option<Hindrance>)> for v1::Hindered {
    fn from((server, what): (ServerUid, Option<Hindrance>)) -> Self {
        let what = what.map(|what| match what {
            Hindrance::Refused(why) => What::Refused(why),
            Hindrance::Flawed(why) => What::Flawed(why),
        });
        Self { server: server.0, what }
    }
}

impl From<v1::Hindered> for (ServerUid, Option<Hindrance>) {
    fn from(v1::Hindered { server, what }: v1::Hindered) -> Self {
        let what = what.map(|what| match what {
            What::Refused(why) => Hindrance::Refused(why),
            What::Flawed(why) => Hindrance::Flawed(why),
        });
        // However long it came.
        (ServerUid(server), what.map(|what| what.cut()))
    }
}

impl From<(ServerUid, Generation)> for v1::Idle {
    fn from((server, generation): (ServerUid, Generation)) -> Self {
        Self { server: server.0, generation: generation.0 }
    }
}

impl From<v1::Idle> for (ServerUid, Generation) {
    fn from(v1::Idle { server, generation }: v1::Idle) -> Self {
        (ServerUid(server), Generation(generation))
    }
}

impl From<Sighting> for v1::Sighting {
    fn from((Observed { server, ip, port }, sees): Sighting) -> Self {
        let ip = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let sees = sees.map(|opinion| match opinion {
            Opinion::Up => Sees::Up(true),
            Opinion::Down(why) => Sees::Down(why),
            Opinion::Blind => Sees::Blind(true),
            Opinion::Unable(why) => Sees::Unable(why),
        });
        Self { server: server.0, ip, port: port.into(), sees }
    }
}

impl TryFrom<v1::Sighting> for Sighting {
    type Error = FieldError;
    fn try_from(message: v1::Sighting) -> Result<Self, FieldError> {
        let v1::Sighting { server, ip, port, sees } = message;
        let v4 = <[u8; 4]>::try_from(&ip[..]).map(IpAddr::from);
        let v6 = || <[u8; 16]>::try_from(&ip[..]).map(IpAddr::from);
        let ip = v4.or_else(|_| v6()).map_err(|_| invalid("real server", "no address"))?;
        let port = u16::try_from(port).map_err(|_| invalid("real server", "no port"))?;
        let opinion = sees.map(|sees| match sees {
            Sees::Up(_) => Opinion::Up,
            // However long it came.
            Sees::Down(why) => Opinion::Down(why).cut(),
            Sees::Blind(_) => Opinion::Blind,
            Sees::Unable(why) => Opinion::Unable(why).cut(),
        });
        Ok((Observed { server: ServerUid(server), ip, port }, opinion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member may say anything.
    #[test]
    fn what_is_said_is_cut_before_anybody_keeps_it() {
        let why = "w".repeat(1 << 20);
        for what in [What::Refused(why.clone()), What::Flawed(why)] {
            let (_, what) = v1::Hindered { server: 1, what: Some(what) }.into();
            assert!(what.is_some_and(|what| what.to_string().len() < 300));
        }
    }

    #[test]
    fn what_an_observer_sees_comes_back_as_it_went() {
        for ip in ["10.0.0.11", "fd00::11"] {
            let ip = ip.parse().expect("an address");
            for opinion in [
                None,
                Some(Opinion::Up),
                Some(Opinion::Blind),
                Some(Opinion::Unable("it may not".into())),
                Some(Opinion::Down("refused".into())),
            ] {
                let seen: Sighting = (Observed { server: ServerUid(7), ip, port: 80 }, opinion);
                assert_eq!(Sighting::try_from(v1::Sighting::from(seen.clone())), Ok(seen));
            }
        }
        let good = v1::Sighting { ip: vec![10, 0, 0, 1], port: 80, ..Default::default() };
        for bad in [
            v1::Sighting { ip: vec![10, 0, 0], ..good.clone() },
            v1::Sighting { ip: vec![], ..good.clone() },
            v1::Sighting { port: 65_536, ..good },
        ] {
            assert!(Sighting::try_from(bad).is_err());
        }
    }
}
