//! CL1 to CL4, CL7: a stream is dropped, and what its peer sees.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use tamam::buf::IoBuf;
use tamam::time::timeout;

use crate::common::{Gone, PATIENCE, assert_same};
use crate::family::{self, Stream};
use crate::{Dropping, blocking_read, both, common, park, until_unread};

/// Where a stream comes from that has nothing in flight.
#[derive(Clone, Copy, Debug)]
enum Idle {
    Connected,
    Accepted,
    Converted,
    HasSent,
    Halves,
}

/// CL1. Nothing in flight: the drop closes at once, the peer sees the end although the thread
/// blocks and the runtime does not turn.
#[test]
fn cl1_drop_with_nothing_in_flight() {
    for idle in [Idle::Connected, Idle::Accepted, Idle::Converted, Idle::HasSent, Idle::Halves] {
        common::everywhere(|| async move {
            println!("{idle:?}");
            let (stream, mut peer) = match idle {
                Idle::Accepted => family::accepted_pair().await,
                Idle::Converted => {
                    let (stream, peer) = family::pair().await;
                    let (stream, unread) = stream.into_std().expect("nothing is sent");
                    assert!(unread.is_empty());
                    (Stream::from_std(stream).expect("inside a runtime"), peer)
                }
                _ => family::pair().await,
            };
            match idle {
                Idle::HasSent => {
                    stream.send_all("x").await.expect("connected");
                    drop(stream);
                    assert_eq!(blocking_read(&mut peer).expect("no reset"), 1);
                }
                Idle::Halves => drop(stream.into_split()),
                _ => drop(stream),
            }
            assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
        });
    }
}

/// CL1. The runtime is gone, or just not running.
#[test]
fn cl1_drop_outside_the_runtime() {
    for (builder, gone) in both().flat_map(|builder| [(builder.clone(), false), (builder, true)]) {
        let runtime = common::build(builder);
        let (stream, mut peer) = runtime.block_on(family::pair());
        if gone {
            drop(runtime);
        }
        drop(stream);
        assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
    }
}

/// CL2. 1 a thousand streams have a receive or a `read` in flight, of futures that live, are
/// dropped or forgotten, some with bytes that nobody read; 2 all are dropped in one poll; 3 the
/// runtime has nothing to do for an hour: every peer sees the end, every descriptor is free.
#[test]
fn cl2_a_thousand_dropped_in_one_poll() {
    common::alone("drops::cl2_a_thousand_dropped_in_one_poll", || {
        const STREAMS: usize = 1000;
        if !common::can_open(3 * STREAMS as u64) {
            return;
        }
        common::everywhere(|| async {
            let before = common::descriptors().len();
            let (mut streams, mut reads, mut peers) = (Vec::new(), Vec::new(), Vec::new());
            for index in 0..STREAMS {
                let (stream, mut peer) = family::pair().await;
                let buf = Vec::with_capacity(8192);
                match index % 4 {
                    0 => Gone::Dropped.leave(common::start(stream.recv()).await),
                    1 => Gone::Forgotten.leave(common::start(stream.recv()).await),
                    2 => Gone::Forgotten.leave(common::start(stream.read(buf)).await),
                    _ => {
                        let stream = Stream::from_std(stream.into_std().expect("idle").0);
                        let stream = stream.expect("inside a runtime");
                        reads.push(common::start(async move { stream.read(buf).await }).await);
                        peers.push(peer);
                        continue;
                    }
                }
                if index % 10 == 0 {
                    peer.write_all(b"unread").expect("connected");
                }
                streams.push(stream);
                peers.push(peer);
            }
            common::turn().await;
            let metrics = tamam::metrics();
            // The `read`s that got their six bytes have ended, and wait to be heard of.
            // One-shot receives of one turn end when another one has the only buffer.
            let least = if family::UNIX { STREAMS / 4 } else { STREAMS * 9 / 10 };
            assert!(metrics.ops >= least, "in flight for most: {}", metrics.ops);
            drop(streams);
            drop(reads);
            let (all_ended, ended) = tokio::sync::oneshot::channel();
            let reader = thread::spawn(move || {
                for peer in &mut peers {
                    assert_eq!(blocking_read(peer).expect("no reset"), 0);
                }
                drop(peers);
                all_ended.send(()).expect("somebody waits");
            });
            timeout(Duration::from_secs(3600), ended).await.expect("no hour").expect("sent");
            reader.join().expect("every peer saw the end");
            let now = tamam::metrics();
            println!("{} turns, {} enters", now.turns - metrics.turns, now.enters - metrics.enters);
            assert!(now.turns - metrics.turns <= 4, "it slept meanwhile");
            assert_eq!((now.ops, common::descriptors().len()), (0, before));
        });
    });
}

/// CL2. A `read` that is dropped together with its stream, before the kernel saw it.
#[test]
fn cl2_dropped_in_the_poll_that_armed_it() {
    common::everywhere(|| async {
        for gone in Gone::BOTH {
            let (stream, mut peer) = family::pair().await;
            gone.leave(common::start(stream.read(Vec::with_capacity(8192))).await);
            drop(stream);
            common::turn().await;
            assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
            assert_eq!(tamam::metrics().ops, 0);
        }
    });
}

/// Where the bytes are that nobody reads: so many parked by the stream, so many in the kernel.
#[derive(Clone, Copy, Debug)]
struct Unread {
    parked: usize,
    kernel: usize,
}

/// CL3. 1 the peer sends bytes that nobody reads; 2 we send 3 MiB, and the peer takes its time;
/// 3 the stream is dropped: the peer gets 3 MiB and the end.
#[test]
fn cl3_unread_bytes_do_not_reset() {
    const LEN: usize = 3 << 20;
    let cases = [
        Unread { parked: 0, kernel: 0 },
        Unread { parked: 0, kernel: 6 },
        Unread { parked: 6, kernel: 0 },
        Unread { parked: 0, kernel: 64 * 1024 },
        Unread { parked: 3000, kernel: 0 },
    ];
    for (case, halves) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        common::everywhere(|| async move {
            println!("{case:?}, halves: {halves}");
            let (stream, mut peer) = family::inbound_pair(400 << 10).await;
            if case.parked > 0 {
                park(&stream, &mut peer, &vec![1; case.parked], Gone::Dropped).await;
            }
            if case.kernel > 0 {
                peer.write_all(&vec![2; case.kernel]).expect("the socket has room");
                until_unread(&stream, case.kernel).await;
            }
            let reader = thread::spawn(move || {
                let (mut bytes, mut buf) = (Vec::new(), vec![0; 32 * 1024]);
                loop {
                    match peer.read(&mut buf)? {
                        0 => return io::Result::Ok(bytes),
                        len => bytes.extend_from_slice(&buf[..len]),
                    }
                    thread::sleep(Duration::from_micros(200));
                }
            });
            if halves {
                let (_read, write) = stream.into_split();
                write.send_all(common::pattern(LEN)).await.expect("the peer reads");
            } else {
                stream.send_all(common::pattern(LEN)).await.expect("the peer reads");
                drop(stream);
            }
            assert_same(&common::join(reader).await.expect("no reset"), &common::pattern(LEN));
        });
    }
}

/// CL4. More than that unread: the peer may see a reset, and what it got is a start of what was
/// sent. To be sure of delivery: shut down, receive to the end, drop.
#[test]
fn cl4_more_unread_may_reset_unless_it_is_received() {
    common::everywhere(|| async {
        for sure in [false, true] {
            let (stream, mut peer) = family::inbound_pair(400 << 10).await;
            peer.write_all(&[1; 200 << 10]).expect("the socket has room");
            until_unread(&stream, 200 << 10).await;
            let peer_writes = peer.try_clone().expect("dup");
            let reader = common::read_to_end(peer);
            stream.send_all(common::pattern(3 << 20)).await.expect("the peer reads");
            if sure {
                stream.shutdown().await.expect("connected");
                let bytes = common::join(reader).await.expect("no reset");
                assert_same(&bytes, &common::pattern(3 << 20));
                peer_writes.shutdown(Shutdown::Write).expect("connected");
                let mut received = 0;
                while let Some(chunk) = stream.recv().await.expect("no reset") {
                    received += chunk.len();
                }
                assert_eq!(received, 200 << 10);
                drop(stream);
            } else {
                drop(stream);
                common::turn().await;
                match common::join(reader).await {
                    Ok(bytes) => assert_same(&bytes, &common::pattern(bytes.len())),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
        }
    });
}

/// CL7. 1 the descriptor is duplicated; 2 the stream is dropped, with and without a receive in
/// flight: the connection goes on in both directions until the dup is closed.
#[test]
fn cl7_a_dup_keeps_the_connection() {
    common::everywhere(|| async {
        for dropping in Dropping::ALL {
            for armed in [false, true] {
                let (stream, mut peer) = family::pair().await;
                if armed {
                    drop(common::start(stream.recv()).await);
                    common::turn().await;
                }
                let dup = stream.as_fd().try_clone_to_owned().expect("dup");
                if let Dropping::Stream = dropping {
                    drop(stream);
                } else {
                    // The drop of a write half would end the connection for the dup too (CL8).
                    let (read, write) = stream.into_split();
                    write.forget();
                    drop(read);
                }
                common::turn().await;
                let mut dup = StdStream::from(dup);
                dup.set_nonblocking(false).expect("a socket");
                dup.set_read_timeout(Some(*PATIENCE)).expect("not zero");
                peer.set_nonblocking(true).expect("a socket");
                let error = blocking_read(&mut peer).expect_err("neither bytes nor an end");
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                peer.set_nonblocking(false).expect("a socket");
                dup.write_all(b"still").expect("connected");
                assert_eq!(blocking_read(&mut peer).expect("connected"), 5);
                peer.write_all(b"here").expect("connected");
                assert_eq!(blocking_read(&mut dup).expect("connected"), 4);
                drop(dup);
                assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
            }
        }
    });
}
