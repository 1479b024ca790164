//! EP5: what was begun goes on, and ends, without any task.

use std::io::Read;

use tamam::Runtime;

use crate::common::{Gone, assert_same, begin, pattern, start, turn, with_both};
use crate::{STALLING, asleep, common};

/// What is begun, and then left to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Send,
    SendAndShutdown,
    WriteHalf,
}

/// 1 a send stalls, and its future goes; perhaps a shutdown behind it, or the half itself; 2 the peer
/// reads, while this thread sleeps and polls no task: everything arrives, and the end if it was
/// asked for.
#[test]
fn ep5_what_was_begun_needs_no_task() {
    const LEN: usize = 8 << 20;
    for left in [Left::Send, Left::SendAndShutdown, Left::WriteHalf] {
        for gone in Gone::BOTH {
            with_both(Runtime::builder(), || async move {
                eprintln!("{left:?}, {gone:?}");
                let (stream, mut peer) = common::pair().await;
                let (read, write) = stream.into_split();
                gone.leave(start(write.send_all(pattern(LEN))).await);
                let mut write = Some(write);
                match left {
                    Left::Send => {}
                    Left::SendAndShutdown => {
                        let write = write.as_ref().expect("it is kept");
                        gone.leave(start(write.shutdown()).await);
                    }
                    Left::WriteHalf => drop(write.take()),
                }
                let ((peer, bytes), turns, polls) = asleep(move || {
                    let mut bytes = Vec::new();
                    if left == Left::Send {
                        bytes.resize(LEN, 0);
                        peer.read_exact(&mut bytes).expect("no reset");
                    } else {
                        peer.read_to_end(&mut bytes).expect("no reset");
                    }
                    (peer, bytes)
                })
                .await;
                assert_same(&bytes, &pattern(LEN));
                eprintln!("{turns} turns, {polls} polls");
                // The main future, at the start of the sleep and at its end.
                assert!(polls <= 3, "{polls} polls while the engine was to go on alone");
                drop((read, write, peer));
            });
        }
    }
}

/// A drop with a send that has stalled: what the kernel takes goes out, and the end, before this
/// thread sleeps; no task is polled for it, and the buffer is gone.
#[test]
fn ep5_a_drop_ends_without_a_task() {
    with_both(Runtime::builder(), || async {
        for gone in Gone::BOTH {
            let (stream, mut peer) = common::narrow_pair().await;
            gone.leave(start(stream.send_all(pattern(STALLING))).await);
            std::mem::forget(begin(stream.send_all("queued")).await);
            turn().await;
            drop(stream);
            let (bytes, _, polls) = asleep(move || {
                let mut bytes = Vec::new();
                peer.read_to_end(&mut bytes).map(|_| bytes)
            })
            .await;
            let bytes = bytes.expect("no reset");
            assert!(!bytes.is_empty() && bytes.len() < STALLING, "{} bytes", bytes.len());
            assert_same(&bytes, &pattern(bytes.len()));
            assert!(polls <= 3, "{polls} polls");
            assert_eq!(tamam::metrics().ops, 0);
        }
    });
}
