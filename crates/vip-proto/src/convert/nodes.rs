//! `nodes.proto`.

use crate::v1;
use vip_core::NodeState;

impl From<NodeState> for v1::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Joining => Self::Joining,
            NodeState::Active => Self::Active,
            NodeState::Drained => Self::Drained,
            NodeState::Leaving => Self::Leaving,
        }
    }
}
