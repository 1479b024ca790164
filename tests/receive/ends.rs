//! RX9, RX10, RX13: after the bytes comes the end, the same to everybody and for ever.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::fd::AsFd;

use crate::common::{completing, pattern, start, turn};
use crate::family::{self, pair};
use crate::{EOF, LENT, WAYS, Way, assert_ended, assert_waits, common, receive, write};

/// RX9. 100 bytes, then a reset: whatever is asked for, the reset is never shown as an end.
#[test]
fn rx9_a_reset_after_data_is_no_clean_end() {
    common::everywhere(|| async {
        for way in [Way::ReadExact(1000), Way::ReadExact(LENT)] {
            for armed in [false, true] {
                for reaped in [false, true] {
                    let (stream, peer) = pair().await;
                    let mut call = Box::pin(receive(&stream, way));
                    if armed {
                        assert_waits(&mut call).await;
                        turn().await;
                    }
                    if armed && reaped {
                        completing(|| write(&peer, &pattern(100))).await;
                    } else {
                        write(&peer, &pattern(100));
                    }
                    family::reset(peer);
                    let received = call.await;
                    assert_eq!(received, (pattern(100), Some(ErrorKind::ConnectionReset)));
                    assert_ended(&stream, ErrorKind::ConnectionReset).await;
                }
            }
        }
    });
}

/// RX10. The end is for ever and for all; sending goes on.
#[test]
fn rx10_the_end_is_for_ever_and_sending_goes_on() {
    common::everywhere(|| async {
        for way in WAYS {
            let (stream, mut peer) = pair().await;
            let mut waiting = Vec::new();
            for other in WAYS {
                waiting.push(start(receive(&stream, other)).await);
            }
            peer.shutdown(Shutdown::Write).expect("connected");
            assert_eq!(receive(&stream, way).await, (Vec::new(), Some(EOF)));
            for call in waiting {
                assert_eq!(call.await, (Vec::new(), Some(EOF)), "those who waited hear of it too");
            }
            turn().await;
            let before = tamam::metrics();
            assert_ended(&stream, EOF).await;
            turn().await;
            let now = tamam::metrics();
            assert_eq!(
                (now.ops, now.submissions),
                (0, before.submissions),
                "nothing is armed again"
            );
            stream.send_all("still here").await.expect("the peer reads");
            let mut got = [0; 10];
            peer.read_exact(&mut got).expect("it came");
            assert_eq!(&got, b"still here");
            assert_ended(&stream, EOF).await;
        }
    });
}

/// RX13. The user shuts down receiving through a dup: the end, whatever the peer sends later.
#[test]
fn rx13_shut_down_through_a_dup() {
    common::everywhere(|| async {
        for way in WAYS {
            for waiting in [false, true] {
                let (stream, peer) = pair().await;
                let dup = StdStream::from(
                    stream.as_fd().try_clone_to_owned().expect("a descriptor is left"),
                );
                let call = if waiting { Some(start(receive(&stream, way)).await) } else { None };
                turn().await;
                dup.shutdown(Shutdown::Read).expect("connected");
                let received = match call {
                    Some(call) => call.await,
                    None => receive(&stream, way).await,
                };
                assert_eq!(received, (Vec::new(), Some(EOF)), "{way:?}, waiting: {waiting}");
                // A peer over a Unix socket is told.
                assert_eq!((&peer).write_all(b"too late").is_ok(), !family::UNIX);
                common::settle().await;
                assert_ended(&stream, EOF).await;
                stream.send_all("x").await.expect("sending goes on");
            }
        }
    });
}
