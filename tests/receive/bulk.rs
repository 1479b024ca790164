//! RX20: a bulk transfer is received in large chunks.

use std::io::Write;
use std::thread;
use std::time::Duration;

use tamam::Runtime;
use tamam::buf::IoBuf;
use tamam::time::timeout;

use crate::common::{self, pattern};
use crate::family;

/// RX20. 1 the peer writes much; 2 after a while it comes in larger chunks than a pooled buffer; 3 some
/// futures are dropped on the way, and reads of every kind take their part: every byte is there, in
/// order; 4 a short message afterwards comes in a pooled buffer again, and no large one is kept.
#[test]
fn rx20_a_bulk_transfer_comes_in_large_chunks() {
    let pooled = 4096;
    common::with_both(Runtime::builder().buffer_size(pooled), || async {
        let bytes = pattern(8 << 20);
        let (stream, mut peer) = family::pair().await;
        let sent = bytes.clone();
        let writer = thread::spawn(move || {
            peer.write_all(&sent).expect("it is read");
            peer
        });
        let (mut got, mut longest, mut random) = (Vec::new(), 0, common::Random(20));
        while got.len() < bytes.len() {
            let left = bytes.len() - got.len();
            match random.below(20) {
                0 => {
                    let brief = Duration::from_micros(random.below(200));
                    if let Ok(chunk) = timeout(brief, stream.recv()).await {
                        got.extend_from_slice(&chunk.expect("no reset").expect("no end"));
                    }
                }
                1 => {
                    let room = 1 + random.below(100_000) as usize;
                    let (_, part) = stream.read(Vec::with_capacity(room)).await.expect("bytes");
                    got.extend_from_slice(&part);
                }
                2 => {
                    let len = left.min(1 + random.below(10_000) as usize);
                    let part = stream.read_exact(Vec::with_capacity(len), len).await;
                    got.extend_from_slice(&part.expect("bytes"));
                }
                _ => {
                    let chunk = stream.recv().await.expect("no reset").expect("no end");
                    longest = longest.max(chunk.len());
                    got.extend_from_slice(&chunk);
                }
            }
        }
        common::assert_same(&got, &bytes);
        assert!(longest > pooled, "the longest chunk has {longest} bytes");
        let mut peer = common::join(writer).await;
        // The first may still be received by what was armed for more.
        for message in ["first", "second", "third"] {
            peer.write_all(message.as_bytes()).expect("open");
            let chunk = stream.recv().await.expect("no reset").expect("no end");
            assert_eq!(&chunk[..], message.as_bytes());
            assert!(chunk.is_pooled() || message == "first");
        }
    });
}

/// RX20. 1 the peer sends message after message, each as long as a pooled buffer, and waits for the
/// answer; 2 that is no bulk transfer: almost all of them come in pooled buffers.
#[test]
fn rx20_messages_of_the_size_of_a_buffer_are_no_bulk_transfer() {
    let pooled = 4096;
    common::with_both(Runtime::builder().buffer_size(pooled), || async {
        let (stream, mut peer) = family::pair().await;
        let message = pattern(pooled);
        let mut on_the_heap = 0;
        for _ in 0..1000 {
            peer.write_all(&message).expect("open");
            let mut got = 0;
            while got < pooled {
                let chunk = stream.recv().await.expect("no reset").expect("no end");
                common::assert_same(&chunk, &message[got..got + chunk.len()]);
                got += chunk.len();
                on_the_heap += usize::from(!chunk.is_pooled());
            }
        }
        // After 16 messages, 64 more, 256 more; and what was armed by then.
        assert!((1..=6).contains(&on_the_heap), "{on_the_heap} of 1000 on the heap");
    });
}
