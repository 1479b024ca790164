//! Frames that can be told from one another, sent and received by futures most of which are dropped.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tamam::io::{Receive, Transmit};
use tamam::time::timeout;

use crate::common::Random;

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
pub async fn survive<S: Transmit + 'static>(
    seed: u64,
    total: usize,
    sender: S,
    receiver: impl Receive,
) {
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
