//! What all streams, files and sockets have in common.

mod error;
mod readiness;
mod watched;

pub use error::{CallError, errno};
pub use readiness::{Readiness, ReadyFor, ReadyGuard, TryIoError};
