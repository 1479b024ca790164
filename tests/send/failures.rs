//! TX5, TX6, TX8, TX9: who is told of a failure, and how.

use std::io::ErrorKind;

use crate::common::{Gone, assert_same, read_some};
use crate::family;
use crate::{STALLING, common, each, stalled_pair};

/// TX5. 1 a send stalls; 2 its future goes; 3 the peer resets; 4 the next send says so, and so
/// does every later call, each with its buffer.
#[test]
fn tx5_an_abandoned_failure_is_told_to_all_who_come_after() {
    for gone in Gone::BOTH {
        common::everywhere(|| async move {
            let (stream, peer) = family::narrow_pair().await;
            let send = common::start(stream.send_all(common::pattern(STALLING))).await;
            common::turn().await;
            gone.leave(send);
            family::reset(peer);
            for text in ["one", "two"] {
                let (error, buf) = stream.send(text).await.expect_err("it is reset").into_parts();
                assert_eq!((error.kind(), buf), (family::SEND_AFTER_RESET, text));
                let (error, buf) =
                    stream.send_all(text).await.expect_err("it is reset").into_parts();
                assert_eq!((error.kind(), buf), (family::SEND_AFTER_RESET, text));
                let shutdown = stream.shutdown().await.expect_err("it is reset");
                assert_eq!(shutdown.kind(), family::SEND_AFTER_RESET);
            }
            let (error, bufs) =
                stream.sendv(vec!["a", "b"]).await.expect_err("it is reset").into_parts();
            assert_eq!((error.kind(), bufs), (family::SEND_AFTER_RESET, vec!["a", "b"]));
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
            family::reset(peer);
            for answer in [shutdown.await, stream.shutdown().await] {
                assert_eq!(answer.expect_err("it is reset").kind(), family::SEND_AFTER_RESET);
            }
            let error = stream.send("late").await.expect_err("it is reset");
            assert_eq!(error.kind(), family::SEND_AFTER_RESET);
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
            let (stream, peer) = family::narrow_pair().await;
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
            family::reset(peer);
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
                        (family::SEND_AFTER_RESET, STALLING)
                    );
                }
            }
            let (error, buf) = last.await.expect_err("nothing of it was sent").into_parts();
            assert_eq!((error.kind(), buf), (family::SEND_AFTER_RESET, vec![3; 1000]));
            let error = stream.send("next").await.expect_err("it is reset");
            assert_eq!(error.kind(), family::SEND_AFTER_RESET);
        }
    });
}

/// TX8. Ten sends to a peer that closed, or reset, with SIGPIPE as the system sets it: the process
/// lives, every failure has its kind and its buffer. Also what a drop tries once more raises none.
#[test]
fn tx8_no_sigpipe_ever() {
    common::alone("failures::tx8_no_sigpipe_ever", || {
        // SAFETY: sets the default action; no handler of ours is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        common::everywhere(|| async {
            for (closed, kind) in [(true, ErrorKind::BrokenPipe), (false, family::SEND_AFTER_RESET)]
            {
                let (stream, peer) = family::pair().await;
                if closed {
                    drop(peer);
                    // The peer's kernel answers the first send by a reset. A Unix socket knows at once.
                    let first = stream.send_all("first").await;
                    assert_eq!(first.is_ok(), !family::UNIX);
                } else {
                    family::reset(peer);
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
                    family::reset(peer)
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
                let (stream, peer) = family::narrow_pair().await;
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
                family::reset(peer);
                let error = send.await.expect_err("it was cut");
                assert_eq!((error.kind(), error.buf().len()), (family::SEND_AFTER_RESET, len));
                for _ in 0..2 {
                    let error = stream.send("more").await.expect_err("it is over");
                    assert_eq!(error.kind(), family::SEND_AFTER_RESET);
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
        let (stream, peer) = family::narrow_pair().await;
        peer.shutdown(std::net::Shutdown::Write).expect("connected");
        assert!(stream.recv().await.expect("the end").is_none());
        let send = common::start(stream.send_all(vec![7; STALLING])).await;
        common::turn().await;
        let (peer, _) = read_some(peer, 1000).await;
        family::reset(peer);
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
        let (stream, peer) = home.block_on(family::narrow_pair());
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
