// The rows of this folder, for the family of sockets that `family` has: see `main.rs` and `unix.rs`.

#[path = "../common/mod.rs"]
mod common;

mod sharing;
mod foreign_wakers;
mod herd;
mod abandoned_calls;
mod abandoned_buffers;
mod partial_reads;
mod read_exact;
mod peek;
mod ends;
mod reset;
mod cancels;
mod few_buffers;
mod bounds;
mod after_the_runtime;
mod bulk;

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::TcpStream as StdStream;

use common::{at_once, poll_once};
use family::Stream;
use tamam::buf::{BufError, IoBuf};

/// Room that is larger than any pooled buffer here: the kernel receives straight into it.
const LENT: usize = 64 * 1024;

/// Room that is smaller than any: received into the pool and copied.
const SMALL: usize = 8;

/// How bytes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Recv,
    Read(usize),
    ReadExact(usize),
}

const WAYS: [Way; 5] =
    [Way::Recv, Way::Read(SMALL), Way::Read(LENT), Way::ReadExact(SMALL), Way::ReadExact(LENT)];

/// What a call gave: bytes, and why there were not more. All three ways say [`EOF`] at the end.
type Received = (Vec<u8>, Option<ErrorKind>);

const EOF: ErrorKind = ErrorKind::UnexpectedEof;

async fn receive(stream: &Stream, way: Way) -> Received {
    fn from_error(error: BufError<Vec<u8>>) -> Received {
        let (error, buf) = error.into_parts();
        (buf, Some(error.kind()))
    }
    match way {
        Way::Recv => match stream.recv().await {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty(), "a chunk of nothing");
                (chunk.to_vec(), None)
            }
            Ok(None) => (Vec::new(), Some(EOF)),
            Err(error) => (Vec::new(), Some(error.kind())),
        },
        Way::Read(room) => match stream.read(Vec::with_capacity(room)).await {
            Ok((0, buf)) => (buf, Some(EOF)),
            Ok((len, buf)) => {
                assert_eq!(buf.len(), len, "it says how many it appended");
                (buf, None)
            }
            Err(error) => from_error(error),
        },
        Way::ReadExact(len) => match stream.read_exact(Vec::with_capacity(len), len).await {
            Ok(buf) => {
                assert_eq!(buf.len(), len, "no more and no less");
                (buf, None)
            }
            Err(error) => from_error(error),
        },
    }
}

/// Everything to the end, and what the end was.
async fn until_end(stream: &Stream, way: Way) -> (Vec<u8>, ErrorKind) {
    let mut all = Vec::new();
    loop {
        let (bytes, end) = receive(stream, way).await;
        all.extend(bytes);
        if let Some(end) = end {
            return (all, end);
        }
    }
}

/// The next `len` bytes, by `recv`, and not one more.
async fn next(stream: &Stream, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        let (bytes, end) = receive(stream, Way::Recv).await;
        assert_eq!(end, None, "after {} of {len} bytes", all.len());
        all.extend(bytes);
    }
    assert_eq!(all.len(), len, "more bytes than were expected");
    all
}

/// Every call, again and again, says that this is the end, at once.
async fn assert_ended(stream: &Stream, end: ErrorKind) {
    for round in 0..3 {
        for way in WAYS {
            let received = at_once(receive(stream, way)).await;
            assert_eq!(received, (Vec::new(), Some(end)), "{way:?}, round {round}");
        }
    }
}

/// Calls that see their answer only when others have had theirs wait for the next.
async fn assert_waits<F: Future + Unpin>(future: &mut F) {
    assert!(poll_once(future).await.is_pending(), "there was nothing for it");
}

fn write(mut peer: &StdStream, bytes: &[u8]) {
    peer.write_all(bytes).expect("it fits into the kernel");
}
