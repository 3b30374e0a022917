//! What the backend programs and vhostctl have to agree on.

mod front_end_status;

pub use front_end_status::{FrontEndStatus, Peer};
