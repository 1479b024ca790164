//! RX3, RX4: calls that are dropped or forgotten leave their bytes to the next.

use std::net::Shutdown;
use std::task::Poll;

use crate::common::{Gone, assert_same, completing, pattern, poll_once, quarantine, start, turn};
use crate::family::pair;
use crate::{
    EOF, LENT, SMALL, WAYS, Way, assert_ended, assert_waits, common, receive, until_end, write,
};

/// RX3, RX4, and RX7 for `read_exact`. 1 a call is polled; 2 the peer sends, and perhaps that is
/// reaped, and perhaps the call is polled again; 3 the call goes; 4 the peer sends more; 5 every
/// way to receive sees all the bytes, in order.
async fn bytes_outlive(way: Way, gone: Gone, reaped: bool, polled_again: bool, next_way: Way) {
    let (stream, peer) = pair().await;
    let (before, after) = (&pattern(40)[..SMALL - 1], &pattern(40)[SMALL - 1..]);
    let mut call = start(receive(&stream, way)).await;
    turn().await;
    if reaped {
        completing(|| write(&peer, before)).await;
    } else {
        write(&peer, before);
    }
    // `recv` and `read` would take the bytes.
    if polled_again && matches!(way, Way::ReadExact(_)) {
        assert_waits(&mut call).await;
    }
    gone.leave(call);
    write(&peer, after);
    peer.shutdown(Shutdown::Write).expect("connected");
    let got = until_end(&stream, next_way).await;
    assert_eq!(got, (pattern(40), EOF), "{way:?} {gone:?} {reaped} {polled_again} {next_way:?}");
    assert_ended(&stream, EOF).await;
}

async fn bytes_outlive_everything(gone: Gone) {
    for way in WAYS {
        for next_way in WAYS {
            for (reaped, polled_again) in
                [(false, false), (true, false), (true, true), (false, true)]
            {
                bytes_outlive(way, gone, reaped, polled_again, next_way).await;
            }
        }
    }
}

#[test]
fn rx3_bytes_around_a_dropped_call_come_first_in_the_next() {
    common::everywhere(|| bytes_outlive_everything(Gone::Dropped));
}

#[test]
fn rx4_bytes_around_a_forgotten_call_come_first_in_the_next() {
    common::everywhere(|| bytes_outlive_everything(Gone::Forgotten));
}

/// RX3. On an idle socket 5000 calls are dropped, in one pass or one a turn: there is never more
/// than one op, and the heap does not grow.
#[test]
fn rx3_dropped_calls_on_an_idle_socket_cost_nothing() {
    common::alone("abandoned_calls::rx3_dropped_calls_on_an_idle_socket_cost_nothing", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            // One poll a turn: there are very many turns.
            common::with(builder.budget(1), || async {
                let (stream, _peer) = pair().await;
                for way in WAYS {
                    for turning in [false, true] {
                        let rounds = async |rounds: usize| {
                            for _ in 0..rounds {
                                drop(start(receive(&stream, way)).await);
                                assert!(tamam::metrics().ops <= 1, "one op in flight");
                                if turning {
                                    turn().await;
                                }
                            }
                            turn().await;
                            turn().await;
                        };
                        rounds(100).await;
                        // A leak of ours shows every time; what other threads of the process hold on
                        // to in passing (libtest, the watchdog) does not.
                        let mut growth = [0; 3];
                        for growth in &mut growth {
                            let heap = quarantine::live();
                            rounds(5000).await;
                            *growth = quarantine::live() - heap;
                        }
                        assert!(growth.contains(&0), "{growth:?}: {way:?}, turning: {turning}");
                    }
                }
            });
        }
    });
}

/// RX3. 5000 calls dropped in one pass of polls are one op and one cancel at most, not 5000.
#[test]
fn rx3_a_call_in_the_same_pass_takes_the_op_over() {
    common::everywhere(|| async {
        for way in WAYS {
            let (stream, peer) = pair().await;
            drop(start(receive(&stream, way)).await);
            turn().await;
            turn().await;
            let before = tamam::metrics();
            tamam::spawn(async move {
                for _ in 0..5000 {
                    drop(start(receive(&stream, way)).await);
                }
                let mut last = start(receive(&stream, Way::Recv)).await;
                turn().await;
                let now = tamam::metrics();
                // Shots keep armed, so there is nothing to submit for them at all.
                assert!(now.submissions - before.submissions <= 1, "{way:?}: {before:?} {now:?}");
                assert_eq!(now.ops, 1, "{way:?}");
                completing(|| write(&peer, b"1")).await;
                assert_eq!(poll_once(&mut last).await, Poll::Ready((b"1".to_vec(), None)));
            })
            .await
            .expect("no panic");
        }
    });
}

/// RX4. Forgotten calls wait for ever and take nothing: there is one op for all of them, and the
/// next calls see every byte.
#[test]
fn rx4_a_hundred_forgotten_calls_share_one_op() {
    common::everywhere(|| async {
        for way in WAYS {
            for next_way in [Way::Recv, Way::Read(100), Way::Read(LENT), Way::ReadExact(1000)] {
                for forgotten in [1, 100] {
                    let (stream, peer) = pair().await;
                    for _ in 0..forgotten {
                        std::mem::forget(start(receive(&stream, way)).await);
                        assert_eq!(tamam::metrics().ops, 1, "{way:?}");
                        turn().await;
                    }
                    completing(|| write(&peer, &pattern(1000))).await;
                    let mut got = Vec::new();
                    while got.len() < 1000 {
                        let (bytes, end) = receive(&stream, next_way).await;
                        assert_eq!(end, None);
                        got.extend(bytes);
                        assert!(tamam::metrics().ops <= 1, "{way:?}");
                    }
                    assert_same(&got, &pattern(1000));
                }
            }
        }
    });
}
