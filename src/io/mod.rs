//! What all streams, files and sockets have in common.

mod error;
mod truncated;

pub use error::{CallError, errno};
pub use truncated::Truncated;
