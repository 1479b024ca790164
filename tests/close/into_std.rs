//! CL12: conversions take every received byte along.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use tamam::buf::IoBuf;
use tamam::time::timeout;

use crate::common::{Gone, PATIENCE, assert_same};
use crate::family::{self, Stream};
use crate::{STALLING, blocking_read, blocking_read_to_end, both, common, park, until_unread};

/// How bytes come to be parked.
#[derive(Clone, Copy, Debug)]
enum Parking {
    Recv(Gone),
    /// Into a buffer larger than a pooled one.
    LargeRead(Gone),
    /// Part of what it wants is there.
    ReadExact(Gone),
    /// Some were taken, the rest is parked.
    TakenInPart,
    /// They came in several pieces.
    Pieces,
}

/// CL12. 1 100 bytes are parked, in every way; 2 the stream is converted; 3 the peer sends 100
/// more: those in the Vec and those in the socket are all 200, in order. The socket stays
/// non-blocking, nothing is in flight.
#[test]
fn cl12_into_std_takes_every_byte_along() {
    let both = Gone::BOTH;
    let parkings = (both.map(Parking::Recv).into_iter())
        .chain(both.map(Parking::LargeRead))
        .chain(both.map(Parking::ReadExact))
        .chain([Parking::TakenInPart, Parking::Pieces]);
    for (parking, turned) in parkings.flat_map(|parking| [(parking, false), (parking, true)]) {
        common::everywhere(|| async move {
            println!("{parking:?}, a turn before the conversion: {turned}");
            let (stream, mut peer) = family::pair().await;
            let expected = common::pattern(200);
            let large = || Vec::with_capacity(64 * 1024);
            match parking {
                Parking::Recv(gone) => {
                    park(&stream, &mut peer, &expected[..100], gone).await;
                }
                Parking::LargeRead(gone) => {
                    let read = common::start(stream.read(large())).await;
                    common::turn().await;
                    peer.write_all(&expected[..100]).expect("connected");
                    gone.leave(read);
                }
                Parking::ReadExact(gone) => {
                    let mut read = common::start(stream.read_exact(large(), 60_000)).await;
                    common::turn().await;
                    peer.write_all(&expected[..50]).expect("connected");
                    common::wait_for(&stream, libc::POLLIN);
                    until_unread(&stream, 0).await;
                    assert!(common::poll_once(&mut read).await.is_pending());
                    peer.write_all(&expected[50..100]).expect("connected");
                    gone.leave(read);
                }
                Parking::TakenInPart => {
                    drop(common::start(stream.recv()).await);
                    peer.write_all(&[&[9; 10], &expected[..100]].concat()).expect("connected");
                    let taken = stream.read_exact(Vec::with_capacity(10), 10).await;
                    assert_eq!(taken.expect("it is there"), [9; 10]);
                }
                Parking::Pieces => {
                    drop(common::start(stream.recv()).await);
                    for piece in expected[..100].chunks(10) {
                        common::turn().await;
                        peer.write_all(piece).expect("connected");
                    }
                }
            };
            if turned {
                common::turn().await;
            }
            let in_kernel = common::unread(&stream);
            let (mut std, mut bytes) = stream.into_std().expect("nothing is sent");
            assert!(
                bytes.len() + in_kernel >= 100,
                "{} bytes, {in_kernel} in the kernel",
                bytes.len()
            );
            assert_same(&bytes, &expected[..bytes.len()]);
            assert_eq!(tamam::metrics().ops, 0, "nothing is in flight");
            // SAFETY: takes no pointers.
            let flags = unsafe { libc::fcntl(std.as_raw_fd(), libc::F_GETFL) };
            assert_ne!(flags & libc::O_NONBLOCK, 0, "it stays non-blocking");
            peer.write_all(&expected[100..]).expect("connected");
            peer.shutdown(Shutdown::Write).expect("connected");
            std.set_nonblocking(false).expect("a socket");
            std.set_read_timeout(Some(*PATIENCE)).expect("not zero");
            std.read_to_end(&mut bytes).expect("no reset");
            assert_same(&bytes, &expected);
        });
    }
}

/// CL12. 1 a send is abandoned, or forgotten in the queue, or a shutdown waits; 2 the conversion
/// fails and gives the stream back, with what was parked; 3 when all is out it works.
#[test]
fn cl12_into_std_refuses_to_tear_a_send() {
    for gone in Gone::BOTH {
        common::everywhere(|| async move {
            let (stream, mut peer) = family::narrow_pair().await;
            park(&stream, &mut peer, b"parked", Gone::Dropped).await;
            gone.leave(common::start(stream.send_all(common::pattern(STALLING))).await);
            std::mem::forget(common::start(stream.send_all("queued")).await);
            common::turn().await;
            let error = stream.into_std().expect_err("bytes are on their way out");
            println!("{error}");
            let stream = error.into_stream();
            let parked = stream.read_exact(Vec::with_capacity(6), 6).await.expect("it is parked");
            assert_eq!(parked, b"parked");
            let reader = thread::spawn(move || {
                let mut bytes = vec![0; STALLING + 6];
                peer.read_exact(&mut bytes).expect("they come");
                (peer, bytes)
            });
            let (_peer, bytes) = common::join(reader).await;
            assert_same(&bytes, &[&common::pattern(STALLING)[..], b"queued"].concat());
            // The peer can be faster than our own hearing of it.
            stream.send_all("").await.expect("connected");
            common::turn().await;
            stream.into_std().expect("all is out");
        });
    }
}

/// CL12. What the stream knows of its end stays with the socket; the runtime may be gone.
#[test]
fn cl12_into_std_at_the_end_and_without_a_runtime() {
    common::everywhere(|| async {
        let (stream, mut peer) = family::pair().await;
        peer.write_all(b"last").expect("connected");
        peer.shutdown(Shutdown::Write).expect("connected");
        let mut received = 0;
        while let Some(chunk) = stream.recv().await.expect("no reset") {
            received += chunk.len();
        }
        let (mut std, unread) = stream.into_std().expect("nothing is sent");
        assert_eq!((received, unread.len(), blocking_read(&mut std).expect("the end")), (4, 0, 0));
        std.write_all(b"sent").expect("connected");
        drop(std);
        assert_eq!(blocking_read_to_end(peer).expect("no reset"), b"sent");
    });
    for builder in both() {
        let runtime = common::build(builder);
        let (stream, mut peer) = runtime.block_on(async {
            let (stream, mut peer) = family::pair().await;
            park(&stream, &mut peer, b"parked", Gone::Dropped).await;
            (stream, peer)
        });
        drop(runtime);
        let (mut std, unread) = stream.into_std().expect("nothing is sent");
        assert_eq!(unread, b"parked");
        peer.write_all(b"x").expect("connected");
        common::wait_for(&std, libc::POLLIN);
        assert_eq!(blocking_read(&mut std).expect("connected"), 1);
    }
}

/// CL12. Converted there and back again under traffic, with receives left behind each time: every
/// byte once, in order.
#[test]
fn cl12_back_and_forth_under_traffic() {
    common::everywhere(|| async {
        const LEN: usize = 1 << 20;
        let (mut stream, mut peer) = family::pair().await;
        let writer = thread::spawn(move || {
            for piece in common::pattern(LEN).chunks(1013) {
                peer.write_all(piece).expect("connected");
            }
        });
        let (mut bytes, mut random) = (Vec::new(), common::Random(7));
        while bytes.len() < LEN {
            for _ in 0..random.below(4) {
                let gone = Gone::BOTH[random.below(2) as usize];
                let room = 1 + random.below(20_000) as usize;
                let received = match random.below(2) {
                    0 => timeout(Duration::from_micros(50), stream.recv())
                        .await
                        .ok()
                        .map(|chunk| chunk.expect("no reset").map(Vec::from).unwrap_or_default()),
                    _ => {
                        let mut read = Box::pin(stream.read(Vec::with_capacity(room)));
                        match common::poll_once(&mut read).await {
                            std::task::Poll::Ready(read) => Some(read.expect("no reset").1),
                            std::task::Poll::Pending => {
                                gone.leave(read);
                                None
                            }
                        }
                    }
                };
                bytes.extend(received.unwrap_or_default());
            }
            let (std, unread) = stream.into_std().expect("nothing is sent");
            bytes.extend(unread);
            stream = Stream::from_std(std).expect("inside a runtime");
        }
        assert_same(&bytes, &common::pattern(LEN));
        common::join(writer).await;
    });
}
