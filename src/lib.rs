// Its examples are tested with the features that they use: by `cargo test --workspace`.
#![cfg_attr(
    any(not(doctest), all(feature = "tls-ring", feature = "native-certs")),
    doc = include_str!("../README.md")
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs, unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("tamam is for Linux: it is built on io_uring");

// In the order in which they are best read.
mod doctor;
mod runtime;
mod context;
pub mod task;
mod executor;
pub mod time;
pub mod io;
pub mod net;
pub mod pipe;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper", feature = "quinn"))]
mod compat;
pub mod signal;
mod blocking;
mod stream;
mod datagram;
mod ops;
mod driver;
pub mod buf;
mod queue;
mod deferred;
mod metrics;
mod panics;
mod unwind;
#[cfg(test)]
mod random;
mod sync;
mod sys;

pub use blocking::{BlockingHandle, set_blocking_threads, spawn_blocking};
pub use buf::Chunk;
#[cfg(feature = "hyper")]
pub use compat::hyper;
#[cfg(feature = "quinn")]
pub use compat::quinn;
pub use doctor::{Limit, Report, doctor};
pub use driver::{Backend, Capabilities, Feature, ParseBackendError, SetupError, Support};
pub use executor::{AbortHandle, JoinError, JoinHandle, TaskId, YieldNow, yield_now};
pub use metrics::{Metrics, metrics};
pub use runtime::{Builder, EnterGuard, Runtime, backend, run, spawn};

/// The long texts: how it is built, what dropping a future means, what the kernel must offer.
pub mod docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}

    #[doc = include_str!("docs/cancellation.md")]
    pub mod cancellation {}

    #[doc = include_str!("docs/semantics.md")]
    pub mod semantics {}

    #[doc = include_str!("docs/ecosystem.md")]
    pub mod ecosystem {}

    #[doc = include_str!("docs/kernels.md")]
    pub mod kernels {}
}
