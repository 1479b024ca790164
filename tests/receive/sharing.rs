//! RX1, RX2: several calls wait on one stream.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::Poll;
use std::thread;

use crate::common::{assert_same, completing, pattern, poll_once, start, turn};
use crate::family::{self, pair};
use crate::{EOF, LENT, SMALL, WAYS, Way, assert_ended, assert_waits, common, receive, write};

/// RX1. 1 readers of all kinds take from one stream at once; 2 the peer sends a mebibyte of
/// counters and ends, by a FIN or a reset; 3 what they got, in the order in which they got it, is
/// what was sent (a reset throws away what was still on its way), and all of them see the end.
async fn readers_share(ways: &[Way], end: ErrorKind) {
    const LEN: usize = 1 << 20;
    let (stream, peer) = pair().await;
    let (stream, log) = (Rc::new(stream), Rc::new(RefCell::new(Vec::new())));
    let readers: Vec<_> = ways
        .iter()
        .map(|&way| {
            let (stream, log) = (stream.clone(), log.clone());
            tamam::spawn(async move {
                loop {
                    let (bytes, end) = receive(&stream, way).await;
                    log.borrow_mut().extend(bytes);
                    if let Some(end) = end {
                        return end;
                    }
                }
            })
        })
        .collect();
    let writer = thread::spawn(move || {
        write(&peer, &pattern(LEN));
        peer
    });
    let peer = common::join(writer).await;
    if end == EOF {
        peer.shutdown(Shutdown::Write).expect("connected");
    } else {
        family::reset(peer);
    }
    for reader in readers {
        assert_eq!(reader.await.expect("no panic"), end);
    }
    let got = log.take();
    let arrived = if end == EOF { LEN } else { got.len() };
    assert_same(&got, &pattern(LEN)[..arrived]);
    assert_ended(&stream, end).await;
}

#[test]
fn rx1_two_tasks_receive_on_one_stream() {
    for end in [EOF, ErrorKind::ConnectionReset] {
        common::everywhere(|| readers_share(&[Way::Recv, Way::Recv], end));
    }
}

#[test]
fn rx1_readers_of_all_kinds_share_one_stream() {
    for end in [EOF, ErrorKind::ConnectionReset] {
        common::everywhere(|| readers_share(&WAYS, end));
        common::everywhere(|| {
            readers_share(
                &[Way::ReadExact(1000), Way::Read(300), Way::ReadExact(70_000), Way::Recv],
                end,
            )
        });
    }
}

/// RX2. 1 `read` and `recv` wait together; 2 a byte arrives; 3 who is polled first gets it, the
/// other waits; 4 another byte arrives: that is for the other.
#[test]
fn rx2_who_is_polled_first_after_an_arrival_gets_it() {
    common::everywhere(|| async {
        let ways = [Way::Recv, Way::Read(SMALL), Way::Read(LENT), Way::ReadExact(1)];
        for (first, second) in ways.iter().flat_map(|a| ways.iter().map(move |b| (*a, *b))) {
            for second_wins in [false, true] {
                let (stream, peer) = pair().await;
                let mut a = start(receive(&stream, first)).await;
                let mut b = start(receive(&stream, second)).await;
                turn().await;
                assert_eq!(tamam::metrics().ops, 1, "one op in flight");
                let (mut winner, mut other) = if second_wins { (b, a) } else { (a, b) };
                completing(|| write(&peer, b"1")).await;
                assert_eq!(poll_once(&mut winner).await, Poll::Ready((b"1".to_vec(), None)));
                assert_waits(&mut other).await;
                turn().await;
                assert!(tamam::metrics().ops <= 1, "one op in flight");
                completing(|| write(&peer, b"2")).await;
                a = other;
                assert_eq!(
                    poll_once(&mut a).await,
                    Poll::Ready((b"2".to_vec(), None)),
                    "{first:?} {second:?}"
                );
                b = winner;
                drop((a, b));
            }
        }
    });
}
