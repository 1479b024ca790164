//! TX3, TX4, TX13: sends that are dropped, forgotten or timed out, under way.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use tamam::buf::IoBuf;
use tamam::time::timeout;

use crate::common::{Gone, arriving, assert_same, read_some};
use crate::family::{self, Stream};
use crate::{STALLING, common, each};

/// TX3. 8 MiB; the future goes right after its first poll, before the kernel saw the submission,
/// or after it, when part is out; all 8 MiB arrive, then the next message.
#[test]
fn tx3_gone_while_in_flight_the_rest_goes_out() {
    const LEN: usize = 8 << 20;
    for (gone, submitted) in Gone::BOTH.into_iter().flat_map(|gone| [(gone, false), (gone, true)]) {
        common::everywhere(|| async move {
            let (stream, peer) = family::pair().await;
            let send = common::start(stream.send_all(common::pattern(LEN))).await;
            if submitted {
                common::turn().await;
            }
            gone.leave(send);
            let reader = common::read_to_end(peer);
            stream.send_all("next").await.expect("sent");
            drop(stream);
            let expected = [&common::pattern(LEN)[..], b"next"].concat();
            assert_same(&common::join(reader).await.expect("no reset"), &expected);
        });
    }
}

/// TX3. As above, in small kernel buffers, with batches of abandoned sends: all that the kernel
/// had seen goes out whole, with nobody waiting and no task.
#[test]
fn tx3_an_abandoned_batch_goes_out_with_nobody_waiting() {
    common::everywhere(|| async {
        let (stream, mut peer) = family::narrow_pair().await;
        let first = common::start(stream.send_all(vec![1; STALLING])).await;
        let queued = [
            common::start(stream.send_all(vec![2; STALLING])).await,
            common::start(stream.send_all(vec![3; STALLING])).await,
        ];
        // 1 the peer reads into the second message, so that the second and third are in flight
        // together; 2 all three futures are dropped; 3 the peer reads on.
        let bytes;
        (peer, bytes) = read_some(peer, STALLING + 1).await;
        assert_eq!((bytes[STALLING - 1], bytes[STALLING]), (1, 2));
        drop((first, queued));
        let (peer, bytes) = read_some(peer, 2 * STALLING - 1).await;
        assert!(bytes[..STALLING - 1].iter().all(|byte| *byte == 2));
        assert!(bytes[STALLING - 1..].iter().all(|byte| *byte == 3));
        drop(stream);
        assert_eq!(arriving(peer).await, b"");
    });
}

/// A buffer that keeps a stream open: perhaps the one it is sent through.
struct Owning {
    bytes: Vec<u8>,
    _stream: Rc<Stream>,
}

// SAFETY: the bytes are those of a Vec that the value owns and nobody changes.
unsafe impl IoBuf for Owning {
    fn ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// TX3. 1 buffers own the streams they are sent through, or each other's; 2 their futures and all
/// other handles are gone; 3 the peers read: everything arrives, the buffers are dropped, and with
/// them, in the middle of a completion, the streams. Crossed, the first that is out ends the other.
#[test]
fn tx3_a_buffer_may_own_its_stream() {
    for crossed in [false, true] {
        common::everywhere(|| async move {
            let (a, peer_a) = family::narrow_pair().await;
            let (b, peer_b) = family::narrow_pair().await;
            let (a, b) = (Rc::new(a), Rc::new(b));
            for (stream, other) in [(&a, &b), (&b, &a)] {
                let owned = if crossed { other } else { stream };
                let buf = Owning { bytes: common::pattern(STALLING), _stream: owned.clone() };
                drop(common::start(stream.send_all(buf)).await);
            }
            drop((a, b));
            common::turn().await;
            let mut whole = 0;
            for reader in [peer_a, peer_b].map(common::read_to_end) {
                let bytes = common::join(reader).await.expect("no reset");
                assert_same(&bytes, &common::pattern(bytes.len()));
                whole += usize::from(bytes.len() == STALLING);
            }
            assert!(whole >= if crossed { 1 } else { 2 }, "{whole} arrived whole");
        });
    }
}

/// TX3 and G8. 1 a send stalls, part of it out; 2 its future is polled in another runtime: an
/// error, and the buffer, at once; 3 back home the rest goes out all the same, once, then the next.
#[test]
fn tx3_polled_in_another_runtime_it_still_goes_out_whole() {
    let _watchdog = common::Watchdog::start();
    for queued in [false, true] {
        each::mixed(|runtime| {
            let (home, other) = (runtime(), runtime());
            let (stream, peer) = home.block_on(family::narrow_pair());
            let mut first =
                home.block_on(common::start(stream.send_all(common::pattern(STALLING))));
            let mut second = home.block_on(common::start(stream.send_all(vec![2; 100])));
            let moved = if queued { &mut second } else { &mut first };
            let (error, buf) = other.block_on(moved).expect_err("not at home").into_parts();
            assert_eq!(error.kind(), ErrorKind::Other);
            assert!(buf == common::pattern(STALLING) || buf == [2; 100]);
            home.block_on(async {
                let reader = common::read_to_end(peer);
                // The queued one never happened; what was seen by the kernel goes on.
                let expected = if queued {
                    first.await.expect("the peer reads");
                    common::pattern(STALLING)
                } else {
                    second.await.expect("the peer reads");
                    [common::pattern(STALLING), vec![2; 100]].concat()
                };
                stream.shutdown().await.expect("the peer reads");
                assert_same(&common::join(reader).await.expect("no reset"), &expected);
            });
        });
    }
}

/// TX4. 1000 sends of 64 KiB with a timeout each, to a peer that does not read: the heap holds one
/// batch of one message meanwhile, and the peer then gets whole messages, in order.
#[test]
fn tx4_timeouts_in_a_row_hold_one_batch() {
    common::alone("abandoned::tx4_timeouts_in_a_row_hold_one_batch", || {
        common::everywhere(|| async {
            const LEN: usize = 64 * 1024;
            let (stream, peer) = family::narrow_pair().await;
            let mut before = common::quarantine::live();
            for number in 0..1000u32 {
                let message = number.to_le_bytes().repeat(LEN / 4);
                let _ = timeout(Duration::from_millis(1), stream.send_all(message)).await;
                if number == 0 {
                    // Timers, op table and queue have their memory now.
                    before = common::quarantine::live();
                }
            }
            let grown = common::quarantine::live() - before;
            assert!(grown < LEN as isize + 4096, "{grown} bytes more on the heap");
            let reader = common::read_to_end(peer);
            stream.send_all(vec![0xff; LEN]).await.expect("the peer reads");
            drop(stream);
            let bytes = common::join(reader).await.expect("no reset");
            assert_eq!(bytes.len() % LEN, 0, "messages are whole");
            let mut last = None;
            for message in bytes.chunks(LEN) {
                assert!(message.chunks(4).all(|word| word == &message[..4]), "a message is torn");
                let number = u32::from_le_bytes([message[0], message[1], message[2], message[3]]);
                assert!(last < Some(number), "{number} after {last:?}");
                last = Some(number);
            }
            assert_eq!(last, Some(u32::MAX), "what was sent last comes last");
        });
    });
}

/// TX13. A send that timed out goes on in the background; only the drop of the stream ends it, and
/// then the peer sees a part and the end.
#[test]
fn tx13_a_timeout_does_not_end_a_send() {
    for give_up in [false, true] {
        common::everywhere(|| async move {
            let (stream, peer) = family::narrow_pair().await;
            let message = common::pattern(STALLING);
            let elapsed = timeout(Duration::from_millis(5), stream.send_all(message)).await;
            let elapsed = elapsed.expect_err("nobody reads");
            assert_eq!(std::io::Error::from(elapsed).kind(), ErrorKind::TimedOut);
            if give_up {
                drop(stream);
                let bytes = arriving(peer).await;
                assert!(!bytes.is_empty() && bytes.len() < STALLING, "{} bytes came", bytes.len());
                assert_same(&bytes, &common::pattern(bytes.len()));
            } else {
                let (_peer, bytes) = read_some(peer, STALLING).await;
                assert_same(&bytes, &common::pattern(STALLING));
            }
        });
    }
}
