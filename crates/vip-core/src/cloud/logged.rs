//! What the log has of a VIP of which somebody is told, or was.

use crate::{Epoch, State, ViaToken, VipSpec, VipUid};

/// What the log has of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged<'a> {
    /// Nothing, or that nobody is told of it.
    Nothing,
    /// The same, and another VIP has what it had.
    Reused,
    /// The epoch, and what a holder saw last.
    Held(Epoch, Option<&'a ViaToken>),
}

impl<'a> Logged<'a> {
    /// `told`: what it was when somebody was told of it last.
    #[must_use]
    pub fn of(state: &'a State, uid: VipUid, told: Option<&VipSpec>) -> Self {
        match state.vip(uid) {
            Some(vip) if vip.spec.via.is_called() => Self::Held(vip.epoch, vip.token.as_ref()),
            Some(_) | None if told.is_some_and(|told| is_reused(state, told)) => Self::Reused,
            Some(_) | None => Self::Nothing,
        }
    }
}

/// Whether another VIP has by now what one had that is none any more.
fn is_reused(state: &State, told: &VipSpec) -> bool {
    let (how, ips) = ((told.via, &told.params), told.ips());
    let mut others = state.all_vips().map(|vip| &vip.spec);
    others.any(|other| {
        (other.via, &other.params) == how && other.ips().iter().any(|ip| ips.contains(ip))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, vip};
    use crate::{Via, VipOp};

    fn moved(name: &str, last: u8, by: &str) -> VipSpec {
        let params = [("file".to_owned(), by.to_owned())].into();
        VipSpec { via: Via::Exec, params, ..vip(name, last) }
    }

    #[test]
    fn what_one_had_that_is_none_any_more_is_reused_by_whom_the_same_is_told_of() {
        let mut state = State::default();
        for spec in [moved("web", 100, "move"), vip("other", 101)] {
            apply(&mut state, VipOp::Add { spec });
        }
        let of = |uid, told: &VipSpec| Logged::of(&state, VipUid(uid), Some(told));
        let web = moved("web", 100, "move");
        assert_eq!(of(1, &web), Logged::Held(Epoch(0), None));
        assert_eq!(Logged::of(&state, VipUid(9), None), Logged::Nothing);
        // One that is gone had the same address, in another subnet or not.
        let mut wider = web.clone();
        wider.addresses[0].prefix = 16;
        assert_eq!((of(9, &web), of(9, &wider)), (Logged::Reused, Logged::Reused));
        // Others are told of it now, or of another address.
        assert_eq!(of(9, &moved("web", 100, "another")), Logged::Nothing);
        assert_eq!(of(9, &moved("web", 102, "move")), Logged::Nothing);
        // It is moved in another way by now.
        assert_eq!(of(2, &moved("other", 101, "move")), Logged::Nothing);
    }
}
