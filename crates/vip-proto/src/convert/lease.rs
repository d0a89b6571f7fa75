//! `lease.proto`.

use super::{FieldError, invalid};
use crate::v1;
use vip_core::{
    Conflict, Cover, Denial, Epoch, Fitness, GrantAnswer, Grantee, Incarnation, MAX_MACS,
    MAX_TOKEN, Mac, Obstacle, Report, ReportId, ViaToken, VipUid, Wanted, Why,
};

impl From<Grantee> for v1::Grantee {
    fn from(grantee: Grantee) -> Self {
        Self { vip: grantee.vip.0, epoch: grantee.epoch.0, incarnation: grantee.incarnation.0 }
    }
}

impl From<v1::Grantee> for Grantee {
    fn from(grantee: v1::Grantee) -> Self {
        Self {
            vip: VipUid(grantee.vip),
            epoch: Epoch(grantee.epoch),
            incarnation: Incarnation(grantee.incarnation),
        }
    }
}

impl From<Cover> for v1::Cover {
    fn from(Cover { count, sums: [first, second] }: Cover) -> Self {
        Self { count, first, second }
    }
}

impl From<v1::Cover> for Cover {
    fn from(v1::Cover { count, first, second }: v1::Cover) -> Self {
        Self { count, sums: [first, second] }
    }
}

impl From<Wanted> for v1::GrantRequest {
    fn from(wanted: Wanted) -> Self {
        let named = |wanted: Vec<Grantee>| wanted.into_iter().map(Into::into).collect();
        match wanted {
            Wanted::First(first) => Self { wanted: named(first), ..Self::default() },
            Wanted::Shut(shut) | Wanted::StayShut(shut) => {
                Self { wanted: named(shut), shut: true, ..Self::default() }
            }
            Wanted::All(all) => Self { wanted: named(all), all: true, ..Self::default() },
            Wanted::Cover(cover) => Self { cover: Some(cover.into()), ..Self::default() },
        }
    }
}

impl From<v1::GrantRequest> for Wanted {
    fn from(request: v1::GrantRequest) -> Self {
        let v1::GrantRequest { wanted, wait_us: _, cover, all, shut } = request;
        let named = || wanted.into_iter().map(Into::into).collect();
        match cover {
            Some(cover) => Self::Cover(cover.into()),
            None if all => Self::All(named()),
            None if shut => Self::Shut(named()),
            None => Self::First(named()),
        }
    }
}

impl From<GrantAnswer> for v1::GrantReply {
    fn from(GrantAnswer { granted, denied, covered }: GrantAnswer) -> Self {
        Self {
            granted: granted.into_iter().map(Into::into).collect(),
            denied: denied.into_iter().map(Into::into).collect(),
            covered: covered.map(Into::into),
        }
    }
}

impl From<v1::GrantReply> for GrantAnswer {
    /// A denial for a reason that is not known here is left out: it is asked again.
    fn from(v1::GrantReply { granted, denied, covered }: v1::GrantReply) -> Self {
        Self {
            granted: granted.into_iter().map(Into::into).collect(),
            denied: denied.into_iter().filter_map(|denied| denied.try_into().ok()).collect(),
            covered: covered.map(Into::into),
        }
    }
}

impl From<(Grantee, Denial)> for v1::Denied {
    fn from((grantee, denial): (Grantee, Denial)) -> Self {
        use v1::denied::Why;
        let (why, bound_to) = match denial {
            Denial::NotLeading => (Why::NotLeading, 0),
            Denial::NotHolder => (Why::NotHolder, 0),
            Denial::Ended => (Why::Ended, 0),
            Denial::OtherSession(session) => (Why::OtherSession, session.0),
        };
        Self { grantee: Some(grantee.into()), why: why.into(), bound_to }
    }
}

impl TryFrom<v1::Denied> for (Grantee, Denial) {
    type Error = FieldError;
    fn try_from(denied: v1::Denied) -> Result<Self, FieldError> {
        use v1::denied::Why;
        let denial = match denied.why() {
            Why::Unspecified => return Err(FieldError::Missing("why")),
            Why::NotLeading => Denial::NotLeading,
            Why::NotHolder => Denial::NotHolder,
            Why::Ended => Denial::Ended,
            Why::OtherSession => Denial::OtherSession(Incarnation(denied.bound_to)),
        };
        let grantee = denied.grantee.ok_or(FieldError::Missing("grantee"))?;
        Ok((grantee.into(), denial))
    }
}

/// Longest text about an obstacle.
const DETAIL_LEN: usize = 400;

impl From<(VipUid, Obstacle)> for v1::Obstacle {
    fn from((vip, obstacle): (VipUid, Obstacle)) -> Self {
        use v1::obstacle::Why as W;
        let Obstacle { ip, why } = obstacle;
        let (why, detail) = match why {
            Why::NoLink => (W::NoLink, String::new()),
            Why::NoInterface(name) => (W::NoInterface, name),
            Why::NoRoute => (W::NoRoute, String::new()),
            Why::WrongInterface(name) => (W::WrongInterface, name),
            Why::NotAllowed => (W::NotAllowed, String::new()),
            Why::NotUnicast => (W::NotUnicast, String::new()),
            Why::HostHasIt => (W::HostHasIt, String::new()),
            Why::Gateway => (W::Gateway, String::new()),
            Why::NoGate(text) => (W::NoGate, text),
            Why::Kernel(text) => (W::Kernel, text),
            Why::Answered(mac) => (W::Answered, mac.to_string()),
            Why::AnsweredBy(node) => (W::AnsweredBy, node.to_string()),
            Why::NoIpv6(name) => (W::NoIpv6, name),
            Why::NotTaken(text) => (W::NotTaken, text),
        };
        Self { vip: vip.0, ip: ip.to_string(), why: why.into(), detail }
    }
}

impl TryFrom<v1::Obstacle> for (VipUid, Obstacle) {
    type Error = FieldError;
    fn try_from(message: v1::Obstacle) -> Result<Self, FieldError> {
        use v1::obstacle::Why as W;
        let v1::Obstacle { vip, ip, why: code, detail } = message;
        // It goes into the log of every node.
        let detail = detail.chars().take(DETAIL_LEN).collect::<String>();
        let Ok(code) = W::try_from(code) else {
            // Of a later version. The rest of what the node says counts all the same.
            let text = format!("for a reason that this version does not know: {detail}");
            let ip = ip.parse().map_err(|e| invalid("ip", e))?;
            return Ok((VipUid(vip), Obstacle { ip, why: Why::Kernel(text) }));
        };
        let why = match code {
            W::Unspecified => return Err(FieldError::Missing("why")),
            W::NoLink => Why::NoLink,
            W::NoInterface => Why::NoInterface(detail),
            W::NoRoute => Why::NoRoute,
            W::WrongInterface => Why::WrongInterface(detail),
            W::NotAllowed => Why::NotAllowed,
            W::NotUnicast => Why::NotUnicast,
            W::HostHasIt => Why::HostHasIt,
            W::Gateway => Why::Gateway,
            W::NoGate => Why::NoGate(detail),
            W::Kernel => Why::Kernel(detail),
            W::Answered => Why::Answered(detail.parse().map_err(|e| invalid("detail", e))?),
            W::NoIpv6 => Why::NoIpv6(detail),
            W::NotTaken => Why::NotTaken(detail),
            W::AnsweredBy => Why::AnsweredBy(detail.parse().map_err(|e| invalid("detail", e))?),
        };
        Ok((VipUid(vip), Obstacle { ip: ip.parse().map_err(|e| invalid("ip", e))?, why }))
    }
}

fn read_mac(bytes: &[u8]) -> Result<Mac, FieldError> {
    bytes.try_into().map(Mac).map_err(|_| invalid("mac", "not six bytes"))
}

impl From<(VipUid, Conflict)> for v1::Conflict {
    fn from((vip, Conflict { ip, mac }): (VipUid, Conflict)) -> Self {
        Self { vip: vip.0, ip: ip.to_string(), mac: mac.0.to_vec() }
    }
}

impl TryFrom<v1::Conflict> for (VipUid, Conflict) {
    type Error = FieldError;
    fn try_from(message: v1::Conflict) -> Result<Self, FieldError> {
        let v1::Conflict { vip, ip, mac } = message;
        let ip = ip.parse().map_err(|e| invalid("ip", e))?;
        Ok((VipUid(vip), Conflict { ip, mac: read_mac(&mac)? }))
    }
}

impl From<(VipUid, ViaToken)> for v1::ViaToken {
    fn from((vip, ViaToken { epoch, number, text }): (VipUid, ViaToken)) -> Self {
        Self { vip: vip.0, epoch: epoch.0, text, number }
    }
}

/// One that is too long is none: its holder is told so by whoever made it.
fn token(v1::ViaToken { vip, epoch, text, number }: v1::ViaToken) -> Option<(VipUid, ViaToken)> {
    let fits = text.len() <= MAX_TOKEN;
    fits.then_some((VipUid(vip), ViaToken { epoch: Epoch(epoch), number, text }))
}

impl From<Report> for v1::Report {
    fn from(report: Report) -> Self {
        use v1::report::Fitness as F;
        let Report {
            id: ReportId { run, seq },
            fitness,
            stopping,
            unable,
            obstacles,
            open,
            released,
            revisions,
            conflicts,
            tokens,
            macs,
            runs,
        } = report;
        let fitness = match fitness {
            Fitness::Fit => F::Fit,
            Fitness::NoGuard => F::NoGuard,
            Fitness::Disk => F::Disk,
            Fitness::Clock => F::Clock,
        };
        Self {
            run,
            seq,
            fitness: fitness.into(),
            stopping,
            unable_vips: unable.into_iter().map(|vip| vip.0).collect(),
            obstacles: obstacles.into_iter().map(Into::into).collect(),
            open: open.into_iter().map(Into::into).collect(),
            released: released.into_iter().map(Into::into).collect(),
            revisions: revisions.into_iter().map(|(vip, revision)| (vip.0, revision)).collect(),
            conflicts: conflicts.into_iter().map(Into::into).collect(),
            tokens: tokens.into_iter().map(Into::into).collect(),
            macs: macs.into_iter().map(|mac| mac.0.to_vec()).collect(),
            runs: Some(runs.into()),
        }
    }
}

impl TryFrom<v1::Report> for Report {
    type Error = FieldError;
    fn try_from(message: v1::Report) -> Result<Self, FieldError> {
        use v1::report::Fitness as F;
        let fitness = match message.fitness() {
            F::Fit => Fitness::Fit,
            // Whoever does not say that it can, cannot, as far as is known here.
            F::Unspecified | F::NoGuard => Fitness::NoGuard,
            F::Disk => Fitness::Disk,
            F::Clock => Fitness::Clock,
        };
        let v1::Report {
            run,
            seq,
            stopping,
            unable_vips,
            obstacles,
            open,
            released,
            revisions,
            conflicts,
            tokens,
            macs,
            runs,
            ..
        } = message;
        Ok(Self {
            id: ReportId { run, seq },
            fitness,
            stopping,
            unable: unable_vips.into_iter().map(VipUid).collect(),
            obstacles: obstacles.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            open: open.into_iter().map(Into::into).collect(),
            released: released.into_iter().map(Into::into).collect(),
            revisions: revisions.into_iter().map(|(vip, n)| (VipUid(vip), n)).collect(),
            conflicts: conflicts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            tokens: tokens.into_iter().filter_map(token).collect(),
            macs: macs.iter().take(MAX_MACS).map(|mac| read_mac(mac)).collect::<Result<_, _>>()?,
            runs: runs.unwrap_or_default().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vip_core::Runs;

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let all = [
            Why::NoLink,
            Why::NoInterface("eth9".into()),
            Why::NoRoute,
            Why::WrongInterface("eth0".into()),
            Why::NotAllowed,
            Why::NotUnicast,
            Why::HostHasIt,
            Why::Gateway,
            Why::NoGate("no".into()),
            Why::Kernel("no".into()),
            Why::NotTaken("no".into()),
            Why::Answered(Mac([2, 0, 0, 0, 0, 9])),
            Why::AnsweredBy("n3".parse().expect("valid")),
        ];
        let obstacle = |why| Obstacle { ip: [10, 0, 0, 9].into(), why };
        let obstacles = (1..).map(VipUid).zip(all.map(obstacle)).collect();
        let open = Grantee { vip: VipUid(3), epoch: Epoch(4), incarnation: Incarnation(5) };
        let conflict = Conflict { ip: [10, 0, 0, 9].into(), mac: Mac([2, 0, 0, 0, 0, 9]) };
        let report = Report {
            id: ReportId { run: 7, seq: 8 },
            fitness: Fitness::Clock,
            stopping: true,
            unable: [VipUid(1)].into(),
            obstacles,
            open: [open].into(),
            released: [open].into(),
            revisions: [(VipUid(3), 4)].into(),
            conflicts: [(VipUid(3), conflict)].into(),
            tokens: [(VipUid(3), ViaToken { epoch: Epoch(2), number: 5, text: "e7".into() })]
                .into(),
            macs: [Mac([2, 0, 0, 0, 0, 1])].into(),
            runs: Runs::here(),
        };
        assert_eq!(Report::try_from(v1::Report::from(report.clone())), Ok(report));
    }

    /// A later version may hold something up for a reason that is not known here.
    #[test]
    fn an_obstacle_of_a_kind_of_tomorrow_is_heard_with_the_rest_of_the_report() {
        let (ip, detail) = ("10.0.0.9".to_owned(), "eth0 burns".to_owned());
        let obstacle = v1::Obstacle { vip: 3, ip, why: 99, detail };
        let message = v1::Report { seq: 4, obstacles: vec![obstacle], ..Default::default() };
        let report = Report::try_from(message).expect("taken");
        let why = report.obstacles[&VipUid(3)].to_string();
        assert!(why.contains("does not know: eth0 burns"), "{why}");
        assert_eq!(report.id.seq, 4);
    }

    #[test]
    fn a_report_with_an_obstacle_of_no_kind_is_an_error() {
        let message = v1::Report { obstacles: vec![v1::Obstacle::default()], ..Default::default() };
        assert!(Report::try_from(message).is_err());
    }

    /// Whatever a node holds: a lease message has no part that grows.
    #[test]
    fn a_lease_message_has_a_bound() {
        use prost::Message;
        const MOST: usize = 80;
        let most = u64::MAX;
        let vote = Some(v1::Vote { term: most, node: most, committed: true });
        let request = v1::RenewRequest {
            vote,
            promise_us: most,
            wall_ms: most,
            known_run: most,
            known_seq: most,
        };
        let reply = v1::RenewReply {
            promised: true,
            promise_us: most,
            vote,
            wall_ms: most,
            report_run: most,
            report_seq: most,
        };
        assert!(request.encoded_len() <= MOST, "{}", request.encoded_len());
        assert!(reply.encoded_len() <= MOST, "{}", reply.encoded_len());
    }
}
