//! G9: a poll gets a budget of answers that are ready, and nobody starves.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::Write;
use std::net::TcpStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tamam::Runtime;
use tamam::net::TcpListener;
use tamam::time::{sleep, timeout, timeout_at};

use crate::common;
use crate::common::{on_epoll, pair, pattern, start, turn};

/// Polls a future and counts what it has counted in each poll; the most in one.
async fn most_in_one_poll<T>(counter: &Cell<usize>, future: impl Future<Output = T>) -> (usize, T) {
    let mut future = std::pin::pin!(future);
    let mut most = 0;
    let output = std::future::poll_fn(|cx| {
        counter.set(0);
        let poll = future.as_mut().poll(cx);
        most = most.max(counter.get());
        poll
    })
    .await;
    (most, output)
}

/// How many answers are ready at once in a poll.
const UNITS: usize = 128;

/// G9. What is ready at once is ready 128 times in a poll, whatever it is: then others have their
/// turn.
#[test]
fn g9_a_poll_gets_a_budget_of_ready_answers() {
    let roomy = Runtime::builder().buffer_size(64).buffer_count(1024);
    common::with_both(roomy, || async {
        let (stream, mut peer) = pair().await;
        let counter = Cell::new(0);
        let count = || counter.set(counter.get() + 1);

        drop(start(stream.recv()).await);
        turn().await;
        peer.write_all(&pattern(64 * 300)).expect("it fits");
        // Epoll reads nothing ahead, and finds each piece at once.
        while !on_epoll() && common::unread(&stream) > 0 {
            // A receive that is not a shot ended with the first piece.
            if tamam::metrics().ops == 0 {
                return eprintln!("skipped: no multishot receive");
            }
            turn().await;
        }
        let chunks = most_in_one_poll(&counter, async {
            let mut len = 0;
            while len < 64 * 250 {
                len += stream.recv().await.expect("no error").expect("not the end").len();
                count();
            }
            len
        });
        let (most, len) = chunks.await;
        assert_eq!(most, UNITS, "chunks that are there");
        let left = 64 * 300 - len;
        let reads = most_in_one_poll(&counter, async {
            for _ in 0..left / 2 {
                stream.read(Vec::with_capacity(1)).await.expect("no error");
                count();
            }
            for _ in left / 2..left {
                stream.read_exact(Vec::with_capacity(1), 1).await.expect("no error");
                count();
            }
        });
        assert_eq!(reads.await.0, UNITS, "bytes that are there");
        let refused = most_in_one_poll(&counter, async {
            for _ in 0..1000 {
                stream.read(Vec::<u8>::new()).await.expect_err("no room");
                count();
            }
        });
        assert_eq!(refused.await.0, UNITS, "errors of the call");
        let nothing = most_in_one_poll(&counter, async {
            for _ in 0..1000 {
                stream.read_exact(Vec::<u8>::new(), 0).await.expect("nothing is wanted");
                count();
            }
        });
        assert_eq!(nothing.await.0, UNITS, "reads of nothing");
        common::reset(peer);
        let ended = most_in_one_poll(&counter, async {
            for _ in 0..1000 {
                stream.recv().await.expect_err("it was reset");
                count();
            }
        });
        assert_eq!(ended.await.0, UNITS, "the end");
    });
}

/// G9. Connections that wait, and sends that fit: in the ring they arrive in their own time, under
/// epoll each is had at once, and so many of them in a poll.
#[test]
fn g9_accepts_and_sends_have_the_same_budget() {
    common::with_both(Runtime::builder(), || async {
        const CONNECTIONS: usize = 300;
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let addr = listener.local_addr().expect("bound");
        let clients: Vec<_> =
            (0..CONNECTIONS).map(|_| StdStream::connect(addr).expect("it listens")).collect();
        let counter = Cell::new(0);
        let count = || counter.set(counter.get() + 1);
        let accepts = most_in_one_poll(&counter, async {
            let mut streams = Vec::new();
            for _ in 0..CONNECTIONS {
                streams.push(listener.accept().await.expect("it waits").0);
                count();
            }
            streams
        });
        let (most, streams) = accepts.await;
        assert!(most <= UNITS && (most == UNITS || !on_epoll()), "{most} accepts in a poll");
        let sends = most_in_one_poll(&counter, async {
            for _ in 0..1000 {
                streams[0].send_all("x").await.expect("it fits");
                count();
            }
        });
        let (most, ()) = sends.await;
        // What went out when no unit was left is answered first in the next poll.
        let expected = if on_epoll() { UNITS..=UNITS + 1 } else { 1..=1 };
        assert!(expected.contains(&most), "{most} sends in a poll");
        drop(clients);
    });
}

/// G9. A loop that has used its budget is not polled again before I/O and timers had their turn,
/// though nobody else is there to be polled; nor is it slowed down by a sleep.
#[test]
fn g9_a_turn_has_one_budget_for_a_loop() {
    common::with_both(Runtime::builder(), || async {
        let (stream, _peer) = pair().await;
        turn().await;
        let (mut most, mut in_this) = (0, 0);
        let begin = tamam::metrics().turns;
        let mut last = begin;
        for _ in 0..20 * UNITS {
            stream.read(Vec::<u8>::new()).await.expect_err("no room");
            let turns = tamam::metrics().turns;
            in_this = if turns == last { in_this + 1 } else { 1 };
            (last, most) = (turns, most.max(in_this));
        }
        assert_eq!(most, UNITS, "answers in a turn");
        assert!(last - begin <= 21, "{} turns", last - begin);
    });
}

/// Floods a std peer's connection until told to stop.
fn flood(mut peer: StdStream, stop: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    peer.set_write_timeout(Some(Duration::from_millis(10))).expect("not zero");
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            // An error is a full buffer.
            let _ = peer.write(&[7; 8192]);
        }
    })
}

/// G9. 1 a peer floods a stream, which a task reads in a loop that never waits for anything else;
/// 2 timers of another task fire; 3 so does the deadline around the loop itself.
#[test]
fn g9_a_flooding_peer_never_starves_a_timer() {
    common::everywhere(|| async {
        for room in [None, Some(1), Some(100_000)] {
            let (stream, peer) = pair().await;
            let stop = Arc::new(AtomicBool::new(false));
            let flooding = flood(peer, stop.clone());
            let ticks = Rc::new(RefCell::new(Vec::new()));
            let ticking = tamam::spawn({
                let ticks = ticks.clone();
                async move {
                    for _ in 0..20 {
                        sleep(Duration::from_millis(1)).await;
                        ticks.borrow_mut().push(Instant::now());
                    }
                }
            });
            let first = stream.recv().await.expect("no error").expect("no end");
            let received = Cell::new(first.len());
            let deadline = Instant::now() + Duration::from_millis(50);
            let late = Cell::new(0);
            let endless = async {
                loop {
                    let len = match room {
                        None => stream.recv().await.expect("no error").expect("no end").len(),
                        Some(room) => {
                            stream.read(Vec::with_capacity(room)).await.expect("no error").0
                        }
                    };
                    received.set(received.get() + len);
                    late.set(late.get() + usize::from(Instant::now() > deadline));
                }
            };
            let elapsed: Result<(), _> = timeout_at(deadline, endless).await;
            assert!(elapsed.is_err());
            // What one poll has left, the next one, which wakes for the deadline, and the one more
            // that a timeout gives.
            assert!(late.get() <= 3 * UNITS, "{} answers after the deadline", late.get());
            println!("{} bytes came", received.get());
            ticking.await.expect("no panic");
            assert_eq!(ticks.borrow().len(), 20);
            stop.store(true, Ordering::Relaxed);
            common::join(flooding).await;
        }
    });
}

/// G9. A loop over what is ready for ever (the end, an error of the call) can be timed out.
#[test]
fn g9_loops_over_ready_answers_can_be_timed_out() {
    common::everywhere(|| async {
        let (stream, peer) = pair().await;
        let refused = async {
            loop {
                stream.read(Vec::<u8>::new()).await.expect_err("no room");
            }
        };
        let elapsed: Result<(), _> = timeout(Duration::from_millis(5), refused).await;
        assert!(elapsed.is_err());
        drop(peer);
        let ended = async {
            loop {
                assert!(stream.recv().await.expect("no error").is_none());
            }
        };
        let elapsed: Result<(), _> = timeout(Duration::from_millis(5), ended).await;
        assert!(elapsed.is_err());
    });
}
