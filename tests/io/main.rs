//! What all streams have in common (SEMANTICS, "Streams in general").

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/frames.rs"]
mod frames;
#[path = "../common/keys.rs"]
mod keys;

mod layers;

use tamam::net::UnixStream;

/// Both ends of a Unix socket pair.
pub fn unix_pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("descriptors are left")
}
