//! RX21: what is peeked stays unread.

use std::io::{ErrorKind, Write};

use crate::common::{Gone, everywhere, pattern, poll_once, settle, start};
use crate::family::{pair, reset};
use crate::{LENT, WAYS, receive};

/// A peek gives the first bytes again and again; then each way of receiving gives them too.
#[test]
fn rx21_what_is_peeked_stays_unread() {
    everywhere(|| async {
        for way in WAYS {
            let (stream, mut peer) = pair().await;
            peer.write_all(&pattern(40)).expect("connected");
            let (len, mut seen) = stream.peek(Vec::with_capacity(3)).await.expect("bytes");
            assert_eq!((len, &seen[..]), (3, &pattern(40)[..3]));
            for _ in 0..3 {
                let room = Vec::with_capacity(100);
                let (len, more) = stream.peek(room).await.expect("bytes");
                assert_eq!(more.len(), len);
                assert_eq!(more, &pattern(40)[..len]);
                assert!(len >= seen.len(), "what is there does not become less");
                seen = more;
            }
            peer.write_all(&pattern(LENT)[40..]).expect("connected");
            let mut all = Vec::new();
            while all.len() < LENT - LENT % 8 {
                let (bytes, end) = receive(&stream, way).await;
                assert_eq!(end, None, "{way:?}");
                all.extend(bytes);
            }
            assert_eq!(all, &pattern(LENT)[..all.len()], "{way:?}");
        }
    });
}

/// Pieces that came one by one, some of them into the buffer of a `read_exact` that is gone, are
/// one copy; what the buffer held before stays in front of it.
#[test]
fn rx21_a_peek_spans_pieces() {
    everywhere(|| async {
        for gone in Gone::BOTH {
            let (stream, mut peer) = pair().await;
            peer.write_all(b"ab").expect("connected");
            let mut exact = start(stream.read_exact(Vec::with_capacity(LENT), LENT)).await;
            settle().await;
            assert!(poll_once(&mut exact).await.is_pending());
            peer.write_all(b"cd").expect("connected");
            settle().await;
            assert!(poll_once(&mut exact).await.is_pending());
            gone.leave(exact);
            let mut buf = Vec::with_capacity(9);
            buf.extend(*b"held ");
            let (len, seen) = stream.peek(buf).await.expect("bytes");
            assert_eq!((len, &seen[..]), (4, &b"held abcd"[..]));
        }
    });
}

#[test]
fn rx21_a_peek_waits_and_goes_as_others_do() {
    everywhere(|| async {
        let (stream, mut peer) = pair().await;
        for gone in Gone::BOTH {
            gone.leave(start(stream.peek(Vec::with_capacity(4))).await);
        }
        let mut waits = start(stream.peek(Vec::with_capacity(4))).await;
        let other = start(stream.recv()).await;
        peer.write_all(b"x").expect("connected");
        assert_eq!(waits.as_mut().await.expect("a byte").1, b"x");
        drop(waits);
        let chunk = other.await.expect("no error").expect("the same byte");
        assert_eq!(&chunk[..], b"x");

        let full = stream.peek(vec![1, 2]).await.expect_err("no room");
        assert_eq!((full.kind(), full.buf().len()), (ErrorKind::InvalidInput, 2));
        drop(peer);
        for _ in 0..2 {
            assert_eq!(stream.peek(Vec::with_capacity(4)).await.expect("the end").0, 0);
        }
        assert!(stream.recv().await.expect("the end").is_none());

        let (stream, mut peer) = pair().await;
        peer.write_all(b"last").expect("connected");
        while stream.peek(Vec::with_capacity(4)).await.expect("bytes").0 == 0 {}
        reset(peer);
        assert_eq!(stream.read_exact(Vec::with_capacity(1), 1).await.expect("it came"), b"l");
        while let Ok(Some(_)) = stream.recv().await {}
        for _ in 0..2 {
            let error = stream.peek(Vec::with_capacity(4)).await.expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}
