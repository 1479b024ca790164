//! TX10, TX11, TX12: the end follows what was queued before it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdStream;
use std::thread;
use std::time::Duration;

use tamam::net::TcpListener;
use tamam::time::timeout;

use crate::common::{PATIENCE, arriving, assert_same, at_once};
use crate::family;
use crate::{STALLING, after_stall, common, stalled_pair};

/// TX10. 1 three sends of 1 MiB are queued, one of them abandoned; 2 shutdown; 3 the peer reads
/// 3 MiB, then the end, after `shutdown` was Ok; 4 receiving goes on.
#[test]
fn tx10_the_end_follows_every_byte() {
    common::everywhere(|| async {
        let (stream, mut peer) = family::narrow_pair().await;
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
        let (stream, mut peer) = family::pair().await;
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
        let (stream, peer) = family::pair().await;
        family::reset(peer);
        common::wait_for(&stream, libc::POLLHUP);
        stream.send("x").await.expect_err("it is reset");
        for _ in 0..2 {
            let error = stream.shutdown().await.expect_err("it is reset");
            assert_eq!(error.kind(), family::SEND_AFTER_RESET);
        }

        // What the kernel says, remembered; whether or not a receive has seen the reset.
        for received in [false, true] {
            let (stream, peer) = family::pair().await;
            family::reset(peer);
            common::wait_for(&stream, libc::POLLHUP);
            if received {
                stream.recv().await.expect_err("it is reset");
            }
            for _ in 0..2 {
                let told = stream.shutdown().await.map_err(|error| error.kind());
                // A Unix socket is connected for ever.
                let expected = if family::UNIX { Ok(()) } else { Err(ErrorKind::NotConnected) };
                assert_eq!(told, expected);
            }
            assert_eq!(
                stream.send("x").await.expect_err("it is reset").kind(),
                ErrorKind::BrokenPipe
            );
        }
    });
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
