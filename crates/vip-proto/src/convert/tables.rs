//! `tables.proto`.

use super::{FieldError, invalid};
use crate::v1;
use vip_core::{Counter, RealCount};

impl From<RealCount> for v1::RealCount {
    fn from(count: RealCount) -> Self {
        let RealCount { ip, port, counter } = count;
        let Counter { packets, bytes, connections, replies } = counter;
        Self { ip: ip.to_string(), port: port.into(), packets, bytes, connections, replies }
    }
}

impl TryFrom<v1::RealCount> for RealCount {
    type Error = FieldError;
    fn try_from(message: v1::RealCount) -> Result<Self, FieldError> {
        let v1::RealCount { ip, port, packets, bytes, connections, replies } = message;
        Ok(Self {
            ip: ip.parse().map_err(|e| invalid("ip", e))?,
            port: u16::try_from(port).map_err(|e| invalid("port", e))?,
            counter: Counter { packets, bytes, connections, replies },
        })
    }
}
