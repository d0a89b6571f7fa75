//! Forwarding: the maps that the program reads, and the engine that keeps them in step
//! with what is wanted.

mod engine;
mod layout;
mod maps;
mod numbers;
mod values;

pub use engine::{ForwardEngine, LeftEngine, Surroundings, Unforwarded};
pub use maps::{ForwardError, ForwardMaps, MOST_REALS, MOST_TABLES};
pub use values::{Place, Places, Real, Reply, Service, Way};
