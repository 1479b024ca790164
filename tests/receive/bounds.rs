//! RX16: what nobody reads is bounded.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tamam::Runtime;
use tamam::time::sleep;

use crate::common::{assert_same, completing, pattern, quarantine, start, turn};
use crate::family::{self, Stream, narrow_inbound, pair};
use crate::{EOF, LENT, Way, assert_ended, common, next, receive, until_end, write};

/// RX16. 1 a stream is read once, with a shot; 2 the peer writes `len` bytes; 3 the shot is stopped, and
/// what is parked by then is bounded; 4 the peer blocks; 5 all of it is read.
async fn nobody_reads(credit: usize, len: usize) {
    /// What may be parked above the credit: one enter's harvest of default buffers.
    const HARVEST: usize = 256 * 1024;
    let (stream, peer) = narrow_inbound().await;
    write(&peer, b"x");
    assert_eq!(next(&stream, 1).await, b"x");
    drop(start(stream.recv()).await);
    turn().await;
    assert_eq!(tamam::metrics().ops, 1, "the shot goes on");
    let heap = quarantine::live();
    let written = Arc::new(AtomicUsize::new(0));
    let writer = {
        let written = written.clone();
        let sent = pattern(len);
        thread::spawn(move || {
            for piece in sent.chunks(4096) {
                (&peer).write_all(piece).expect("the stream is read in the end");
                written.fetch_add(piece.len(), Ordering::Relaxed);
            }
            peer
        })
    };
    while tamam::metrics().ops > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    // The peer goes on until the kernel's buffers are full as well.
    let mut last = usize::MAX;
    while std::mem::replace(&mut last, written.load(Ordering::Relaxed)) != last {
        sleep(Duration::from_millis(50)).await;
    }
    let in_kernel = common::unread(&stream) + 256 * 1024;
    assert!(last < credit + HARVEST + in_kernel, "{last} bytes went out with nobody reading");
    assert!(!writer.is_finished(), "the peer blocks");
    let pinned = tamam::metrics().buffers_lent * 4096;
    assert!(pinned <= credit + HARVEST, "{pinned} bytes of buffers are pinned");
    let growth = quarantine::live() - heap - len as isize;
    println!("parked {last} bytes at most, heap grew by {growth}, {:?}", tamam::metrics());
    assert!(growth <= (credit + 4 * HARVEST) as isize, "the heap grew by {growth}");
    let mut got = Vec::new();
    while got.len() < len {
        got.extend(receive(&stream, Way::Recv).await.0);
    }
    assert_same(&got, &pattern(len));
    drop(common::join(writer).await);
    assert_ended_soon(&stream).await;
}

/// The end comes, after which it stays.
async fn assert_ended_soon(stream: &Stream) {
    assert_eq!(receive(stream, Way::Recv).await, (Vec::new(), Some(EOF)));
    turn().await; // with a full budget: what is ready is ready at once
    assert_ended(stream, EOF).await;
}

#[test]
fn rx16_what_nobody_reads_is_bounded() {
    common::alone("bounds::rx16_what_nobody_reads_is_bounded", || {
        // 16 bytes at a time take long.
        common::everywhere(|| nobody_reads(64 * 1024, 2 << 20));
        for credit in [1, 5000, 64 * 1024, 256 * 1024] {
            common::with_both(Runtime::builder().stream_credit(credit), || {
                nobody_reads(credit, 8 << 20)
            });
        }
    });
}

/// RX16. 1 others keep the pool at low water, so that what comes is copied to the heap; 2 the peer
/// sends single bytes, each a completion of its own, and nobody reads: the credit bounds what they
/// cost, not only what they are.
#[test]
fn rx16_single_bytes_are_charged_what_they_cost() {
    common::alone("bounds::rx16_single_bytes_are_charged_what_they_cost", || {
        const CREDIT: usize = 64 * 1024;
        let small = Runtime::builder().buffer_count(4).stream_credit(CREDIT);
        common::with_both(small, || async {
            let (keeping, keeping_peer) = pair().await;
            let mut kept = Vec::new();
            while tamam::metrics().buffers_lent < 3 {
                write(&keeping_peer, b"x");
                kept.push(keeping.recv().await.expect("no error").expect("a byte"));
            }
            drop((keeping, keeping_peer));
            let (stream, peer) = pair().await;
            drop(start(stream.recv()).await);
            turn().await;
            let (heap, mut sent) = (quarantine::live(), 0);
            while tamam::metrics().ops > 0 && sent < 2 * CREDIT {
                completing(|| write(&peer, b"x")).await;
                sent += 1;
            }
            let growth = quarantine::live() - heap;
            println!("{sent} bytes, the heap grew by {growth}");
            assert!(sent < 2 * CREDIT, "the credit is never used up");
            assert!(growth < 4 * CREDIT as isize, "{CREDIT} bytes of credit cost {growth} of heap");
            drop(peer);
            let (got, end) = until_end(&stream, Way::Read(LENT)).await;
            assert_eq!((got.len(), end), (sent, EOF));
        });
    });
}

/// RX16. 1 four messages use up a credit of four buffers, and the receive is stopped; 2 two of them
/// are taken: half of the credit is free, and the receive goes on, though no call waits; 3 what comes
/// then is received ahead. One message less, and it stays stopped.
#[test]
fn rx16_a_stopped_receive_goes_on_when_half_of_the_credit_is_free() {
    const MESSAGE: usize = 100;
    let Some(ring) = common::ring_only(Runtime::builder()) else { return };
    let runtime = common::build(ring.clone());
    if family::UNIX || !common::has_feature(&runtime, "multishot receive") {
        return println!("skipped: only a multishot receive is stopped");
    }
    drop(runtime);
    let builder = ring.buffer_size(4096).buffer_count(64).stream_credit(4 * 4096);
    common::with(builder, || async {
        let (stream, peer) = pair().await;
        drop(start(stream.recv()).await);
        turn().await;
        for _ in 0..4 {
            completing(|| write(&peer, &[7; MESSAGE])).await;
        }
        while tamam::metrics().ops > 0 {
            turn().await; // the cancel is on its way
        }
        for (taken, ops) in [(1, 0), (2, 1), (3, 1)] {
            assert_eq!(next(&stream, MESSAGE).await.len(), MESSAGE);
            assert_eq!(tamam::metrics().ops, ops, "receives in flight, {taken} messages taken");
        }
        completing(|| write(&peer, &[8; MESSAGE])).await;
        assert_eq!(next(&stream, 2 * MESSAGE).await, [[7; MESSAGE], [8; MESSAGE]].concat());
    });
}
