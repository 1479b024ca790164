//! Sending (SEMANTICS section 3). Every buffer goes out whole and in the order of first polls,
//! whatever becomes of its future: dropped before its turn, nothing of it is sent; later, all of
//! it. A failure is told to everybody who asks, with the buffer, and to those after them. The end
//! follows what was queued before it.

mod common;
#[path = "common/each.rs"]
mod each;

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use common::{Gone, PATIENCE, arriving, assert_same, at_once, read_some};
use tamam::Runtime;
use tamam::buf::IoBuf;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::timeout;

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

/// TX1. 1 two tasks send records at once; 2 the peer reads slowly; 3 each record is whole, those
/// of one task are in order, and they alternate as first polls did.
async fn records_stay_whole(records: u32) {
    const LEN: usize = 100 * 1024;
    let (stream, mut peer) = common::narrow_pair().await;
    let stream = Rc::new(stream);
    let reader = thread::spawn(move || {
        let (mut next, mut record) = ([0u32; 2], vec![0; LEN]);
        for _ in 0..2 * records {
            peer.read_exact(&mut record).expect("records come");
            let (task, number) =
                (record[0], u32::from_le_bytes([record[1], record[2], record[3], record[4]]));
            assert!(record[5..].iter().all(|byte| *byte == task), "a record is torn");
            assert_eq!(number, next[usize::from(task)], "the order of one task");
            next[usize::from(task)] += 1;
        }
        assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
        next
    });
    let tasks: Vec<_> = (0..2u8)
        .map(|task| {
            let stream = stream.clone();
            tamam::spawn(async move {
                let mut record = vec![task; LEN];
                for number in 0..records {
                    record[1..5].copy_from_slice(&number.to_le_bytes());
                    record = stream.send_all(record).await.expect("the peer reads");
                }
            })
        })
        .collect();
    drop(stream);
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(common::join(reader).await, [records; 2]);
}

#[test]
fn tx1_two_tasks_do_not_interleave() {
    common::with_both(Runtime::builder(), || records_stay_whole(1000));
    common::everywhere(|| records_stay_whole(30));
}

/// TX1. 300 messages queued behind a stalled one, of all three kinds, more than one batch holds:
/// they arrive in the order of first polls, not in that in which the futures were made or awaited.
#[test]
fn tx1_the_order_is_that_of_first_polls() {
    common::everywhere(|| async {
        let (stream, peer) = stalled_pair().await;
        let message = |number: u32| number.to_le_bytes().repeat(number as usize % 7 + 1);
        let mut futures: Vec<_> = (0..300u32)
            .map(|number| {
                let (stream, message) = (&stream, message(number));
                Box::pin(async move {
                    match number % 3 {
                        0 => drop(stream.send_all(message).await.expect("the peer reads")),
                        1 => assert_eq!(
                            stream.send(message.clone()).await.expect("sent").0,
                            message.len()
                        ),
                        _ => {
                            let pieces: Vec<Vec<u8>> =
                                message.chunks(3).map(<[u8]>::to_vec).collect();
                            assert_eq!(stream.sendv(pieces).await.expect("sent").0, message.len());
                        }
                    }
                })
            })
            .collect();
        for future in futures.iter_mut().rev() {
            assert!(common::poll_once(future).await.is_pending());
        }
        let reader = common::read_to_end(peer);
        for future in futures {
            future.await;
        }
        drop(stream);
        let expected: Vec<_> = (0..300).rev().map(message).collect();
        let expected: Vec<_> = expected.iter().map(|message| &message[..]).collect();
        assert_same(&common::join(reader).await.expect("no reset"), &after_stall(&expected));
    });
}

/// More pieces than one sendmsg(2) takes, empty ones among them.
#[test]
fn tx1_a_vector_of_any_number_of_pieces_goes_out_whole() {
    common::everywhere(|| async {
        let (stream, peer) = common::pair().await;
        let pieces: Vec<Vec<u8>> = (0..3000).map(|n| common::pattern(n % 5)).collect();
        let whole = pieces.concat();
        let reader = common::read_to_end(peer);
        let (sent, back) = stream.sendv(pieces.clone()).await.expect("sent");
        assert_eq!((sent, back), (whole.len(), pieces));
        drop(stream);
        assert_same(&common::join(reader).await.expect("no reset"), &whole);
    });
}

/// TX2. 1 a send is stalled; 2 `first`, `second` and `third` are queued behind it; 3 the future of
/// `second` goes; 4 the peer reads: dropped, nothing of it was sent; forgotten, it comes in turn.
#[test]
fn tx2_dropped_while_queued_is_not_sent_forgotten_is() {
    for gone in Gone::BOTH {
        common::everywhere(|| async move {
            let (stream, peer) = stalled_pair().await;
            let first = common::start(stream.send_all("first")).await;
            let second = common::start(stream.send_all("second")).await;
            let third = common::start(stream.send_all("third")).await;
            gone.leave(second);
            let reader = common::read_to_end(peer);
            first.await.expect("sent");
            third.await.expect("sent");
            drop(stream);
            let expected: &[&[u8]] = match gone {
                Gone::Dropped => &[b"first", b"third"],
                Gone::Forgotten => &[b"first", b"second", b"third"],
            };
            assert_same(&common::join(reader).await.expect("no reset"), &after_stall(expected));
        });
    }
}

/// G1. A future that was never polled sends nothing.
#[test]
fn tx2_never_polled_is_never_sent() {
    common::everywhere(|| async {
        let (stream, peer) = common::pair().await;
        drop(stream.send_all("dropped"));
        std::mem::forget(stream.send("forgotten"));
        drop(stream.shutdown());
        stream.send_all("sent").await.expect("sent");
        drop(stream);
        assert_eq!(arriving(peer).await, b"sent");
    });
}

/// TX3. 8 MiB; the future goes right after its first poll, before the kernel saw the submission,
/// or after it, when part is out; all 8 MiB arrive, then the next message.
#[test]
fn tx3_gone_while_in_flight_the_rest_goes_out() {
    const LEN: usize = 8 << 20;
    for (gone, submitted) in Gone::BOTH.into_iter().flat_map(|gone| [(gone, false), (gone, true)]) {
        common::everywhere(|| async move {
            let (stream, peer) = common::pair().await;
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
        let (stream, mut peer) = common::narrow_pair().await;
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
    _stream: Rc<TcpStream>,
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
            let (a, peer_a) = common::narrow_pair().await;
            let (b, peer_b) = common::narrow_pair().await;
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
            let (stream, peer) = home.block_on(common::narrow_pair());
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
    common::alone("tx4_timeouts_in_a_row_hold_one_batch", || {
        common::everywhere(|| async {
            const LEN: usize = 64 * 1024;
            let (stream, peer) = common::narrow_pair().await;
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

/// TX5. 1 a send stalls; 2 its future goes; 3 the peer resets; 4 the next send says so, and so
/// does every later call, each with its buffer.
#[test]
fn tx5_an_abandoned_failure_is_told_to_all_who_come_after() {
    for gone in Gone::BOTH {
        common::everywhere(|| async move {
            let (stream, peer) = common::narrow_pair().await;
            let send = common::start(stream.send_all(common::pattern(STALLING))).await;
            common::turn().await;
            gone.leave(send);
            common::reset(peer);
            for text in ["one", "two"] {
                let (error, buf) = stream.send(text).await.expect_err("it is reset").into_parts();
                assert_eq!((error.kind(), buf), (ErrorKind::ConnectionReset, text));
                let (error, buf) =
                    stream.send_all(text).await.expect_err("it is reset").into_parts();
                assert_eq!((error.kind(), buf), (ErrorKind::ConnectionReset, text));
                let shutdown = stream.shutdown().await.expect_err("it is reset");
                assert_eq!(shutdown.kind(), ErrorKind::ConnectionReset);
            }
            let (error, bufs) =
                stream.sendv(vec!["a", "b"]).await.expect_err("it is reset").into_parts();
            assert_eq!((error.kind(), bufs), (ErrorKind::ConnectionReset, vec!["a", "b"]));
        });
    }
}

/// TX5. As above, and it is the shutdown that hears of it first.
#[test]
fn tx5_an_abandoned_failure_is_told_to_a_shutdown() {
    for gone in Gone::BOTH {
        common::everywhere(|| async move {
            let (stream, peer) = stalled_pair().await;
            gone.leave(common::start(stream.send_all("queued")).await);
            let shutdown = common::start(stream.shutdown()).await;
            common::reset(peer);
            for answer in [shutdown.await, stream.shutdown().await] {
                assert_eq!(answer.expect_err("it is reset").kind(), ErrorKind::ConnectionReset);
            }
            let error = stream.send("late").await.expect_err("it is reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        });
    }
}

/// TX6. 1 a send stalls, and three more are queued; 2 the peer reads it and so much that the three
/// are in flight together, the second of them half out; 3 the peer resets. The first was sent, the
/// second was cut, nothing of the third was sent; every buffer comes back.
#[test]
fn tx6_a_batch_that_fails_is_dealt_out_in_order() {
    common::everywhere(|| async {
        for whole in [false, true] {
            let (stream, peer) = common::narrow_pair().await;
            let stalled = common::start(stream.send_all(vec![0; STALLING])).await;
            let first = common::start(stream.send_all(vec![1; 1000])).await;
            let cut = common::start(async {
                let buf = vec![2; STALLING];
                match whole {
                    // `send` says how much went out, `send_all` why not all.
                    false => stream.send(buf).await.map(|(sent, buf)| (Some(sent), buf)),
                    true => stream.send_all(buf).await.map(|buf| (None, buf)),
                }
            })
            .await;
            let last = common::start(stream.send(vec![3; 1000])).await;
            let read = STALLING + 1000 + STALLING / 2;
            let (peer, bytes) = read_some(peer, read).await;
            assert_eq!((bytes[STALLING], bytes[read - 1]), (1, 2));
            common::reset(peer);
            stalled.await.expect("the peer has read it");
            assert_eq!(first.await.expect("the peer has read it"), [1; 1000]);
            match cut.await {
                Ok((Some(sent), buf)) => {
                    assert!((STALLING / 2..STALLING).contains(&sent), "{sent} were sent");
                    assert_eq!(buf.len(), STALLING);
                }
                Ok((None, _)) => panic!("`send_all` does not hide that it was cut"),
                Err(error) => {
                    assert!(whole, "`send` reports what was sent: {error}");
                    assert_eq!(
                        (error.kind(), error.buf().len()),
                        (ErrorKind::ConnectionReset, STALLING)
                    );
                }
            }
            let (error, buf) = last.await.expect_err("nothing of it was sent").into_parts();
            assert_eq!((error.kind(), buf), (ErrorKind::ConnectionReset, vec![3; 1000]));
            let error = stream.send("next").await.expect_err("it is reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

/// A way to send nothing.
async fn send_nothing(stream: &TcpStream, way: usize) -> Result<usize, ErrorKind> {
    match way {
        0 => stream.send("").await.map(|(sent, _)| sent).map_err(|error| error.kind()),
        1 => stream.send_all(Vec::new()).await.map(|buf| buf.len()).map_err(|error| error.kind()),
        2 => stream
            .sendv(Vec::<Vec<u8>>::new())
            .await
            .map(|(sent, _)| sent)
            .map_err(|error| error.kind()),
        _ => stream.sendv(vec!["", ""]).await.map(|(sent, _)| sent).map_err(|error| error.kind()),
    }
}

/// TX7. An empty buffer is sent at once, without the kernel, also when others wait; but not after
/// a failure or the end.
#[test]
fn tx7_an_empty_buffer_is_ready_at_once() {
    common::everywhere(|| async {
        for way in 0..4 {
            let (idle, _idle_peer) = common::pair().await;
            let (stalled, stalled_peer) = stalled_pair().await;
            let (ended, _ended_peer) = common::pair().await;
            ended.shutdown().await.expect("connected");
            let before = tamam::metrics();
            assert_eq!(at_once(send_nothing(&idle, way)).await, Ok(0));
            assert_eq!(at_once(send_nothing(&stalled, way)).await, Ok(0));
            assert_eq!(at_once(send_nothing(&ended, way)).await, Err(ErrorKind::BrokenPipe));
            let after = tamam::metrics();
            assert_eq!((after.enters, after.submissions), (before.enters, before.submissions));
            common::reset(stalled_peer);
            stalled.send("not empty").await.expect_err("it is reset");
            assert_eq!(at_once(send_nothing(&stalled, way)).await, Err(ErrorKind::ConnectionReset));
        }
    });
}

/// TX7 with G9. A loop over calls that are ready at once lets other tasks run.
#[test]
fn tx7_ready_at_once_does_not_starve_others() {
    common::everywhere(|| async {
        let (idle, _peer) = common::pair().await;
        let (ended, _ended_peer) = common::pair().await;
        ended.shutdown().await.expect("connected");
        for way in 0..3 {
            let turn = Rc::new(Cell::new(false));
            let other = tamam::spawn({
                let turn = turn.clone();
                async move { turn.set(true) }
            });
            let mut calls = 0u32;
            while !turn.get() {
                match way {
                    0 => drop(idle.send_all("").await.expect("nothing to send")),
                    1 => drop(ended.send("late").await.expect_err("it was shut down")),
                    _ => ended.shutdown().await.expect("it was shut down"),
                }
                calls += 1;
                assert!(calls <= 10_000, "way {way}: the other task never runs");
            }
            other.await.expect("no panic");
        }
    });
}

/// TX8. Ten sends to a peer that closed, or reset, with SIGPIPE as the system sets it: the process
/// lives, every failure has its kind and its buffer. Also what a drop tries once more raises none.
#[test]
fn tx8_no_sigpipe_ever() {
    common::alone("tx8_no_sigpipe_ever", || {
        // SAFETY: sets the default action; no handler of ours is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        common::everywhere(|| async {
            for (closed, kind) in
                [(true, ErrorKind::BrokenPipe), (false, ErrorKind::ConnectionReset)]
            {
                let (stream, peer) = common::pair().await;
                if closed {
                    drop(peer);
                    // The peer's kernel answers the first send by a reset.
                    stream.send_all("first").await.expect("the kernel takes it");
                } else {
                    common::reset(peer);
                }
                common::wait_for(&stream, libc::POLLHUP);
                for _ in 0..3 {
                    let (error, buf) =
                        stream.send_all("more").await.expect_err("it is over").into_parts();
                    assert_eq!((error.kind(), buf), (kind, "more"));
                    let (error, buf) =
                        stream.send("more").await.expect_err("it is over").into_parts();
                    assert_eq!((error.kind(), buf), (kind, "more"));
                    let (error, bufs) =
                        stream.sendv(vec!["a", "b"]).await.expect_err("it is over").into_parts();
                    assert_eq!((error.kind(), bufs), (kind, vec!["a", "b"]));
                }
                // A batch, in which the first fails; and what is queued when the stream is dropped.
                let (stream, peer) = stalled_pair().await;
                let queued =
                    [stream.send_all("one"), stream.send_all("two"), stream.send_all("three")];
                for send in queued {
                    std::mem::forget(common::start(send).await);
                }
                if closed {
                    drop(peer)
                } else {
                    common::reset(peer)
                }
                drop(stream);
                common::turn().await;
            }
        });
    });
}

/// When the receive that may take the reset from the send is armed.
#[derive(Clone, Copy, Debug)]
enum Receiving {
    No,
    Before,
    After,
}

/// TX9. 1 a send stalls, half of it out; 2 the peer resets; 3 `send_all` fails with that, although
/// the kernel reports a short success and then EPIPE; whoever else is told of the reset first.
#[test]
fn tx9_a_short_completion_is_a_reset() {
    for receiving in [Receiving::No, Receiving::Before, Receiving::After] {
        for large in [false, true] {
            common::everywhere(|| async move {
                println!("receiving: {receiving:?}, large: {large}");
                let (stream, peer) = common::narrow_pair().await;
                let mut recvs = Vec::new();
                if let Receiving::Before = receiving {
                    recvs.push(common::start(stream.recv()).await);
                    common::turn().await;
                }
                let len = if large { 40 << 20 } else { STALLING };
                let send = common::start(stream.send_all(vec![7; len])).await;
                common::turn().await;
                if let Receiving::After = receiving {
                    recvs.push(common::start(stream.recv()).await);
                    common::turn().await;
                }
                // Part of it is out, so what comes is a short success, not an error.
                let (peer, _) = read_some(peer, 1000).await;
                common::reset(peer);
                let error = send.await.expect_err("it was cut");
                assert_eq!((error.kind(), error.buf().len()), (ErrorKind::ConnectionReset, len));
                for _ in 0..2 {
                    let error = stream.send("more").await.expect_err("it is over");
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                }
                for recv in recvs {
                    let error = recv.await.expect_err("a reset is no end");
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                }
                let error = stream.recv().await.expect_err("a reset is no end");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            });
        }
    }
}

/// TX9. 1 the peer finishes, and we see its end; 2 it resets under a stalled send: EPIPE is what
/// the kernel says, and `BrokenPipe` what we do; the end stays an end.
#[test]
fn tx9_after_the_end_was_seen_epipe_is_epipe() {
    common::everywhere(|| async {
        let (stream, peer) = common::narrow_pair().await;
        peer.shutdown(std::net::Shutdown::Write).expect("connected");
        assert!(stream.recv().await.expect("the end").is_none());
        let send = common::start(stream.send_all(vec![7; STALLING])).await;
        common::turn().await;
        let (peer, _) = read_some(peer, 1000).await;
        common::reset(peer);
        assert_eq!(send.await.expect_err("it was cut").kind(), ErrorKind::BrokenPipe);
        assert!(stream.recv().await.expect("the end").is_none());
    });
}

/// TX9. A send that fell short because we cancelled it ourselves, to give its buffer back in
/// another runtime, is no reset: the peer's end is an end.
#[test]
fn tx9_a_send_that_we_cancelled_is_no_reset() {
    let _watchdog = common::Watchdog::start();
    each::mixed(|runtime| {
        let (home, other) = (runtime(), runtime());
        let (stream, peer) = home.block_on(common::narrow_pair());
        let mut send = home.block_on(common::start(stream.send_all(common::pattern(STALLING))));
        assert_eq!(other.block_on(&mut send).expect_err("not at home").kind(), ErrorKind::Other);
        peer.shutdown(std::net::Shutdown::Write).expect("connected");
        home.block_on(async {
            assert!(stream.recv().await.expect("the end, not a reset").is_none());
            let (_peer, bytes) = read_some(peer, STALLING).await;
            assert_same(&bytes, &common::pattern(STALLING));
        });
    });
}

/// TX10. 1 three sends of 1 MiB are queued, one of them abandoned; 2 shutdown; 3 the peer reads
/// 3 MiB, then the end, after `shutdown` was Ok; 4 receiving goes on.
#[test]
fn tx10_the_end_follows_every_byte() {
    common::everywhere(|| async {
        let (stream, mut peer) = common::narrow_pair().await;
        let sends = [
            common::start(stream.send_all(common::pattern(1 << 20))).await,
            common::start(stream.send_all(vec![2; 1 << 20])).await,
            common::start(stream.send_all(vec![3; 1 << 20])).await,
        ];
        let [abandoned, second, third] = sends;
        drop(abandoned);
        let mut shutdown = common::start(stream.shutdown()).await;
        common::turn().await;
        assert!(common::poll_once(&mut shutdown).await.is_pending(), "3 MiB wait before the end");
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            peer.read_to_end(&mut bytes).expect("no reset");
            peer.write_all(b"still here").expect("the other direction is open");
            bytes
        });
        shutdown.await.expect("the peer reads");
        second.await.expect("sent");
        third.await.expect("sent");
        let late = stream.send_all("late").await.expect_err("it was shut down");
        assert_eq!((late.kind(), *late.buf()), (ErrorKind::BrokenPipe, "late"));
        let bytes = common::join(reader).await;
        let expected = [common::pattern(1 << 20), vec![2; 1 << 20], vec![3; 1 << 20]].concat();
        assert_same(&bytes, &expected);
        let answer = stream.read_exact(Vec::with_capacity(10), 10).await.expect("it comes");
        assert_eq!(answer, b"still here");
    });
}

/// TX10. With nothing queued it is there at once; with a receive armed, that goes on.
#[test]
fn tx10_nothing_queued_ends_at_once() {
    common::everywhere(|| async {
        let (stream, mut peer) = common::pair().await;
        let recv = common::start(stream.recv()).await;
        common::turn().await;
        at_once(stream.shutdown()).await.expect("connected");
        assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
        peer.write_all(b"x").expect("the other direction is open");
        assert_eq!(&recv.await.expect("not the end").expect("not the end")[..], b"x");
    });
}

/// TX11. A shutdown that went before its turn came, in each way: all bytes, then the end; sends
/// after its first poll are refused, with their buffers.
#[test]
fn tx11_a_shutdown_that_is_gone_still_happens() {
    for way in 0..3 {
        common::everywhere(|| async move {
            let (stream, peer) = stalled_pair().await;
            let queued = common::start(stream.send_all("queued")).await;
            match way {
                0 => drop(common::start(stream.shutdown()).await),
                1 => std::mem::forget(common::start(stream.shutdown()).await),
                _ => drop(
                    timeout(Duration::from_millis(1), stream.shutdown())
                        .await
                        .expect_err("stalled"),
                ),
            }
            for _ in 0..2 {
                let (error, buf) =
                    stream.send_all("late").await.expect_err("it was shut down").into_parts();
                assert_eq!((error.kind(), buf), (ErrorKind::BrokenPipe, "late"));
            }
            // The stream lives, so the end that the peer sees is not that of the drop.
            assert_same(&arriving(peer).await, &after_stall(&[b"queued"]));
            queued.await.expect("the peer has read it");
        });
    }
}

/// TX11. The queued send before a shutdown is dropped: the end does not wait for it.
#[test]
fn tx11_a_send_dropped_before_the_end_does_not_hold_it_up() {
    common::everywhere(|| async {
        let (stream, peer) = stalled_pair().await;
        let queued = common::start(stream.send_all("queued")).await;
        let shutdown = common::start(stream.shutdown()).await;
        drop(queued);
        let reader = common::read_to_end(peer);
        shutdown.await.expect("the peer reads");
        assert_same(&common::join(reader).await.expect("no reset"), &after_stall(&[]));
    });
}

/// TX12. Twice, by one after the other and by several at once; after a failure; after a reset.
#[test]
fn tx12_shutdown_again() {
    common::everywhere(|| async {
        // Ok remains Ok, for all who ask.
        let (stream, peer) = stalled_pair().await;
        let both = [common::start(stream.shutdown()).await, common::start(stream.shutdown()).await];
        let reader = common::read_to_end(peer);
        for shutdown in both {
            shutdown.await.expect("the peer reads");
        }
        stream.shutdown().await.expect("it is done");
        common::join(reader).await.expect("no reset");
        stream.shutdown().await.expect("it is done, though the peer is gone");

        // The sticky error.
        let (stream, peer) = common::pair().await;
        common::reset(peer);
        common::wait_for(&stream, libc::POLLHUP);
        stream.send("x").await.expect_err("it is reset");
        for _ in 0..2 {
            let error = stream.shutdown().await.expect_err("it is reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }

        // What the kernel says, remembered; whether or not a receive has seen the reset.
        for received in [false, true] {
            let (stream, peer) = common::pair().await;
            common::reset(peer);
            common::wait_for(&stream, libc::POLLHUP);
            if received {
                stream.recv().await.expect_err("it is reset");
            }
            for _ in 0..2 {
                let error = stream.shutdown().await.expect_err("it is reset");
                assert_eq!(error.kind(), ErrorKind::NotConnected);
            }
            assert_eq!(
                stream.send("x").await.expect_err("it is reset").kind(),
                ErrorKind::BrokenPipe
            );
        }
    });
}

/// TX13. A send that timed out goes on in the background; only the drop of the stream ends it, and
/// then the peer sees a part and the end.
#[test]
fn tx13_a_timeout_does_not_end_a_send() {
    for give_up in [false, true] {
        common::everywhere(|| async move {
            let (stream, peer) = common::narrow_pair().await;
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

/// TX14. 1 echo tasks of many streams send chunks back to peers that do not read; 2 the chunks
/// stay lent while they are in flight, also when the tasks are gone; 3 another stream is served
/// all the while; 4 the streams are dropped: every buffer is the pool's again.
#[test]
fn tx14_chunks_come_back_to_the_pool() {
    const STREAMS: usize = 6;
    let small = Runtime::builder().buffer_size(64 * 1024).buffer_count(8);
    for builder in [small.clone(), small.entries(1).completion_entries(2)] {
        common::with_both(builder, || async {
            let streams = Rc::new(RefCell::new(Vec::new()));
            let (mut peers, mut tasks) = (Vec::new(), Vec::new());
            for _ in 0..STREAMS {
                let (stream, peer) = stalled_pair().await;
                let stream = Rc::new(stream);
                streams.borrow_mut().push(stream.clone());
                peers.push(peer);
                tasks.push(tamam::spawn(async move {
                    while let Some(chunk) = stream.recv().await.expect("no reset") {
                        stream.send_all(chunk).await.expect("the peer is there");
                    }
                }));
            }
            for peer in &mut peers {
                peer.write_all(&common::pattern(1000)).expect("the socket has room");
            }
            while tamam::metrics().buffers_lent < 6 {
                tamam::yield_now().await;
            }
            let (echo, mut client) = common::pair().await;
            for round in 0..50u8 {
                client.write_all(&[round; 100]).expect("connected");
                let mut len = 0;
                while len < 100 {
                    let chunk = echo.recv().await.expect("no reset").expect("not the end");
                    len += chunk.len();
                    echo.send_all(chunk).await.expect("connected");
                }
                let mut answer = [0; 100];
                client.read_exact(&mut answer).expect("the echo");
                assert_eq!(answer, [round; 100]);
            }
            assert!(tamam::metrics().buffers_lent >= 6, "queued chunks are lent");
            // Half of the echoes reach the kernel before their tasks go.
            for peer in peers.iter_mut().take(STREAMS / 2) {
                peer.set_nonblocking(false).expect("a socket");
                let reading = peer.try_clone().expect("dup");
                let (_, bytes) = read_some(reading, STALLING).await;
                assert_same(&bytes, &common::pattern(STALLING));
            }
            for task in &tasks {
                task.abort();
            }
            for task in tasks {
                assert!(task.await.expect_err("it never ends by itself").is_cancelled());
            }
            streams.borrow_mut().clear();
            common::turn().await;
            assert_eq!(tamam::metrics().buffers_lent, 0, "{:?}", tamam::metrics());
        });
    }
}

/// TX14. A chunk in flight is lent until its terminal completion, whatever became of its future;
/// then it is the pool's again.
#[test]
fn tx14_a_chunk_in_flight_stays_lent() {
    for gone in Gone::BOTH {
        let large = Runtime::builder().buffer_size(STALLING).buffer_count(4);
        common::with_both(large, || async move {
            let (stream, peer) = common::narrow_pair().await;
            let (source, mut feeder) = common::pair().await;
            let feeding = thread::spawn(move || feeder.write_all(&common::pattern(STALLING)));
            // One chunk that is large enough to stall: parts of one buffer would do as well, but
            // the kernel fills one for each arrival.
            let mut chunk = source.recv().await.expect("no reset").expect("not the end");
            while chunk.len() < 64 * 1024 {
                chunk = source.recv().await.expect("no reset").expect("not the end");
            }
            drop(common::start(stream.send_all(vec![0; STALLING])).await);
            let expected = [vec![0; STALLING], chunk.to_vec()].concat();
            let send = common::start(stream.send_all(chunk)).await;
            drop(source);
            common::turn().await;
            assert_eq!(tamam::metrics().buffers_lent, 1, "the queued one");
            let (peer, first) = read_some(peer, STALLING + 1).await;
            assert_same(&first, &expected[..STALLING + 1]);
            gone.leave(send);
            common::turn().await;
            assert_eq!(tamam::metrics().buffers_lent, 1, "the one in flight");
            let (_peer, rest) = read_some(peer, expected.len() - STALLING - 1).await;
            assert_same(&rest, &expected[STALLING + 1..]);
            let _ = common::join(feeding).await;
            if gone == Gone::Forgotten {
                // Its entry waits for a future that never comes, until the stream goes.
                drop(stream);
            }
            tamam::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(tamam::metrics().buffers_lent, 0);
        });
    }
}

/// `len` zeroes of which only the page that is shared by all is in memory.
struct Zeroes {
    start: *mut libc::c_void,
    len: usize,
}

impl Zeroes {
    fn new(len: usize) -> Zeroes {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new private mapping touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "address space is there");
        Zeroes { start, len }
    }
}

// SAFETY: pointer and length are those of a mapping that lives as long as the value.
unsafe impl IoBuf for Zeroes {
    fn ptr(&self) -> *const u8 {
        self.start.cast()
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Zeroes {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping made in `new`, which ends here.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// G10. More than one call transfers (0x7fff_f000 bytes), alone and as the middle of a batch, goes
/// out whole.
#[test]
fn g10_more_than_two_gibibytes() {
    const LEN: usize = (2 << 30) + 100;
    common::with_both(Runtime::builder(), || async {
        let (stream, mut peer) = common::pair().await;
        let reader = thread::spawn(move || {
            let (mut buf, mut len, mut marks) = (vec![0; 4 << 20], 0, Vec::new());
            loop {
                let read = peer.read(&mut buf).expect("no reset");
                if read == 0 {
                    return (len, marks);
                }
                if buf[0] != 0 || buf[read - 1] != 0 || buf[read / 2] != 0 {
                    marks.extend(
                        buf[..read]
                            .iter()
                            .enumerate()
                            .filter(|(_, byte)| **byte != 0)
                            .map(|(at, _)| len + at),
                    );
                }
                len += read;
            }
        });
        let alone = common::start(stream.send_all(Zeroes::new(LEN))).await;
        let before = common::start(stream.send_all("<")).await;
        let middle = common::start(stream.send(Zeroes::new(LEN))).await;
        alone.await.expect("the peer reads");
        before.await.expect("the peer reads");
        assert_eq!(middle.await.expect("the peer reads").0, LEN);
        stream.send_all(">").await.expect("the peer reads");
        stream.shutdown().await.expect("connected");
        let (len, marks) = common::join(reader).await;
        assert_eq!(len, 2 * LEN + 2);
        println!("marks seen at {marks:?}");
    });
}

/// TX1 to TX11 together: 400 random steps a seed, on tiny and usual sizes. Sends of all sizes are
/// started, awaited, dropped before or after their turn, forgotten; the peer reads in bursts. What
/// arrives is a sequence of whole messages in the order of first polls: each message that was
/// awaited or forgotten, none that was dropped unseen by the kernel more than once or in part.
#[test]
fn tx_random_steps_arrive_whole_and_in_order() {
    for seed in [1u64, 2, 3, fresh_seed()] {
        common::everywhere(|| async move {
            println!("seed {seed}");
            let mut random = common::Random(seed);
            let (stream, mut peer) = common::narrow_pair().await;
            let reader = thread::spawn(move || {
                let (mut bytes, mut buf) = (Vec::new(), vec![0; 50_000]);
                let mut random = common::Random(seed | 1 << 32);
                loop {
                    let len = 1 + random.below(buf.len() as u64 - 1) as usize;
                    match peer.read(&mut buf[..len]).expect("no reset") {
                        0 => return bytes,
                        len => bytes.extend_from_slice(&buf[..len]),
                    }
                    if random.below(20) == 0 {
                        thread::sleep(Duration::from_micros(random.below(2000)));
                    }
                }
            });
            // A message: its number, its length, then bytes that follow from the number.
            let message = |number: u32, len: usize| {
                let mut message = vec![number as u8; 8 + len];
                message[..4].copy_from_slice(&number.to_le_bytes());
                message[4..8].copy_from_slice(&(len as u32).to_le_bytes());
                message
            };
            let mut must_arrive = Vec::new();
            let mut under_way = Vec::new();
            for number in 0..400 {
                let len = match random.below(4) {
                    0 => 0,
                    1 => random.below(100),
                    2 => random.below(5_000),
                    _ => random.below(60_000),
                };
                let send = stream.send_all(message(number, len as usize));
                // Epoll may be through with it at once.
                under_way.push((number, common::begin(send).await));
                while under_way.len() > random.below(12) as usize {
                    let (number, send) =
                        under_way.remove(random.below(under_way.len() as u64) as usize);
                    match random.below(5) {
                        // Dropped after it was over, it has arrived all the same.
                        0 if send.is_over() => must_arrive.push(number),
                        0 => drop(send),
                        1 => {
                            must_arrive.push(number);
                            std::mem::forget(send);
                        }
                        2 => {
                            let pause = Duration::from_micros(random.below(500));
                            if let Ok(sent) = timeout(pause, send).await {
                                sent.expect("no reset");
                                must_arrive.push(number);
                            }
                        }
                        _ => {
                            send.await.expect("no reset");
                            must_arrive.push(number);
                        }
                    }
                }
            }
            drop(under_way);
            stream.shutdown().await.expect("the peer reads");
            let bytes = common::join(reader).await;
            let (mut rest, mut arrived) = (&bytes[..], Vec::new());
            while !rest.is_empty() {
                let word = |at: usize| {
                    u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
                };
                let (number, len) = (word(0), word(4) as usize);
                assert!(arrived.last() < Some(&number), "{number} after {:?}", arrived.last());
                assert!(
                    rest[8..8 + len].iter().all(|byte| *byte == number as u8),
                    "{number} is torn"
                );
                arrived.push(number);
                rest = &rest[8 + len..];
            }
            must_arrive.sort_unstable();
            for number in must_arrive {
                assert!(arrived.binary_search(&number).is_ok(), "{number} did not arrive");
            }
        });
    }
}

/// A seed of this run, printed with each use.
fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64 | 1
}

/// TX10. The same through an accepted stream's half, while the other half lives.
#[test]
fn tx10_shutdown_through_accept_and_halves() {
    common::everywhere(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let peer = StdStream::connect(listener.local_addr().expect("bound")).expect("connects");
        peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
        let (stream, _) = listener.accept().await.expect("it is there");
        let (read, write) = stream.into_split();
        // The kernel may take all of it at once.
        let send = common::begin(write.send_all(common::pattern(STALLING))).await;
        let shutdown = common::begin(write.shutdown()).await;
        let reader = common::read_to_end(peer.try_clone().expect("dup"));
        send.await.expect("the peer reads");
        shutdown.await.expect("the peer reads");
        assert_same(&common::join(reader).await.expect("no reset"), &common::pattern(STALLING));
        drop(peer);
        assert!(read.recv().await.expect("the end").is_none());
    });
}

// ---- a buffer whose drop panics ------------------------------------------------------------

/// A buffer that panics when it is dropped.
struct Panics(Vec<u8>);

// SAFETY: the vector's bytes, which move with it and change never.
#[allow(unsafe_code)]
unsafe impl IoBuf for Panics {
    fn ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("a buffer that panics when it is dropped");
    }
}

/// H7. 1 a send stalls, and its future is dropped; others are queued behind it; 2 it is out, and its
/// buffer panics in its drop; 3 the others go out.
#[test]
fn h7_a_buffer_that_panics_when_dropped_holds_nobody_up() {
    common::everywhere(|| async {
        let (stream, peer) = common::narrow_pair().await;
        drop(common::start(stream.send_all(Panics(common::pattern(STALLING)))).await);
        drop(common::start(stream.send_all("dropped before its turn")).await);
        let second = common::start(stream.send_all("second")).await;
        let third = common::start(stream.sendv(vec!["th", "ird"])).await;
        let bytes = common::read_to_end(peer);
        second.await.expect("connected");
        third.await.expect("connected");
        drop(stream);
        let bytes = common::join(bytes).await.expect("no reset");
        assert_same(&bytes, &after_stall(&[b"second", b"third"]));
    });
}
