//! RX14, RX17, RX18: cancels, timeouts and aborts that race with bytes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tamam::time::timeout;

use crate::common::{Gone, Random, assert_same, completing, pattern, poll_once, start, turn};
use crate::family::pair;
use crate::{EOF, LENT, SMALL, WAYS, Way, common, receive, write};

/// RX14. 1 the peer sends a million bytes in random pieces; 2 calls of all kinds start and are
/// dropped, now and then forgotten, in the same pass or turns later, racing their cancels with the
/// data; 3 what the others got is what was sent.
async fn random_cancels(seed: u64) {
    const LEN: usize = 1_000_000;
    let (stream, peer) = pair().await;
    let sent = pattern(LEN);
    let writer = {
        let sent = sent.clone();
        thread::spawn(move || {
            let (mut random, mut left) = (Random(seed), &sent[..]);
            while !left.is_empty() {
                let len = (1 + random.below(2000) as usize).min(left.len());
                write(&peer, &left[..len]);
                left = &left[len..];
                if random.below(8) == 0 {
                    thread::yield_now();
                }
            }
        })
    };
    let (mut random, mut got, mut cancelled) = (Random(seed + 1), Vec::new(), 0);
    loop {
        let way = match random.below(4) {
            0 => Way::Recv,
            1 => Way::Read(1 + random.below(100) as usize),
            2 => Way::Read(LENT),
            _ => Way::ReadExact(1 + random.below(3 * LENT as u64 / 2) as usize),
        };
        let mut call = Box::pin(receive(&stream, way));
        let mut received = None;
        for _ in 0..random.below(3) {
            if let Poll::Ready(done) = poll_once(&mut call).await {
                received = Some(done);
                break;
            }
            match random.below(3) {
                0 => {}
                1 => tamam::yield_now().await,
                _ => turn().await,
            }
        }
        match received {
            Some((bytes, end)) => {
                got.extend(bytes);
                match end {
                    None => {}
                    Some(end) => {
                        assert_eq!(end, EOF, "seed {seed}");
                        break;
                    }
                }
            }
            None if random.below(50) == 0 => std::mem::forget(call),
            None => cancelled += 1,
        }
        assert!(tamam::metrics().ops <= 1, "seed {seed}: one op in flight");
    }
    common::join(writer).await;
    assert_same(&got, &sent);
    assert!(cancelled > 0, "seed {seed}: no call was dropped");
}

#[test]
fn rx14_a_million_bytes_under_random_cancels() {
    let seed = Cell::new(1);
    for _ in 0..3 {
        common::everywhere(|| random_cancels(seed.replace(seed.get() + 1)));
    }
}

/// RX17. 8000 bytes through calls that are given a millisecond each: all arrive.
#[test]
fn rx17_timeouts_lose_nothing() {
    common::everywhere(|| async {
        let ways =
            [Way::Recv, Way::Read(100), Way::Read(LENT), Way::ReadExact(100), Way::ReadExact(4000)];
        for way in ways {
            let (stream, peer) = pair().await;
            let writer = thread::spawn(move || {
                let (mut random, sent) = (Random(17), pattern(8000));
                let mut left = &sent[..];
                while !left.is_empty() {
                    let len = (1 + random.below(300) as usize).min(left.len());
                    write(&peer, &left[..len]);
                    left = &left[len..];
                    thread::sleep(Duration::from_micros(random.below(2500)));
                }
                peer
            });
            let (mut got, mut elapsed) = (Vec::new(), 0);
            while got.len() < 8000 {
                match timeout(Duration::from_millis(1), receive(&stream, way)).await {
                    Ok((bytes, None)) => got.extend(bytes),
                    Ok((_, end)) => panic!("{end:?} after {} bytes", got.len()),
                    Err(_) => elapsed += 1,
                }
            }
            println!("{way:?}: {elapsed} timeouts");
            assert_same(&got, &pattern(8000));
            drop(common::join(writer).await);
        }
    });
}

/// RX17. 1 a call with a deadline waits; 2 the thread is busy past it, the bytes come, and the
/// runtime notices both; 3 in the next poll both are ready: the bytes win.
#[test]
fn rx17_the_value_wins() {
    common::everywhere(|| async {
        let ways = [Way::Recv, Way::Read(SMALL), Way::Read(LENT), Way::ReadExact(SMALL)];
        for way in ways {
            let (stream, peer) = pair().await;
            let mut limited = loop {
                let mut limited =
                    Box::pin(timeout(Duration::from_millis(1), receive(&stream, way)));
                // On a slow machine the deadline may pass before the first poll.
                if poll_once(&mut limited).await.is_pending() {
                    break limited;
                }
            };
            turn().await;
            thread::sleep(Duration::from_millis(5));
            completing(|| write(&peer, &pattern(SMALL))).await;
            assert_eq!(tamam::metrics().timers, 0, "the deadline has passed");
            let both = poll_once(&mut limited).await;
            assert_eq!(both, Poll::Ready(Ok((pattern(SMALL), None))), "{way:?}");
        }
    });
}

/// RX18. 1 the main task, then two others wait for one stream; 2 bytes arrive, all three are
/// woken; 3 the main task, which is polled first, aborts the second and drops its own call; 4 the
/// third returns the bytes.
#[test]
fn rx18_a_woken_reader_is_aborted() {
    common::everywhere(|| async {
        for way in [Way::Recv, Way::Read(SMALL), Way::Read(LENT), Way::ReadExact(3)] {
            for gone in Gone::BOTH {
                let (stream, peer) = pair().await;
                let stream = Rc::new(stream);
                let mine = start(receive(&stream, Way::Recv)).await;
                let reader = || {
                    let stream = stream.clone();
                    tamam::spawn(async move { receive(&stream, way).await })
                };
                let (aborted, other) = (reader(), reader());
                turn().await; // they wait
                write(&peer, b"abc");
                next_wake().await;
                assert!(!aborted.is_finished() && !other.is_finished(), "not polled yet");
                aborted.abort();
                gone.leave(mine);
                assert_eq!(other.await.expect("not aborted"), (b"abc".to_vec(), None), "{way:?}");
                assert!(aborted.await.expect_err("aborted before its poll").is_cancelled());
            }
        }
    });
}

/// Waits until something that the task was polled for wakes it.
async fn next_wake() {
    let mut woken = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut woken, true) {
        false => Poll::Pending,
        true => Poll::Ready(()),
    })
    .await;
}

/// RX18. Any number of readers, aborted at random as the bytes come: those that are left get every
/// byte that the aborted ones have not returned.
#[test]
fn rx18_random_aborts_lose_nothing() {
    common::everywhere(|| async {
        const LEN: usize = 20_000;
        let (stream, peer) = pair().await;
        let (stream, log) = (Rc::new(stream), Rc::new(RefCell::new(Vec::new())));
        let reader = |way: Way| {
            let (stream, log) = (stream.clone(), log.clone());
            tamam::spawn(async move {
                loop {
                    let (bytes, end) = receive(&stream, way).await;
                    log.borrow_mut().extend(bytes);
                    if end.is_some() {
                        return;
                    }
                }
            })
        };
        let writer = thread::spawn(move || {
            for piece in pattern(LEN).chunks(77) {
                write(&peer, piece);
                thread::yield_now();
            }
        });
        let (mut random, mut readers) = (Random(18), VecDeque::new());
        while log.borrow().len() < LEN {
            let way = WAYS[random.below(4) as usize];
            readers.push_back(reader(way));
            if readers.len() > 3 {
                readers.pop_front().expect("there are four").abort();
            }
            match random.below(2) {
                0 => tamam::yield_now().await,
                _ => turn().await,
            }
        }
        common::join(writer).await;
        for reader in readers {
            reader.await.expect("the last ones see the end");
        }
        assert_same(&log.borrow(), &pattern(LEN));
    });
}
