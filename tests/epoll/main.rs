//! Completions made of readiness (SEMANTICS EP1 to EP6): a descriptor is registered once and leaves
//! before it is closed, no edge is missed, no flag is believed, and what was begun goes on without
//! any task. Whatever a user can see of it must be the same in the ring, so most of this runs there
//! too.

#[path = "../common/mod.rs"]
mod common;

mod registration;
mod edges;
mod flags;
mod unwatchable;
mod without_a_task;
mod large_sends;

use std::io::Write;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::thread;

use common::{Gone, PATIENCE, assert_same, pattern, start, turn};
use tamam::net::{TcpListener, TcpStream};

/// More than the kernel holds between the two ends of [`common::narrow_pair`].
const STALLING: usize = 1 << 20;

/// A std peer of a stream that std made too, so that nothing is known of its descriptor yet.
fn unknown_pair() -> (TcpStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let stream = StdStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (peer, _) = listener.accept().expect("it is there");
    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    peer.set_nodelay(true).expect("a TCP socket");
    (TcpStream::from_std(stream).expect("inside a runtime"), peer)
}

/// Runs something on another thread, while the runtime sleeps and no timer rouses it; how many turns
/// and polls of tasks that took.
async fn asleep<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (T, u64, u64) {
    turn().await;
    turn().await; // what was woken has been polled
    let (done, answer) = tokio::sync::oneshot::channel();
    let before = tamam::metrics();
    let thread = thread::spawn(move || {
        let output = work();
        assert!(done.send(output).is_ok(), "somebody waits");
    });
    let output = answer.await.expect("the thread does not panic");
    let after = tamam::metrics();
    common::join(thread).await;
    (output, after.turns - before.turns, after.polls - before.polls)
}

/// Ten streams and a listener wait again and again, in both directions; an eleventh stream never has
/// to wait. Gives how many descriptors have waited.
async fn waits() -> usize {
    const STREAMS: usize = 10;
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    for number in 0..=STREAMS {
        let accept = start(listener.accept()).await;
        let mut peer = StdStream::connect(addr).expect("it listens");
        let (stream, _) = accept.await.expect("a connection");
        if number == STREAMS {
            for _ in 0..10 {
                stream.send_all("x").await.expect("it fits");
            }
            peer.write_all(b"y").expect("connected");
            common::wait_for(&stream, libc::POLLIN);
            common::at_once(stream.recv()).await.expect("no reset").expect("a byte");
            break;
        }
        for round in 0..10 {
            let recv = start(stream.recv()).await;
            peer.write_all(b"y").expect("connected");
            recv.await.expect("no reset").expect("a byte");
            if round == 5 && number < 3 {
                let send = start(stream.send_all(pattern(STALLING * 16))).await;
                let (back, bytes) = common::read_some(peer, STALLING * 16).await;
                peer = back;
                assert_same(&bytes, &pattern(STALLING * 16));
                send.await.expect("the peer reads");
            }
        }
        Gone::BOTH[number % 2].leave(start(stream.recv()).await);
        drop(stream);
        turn().await;
    }
    STREAMS + 1
}
