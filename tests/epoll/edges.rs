//! EP2: no edge is missed.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tamam::Runtime;
use tamam::net::TcpStream;
use tamam::time::timeout;

use crate::common::{
    Gone, Random, assert_same, everywhere, pattern, poll_once, start, turn, with, with_both,
};
use crate::{common, unknown_pair};

/// Receives in every way, in pieces of all sizes, some of whose futures are left.
async fn receive_some(stream: &TcpStream, random: &mut Random, received: &mut Vec<u8>) -> bool {
    let room = random_room(random);
    let gone = Gone::BOTH[random.below(2) as usize];
    match random.below(8) {
        0 => {
            let mut recv = Box::pin(stream.recv());
            match poll_once(&mut recv).await {
                Poll::Pending => gone.leave(recv),
                Poll::Ready(chunk) => match chunk.expect("no reset") {
                    Some(chunk) => received.extend_from_slice(&chunk),
                    None => return false,
                },
            }
        }
        1 => {
            let mut read = Box::pin(stream.read(Vec::with_capacity(room)));
            match poll_once(&mut read).await {
                Poll::Pending => gone.leave(read),
                Poll::Ready(read) => received.extend(read.expect("no reset").1),
            }
        }
        2..5 => match stream.recv().await.expect("no reset") {
            Some(chunk) => received.extend_from_slice(&chunk),
            None => return false,
        },
        5..7 => {
            let (len, bytes) = stream.read(Vec::with_capacity(room)).await.expect("no reset");
            received.extend(bytes);
            return len > 0;
        }
        _ => match stream.read_exact(Vec::with_capacity(room), room).await {
            Ok(bytes) => received.extend(bytes),
            Err(error) => {
                let (error, bytes) = error.into_parts();
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                received.extend(bytes);
                return false;
            }
        },
    }
    true
}

/// Mostly little, so that what comes fills it to the last byte as often as not.
fn random_room(random: &mut Random) -> usize {
    let most = [2, 4, 40, 10_000][random.below(4) as usize];
    1 + random.below(most) as usize
}

/// A peer that writes single bytes: each receive may be full, short or in vain, and each byte may
/// come right behind it. None is lost, none is waited for in vain.
#[test]
fn ep2_a_million_single_bytes() {
    for (number, (name, builder)) in common::engines().into_iter().enumerate() {
        // The rungs of the ring have their own tests.
        let len = match name {
            "epoll" => 1 << 20,
            "ring" | "epoll with one buffer of 16 bytes" => 1 << 18,
            _ => continue,
        };
        eprintln!("-- {name}");
        with(builder, || async move {
            let (stream, mut peer) = common::pair().await;
            let writer = thread::spawn(move || {
                for byte in pattern(len) {
                    peer.write_all(&[byte]).expect("connected");
                }
            });
            let (mut received, mut random) = (Vec::new(), Random(number as u64 + 1));
            while receive_some(&stream, &mut random, &mut received).await {}
            assert_same(&received, &pattern(len));
            common::join(writer).await;
        });
    }
}

/// As above, one byte at a time, and the next comes only when the last was received: an edge that is
/// missed is a hang.
#[test]
fn ep2_every_byte_is_an_edge() {
    with_both(Runtime::builder(), || async {
        let (stream, peer) = common::pair().await;
        let mut echo = peer.try_clone().expect("a descriptor is left");
        let answering = thread::spawn(move || {
            let mut byte = [0];
            while let Ok(1) = echo.read(&mut byte) {
                if echo.write_all(&byte).is_err() {
                    break;
                }
            }
        });
        for number in 0..20_000u32 {
            let byte = number as u8;
            stream.send_all(vec![byte]).await.expect("connected");
            let room = Vec::with_capacity([1, 2, 8192][number as usize % 3]);
            let (len, bytes) = stream.read(room).await.expect("no reset");
            assert_eq!((len, &bytes[..]), (1, &[byte][..]));
        }
        drop((stream, peer));
        turn().await;
        common::join(answering).await;
    });
}

/// Urgent data ends a receive early though more is there: what is behind the mark comes without
/// another edge.
#[test]
fn ep2_a_receive_that_ends_at_an_urgent_mark() {
    let test = || async {
        for waits in [false, true] {
            for is_large in [false, true] {
                let (stream, mut peer) = common::pair().await;
                if waits {
                    // Known to the engine, and nothing in flight.
                    let recv = start(stream.recv()).await;
                    peer.write_all(b"first").expect("connected");
                    recv.await.expect("no reset").expect("bytes");
                }
                peer.write_all(b"before").expect("connected");
                // SAFETY: pointer and length are those of one byte.
                let sent =
                    unsafe { libc::send(peer.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
                assert_eq!(sent, 1);
                peer.write_all(b"behind").expect("connected");
                common::wait_for(&stream, libc::POLLIN);
                thread::sleep(Duration::from_millis(5));
                let mut received = Vec::new();
                while received.len() < 12 {
                    if is_large {
                        let read = stream.read(Vec::with_capacity(64 * 1024));
                        let read = timeout(Duration::from_secs(5), read).await;
                        received.extend(read.expect("it is there").expect("no reset").1);
                    } else {
                        let chunk = timeout(Duration::from_secs(5), stream.recv()).await;
                        let chunk = chunk.expect("it is there").expect("no reset");
                        received.extend_from_slice(&chunk.expect("not the end"));
                    }
                }
                assert_eq!(received, b"beforebehind", "waits: {waits}, is_large: {is_large}");
            }
        }
    };
    for (name, builder) in common::both(&Runtime::builder()) {
        eprintln!("-- {name}");
        // The kernel's work for a ring that was dropped on this thread a moment ago would be pending
        // here like a signal. With one pending, recv(2) at the mark says EAGAIN though there is more
        // (tcp_recvmsg), and with the next segment it comes.
        let thread = thread::spawn(move || common::with(builder, test));
        thread.join().expect("as expected");
    }
}

/// Bytes and the end come together, before the engine knows the socket, while a receive waits, or
/// between two: short receives take the bytes, and the end is there without another edge. A peer
/// that is gone for good (`Both`) is no different.
#[test]
fn ep2_the_end_behind_the_bytes() {
    everywhere(|| async {
        for how in [Shutdown::Write, Shutdown::Both] {
            for moment in 0..3 {
                for room in [1, 7, 100, 10_000] {
                    let (stream, mut peer) = unknown_pair();
                    let mut finish = || {
                        peer.write_all(&pattern(100)).expect("connected");
                        peer.shutdown(how).expect("connected");
                    };
                    match moment {
                        0 => finish(),
                        1 => {
                            drop(start(stream.recv()).await);
                            turn().await;
                            finish();
                        }
                        _ => {
                            drop(start(stream.recv()).await);
                            turn().await;
                            finish();
                            common::wait_for(&stream, libc::POLLIN);
                            common::settle().await;
                        }
                    }
                    let mut received = Vec::new();
                    loop {
                        let read = stream.read(Vec::with_capacity(room));
                        let (len, bytes) = read.await.expect("no reset");
                        if len == 0 {
                            break;
                        }
                        received.extend(bytes);
                    }
                    assert_same(&received, &pattern(100));
                    for _ in 0..3 {
                        let end = common::at_once(stream.recv()).await;
                        assert!(end.expect("no reset").is_none());
                    }
                }
            }
        }
    });
}
