//! The atomics of what other threads touch. `tests/loom/loom.rs` puts loom's in their place.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
