//! CL5, CL10: a stream or its halves are dropped with a send or a shutdown under way.

use std::cell::Cell;
use std::rc::Rc;

use tamam::buf::IoBuf;

use crate::common::{Gone, assert_same};
use crate::family;
use crate::{Dropping, STALLING, blocking_read_to_end, common};

/// A buffer that says when it is dropped.
struct Counted {
    bytes: Vec<u8>,
    dropped: Rc<Cell<usize>>,
}

// SAFETY: the bytes are those of a Vec that the value owns and nobody changes.
unsafe impl IoBuf for Counted {
    fn ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + 1);
    }
}

/// CL5. 1 a send of 40 MiB stalls, seen by the kernel or not yet, and another is queued; 2 their
/// futures go, and the stream or its halves (CL10); 3 the runtime turns once: the peer gets a
/// start of the bytes and the end, the buffers are dropped.
async fn stalled_send_ends(dropping: Dropping, gone: Gone, submitted: bool) {
    const LEN: usize = 40 << 20;
    println!("{dropping:?}, {gone:?}, submitted: {submitted}");
    let dropped = Rc::new(Cell::new(0));
    let counted = |bytes| Counted { bytes, dropped: dropped.clone() };
    let (stream, peer) = family::pair().await;
    let send = common::start(stream.send_all(counted(vec![7; LEN]))).await;
    if submitted {
        common::turn().await;
    }
    let queued = common::start(stream.send_all(counted(vec![8; 10]))).await;
    gone.leave(send);
    gone.leave(queued);
    dropping.drop(stream);
    common::turn().await;
    assert_eq!((dropped.get(), tamam::metrics().ops), (2, 0), "buffers dropped, ops in flight");
    let bytes = blocking_read_to_end(peer).expect("no reset");
    println!("{} bytes were sent", bytes.len());
    assert!(!bytes.is_empty() && bytes.len() < LEN && bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn cl5_drop_with_a_send_in_flight() {
    for (gone, submitted) in Gone::BOTH.into_iter().flat_map(|gone| [(gone, false), (gone, true)]) {
        common::everywhere(|| stalled_send_ends(Dropping::Stream, gone, submitted));
    }
}

#[test]
fn cl10_drop_of_both_halves_with_a_send_in_flight() {
    for dropping in [Dropping::ReadThenWrite, Dropping::WriteThenRead] {
        for gone in Gone::BOTH {
            common::everywhere(|| stalled_send_ends(dropping, gone, true));
        }
    }
}

/// CL5, CL10. What the kernel takes at once is sent: all of several small sends that are queued or
/// in flight when the stream goes, except those dropped before their turn. Under epoll the first
/// poll is their turn.
#[test]
fn cl5_what_the_kernel_takes_at_once_is_sent() {
    for (gone, submitted) in Gone::BOTH.into_iter().flat_map(|gone| [(gone, false), (gone, true)]) {
        for dropping in Dropping::ALL {
            common::everywhere(|| async move {
                println!("{dropping:?}, {gone:?}, submitted: {submitted}");
                let (stream, peer) = family::pair().await;
                let first = common::begin(stream.send_all(vec![1; 100])).await;
                if submitted {
                    // In flight together, once the first is answered.
                    common::turn().await;
                }
                let second = common::begin(stream.sendv(vec![vec![2; 50], vec![2; 50]])).await;
                let third = common::begin(stream.send(vec![3; 100])).await;
                let had_their_turn = first.is_over() && second.is_over() && third.is_over();
                assert_eq!(had_their_turn, common::on_epoll());
                gone.leave(first);
                gone.leave(second);
                gone.leave(third);
                dropping.drop(stream);
                common::turn().await;
                let bytes = blocking_read_to_end(peer).expect("no reset");
                let all = [vec![1; 100], vec![2; 100], vec![3; 100]].concat();
                match (gone, submitted) {
                    _ if had_their_turn => assert_same(&bytes, &all),
                    (Gone::Forgotten, _) => assert_same(&bytes, &all),
                    (Gone::Dropped, false) => assert_same(&bytes, &all[..100]),
                    // Answered in that turn, the first made way for the second.
                    (Gone::Dropped, true) => {
                        assert_same(&bytes, &all[..bytes.len().clamp(100, 200)])
                    }
                }
            });
        }
    }
}

/// CL5. A drop after `shutdown` was asked for sends what the kernel takes, and the end.
#[test]
fn cl5_drop_with_a_shutdown_that_waits() {
    common::everywhere(|| async {
        let (stream, peer) = family::narrow_pair().await;
        drop(common::start(stream.send_all(common::pattern(STALLING))).await);
        drop(common::start(stream.shutdown()).await);
        drop(stream);
        common::turn().await;
        let bytes = blocking_read_to_end(peer).expect("no reset");
        assert!(!bytes.is_empty() && bytes.len() < STALLING, "{} bytes came", bytes.len());
        assert_same(&bytes, &common::pattern(bytes.len()));
    });
}
