//! RX7, RX8: `read_exact` is dropped, shares with others, or meets the end.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::thread;

use crate::common::{Gone, assert_same, at_once, completing, pattern, start, turn};
use crate::family::{self, pair};
use crate::{EOF, LENT, Way, assert_ended, assert_waits, common, next, receive, write};

/// RX7. 1 `read_exact` of 1000 has 300 bytes; 2 it goes; 3 those 300 are there at once.
#[test]
fn rx7_what_read_exact_had_comes_first() {
    common::everywhere(|| async {
        for gone in Gone::BOTH {
            for room in [1000, LENT] {
                for next_way in [Way::Recv, Way::Read(300), Way::Read(LENT), Way::ReadExact(300)] {
                    let (stream, peer) = pair().await;
                    let mut exact = start(stream.read_exact(Vec::with_capacity(room), room)).await;
                    turn().await;
                    let mut sent = 0;
                    for len in [100, 150, 50] {
                        completing(|| write(&peer, &pattern(300)[sent..sent + len])).await;
                        sent += len;
                        // With a pool of 16 bytes a write takes several completions.
                        while common::unread(&stream) > 0 {
                            assert_waits(&mut exact).await;
                            turn().await;
                        }
                        assert_waits(&mut exact).await;
                    }
                    gone.leave(exact);
                    let mut got = Vec::new();
                    while got.len() < 300 {
                        let (bytes, end) = at_once(receive(&stream, next_way)).await;
                        assert_eq!(end, None);
                        got.extend(bytes);
                    }
                    assert_same(&got, &pattern(300));
                    write(&peer, b"more");
                    assert_eq!(next(&stream, 4).await, b"more", "{gone:?} {room} {next_way:?}");
                }
            }
        }
    });
}

/// RX7. Another call takes what a live `read_exact` had: that one goes on with what comes next.
#[test]
fn rx7_read_exact_goes_on_when_another_call_took_from_it() {
    common::everywhere(|| async {
        for room in [1000, LENT] {
            let (stream, peer) = pair().await;
            let mut exact = start(stream.read_exact(Vec::with_capacity(room), room)).await;
            turn().await;
            let sent = pattern(10 + 300 + room);
            for (from, taken) in [(0, 10), (10, 300)] {
                completing(|| write(&peer, &sent[from..from + taken])).await;
                while common::unread(&stream) > 0 {
                    assert_waits(&mut exact).await;
                    turn().await;
                }
                assert_waits(&mut exact).await;
                let half = taken / 2;
                let mut got = Vec::new();
                while got.len() < half {
                    let left = half - got.len();
                    got.extend(at_once(receive(&stream, Way::Read(left))).await.0);
                }
                assert_waits(&mut exact).await;
                got.extend(next(&stream, taken - half).await);
                assert_same(&got, &sent[from..from + taken]);
                assert_waits(&mut exact).await;
            }
            let rest = sent[310..].to_vec();
            let writer = thread::spawn(move || {
                write(&peer, &rest);
                peer
            });
            assert_same(&exact.await.expect("all of it"), &sent[310..]);
            common::join(writer).await;
        }
    });
}

/// RX8. The end or an error midway: the buffer comes back with what it had, and nobody else gets
/// those bytes.
#[test]
fn rx8_read_exact_meets_the_end_midway() {
    common::everywhere(|| async {
        for end in [EOF, ErrorKind::ConnectionReset] {
            for room in [1000, LENT] {
                for armed in [false, true] {
                    let (stream, peer) = pair().await;
                    let mut buf = Vec::with_capacity(2 + room);
                    buf.extend(b"ab");
                    let mut exact = Box::pin(stream.read_exact(buf, room));
                    if armed {
                        assert_waits(&mut exact).await;
                        turn().await;
                    }
                    write(&peer, &pattern(300));
                    let kept = match end {
                        EOF => {
                            peer.shutdown(Shutdown::Write).expect("connected");
                            Some(peer)
                        }
                        _ => {
                            family::reset(peer);
                            None
                        }
                    };
                    let (error, buf) =
                        exact.await.expect_err("300 bytes are not enough").into_parts();
                    assert_eq!(error.kind(), end, "room {room}, armed: {armed}");
                    assert_eq!(&buf[..2], b"ab");
                    assert_same(&buf[2..], &pattern(300));
                    assert_ended(&stream, end).await;
                    drop(kept);
                }
            }
        }
    });
}
