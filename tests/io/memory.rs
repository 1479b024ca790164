//! ST3 to ST5: streams in memory.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tamam::Runtime;
use tamam::buf::IoBuf;
use tamam::io::{DuplexStream, Transmit, duplex, read_to_end};
use tamam::tls::rustls::version::TLS13;

use crate::common::foreign::ForeignWaker;
use crate::common::{Gone, at_once, everywhere, pattern, poll_once, start, with_both};
use crate::frames;
use crate::keys::tls_over;
use crate::kind;

/// Polls once, without a runtime.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The output of a future that is ready at once, without a runtime.
fn now<F: Future>(future: F) -> F::Output {
    match poll(&mut Box::pin(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it had to be ready in its first poll"),
    }
}

fn received(stream: &DuplexStream) -> Vec<u8> {
    now(stream.recv()).expect("no failure").map_or_else(Vec::new, Vec::from)
}

#[test]
fn st3_dropped_futures_lose_nothing_and_send_nothing_twice() {
    let seed = Cell::new(0);
    everywhere(|| async {
        for capacity in [0, 7, 1000, 64 * 1024] {
            seed.set(seed.get() + 1);
            let (a, b) = duplex(capacity);
            frames::survive(seed.get(), 100_000, a, b).await;
        }
    });
}

#[test]
fn st3_futures_that_are_forgotten_lose_nothing() {
    for gone in Gone::BOTH {
        let (a, b) = duplex(4);
        // One whose first byte was taken is carried out, one that waits is sent if it was forgotten.
        let mut begun = Box::pin(a.send_all("begun "));
        let mut waits = Box::pin(a.send_all("waits"));
        assert!(poll(&mut begun).is_pending() && poll(&mut waits).is_pending());
        gone.leave(begun);
        gone.leave(waits);
        assert_eq!(a.send_all("").now_is_ok(), "");
        let mut last = Box::pin(a.shutdown());
        assert!(poll(&mut last).is_pending());
        let mut exact = Box::pin(b.read_exact(Vec::with_capacity(100), 100));
        let end = now(&mut exact).expect_err("the end comes before");
        let expected: &[u8] = if gone == Gone::Dropped { b"begun " } else { b"begun waits" };
        assert_eq!(
            (end.error().kind(), end.into_parts().1),
            (ErrorKind::UnexpectedEof, expected.into())
        );
        now(last).expect("everything was taken");
    }
}

trait NowIsOk<T> {
    fn now_is_ok(self) -> T;
}

impl<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>> NowIsOk<T> for F {
    fn now_is_ok(self) -> T {
        now(self).expect("no failure")
    }
}

#[test]
fn st3_what_a_dropped_read_held_keeps_its_place() {
    let (a, b) = duplex(3);
    let mut exact = Box::pin(b.read_exact(Vec::with_capacity(8), 8));
    assert!(poll(&mut exact).is_pending());
    a.send_all("abcde").now_is_ok_later(|| assert!(poll(&mut exact).is_pending()));
    drop(exact);
    assert_eq!(received(&b), b"abcde", "what a read had gathered is one piece");
}

trait NowIsOkLater {
    fn now_is_ok_later(self, between: impl FnMut());
}

impl<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>> NowIsOkLater for F {
    /// Ready after `between`, at the latest.
    fn now_is_ok_later(self, mut between: impl FnMut()) {
        let mut future = Box::pin(self);
        let early = poll(&mut future);
        between();
        match early {
            Poll::Ready(result) => drop(result.expect("no failure")),
            Poll::Pending => drop(now(future).expect("no failure")),
        }
    }
}

#[test]
fn st3_sends_go_out_in_the_order_of_first_polls_and_wake_once() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let count = Arc::new(Count(0.into()));
    let waker = Waker::from(count.clone());
    let cx = &mut Context::from_waker(&waker);
    let (a, b) = duplex(2);
    let mut second = Box::pin(a.send_all("second"));
    let mut first = Box::pin(a.send_all("first "));
    assert!(first.as_mut().poll(cx).is_pending() && second.as_mut().poll(cx).is_pending());
    let mut all = Vec::new();
    while all.len() < 12 {
        all.extend(received(&b));
    }
    assert_eq!(all, b"first second");
    assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 2, "one wake each");
    assert!(first.as_mut().poll(cx).is_ready() && second.as_mut().poll(cx).is_ready());
}

/// G2: an arrival that comes while the waker is cloned wakes.
#[test]
fn st3_bytes_that_come_while_the_waker_is_cloned() {
    let (a, b) = duplex(10);
    let (a, sender) = (Rc::new(a), Cell::new(None));
    sender.set(Some(a.clone()));
    let foreign = ForeignWaker::new(move || {
        now(sender.take().expect("once").send_all("x")).expect("room");
    });
    let waker = foreign.waker();
    let mut receiving = Box::pin(b.recv());
    let early = receiving.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(early.is_pending() && foreign.take_wakes() > 0, "it is woken");
    assert!(now(receiving).expect("no failure").is_some());
    // The same for a send that waits for room.
    let (a, b) = duplex(1);
    now(a.send_all("1")).expect("room");
    let b = Rc::new(b);
    let taking = b.clone();
    let foreign = ForeignWaker::new(move || assert_eq!(received(&taking), b"1"));
    let waker = foreign.waker();
    let mut sending = Box::pin(a.send_all("2"));
    let early = sending.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(early.is_ready() || foreign.take_wakes() > 0, "it is woken");
    assert_eq!(received(&b), b"2");
}

/// Buffers and wakers are dropped when no borrow is held, whoever drops what in them.
#[test]
fn st3_a_buffer_may_hold_the_stream_itself() {
    struct Holds(Vec<u8>, #[expect(dead_code, reason = "it is only dropped")] Rc<DuplexStream>);
    // SAFETY: pointer and length are those of a Vec that is never changed, whose bytes stay in place
    // when it moves.
    unsafe impl IoBuf for Holds {
        fn ptr(&self) -> *const u8 {
            self.0.as_ptr()
        }
        fn len(&self) -> usize {
            self.0.len()
        }
    }
    for gone in Gone::BOTH {
        let (a, b) = duplex(1);
        let a = Rc::new(a);
        let mut sending = Box::pin({
            let holder = a.clone();
            async move { holder.send_all(Holds(b"two".to_vec(), holder.clone())).await.map(drop) }
        });
        assert!(poll(&mut sending).is_pending());
        drop(a);
        gone.leave(sending);
        let mut all = Vec::new();
        for _ in 0..3 {
            all.extend(received(&b));
        }
        assert_eq!(all, b"two");
        drop(b);
    }
}

#[test]
fn st4_so_many_bytes_wait_and_no_more() {
    let (a, b) = duplex(10);
    for digit in b"0123456789" {
        assert_eq!(a.send_all(vec![*digit]).now_is_ok(), [*digit]);
    }
    let mut more = Box::pin(a.send_all("abc"));
    assert!(poll(&mut more).is_pending(), "ten bytes wait");
    assert_eq!(received(&b), b"0");
    assert!(poll(&mut more).is_pending(), "there was room for one more");
    assert_eq!(received(&b), b"1");
    assert_eq!(received(&b), b"2");
    assert_eq!(now(more).expect("room"), "abc");
    // The other way has room of its own.
    assert_eq!(b.send_all("0123456789").now_is_ok(), "0123456789");
    // What is given back counts again.
    b.unread(tamam::Chunk::from(vec![0; 20]));
    assert!(poll(&mut Box::pin(a.send_all("x"))).is_pending());
}

#[test]
fn st4_a_read_of_more_than_there_is_room_for_ends() {
    everywhere(|| async {
        for capacity in [0, 1, 100] {
            let (a, b) = duplex(capacity);
            let big = pattern(10_000);
            let sent = big.clone();
            let sending = tamam::spawn(async move { a.send_all(sent).await.map(|_| a) });
            let got = b.read_exact(Vec::with_capacity(big.len()), big.len()).await;
            assert!(got.expect("all of it") == big);
            let _a = sending.await.expect("no panic").expect("room");
        }
    });
}

#[test]
fn st5_a_shutdown_follows_what_is_queued() {
    let (a, b) = duplex(4);
    let mut sending = Box::pin(a.send_all("question"));
    assert!(poll(&mut sending).is_pending());
    let mut ending = Box::pin(a.shutdown());
    assert!(poll(&mut ending).is_pending(), "four bytes have no room");
    drop(ending); // the end still follows
    assert_eq!(kind(now(a.send_all("late"))), ErrorKind::BrokenPipe);
    assert_eq!(read_to_end(&b, 100).now_is_ok(), b"question");
    now(sending).expect("it was taken");
    for _ in 0..2 {
        now(a.shutdown()).expect("it is done");
        assert!(received(&b).is_empty());
    }
    assert_eq!(b.send_all("answ").now_is_ok(), "answ");
    assert_eq!(received(&a), b"answ");
}

#[test]
fn st5_a_drop_is_the_end() {
    let (a, b) = duplex(4);
    let mut sending = Box::pin(a.send_all("question"));
    assert!(poll(&mut sending).is_pending());
    drop(sending);
    let mut lost = Box::pin(b.send_all("lost"));
    now(&mut lost).expect("room");
    let mut cut = Box::pin(b.send("xyz"));
    assert!(poll(&mut cut).is_pending());
    drop(a);
    assert_eq!(kind(now(cut)), ErrorKind::BrokenPipe);
    assert_eq!(kind(now(b.send_all("late"))), ErrorKind::BrokenPipe);
    assert_eq!(kind(now(b.shutdown())), ErrorKind::BrokenPipe, "a send was cut off");
    assert_eq!(read_to_end(&b, 100).now_is_ok(), b"question");

    let (a, b) = duplex(4);
    drop(a);
    now(b.shutdown()).expect("nothing was cut off");
    assert_eq!(kind(now(b.send_all("late"))), ErrorKind::BrokenPipe);
    assert!(received(&b).is_empty());
    // A part of it was taken: `send` says how much, `send_all` why not all.
    let (a, b) = duplex(4);
    let (mut some, mut all) = (Box::pin(b.send("123456")), Box::pin(b.send_all("7")));
    assert!(poll(&mut some).is_pending() && poll(&mut all).is_pending());
    drop(a);
    assert_eq!(now(some).expect("four bytes went out").0, 4);
    assert_eq!(now(all).expect_err("none went out").into_parts().1, "7");
}

#[test]
fn st5_an_aborted_end_is_a_reset() {
    let (a, b) = duplex(4);
    let mut cut = Box::pin(b.send_all("12345"));
    assert!(poll(&mut cut).is_pending());
    a.send_all("abcd").now_is_ok();
    a.abort_on_drop();
    let waiting = RefCell::new(Box::pin(b.read_exact(Vec::with_capacity(9), 9)));
    assert!(poll(&mut *waiting.borrow_mut()).is_pending());
    drop(a);
    assert_eq!(kind(now(cut)), ErrorKind::ConnectionReset);
    let error = now(waiting.into_inner()).expect_err("reset");
    assert_eq!(error.error().kind(), ErrorKind::ConnectionReset);
    assert_eq!(error.into_parts().1, b"abcd", "what came before");
    for _ in 0..2 {
        assert_eq!(kind(now(b.recv())), ErrorKind::ConnectionReset);
        assert_eq!(kind(now(b.send_all("x"))), ErrorKind::ConnectionReset);
    }
    let (a, b) = duplex(4);
    a.abort_on_drop();
    drop(a);
    assert_eq!(kind(now(b.shutdown())), ErrorKind::NotConnected);
}

/// It needs no runtime, also where one has ended.
#[test]
fn st5_a_stream_in_memory_outlives_every_runtime() {
    with_both(Runtime::builder(), || async {
        let (a, b) = duplex(4);
        let mut receiving = start(b.recv()).await;
        a.send_all("1").await.expect("room");
        assert!(poll_once(&mut receiving).await.is_ready());
        let thread = std::thread::spawn(|| {
            let (a, b) = duplex(4);
            let mut sending = Box::pin(a.send_all("12345678"));
            assert!(poll(&mut sending).is_pending());
            let got = now(b.read_exact(Vec::with_capacity(8), 8)).expect("all of it");
            assert!(now(sending).is_ok());
            got
        });
        assert_eq!(thread.join().expect("no panic"), b"12345678");
    });
}

/// TLS over memory: the promises are those over sockets; the runtime is that of the handshake.
#[test]
fn st5_tls_over_memory() {
    everywhere(|| async {
        let (client, server) = tls_over(&TLS13, duplex(100)).await;
        let mut sending = Box::pin(client.send_all(pattern(100_000)));
        assert!(poll_once(&mut sending).await.is_pending());
        drop(sending);
        let received = server.read_exact(Vec::with_capacity(100_000), 100_000).await;
        assert!(received.expect("all of it") == pattern(100_000));
        drop(client);
        assert_eq!(kind(server.recv().await), ErrorKind::UnexpectedEof);
        assert_eq!(kind(at_once(server.send_all("late")).await), ErrorKind::BrokenPipe);
    });
    let connector = tamam::tls::TlsConnector::from(crate::keys::client_config(&TLS13, false));
    let error = now(connector.connect(crate::keys::NAME, duplex(9).0)).expect_err("no runtime");
    assert!(error.to_string().contains("no tamam runtime"), "{error}");
}
