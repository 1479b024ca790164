//! RX19: the runtime has gone, or another one polls.

use std::future::Future;
use std::io::{ErrorKind, Read};
use std::net::TcpStream as StdStream;
use std::pin::pin;
use std::task::Poll;

use tamam::{Builder, Runtime};

use crate::common::{Gone, assert_same, at_once, pattern, start, turn};
use crate::family::{Stream, pair};
use crate::{EOF, LENT, SMALL, WAYS, Way, assert_waits, common, next, receive, write};

/// Builds a runtime with an open connection in it, whose stream is to outlive it.
fn outliving(builder: Builder) -> (Runtime, Stream, StdStream) {
    let runtime = common::build(builder);
    let (stream, peer) = runtime.block_on(pair());
    (runtime, stream, peer)
}

/// Polls a future outside of any runtime.
fn poll_outside<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

/// RX19. 1 100 bytes are parked, or what a pool has room for; 2 the runtime is dropped; 3 the bytes
/// can be read by any way, in no runtime or in another; 4 then every call fails; 5 what was not
/// received is in the socket.
#[test]
fn rx19_parked_bytes_outlive_the_runtime() {
    for (name, builder) in common::engines() {
        for parked_by in [Way::Recv, Way::ReadExact(1000), Way::ReadExact(LENT)] {
            for way in [Way::Recv, Way::Read(10), Way::Read(LENT), Way::ReadExact(10)] {
                for elsewhere in [false, true] {
                    let (runtime, stream, peer) = outliving(builder.clone());
                    let parked = runtime.block_on(park_hundred(&stream, &peer, parked_by));
                    drop(runtime);
                    let other = elsewhere.then(|| common::build(Runtime::builder()));
                    let call = |way| match &other {
                        Some(other) => other.block_on(at_once(receive(&stream, way))),
                        None => outside(receive(&stream, way)),
                    };
                    let mut got = Vec::new();
                    while got.len() + way_min(way) <= parked {
                        let (bytes, end) = call(way);
                        assert_eq!(end, None, "{name}, {way:?}, after {} bytes", got.len());
                        got.extend(bytes);
                    }
                    while got.len() < parked {
                        got.extend(call(Way::Recv).0); // less than `read_exact` wants
                    }
                    assert_same(&got, &pattern(100)[..parked]);
                    for way in WAYS {
                        assert_eq!(call(way), (Vec::new(), Some(ErrorKind::Other)), "{name}");
                    }
                    drop(peer);
                    got.extend(left_in_socket(stream));
                    assert_same(&got, &pattern(100));
                }
            }
        }
    }
}

/// How many bytes a call waits for.
fn way_min(way: Way) -> usize {
    match way {
        Way::Recv | Way::Read(_) => 1,
        Way::ReadExact(len) => len,
    }
}

/// Receives 100 bytes that no call takes, as far as there is a buffer for them; how many.
async fn park_hundred(stream: &Stream, peer: &StdStream, parked_by: Way) -> usize {
    let mut call = start(receive(stream, parked_by)).await;
    turn().await;
    write(peer, &pattern(100));
    while common::unread(stream) > 0 && tamam::metrics().ops > 0 {
        turn().await;
        if parked_by != Way::Recv {
            assert_waits(&mut call).await;
        }
    }
    100 - common::unread(stream)
}

/// The answer of a future that needs no runtime.
fn outside<F: Future>(future: F) -> F::Output {
    match poll_outside(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits for a runtime that is gone"),
    }
}

/// What the kernel holds for a stream that has nothing parked.
fn left_in_socket(stream: Stream) -> Vec<u8> {
    let (mut socket, unread) = stream.into_std().expect("nothing is in flight");
    assert!(unread.is_empty(), "all that was parked has been read");
    socket.set_nonblocking(false).expect("a socket");
    let mut left = Vec::new();
    socket.read_to_end(&mut left).expect("no reset");
    left
}

/// RX19. 1 calls of all kinds wait, or none; 2 bytes are in the kernel; 3 the runtime is dropped;
/// 4 what its teardown received is readable, the rest is in the socket: together it is all.
#[test]
fn rx19_teardown_loses_no_byte_that_is_on_the_way() {
    for (name, builder) in common::engines() {
        for armed in [None, Some(Way::Recv), Some(Way::Read(LENT)), Some(Way::ReadExact(LENT))] {
            for gone in Gone::BOTH {
                let _watchdog = common::Watchdog::start();
                let (runtime, stream, peer) = outliving(builder.clone());
                runtime.block_on(async {
                    if let Some(way) = armed {
                        gone.leave(start(receive(&stream, way)).await);
                    }
                });
                write(&peer, &pattern(100));
                drop(peer);
                drop(runtime);
                let mut got = Vec::new();
                loop {
                    let (bytes, end) = outside(receive(&stream, Way::Recv));
                    got.extend(bytes);
                    if let Some(end) = end {
                        assert!(end == ErrorKind::Other || end == EOF, "{name}: {end:?}");
                        break;
                    }
                }
                got.extend(left_in_socket(stream));
                assert_eq!(got, pattern(100), "{name}, {armed:?}, {gone:?}");
            }
        }
    }
}

/// RX19. 1 a call waits; 2 its runtime is dropped; 3 the call fails and names the reason; a `read`
/// gives its buffer back, with what it held.
#[test]
fn rx19_a_waiting_call_gets_its_buffer_back() {
    common::alone("after_the_runtime::rx19_a_waiting_call_gets_its_buffer_back", || {
        for (name, builder) in common::engines() {
            for room in [SMALL, LENT] {
                for exact in [false, true] {
                    let _watchdog = common::Watchdog::start();
                    let (runtime, stream, _peer) = outliving(builder.clone());
                    let mut buf = Vec::with_capacity(3 + room);
                    buf.extend(b"abc");
                    let at = buf.as_ptr();
                    let mut call = Box::pin(async {
                        match exact {
                            false => stream.read(buf).await.map(|(_, buf)| buf),
                            true => stream.read_exact(buf, room).await,
                        }
                    });
                    let mut recv = Box::pin(stream.recv());
                    runtime.block_on(async {
                        assert_waits(&mut call).await;
                        assert_waits(&mut recv).await;
                        turn().await;
                    });
                    drop(runtime);
                    let Poll::Ready(Err(error)) = poll_outside(call) else {
                        panic!("{name}: no error")
                    };
                    let (error, buf) = error.into_parts();
                    assert_eq!(
                        (&buf[..], buf.as_ptr(), buf.capacity()),
                        (&b"abc"[..], at, 3 + room)
                    );
                    assert_eq!(
                        (error.kind(), &*error.to_string()),
                        (ErrorKind::Other, "its tamam runtime is gone")
                    );
                    let Poll::Ready(Err(error)) = poll_outside(recv) else {
                        panic!("{name}: no error")
                    };
                    assert_eq!(error.to_string(), "its tamam runtime is gone");
                }
            }
        }
    });
}

/// RX19, G8. A `read` that waits is polled while its runtime lives but does not turn: the error
/// comes with the buffer, and bytes that come later are the stream's.
#[test]
fn rx19_a_waiting_call_is_polled_elsewhere() {
    for (name, builder) in common::engines() {
        for way in WAYS {
            let _watchdog = common::Watchdog::start();
            let (runtime, stream, peer) = outliving(builder.clone());
            let mut call = Box::pin(receive(&stream, way));
            runtime.block_on(async {
                assert_waits(&mut call).await;
                turn().await;
            });
            let received = poll_outside(&mut call);
            assert_eq!(
                received,
                Poll::Ready((Vec::new(), Some(ErrorKind::Other))),
                "{name} {way:?}"
            );
            write(&peer, &pattern(100));
            let other = common::build(Runtime::builder());
            let received = other.block_on(receive(&stream, way));
            assert_eq!(received, (Vec::new(), Some(ErrorKind::Other)), "{name} {way:?}");
            drop(call);
            assert_same(&runtime.block_on(next(&stream, 100)), &pattern(100));
        }
    }
}
