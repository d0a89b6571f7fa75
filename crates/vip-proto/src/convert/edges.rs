//! `edges.proto`.

use crate::v1;
use v1::hindered::What;
use vip_core::{Generation, Hindrance, ServerUid};

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
}
