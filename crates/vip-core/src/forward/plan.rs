//! What a virtual server's table is made of: some hundred bytes, which say all of its
//! thousands of slots.

use crate::{MAX_REALS, RealServer, TableSize};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Why there is no such table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Too many servers.
    #[error("{0} real servers are too many for one table: at most {MAX_REALS}")]
    TooMany(usize),
    /// Which of the two weights it has would be told by the order alone.
    #[error("the real server {ip} with port {port} is there twice")]
    Repeated { ip: IpAddr, port: u16 },
}

/// As it is written, and not looked at yet.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Plan")]
struct Written {
    seed: u64,
    size: TableSize,
    reals: Vec<RealServer>,
}

/// Input of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Plan {
    seed: u64,
    size: TableSize,
    /// By address and port, whatever order they came in: nodes may have come to know
    /// them in different ones.
    reals: Vec<RealServer>,
}

impl Plan {
    /// `seed` keeps the tables of two virtual servers with the same real servers
    /// apart.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(seed: u64, size: TableSize, mut reals: Vec<RealServer>) -> Result<Self, PlanError> {
        if reals.len() > MAX_REALS {
            return Err(PlanError::TooMany(reals.len()));
        }
        reals.sort();
        match reals.windows(2).find(|pair| pair[0].place() == pair[1].place()) {
            Some(pair) => Err(PlanError::Repeated { ip: pair[0].ip, port: pair[0].port }),
            None => Ok(Self { seed, size, reals }),
        }
    }

    /// See [`Plan::new`].
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// How many slots.
    #[must_use]
    pub const fn size(&self) -> TableSize {
        self.size
    }

    /// The real servers, in the order that slots name them by.
    #[must_use]
    pub fn reals(&self) -> &[RealServer] {
        &self.reals
    }
}

impl From<Plan> for Written {
    fn from(Plan { seed, size, reals }: Plan) -> Self {
        Self { seed, size, reals }
    }
}

impl TryFrom<Written> for Plan {
    type Error = PlanError;

    fn try_from(Written { seed, size, reals }: Written) -> Result<Self, PlanError> {
        Self::new(seed, size, reals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(number: u16, port: u16) -> RealServer {
        let [high, low] = number.to_be_bytes();
        RealServer { ip: [10, 0, high, low].into(), port, weight: 1 }
    }

    #[test]
    fn a_plan_has_one_order_and_nobody_twice() {
        let plan = |reals: &[RealServer]| Plan::new(1, TableSize::Tiny, reals.to_vec());
        let (one, other, third) = (real(1, 80), real(1, 81), real(2, 80));
        assert_eq!(plan(&[third, other, one]), plan(&[one, other, third]));
        assert_eq!(plan(&[third, one]).expect("two").reals(), [one, third]);
        let heavier = RealServer { weight: 9, ..one };
        let repeated = PlanError::Repeated { ip: one.ip, port: 80 };
        assert_eq!(plan(&[one, third, heavier]), Err(repeated));
        let many: Vec<_> = (0..1001).map(|number| real(number, 80)).collect();
        assert_eq!(plan(&many), Err(PlanError::TooMany(1001)));
        assert!(plan(&many[1..]).is_ok());
    }

    #[test]
    fn a_plan_is_read_as_it_was_written_and_no_other() {
        let plan = Plan::new(u64::MAX, TableSize::Large, vec![real(2, 0), real(1, 9)]);
        let plan = plan.expect("a plan");
        let text = serde_json::to_string(&plan).expect("plain");
        assert_eq!(serde_json::from_str::<Plan>(&text).ok(), Some(plan.clone()));
        assert_eq!((plan.seed(), plan.size()), (u64::MAX, TableSize::Large));
        for (good, bad) in [("65521", "65520"), ("\"port\":0", "\"port\":65536")] {
            assert!(text.contains(good), "{text}");
            assert!(serde_json::from_str::<Plan>(&text.replace(good, bad)).is_err(), "{bad}");
        }
        let twice = text.replace("10.0.0.2", "10.0.0.1").replace("\"port\":0", "\"port\":9");
        assert!(serde_json::from_str::<Plan>(&twice).is_err(), "{twice}");
    }
}
