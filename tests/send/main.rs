//! Sending (SEMANTICS section 3). Every buffer goes out whole and in the order of first polls,
//! whatever becomes of its future: dropped before its turn, nothing of it is sent; later, all of
//! it. A failure is told to everybody who asks, with the buffer, and to those after them. The end
//! follows what was queued before it.

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

use tamam::net::TcpStream;

/// More than the kernel holds between the two ends of [`common::narrow_pair`].
const STALLING: usize = 1 << 20;

/// A stream whose first send is in flight, stalled, and its future gone: what follows is queued.
async fn stalled_pair() -> (TcpStream, StdStream) {
    let (stream, peer) = common::narrow_pair().await;
    drop(common::start(stream.send_all(common::pattern(STALLING))).await);
    common::turn().await;
    (stream, peer)
}

/// What the peer of [`stalled_pair`] gets from the start, and then these messages.
fn after_stall(messages: &[&[u8]]) -> Vec<u8> {
    [&common::pattern(STALLING)[..], &messages.concat()].concat()
}
