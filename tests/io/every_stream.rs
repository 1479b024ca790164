//! ST2: one function over every stream.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;

use tamam::Chunk;
use tamam::io::{Receive, Transmit, copy, read_to_end};

use crate::common::{Gone, assert_same, everywhere, pattern, poll_once};
use crate::{frames, on_every_stream};

/// Each call once, and what it promises.
async fn conversation<S: Receive + Transmit + 'static>(name: &str, (a, b): (S, S)) {
    let answering = tamam::spawn(async move {
        // What is given back comes first.
        let mut first = b.read_exact(Vec::with_capacity(11), 11).await.expect("it came");
        assert_eq!(first, b"hello world");
        b.unread(Chunk::from(first.split_off(5)));
        let rest = b.read_exact(Vec::with_capacity(6), 6).await.expect("it was given back");
        assert_eq!(rest, b" world");
        // Without room nothing is taken.
        let full = b.read(Vec::new()).await.expect_err("no room");
        assert_eq!(full.error().kind(), ErrorKind::InvalidInput);
        let (len, buf) = b.read(Vec::with_capacity(2)).await.expect("more came");
        assert!(len > 0 && b"xy".starts_with(&buf));
        if len == 1 {
            assert_eq!(&b.recv().await.expect("more came").expect("no end")[..], b"y");
        }
        b.send_all(Vec::new()).await.expect("nothing is sent at once");
        b.send_all("answer").await.expect("room");
        // The end comes too early for this one, and stays.
        let error = b.read_exact(Vec::with_capacity(9), 9).await.expect_err("the end");
        assert_eq!(error.error().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(error.into_parts().1, b"the end");
        assert!(b.recv().await.expect("no failure").is_none());
        assert_eq!(b.read(Vec::with_capacity(1)).await.expect("no failure").0, 0);
        // This direction goes on.
        b.send_all("last words").await.expect("open");
        b.shutdown().await.expect("the peer is there");
        b
    });
    let (sent, bufs) = a.sendv(vec!["hello", " ", "world"]).await.expect("room");
    assert_eq!((sent, bufs.len()), (11, 3), "{name}");
    assert_eq!(a.send("xy").await.expect("room").0, 2);
    let answer = a.read_exact(String::from("=").into_bytes_with_room(6), 6).await;
    assert_eq!(answer.expect("it came"), b"=answer", "{name}");
    a.send_all("the end").await.expect("room");
    a.shutdown().await.expect("the peer is there");
    let late = a.send_all(String::from("late")).await.expect_err("after the end");
    assert_eq!((late.error().kind(), &late.into_parts().1[..]), (ErrorKind::BrokenPipe, "late"));
    assert_eq!(read_to_end(&a, 100).await.expect("a clean end"), b"last words", "{name}");
    drop(answering.await.expect("no panic"));
}

trait WithRoom {
    fn into_bytes_with_room(self, room: usize) -> Vec<u8>;
}

impl WithRoom for String {
    fn into_bytes_with_room(self, room: usize) -> Vec<u8> {
        let mut bytes = self.into_bytes();
        bytes.reserve_exact(room);
        bytes
    }
}

#[test]
fn st2_one_function_serves_every_stream() {
    everywhere(|| async { on_every_stream!(conversation) });
}

/// References, `Rc`s and boxes are what they lead to.
async fn through_pointers<S: Receive + Transmit + 'static>(name: &str, (a, b): (S, S)) {
    let (a, b) = (Rc::new(a), Box::new(b));
    let echo = tamam::spawn(async move {
        let copied = copy(&b, &&b).await.expect("no failure");
        b.shutdown().await.expect("the peer is there");
        copied
    });
    let big = pattern(30_000);
    let (sender, sent) = (a.clone(), big.clone());
    let sending = tamam::spawn(async move {
        sender.send_all(sent).await.expect("the peer echoes");
        sender.shutdown().await.expect("the peer is there");
    });
    assert_same(&read_to_end(&a, 30_000).await.expect("a clean end"), &big);
    sending.await.expect("no panic");
    assert_eq!(echo.await.expect("no panic"), 30_000, "{name}");
}

#[test]
fn st2_more_than_there_is_room_for_goes_both_ways() {
    everywhere(|| async { on_every_stream!(through_pointers) });
}

#[test]
fn st2_dropped_futures_lose_nothing_and_send_nothing_twice() {
    let seed = Cell::new(0);
    everywhere(|| async {
        on_every_stream!(async |_: &str, (a, b)| {
            seed.set(seed.get() + 1);
            frames::survive(seed.get(), 8_000, a, b).await;
        });
    });
}

/// RX3, RX4: what reaches a future that is gone is first in the next call, of any kind.
async fn gone<S: Receive + Transmit>(name: &str, (a, b): (S, S)) {
    for gone in Gone::BOTH {
        let mut receiving = Box::pin(b.recv());
        assert!(poll_once(&mut receiving).await.is_pending(), "{name}");
        a.send_all("x").await.expect("room");
        gone.leave(receiving);
        let mut exact = Box::pin(b.read_exact(Vec::with_capacity(9), 9));
        assert!(poll_once(&mut exact).await.is_pending(), "{name}");
        gone.leave(exact);
        assert_eq!(&b.recv().await.expect("no failure").expect("no end")[..], b"x", "{name}");
    }
}

#[test]
fn st2_what_reached_a_future_that_is_gone_comes_first() {
    everywhere(|| async { on_every_stream!(gone) });
}
