//! What all streams, files and sockets have in common.

mod error;

pub use error::{CallError, errno};
