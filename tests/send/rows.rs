// The rows of this folder, for the family of sockets that `family` has: see `main.rs` and `unix.rs`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/each.rs"]
mod each;

mod order;
mod foreign_wakers;
mod abandoned;
mod failures;
mod empty;
mod shutdown;
mod chunks;
mod gibibytes;
mod random_steps;
mod panicking_buffers;
mod pooled_buffers;

use std::net::TcpStream as StdStream;

use family::Stream;

/// More than the kernel holds between the two ends of [`family::narrow_pair`].
const STALLING: usize = 1 << 20;

/// A stream whose first send is in flight, stalled, and its future gone: what follows is queued.
async fn stalled_pair() -> (Stream, StdStream) {
    let (stream, peer) = family::narrow_pair().await;
    drop(common::start(stream.send_all(common::pattern(STALLING))).await);
    common::turn().await;
    (stream, peer)
}

/// What the peer of [`stalled_pair`] gets from the start, and then these messages.
fn after_stall(messages: &[&[u8]]) -> Vec<u8> {
    [&common::pattern(STALLING)[..], &messages.concat()].concat()
}
