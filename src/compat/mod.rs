//! The streams as other crates want them: one file and one feature for each family of traits.
//!
//! Nothing is decided here. What the traits ask for stands in `net/connection/poll.rs`, and for TLS
//! in `tls/`, under the same names; an adapter only changes the shape of the arguments. No future is
//! boxed, and a stream nobody reads from holds no buffer.

#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "tokio-io")]
mod tokio_io;
#[cfg(feature = "hyper")]
pub mod hyper;
