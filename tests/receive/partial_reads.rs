//! RX5, RX6: how much one call takes, from whom, and into what room.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::pin::pin;
use std::task::Poll;

use tamam::buf::BufError;

use crate::common::{Gone, assert_same, at_once, completing, pattern, poll_once, start, turn};
use crate::family::{self, Stream, pair};
use crate::{
    EOF, LENT, SMALL, Way, assert_ended, assert_waits, common, next, receive, until_end, write,
};

/// RX5. 1 a `read` is left with its op in flight; 2 a `read` of less room comes in the same pass;
/// 3 the bytes of the first buffer arrive; 4 the second gets as many as it has room for, the rest
/// waits in line. All of that with one op, no cancel.
#[test]
fn rx5_a_smaller_read_takes_from_an_abandoned_one() {
    common::everywhere(|| async {
        for gone in Gone::BOTH {
            for (large, small) in [(100, 10), (10_000, 1000)] {
                let (stream, peer) = pair().await;
                let abandoned = start(stream.read(Vec::with_capacity(large))).await;
                turn().await;
                let before = tamam::metrics().submissions;
                gone.leave(abandoned);
                let mut second = start(stream.read(Vec::with_capacity(small))).await;
                turn().await;
                assert_eq!((tamam::metrics().ops, tamam::metrics().submissions - before), (1, 0));
                completing(|| write(&peer, &pattern(large))).await;
                let Poll::Ready(Ok((len, got))) = poll_once(&mut second).await else {
                    panic!("{large} bytes have come")
                };
                assert_eq!(len, got.len());
                assert_same(&got, &pattern(large)[..small]);
                let rest = stream.read_exact(Vec::with_capacity(large), large - small).await;
                assert_same(&rest.expect("the rest is in line"), &pattern(large)[small..]);
            }
        }
    });
}

/// What is parked comes out in pieces by `recv`, never merged, and as far as it fits by `read`,
/// which does not wait once it has a byte.
#[test]
fn rx5_read_gathers_what_is_parked_and_recv_takes_one_piece() {
    common::everywhere(|| async {
        let (stream, peer) = pair().await;
        drop(start(stream.recv()).await);
        turn().await;
        for piece in [&b"abcde"[..], b"fghij", b"klmno", b"pqrst"] {
            // A receive that is not a shot ended with the first piece: each is asked for.
            if tamam::metrics().ops == 0 {
                return eprintln!("skipped: no multishot receive");
            }
            completing(|| write(&peer, piece)).await;
        }
        assert_eq!(at_once(receive(&stream, Way::Recv)).await.0, b"abcde");
        assert_eq!(at_once(receive(&stream, Way::Read(7))).await.0, b"fghijkl");
        assert_eq!(at_once(receive(&stream, Way::Recv)).await.0, b"mno");
        assert_eq!(at_once(receive(&stream, Way::Read(100))).await.0, b"pqrst");
        assert_waits(&mut pin!(receive(&stream, Way::Read(100)))).await;
    });
}

/// `read` appends: what the buffer held stays in front, and the room ends at the capacity.
#[test]
fn rx5_bytes_are_appended_to_what_the_buffer_holds() {
    common::everywhere(|| async {
        for room in [SMALL, LENT] {
            let (stream, peer) = pair().await;
            let prefixed = || {
                let mut buf = Vec::with_capacity(3 + room);
                buf.extend(b"abc");
                buf
            };
            let mut read = start(stream.read(prefixed())).await;
            turn().await;
            completing(|| write(&peer, b"defg")).await;
            let Poll::Ready(Ok((len, buf))) = poll_once(&mut read).await else {
                panic!("4 bytes came")
            };
            assert_eq!((len, &buf[..]), (4, &b"abcdefg"[..]));
            write(&peer, b"de");
            let exact = stream.read_exact(prefixed(), 2).await.expect("two bytes");
            assert_eq!(exact, b"abcde");
            peer.shutdown(Shutdown::Write).expect("connected");
            let error = stream.read_exact(prefixed(), 5).await.expect_err("the end");
            assert_eq!((error.kind(), &error.buf()[..]), (EOF, &b"abc"[..]));
        }
    });
}

/// RX6. Reading into a full buffer fails at once, whatever the stream is up to, and takes nothing.
async fn full_buffers_are_refused(stream: &Stream, state: &str) {
    let refused = |error: BufError<Vec<u8>>, expected: &[u8]| {
        assert_eq!(
            (error.kind(), &error.buf()[..]),
            (ErrorKind::InvalidInput, expected),
            "{state}"
        );
    };
    let mut full = vec![0; 16];
    full.shrink_to_fit();
    assert_eq!(full.capacity(), 16);
    refused(at_once(stream.read(full.clone())).await.expect_err("no room"), &full);
    refused(at_once(stream.read(Vec::new())).await.expect_err("no room"), &[]);
    refused(at_once(stream.read_exact(full.clone(), 1)).await.expect_err("no room"), &full);
    let room = Vec::with_capacity(10);
    let more = room.capacity() + 1;
    refused(at_once(stream.read_exact(room, more)).await.expect_err("too little room"), &[]);
    let nothing = at_once(stream.read_exact(full.clone(), 0)).await;
    assert_eq!(nothing.expect("nothing is wanted"), full, "{state}");
}

#[test]
fn rx6_no_spare_room_is_an_error_and_takes_nothing() {
    common::everywhere(|| async {
        let (stream, peer) = pair().await;
        full_buffers_are_refused(&stream, "nothing in flight").await;
        drop(start(stream.recv()).await);
        turn().await;
        full_buffers_are_refused(&stream, "a receive in flight").await;
        completing(|| write(&peer, &pattern(10))).await;
        full_buffers_are_refused(&stream, "data parked").await;
        assert_eq!(next(&stream, 10).await, pattern(10));
        peer.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(receive(&stream, Way::Recv).await.1, Some(EOF));
        full_buffers_are_refused(&stream, "the end").await;
        assert_ended(&stream, EOF).await;

        let (stream, peer) = pair().await;
        write(&peer, &pattern(10));
        family::reset(peer);
        full_buffers_are_refused(&stream, "data in the kernel").await;
        assert_eq!(until_end(&stream, Way::Recv).await, (pattern(10), ErrorKind::ConnectionReset));
        full_buffers_are_refused(&stream, "an error").await;
        assert_ended(&stream, ErrorKind::ConnectionReset).await;
    });
}
