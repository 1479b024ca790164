// The rows of this folder, for the family of sockets that `family` has: see `main.rs` and `unix.rs`.

#[path = "../common/mod.rs"]
mod common;

mod drops;
mod stalled_sends;
mod halves;
mod into_std;
mod numbers;
mod random_lives;

use std::io::{self, Read, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::AsFd;

use common::Gone;
use family::Stream;
use tamam::{Builder, Runtime};

/// More than the kernel holds between the two ends of [`family::narrow_pair`].
const STALLING: usize = 1 << 20;

/// The default sizes on both engines.
fn both() -> impl Iterator<Item = Builder> {
    common::both(&Runtime::builder()).into_iter().map(|(_, builder)| builder)
}

/// The next thing that a peer reads, while the runtime does not turn.
fn blocking_read(peer: &mut impl Read) -> io::Result<usize> {
    peer.read(&mut [0; 64])
}

/// Everything that a peer reads, while the runtime does not turn.
fn blocking_read_to_end(mut peer: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).map(|_| bytes)
}

/// Lets the runtime turn until so many bytes wait unread in the kernel.
async fn until_unread(stream: &impl AsFd, len: usize) {
    while common::unread(stream) != len {
        tamam::yield_now().await;
    }
}

/// Makes the stream park `bytes`, or as many as its pool has room for: the peer writes them, and a
/// receive that nobody waits for any more takes them.
async fn park(stream: &Stream, peer: &mut StdStream, bytes: &[u8], gone: Gone) {
    gone.leave(common::start(stream.recv()).await);
    common::turn().await;
    peer.write_all(bytes).expect("connected");
    common::wait_for(stream, libc::POLLIN);
    while common::unread(stream) == bytes.len() {
        tamam::yield_now().await;
    }
}

/// What is dropped.
#[derive(Clone, Copy, Debug)]
enum Dropping {
    Stream,
    ReadThenWrite,
    WriteThenRead,
}

impl Dropping {
    const ALL: [Dropping; 3] = [Dropping::Stream, Dropping::ReadThenWrite, Dropping::WriteThenRead];

    fn drop(self, stream: Stream) {
        match self {
            Dropping::Stream => drop(stream),
            Dropping::ReadThenWrite => {
                let (read, write) = stream.into_split();
                drop(read);
                drop(write);
            }
            Dropping::WriteThenRead => {
                let (read, write) = stream.into_split();
                drop(write);
                drop(read);
            }
        }
    }
}
