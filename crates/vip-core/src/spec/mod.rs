//! What is wanted, as a person says it, checked as far as it can be alone.

mod vip;

pub use vip::{AddressError, Placement, VipAddress, VipSpec, VipSpecError};
