//! CL8, CL9, CL11: halves end one direction each, and become one stream again.

use std::io::{ErrorKind, Read, Write};
use std::thread;

use crate::common::{Gone, assert_same, read_some};
use crate::family;
use crate::{STALLING, blocking_read, blocking_read_to_end, common, park};

/// CL8. 1 a send of 8 MiB is abandoned; 2 the write half is dropped; 3 the peer gets everything,
/// then the end; 4 reading goes on.
#[test]
fn cl8_the_write_half_ends_behind_its_queue() {
    const LEN: usize = 8 << 20;
    for gone in Gone::BOTH {
        common::everywhere(|| async move {
            let (stream, mut peer) = family::pair().await;
            let (read, write) = stream.into_split();
            gone.leave(common::start(write.send_all(common::pattern(LEN))).await);
            drop(write);
            let answering = thread::spawn(move || {
                let mut bytes = Vec::new();
                peer.read_to_end(&mut bytes).expect("no reset");
                peer.write_all(&[5; 100]).expect("the other direction is open");
                (peer, bytes)
            });
            let answer = read.read_exact(Vec::with_capacity(100), 100).await.expect("it comes");
            assert_eq!(answer, [5; 100]);
            let (_peer, bytes) = common::join(answering).await;
            assert_same(&bytes, &common::pattern(LEN));
        });
    }
}

/// CL8. `forget` leaves the direction open, with what is queued; the end comes with the other half.
#[test]
fn cl8_a_forgotten_write_half_does_not_end() {
    common::everywhere(|| async {
        let (stream, peer) = family::narrow_pair().await;
        let (read, write) = stream.into_split();
        drop(common::start(write.send_all(common::pattern(STALLING))).await);
        write.forget();
        let (mut peer, bytes) = read_some(peer, STALLING).await;
        assert_same(&bytes, &common::pattern(STALLING));
        peer.set_nonblocking(true).expect("a socket");
        let error = blocking_read(&mut peer).expect_err("no end");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        peer.set_nonblocking(false).expect("a socket");
        peer.write_all(b"more").expect("connected");
        assert_eq!(&read.recv().await.expect("no reset").expect("not the end")[..], b"more");
        drop(read);
        common::turn().await;
        assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
    });
}

/// CL9. 1 bytes are parked, a receive is armed; 2 the read half is dropped: they are freed, no op
/// is left; 3 the peer writes until TCP pushes it back; 4 sends arrive all the while.
#[test]
fn cl9_the_read_half_stops_reading_and_nothing_else() {
    common::everywhere(|| async {
        const LEN: usize = 8 << 20;
        let (stream, mut peer) = family::narrow_pair().await;
        park(&stream, &mut peer, &[1; 100], Gone::Dropped).await;
        let (read, write) = stream.into_split();
        drop(read);
        common::turn().await;
        let metrics = tamam::metrics();
        assert_eq!((metrics.buffers_lent, metrics.ops), (0, 0));
        peer.set_nonblocking(true).expect("a socket");
        let (bytes, mut written) = (vec![2; LEN], 0);
        while written < LEN {
            match peer.write(&bytes[written..]) {
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("no end and no reset, just full: {error}"),
            }
            common::turn().await;
        }
        assert!(written < LEN, "the peer could write all of it");
        peer.set_nonblocking(false).expect("a socket");
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; STALLING];
            peer.read_exact(&mut bytes).map(|()| (peer, bytes))
        });
        write.send_all(common::pattern(STALLING)).await.expect("the peer reads");
        let (_peer, bytes) = common::join(reader).await.expect("connected");
        assert_same(&bytes, &common::pattern(STALLING));
        assert_eq!(tamam::metrics().ops, 0, "nothing is received");
    });
}

/// CL11. 1 bytes are parked, a receive is armed, a send is stalled, another queued; 2 the stream
/// is split and made whole again: no op has changed, the bytes come, the queue goes out.
#[test]
fn cl11_reunite_changes_nothing() {
    common::everywhere(|| async {
        let (stream, mut peer) = family::narrow_pair().await;
        park(&stream, &mut peer, b"parked ", Gone::Dropped).await;
        let (read, write) = stream.into_split();
        drop(common::start(write.send_all(common::pattern(STALLING))).await);
        std::mem::forget(common::start(write.send_all("queued")).await);
        common::turn().await;
        let before = tamam::metrics();
        let stream = read.reunite(write).expect("halves of one stream");
        common::turn().await;
        let after = tamam::metrics();
        assert_eq!((after.ops, after.submissions), (before.ops, before.submissions));
        peer.write_all(b"and more").expect("connected");
        let bytes = stream.read_exact(Vec::with_capacity(15), 15).await.expect("they come");
        assert_eq!(bytes, b"parked and more");
        let reader = common::read_to_end(peer);
        stream.send_all(" and sent").await.expect("the peer reads");
        drop(stream);
        let expected = [&common::pattern(STALLING)[..], b"queued and sent"].concat();
        assert_same(&common::join(reader).await.expect("no reset"), &expected);
    });
}

/// CL11. Halves of two streams come back unharmed.
#[test]
fn cl11_halves_of_two_streams_come_back() {
    common::everywhere(|| async {
        let mut sides = Vec::new();
        for _ in 0..2 {
            let (stream, peer) = family::pair().await;
            let (read, write) = stream.into_split();
            sides.push((read, write, peer));
        }
        let (read_b, write_b, mut peer_b) = sides.pop().expect("two");
        let (read_a, write_a, mut peer_a) = sides.pop().expect("two");
        let error = read_a.reunite(write_b).expect_err("not of the same stream");
        assert_eq!(error.to_string(), "these halves are not of the same stream");
        let (read_a, write_b) = (error.0, error.1);
        for (read, write, peer) in [(read_a, write_a, &mut peer_a), (read_b, write_b, &mut peer_b)]
        {
            let stream = read.reunite(write).expect("of the same stream");
            peer.write_all(b"x").expect("connected");
            assert_eq!(&stream.recv().await.expect("no reset").expect("not the end")[..], b"x");
            stream.send_all("y").await.expect("connected");
            drop(stream);
            common::turn().await;
            assert_eq!(
                blocking_read_to_end(peer.try_clone().expect("dup")).expect("no reset"),
                b"y"
            );
        }
    });
}
