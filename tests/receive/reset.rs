//! RX11, RX12: a reset is never shown as a clean end, whoever meets it first.

use std::io::ErrorKind;
use std::thread;

use tamam::Runtime;

use crate::common::{pattern, start, turn};
use crate::family::{self, pair};
use crate::{EOF, LENT, Way, assert_ended, common, next, receive, until_end, write};

/// RX11. Data, then the reset, on every call.
#[test]
fn rx11_data_then_the_reset_for_ever() {
    common::everywhere(|| async {
        for way in [Way::Recv, Way::Read(10), Way::Read(LENT), Way::ReadExact(50)] {
            for armed in [false, true] {
                let (stream, peer) = pair().await;
                if armed {
                    drop(start(stream.recv()).await);
                    turn().await;
                }
                write(&peer, &pattern(100));
                family::reset(peer);
                let got = until_end(&stream, way).await;
                assert_eq!(
                    got,
                    (pattern(100), ErrorKind::ConnectionReset),
                    "{way:?}, armed: {armed}"
                );
                assert_ended(&stream, ErrorKind::ConnectionReset).await;
            }
        }
    });
}

/// RX11. 1 more bytes than a multishot receive takes in one go, and a reset, wait in the socket; 2 a
/// receive is armed; 3 everything comes, and then the reset. A shot that finds both does not complete
/// any more (6.18.44, 7.3.4). The last row has 17 messages of a buffer's size before, after which a
/// stream is not so soon taken for a bulk transfer.
#[test]
fn rx11_many_bytes_and_the_reset_before_the_receive() {
    let rows = [
        (64, 256, 3000, 0),
        (64, 4, 3000, 0),
        (512, 256, 20_000, 0),
        (1024, 256, 60_000, 0),
        (4096, 256, 150_000, 0),
        (4096, 256, 150_000, 17),
    ];
    for (size, count, len, messages) in rows {
        let builder = Runtime::builder().buffer_size(size).buffer_count(count);
        common::with_both(builder, || async {
            let (stream, peer) = family::inbound_pair(400 << 10).await;
            for _ in 0..messages {
                write(&peer, &pattern(size));
                assert_eq!(next(&stream, size).await, pattern(size));
            }
            write(&peer, &pattern(len));
            while common::unread(&stream) < len {
                thread::yield_now(); // what is still with the peer would go with the reset
            }
            family::reset(peer);
            common::wait_for(&stream, libc::POLLERR);
            let (got, end) = until_end(&stream, Way::Recv).await;
            assert_eq!((got.len(), end), (len, ErrorKind::ConnectionReset), "{size} x {count}");
            assert!(got == pattern(len));
            assert_ended(&stream, ErrorKind::ConnectionReset).await;
        });
    }
}

/// RX12. 1 a receive is armed, or is not; 2 a send stalls; 3 the peer sends 100 bytes and resets,
/// so that the kernel tells one of the two; 4 the receive gives the data, then the reset.
async fn send_meets_the_reset(stalled: usize, narrow: bool, armed: Option<Way>, send_first: bool) {
    let (stream, peer) = if narrow { family::narrow_pair().await } else { pair().await };
    let mut receiving = None;
    if !send_first {
        if let Some(way) = armed {
            receiving = Some(start(receive(&stream, way)).await);
        }
    }
    let sending = start(stream.send_all(vec![7; stalled])).await;
    if send_first {
        if let Some(way) = armed {
            receiving = Some(start(receive(&stream, way)).await);
        }
    }
    turn().await;
    write(&peer, &pattern(100));
    family::reset(peer);
    let error = sending.await.expect_err("the peer did not read all of it");
    assert_eq!(error.kind(), family::SEND_AFTER_RESET);
    drop(receiving);
    let (got, end) = until_end(&stream, Way::Recv).await;
    assert_eq!(
        (got, end),
        (pattern(100), ErrorKind::ConnectionReset),
        "stalled {stalled}, armed {armed:?}, send first: {send_first}"
    );
    assert_ended(&stream, ErrorKind::ConnectionReset).await;
}

#[test]
fn rx12_a_stalled_send_meets_the_reset_first() {
    common::with_both(Runtime::builder(), || {
        send_meets_the_reset(40 << 20, false, Some(Way::Recv), false)
    });
    common::everywhere(|| async {
        for armed in [None, Some(Way::Recv), Some(Way::Read(LENT))] {
            for send_first in [false, true] {
                send_meets_the_reset(1 << 20, true, armed, send_first).await;
            }
        }
    });
}

/// RX12. The reset has arrived before anything is asked for; then sends and receives come, in any
/// order and any number: no receive ever sees an end.
#[test]
fn rx12_a_send_after_the_reset_leaves_it_to_the_receive() {
    common::everywhere(|| async {
        for sends in 1..4 {
            for armed in [false, true] {
                for len in [1, 100_000] {
                    let (stream, peer) = pair().await;
                    if armed {
                        drop(start(stream.recv()).await);
                        turn().await;
                    }
                    write(&peer, &pattern(100));
                    family::reset(peer);
                    for _ in 0..sends {
                        let error = stream.send_all(vec![1; len]).await.expect_err("it was reset");
                        assert_eq!(error.kind(), family::SEND_AFTER_RESET, "{sends} {armed} {len}");
                    }
                    let got = until_end(&stream, Way::Recv).await;
                    assert_eq!(
                        got,
                        (pattern(100), ErrorKind::ConnectionReset),
                        "{sends} {armed} {len}"
                    );
                    assert_ended(&stream, ErrorKind::ConnectionReset).await;
                }
            }
        }
    });
}

/// RX12. In one pass both are submitted on a connection that was reset.
#[test]
fn rx12_a_send_and_a_receive_meet_the_reset_together() {
    common::everywhere(|| async {
        for recv_first in [false, true] {
            let (stream, peer) = pair().await;
            family::reset(peer);
            let mut recv = Box::pin(receive(&stream, Way::Recv));
            let mut send = Box::pin(stream.send_all("x"));
            // Submitted together to a ring; tried one after the other under epoll.
            let (received, sent) = if recv_first {
                (common::begin(recv.as_mut()).await, common::begin(send.as_mut()).await)
            } else {
                let sent = common::begin(send.as_mut()).await;
                (common::begin(recv.as_mut()).await, sent)
            };
            assert_eq!(
                (received.is_over(), sent.is_over()),
                (common::on_epoll(), common::on_epoll())
            );
            assert_eq!(received.await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
            // The kernel tells one of the two of the reset, and the other that the pipe is broken.
            let error = sent.await.expect_err("it was reset").kind();
            let broken = (recv_first || family::UNIX) && error == ErrorKind::BrokenPipe;
            assert!(broken || error == ErrorKind::ConnectionReset, "{error}, {recv_first}");
            assert_ended(&stream, ErrorKind::ConnectionReset).await;
        }
    });
}

/// RX12, TX9. The peer finished with a FIN before our sends broke: its data and its end are there.
#[test]
fn rx12_a_broken_pipe_alone_does_not_hide_the_end() {
    common::everywhere(|| async {
        let (stream, peer) = pair().await;
        write(&peer, &pattern(100));
        drop(peer);
        let mut failed = None;
        for _ in 0..1000 {
            if let Err(error) = stream.send_all("x").await {
                failed = Some(error.kind());
                break;
            }
            turn().await;
        }
        assert_eq!(failed, Some(ErrorKind::BrokenPipe));
        assert_eq!(until_end(&stream, Way::Recv).await, (pattern(100), EOF));
        assert_ended(&stream, EOF).await;
    });
}
