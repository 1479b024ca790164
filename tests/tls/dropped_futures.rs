//! TL13 to TL17: futures that are dropped or forgotten, and streams.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tamam::Runtime;
use tamam::time::timeout;
use tamam::tls::rustls::version::{TLS12, TLS13};

use crate::common::{Random, everywhere};
use crate::keys::{narrow_tcp_pair, tcp_pair};
use crate::{common, pair_over, receive_all};

/// What a frame of this number holds: its length, its number, and bytes that belong to it.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + len);
    bytes.extend((len as u32).to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend((0..len).map(|at| (at as u32).wrapping_mul(number | 1).to_le_bytes()[1]));
    bytes
}

/// Drops a future after some polls, or when it is done.
async fn for_a_while<F: Future>(random: &mut Random, future: F) -> Option<F::Output> {
    if random.below(2) == 0 {
        return timeout(Duration::from_micros(random.below(300)), future).await.ok();
    }
    let (mut future, mut polls) = (pin!(future), random.below(4));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending if polls == 0 => std::task::Poll::Ready(None),
        std::task::Poll::Pending => {
            polls -= 1;
            std::task::Poll::Pending
        }
    })
    .await
}

/// 1 frames are sent, most futures dropped on the way; 2 as are those that receive; 3 what arrives
/// is whole frames, in order, and all those whose futures said so.
async fn frames_survive(seed: u64, total: usize, narrow: bool) {
    let version = if seed % 2 == 0 { &TLS13 } else { &TLS12 };
    let tcp = if narrow { narrow_tcp_pair().await } else { tcp_pair().await };
    let (sender, receiver) = pair_over(version, tcp).await;
    let confirmed = Rc::new(RefCell::new(Vec::new()));
    let (told, random) = (confirmed.clone(), Rc::new(Cell::new(seed + 1)));
    let sending = tamam::spawn(async move {
        let mut random = Random(random.get());
        let (mut sent, mut number) = (0, 0);
        while sent < total {
            let len = match random.below(8) {
                0 => random.below(300_000),
                1 | 2 => random.below(40_000),
                _ => random.below(1000),
            };
            let bytes = frame(number, len as usize);
            let len = bytes.len();
            let result = match random.below(3) {
                0 => for_a_while(&mut random, sender.send_all(bytes)).await.map(|result| {
                    result.expect("the peer reads");
                }),
                1 => for_a_while(&mut random, sender.send(bytes)).await.map(|result| {
                    assert_eq!(result.expect("the peer reads").0, len);
                }),
                _ => {
                    let (head, tail) = bytes.split_at(len / 2);
                    let bufs = vec![head.to_vec(), tail.to_vec()];
                    for_a_while(&mut random, sender.sendv(bufs)).await.map(|result| {
                        assert_eq!(result.expect("the peer reads").0, len);
                    })
                }
            };
            if result.is_some() {
                told.borrow_mut().push(number);
                sent += len;
            } else {
                sent += len / 8; // perhaps it is sent
                tamam::yield_now().await;
            }
            number += 1;
        }
        sender.shutdown().await.expect("the peer reads");
        sender
    });
    let mut random = Random(seed + 1000);
    let mut received = Vec::new();
    loop {
        let piece = match random.below(4) {
            0 => {
                let room = 1 + random.below(100_000) as usize;
                let reading = receiver.read(Vec::with_capacity(room));
                let piece = for_a_while(&mut random, reading).await;
                piece.map(|result| result.expect("no failure").1)
            }
            1 => {
                let len = 1 + random.below(20_000) as usize;
                let reading = receiver.read_exact(Vec::with_capacity(len), len);
                match for_a_while(&mut random, reading).await {
                    Some(Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                        Some(error.into_parts().1) // the last bytes of all
                    }
                    other => other.map(|result| result.expect("just seen")),
                }
            }
            _ => {
                let receiving = receiver.recv();
                let piece = for_a_while(&mut random, receiving).await;
                piece.map(|result| result.expect("no failure").map_or(Vec::new(), Vec::from))
            }
        };
        match piece {
            Some(piece) if piece.is_empty() => break,
            Some(piece) => received.extend(piece),
            None => tamam::yield_now().await,
        }
    }
    let _sender = sending.await.expect("no panic");
    let (mut rest, mut arrived) = (&received[..], Vec::new());
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[..4].try_into().expect("four bytes")) as usize;
        let number = u32::from_le_bytes(rest[4..8].try_into().expect("four bytes"));
        assert!(rest[..8 + len] == frame(number, len), "frame {number} is not whole, seed {seed}");
        assert!(arrived.last().is_none_or(|last| *last < number), "in order, seed {seed}");
        arrived.push(number);
        rest = &rest[8 + len..];
    }
    let missing = confirmed.borrow().iter().find(|number| !arrived.contains(number)).copied();
    assert_eq!(missing, None, "confirmed and not there, seed {seed}");
}

#[test]
fn tl13_dropped_futures_lose_nothing_and_send_nothing_twice() {
    let seed = Cell::new(0);
    everywhere(|| {
        seed.set(seed.get() + 1);
        frames_survive(seed.get(), 100_000, false)
    });
    common::with_both(Runtime::builder(), || async {
        for seed in 0..6 {
            frames_survive(seed, 300_000, true).await;
        }
    });
    common::with_both(Runtime::builder(), || frames_survive(77, 10 << 20, false));
}

#[test]
fn tl14_a_send_that_is_dropped_midway_goes_on_by_itself() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let big = common::pattern(2 << 20);
        {
            let mut sending = pin!(client.send_all(big.clone()));
            assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
            // One that has not had its turn leaves nothing behind.
            let mut never = pin!(client.send_all("never"));
            assert!(timeout(Duration::from_millis(1), never.as_mut()).await.is_err());
        }
        let received = server.read_exact(Vec::with_capacity(big.len()), big.len()).await;
        assert!(received.expect("all of it") == big);
        client.send_all("next").await.expect("sent");
        let next = server.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
        assert_eq!(next, b"next");
    });
}

#[test]
fn tl15_a_send_that_is_forgotten_goes_on_with_the_next() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let client = Rc::new(client);
        let big = common::pattern(1 << 20);
        // Leaked with the stream's count that it holds, hence the short way to end it below.
        let mut sending = Box::pin({
            let (client, big) = (client.clone(), big.clone());
            async move { client.send_all(big).await.map(drop) }
        });
        assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
        let other = client.clone();
        let next = tamam::spawn(async move { other.send_all("next").await.map(drop) });
        let reading = Rc::new(RefCell::new(sending)); // neither polled nor dropped
        let received = server.read_exact(Vec::with_capacity(big.len()), big.len()).await;
        assert!(received.expect("all of it") == big);
        let received = server.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
        assert_eq!(received, b"next");
        next.await.expect("no panic").expect("sent");
        drop(reading);
    });
}

#[test]
fn tl16_the_end_follows_what_is_queued_whoever_waits() {
    everywhere(|| async {
        for way in 0..3 {
            let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
            let big = common::pattern(1 << 20);
            let sent = big.clone();
            let (read, write) = client.into_split();
            let started = timeout(Duration::from_millis(5), write.send_all(sent)).await;
            assert!(started.is_err(), "nobody reads yet");
            match way {
                0 => drop(write),
                1 => {
                    let ended = timeout(Duration::from_millis(1), write.shutdown()).await;
                    assert!(ended.is_err(), "nobody reads yet");
                    let late = write.send_all("late").await.expect_err("after the end");
                    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
                    write.forget();
                }
                _ => {
                    let whole = read.reunite(write).expect("of one stream");
                    let receiving = tamam::spawn(async move { receive_all(&server).await });
                    whole.shutdown().await.expect("the peer reads");
                    let received = receiving.await.expect("no panic").expect("a clean end");
                    assert!(received == big);
                    continue;
                }
            }
            assert!(receive_all(&server).await.expect("a clean end") == big);
            server.send_all("still there").await.expect("sent");
            let answer = read.read_exact(Vec::with_capacity(11), 11).await.expect("sent");
            assert_eq!(answer, b"still there");
        }
    });
}

#[test]
fn tl17_a_dropped_stream_leaves_nothing_behind() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let big = common::pattern(1 << 20);
        assert!(timeout(Duration::from_millis(5), client.send_all(big)).await.is_err());
        drop(client);
        let error = receive_all(&server).await.expect_err("cut off");
        assert!(
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
            "{error}"
        );
    });
}
