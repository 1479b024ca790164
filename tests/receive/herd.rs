//! G2 with very many futures: each is registered and removed in constant time.
//!
//! Timing gates nothing here; but with a search for each, these would take hours.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tamam::Runtime;

use crate::common::{self, turn, with_both};
use crate::family;

const MANY: usize = 1_000_000;

/// Polls many futures once each, then drops them, the last one first.
fn poll_and_drop<F: Future>(make: impl Fn() -> F, many: usize) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let mut waiting: Vec<Pin<Box<F>>> = (0..many).map(|_| Box::pin(make())).collect();
    let pending = |future: &mut Pin<Box<F>>| future.as_mut().poll(&mut cx).is_pending();
    let count = waiting.iter_mut().map(pending).filter(|pending| *pending).count();
    while let Some(future) = waiting.pop() {
        drop(future);
    }
    count
}

#[test]
fn g2_a_million_receivers_come_and_go() {
    with_both(Runtime::builder(), || async {
        let (stream, _peer) = family::pair().await;
        assert_eq!(poll_and_drop(|| stream.recv(), MANY), MANY);
        let listener = tamam::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let accept = || Box::pin(listener.accept());
        assert_eq!(poll_and_drop(accept, MANY), MANY);
        turn().await;
    });
}

/// Ten thousand tasks wait; an arrival wakes all, and one gets it.
#[test]
fn g2_an_arrival_wakes_ten_thousand() {
    with_both(Runtime::builder(), || async {
        let (stream, mut peer) = family::pair().await;
        let stream = Rc::new(stream);
        let receivers: Vec<_> = (0..10_000)
            .map(|_| {
                let stream = stream.clone();
                tamam::spawn(async move {
                    stream.recv().await.expect("no reset").map_or(0, |chunk| chunk.len())
                })
            })
            .collect();
        turn().await;
        std::io::Write::write_all(&mut peer, b"x").expect("connected");
        turn().await;
        drop(peer);
        let mut bytes = 0;
        for receiver in receivers {
            bytes += receiver.await.expect("no panic");
        }
        assert_eq!(bytes, 1);
    });
}

#[test]
fn tx1_half_a_million_sends_wait_behind_one() {
    with_both(Runtime::builder(), || async {
        let (stream, _peer) = family::narrow_pair().await;
        let mut stalled = Box::pin(stream.send_all(common::pattern(64 << 20)));
        assert!(matches!(common::poll_once(&mut stalled).await, Poll::Pending));
        let queued = poll_and_drop(|| stream.send_all(vec![1_u8; 10]), 500_000);
        assert_eq!(queued, 500_000);
        family::discard(&stream);
    });
}
