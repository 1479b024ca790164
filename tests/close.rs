//! Closing, halves, conversion (SEMANTICS section 4). Dropping a stream never waits and loses
//! nothing that it need not lose: the peer sees the end before this thread sleeps, behind every
//! byte that the kernel has. Halves end one direction each; conversions take every received byte
//! with them.

mod common;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use common::{Gone, PATIENCE, arriving, assert_same, read_some};
use tamam::buf::IoBuf;
use tamam::net::{TcpKeepalive, TcpListener, TcpSocket, TcpStream};
use tamam::time::timeout;
use tamam::{Builder, Runtime};

/// More than the kernel holds between the two ends of [`common::narrow_pair`].
const STALLING: usize = 1 << 20;

/// The default sizes on both engines.
fn both() -> impl Iterator<Item = Builder> {
    common::both(&Runtime::builder()).into_iter().map(|(_, builder)| builder)
}

/// The next thing that a peer reads, while the runtime does not turn.
fn blocking_read(peer: &mut StdStream) -> io::Result<usize> {
    peer.read(&mut [0; 64])
}

/// Everything that a peer reads, while the runtime does not turn.
fn blocking_read_to_end(mut peer: StdStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    peer.read_to_end(&mut bytes).map(|_| bytes)
}

/// Lets the runtime turn until so many bytes wait unread in the kernel.
async fn until_unread(stream: &impl AsFd, len: usize) {
    while common::unread(stream) != len {
        tamam::yield_now().await;
    }
}

/// Makes the stream park `bytes`, or as many as its pool has room for: the peer writes them, and a
/// receive that nobody waits for any more takes them.
async fn park(stream: &TcpStream, peer: &mut StdStream, bytes: &[u8], gone: Gone) {
    gone.leave(common::start(stream.recv()).await);
    common::turn().await;
    peer.write_all(bytes).expect("connected");
    common::wait_for(stream, libc::POLLIN);
    while common::unread(stream) == bytes.len() {
        tamam::yield_now().await;
    }
}

/// A stream with a large receive buffer.
async fn wide_pair() -> (TcpStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let socket = TcpSocket::new_v4().expect("a socket").recv_buffer_size(400 << 10);
    let stream = socket.connect(addr).await.expect("connects");
    let (peer, _) = listener.accept().expect("it is there");
    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    (stream, peer)
}

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
                Idle::Accepted => {
                    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
                    let addr = listener.local_addr().expect("bound");
                    let peer = StdStream::connect(addr).expect("connects");
                    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
                    (listener.accept().await.expect("it is there").0, peer)
                }
                Idle::Converted => {
                    let (stream, peer) = common::pair().await;
                    let (stream, unread) = stream.into_std().expect("nothing is sent");
                    assert!(unread.is_empty());
                    (TcpStream::from_std(stream).expect("inside a runtime"), peer)
                }
                _ => common::pair().await,
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
        let (stream, mut peer) = runtime.block_on(common::pair());
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
    common::alone("cl2_a_thousand_dropped_in_one_poll", || {
        const STREAMS: usize = 1000;
        if !common::can_open(3 * STREAMS as u64) {
            return;
        }
        common::everywhere(|| async {
            let before = common::descriptors().len();
            let (mut streams, mut reads, mut peers) = (Vec::new(), Vec::new(), Vec::new());
            for index in 0..STREAMS {
                let (stream, mut peer) = common::pair().await;
                let buf = Vec::with_capacity(8192);
                match index % 4 {
                    0 => Gone::Dropped.leave(common::start(stream.recv()).await),
                    1 => Gone::Forgotten.leave(common::start(stream.recv()).await),
                    2 => Gone::Forgotten.leave(common::start(stream.read(buf)).await),
                    _ => {
                        let stream = TcpStream::from_std(stream.into_std().expect("idle").0);
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
            assert!(metrics.ops >= STREAMS * 9 / 10, "in flight for most: {}", metrics.ops);
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
            let (stream, mut peer) = common::pair().await;
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
            let (stream, mut peer) = wide_pair().await;
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
            let (stream, mut peer) = wide_pair().await;
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

/// A buffer that says when it is dropped.
struct Counted {
    bytes: Vec<u8>,
    dropped: Rc<Cell<usize>>,
}

// SAFETY: the bytes are those of a Vec that the value owns and nobody changes.
unsafe impl IoBuf for Counted {
    fn ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + 1);
    }
}

/// What is dropped.
#[derive(Clone, Copy, Debug)]
enum Dropping {
    Stream,
    ReadThenWrite,
    WriteThenRead,
}

impl Dropping {
    const ALL: [Dropping; 3] = [Dropping::Stream, Dropping::ReadThenWrite, Dropping::WriteThenRead];

    fn drop(self, stream: TcpStream) {
        match self {
            Dropping::Stream => drop(stream),
            Dropping::ReadThenWrite => {
                let (read, write) = stream.into_split();
                drop(read);
                drop(write);
            }
            Dropping::WriteThenRead => {
                let (read, write) = stream.into_split();
                drop(write);
                drop(read);
            }
        }
    }
}

/// CL5. 1 a send of 40 MiB stalls, seen by the kernel or not yet, and another is queued; 2 their
/// futures go, and the stream or its halves (CL10); 3 the runtime turns once: the peer gets a
/// start of the bytes and the end, the buffers are dropped.
async fn stalled_send_ends(dropping: Dropping, gone: Gone, submitted: bool) {
    const LEN: usize = 40 << 20;
    println!("{dropping:?}, {gone:?}, submitted: {submitted}");
    let dropped = Rc::new(Cell::new(0));
    let counted = |bytes| Counted { bytes, dropped: dropped.clone() };
    let (stream, peer) = common::pair().await;
    let send = common::start(stream.send_all(counted(vec![7; LEN]))).await;
    if submitted {
        common::turn().await;
    }
    let queued = common::start(stream.send_all(counted(vec![8; 10]))).await;
    gone.leave(send);
    gone.leave(queued);
    dropping.drop(stream);
    common::turn().await;
    assert_eq!((dropped.get(), tamam::metrics().ops), (2, 0), "buffers dropped, ops in flight");
    let bytes = blocking_read_to_end(peer).expect("no reset");
    println!("{} bytes were sent", bytes.len());
    assert!(!bytes.is_empty() && bytes.len() < LEN && bytes.iter().all(|byte| *byte == 7));
}

#[test]
fn cl5_drop_with_a_send_in_flight() {
    for (gone, submitted) in Gone::BOTH.into_iter().flat_map(|gone| [(gone, false), (gone, true)]) {
        common::everywhere(|| stalled_send_ends(Dropping::Stream, gone, submitted));
    }
}

#[test]
fn cl10_drop_of_both_halves_with_a_send_in_flight() {
    for dropping in [Dropping::ReadThenWrite, Dropping::WriteThenRead] {
        for gone in Gone::BOTH {
            common::everywhere(|| stalled_send_ends(dropping, gone, true));
        }
    }
}

/// CL5, CL10. What the kernel takes at once is sent: all of several small sends that are queued or
/// in flight when the stream goes, except those dropped before their turn. Under epoll the first
/// poll is their turn.
#[test]
fn cl5_what_the_kernel_takes_at_once_is_sent() {
    for (gone, submitted) in Gone::BOTH.into_iter().flat_map(|gone| [(gone, false), (gone, true)]) {
        for dropping in Dropping::ALL {
            common::everywhere(|| async move {
                println!("{dropping:?}, {gone:?}, submitted: {submitted}");
                let (stream, peer) = common::pair().await;
                let first = common::begin(stream.send_all(vec![1; 100])).await;
                if submitted {
                    // In flight together, once the first is answered.
                    common::turn().await;
                }
                let second = common::begin(stream.sendv(vec![vec![2; 50], vec![2; 50]])).await;
                let third = common::begin(stream.send(vec![3; 100])).await;
                let had_their_turn = first.is_over() && second.is_over() && third.is_over();
                assert_eq!(had_their_turn, common::on_epoll());
                gone.leave(first);
                gone.leave(second);
                gone.leave(third);
                dropping.drop(stream);
                common::turn().await;
                let bytes = blocking_read_to_end(peer).expect("no reset");
                let all = [vec![1; 100], vec![2; 100], vec![3; 100]].concat();
                match (gone, submitted) {
                    _ if had_their_turn => assert_same(&bytes, &all),
                    (Gone::Forgotten, _) => assert_same(&bytes, &all),
                    (Gone::Dropped, false) => assert_same(&bytes, &all[..100]),
                    // Answered in that turn, the first made way for the second.
                    (Gone::Dropped, true) => {
                        assert_same(&bytes, &all[..bytes.len().clamp(100, 200)])
                    }
                }
            });
        }
    }
}

/// CL5. A drop after `shutdown` was asked for sends what the kernel takes, and the end.
#[test]
fn cl5_drop_with_a_shutdown_that_waits() {
    common::everywhere(|| async {
        let (stream, peer) = common::narrow_pair().await;
        drop(common::start(stream.send_all(common::pattern(STALLING))).await);
        drop(common::start(stream.shutdown()).await);
        drop(stream);
        common::turn().await;
        let bytes = blocking_read_to_end(peer).expect("no reset");
        assert!(!bytes.is_empty() && bytes.len() < STALLING, "{} bytes came", bytes.len());
        assert_same(&bytes, &common::pattern(bytes.len()));
    });
}

/// CL6. Only after `set_zero_linger` does a drop reset; then it does in every state.
#[test]
fn cl6_zero_linger_resets() {
    common::everywhere(|| async {
        for state in 0..5 {
            let (stream, mut peer) = common::narrow_pair().await;
            match state {
                0 => {}
                1 => drop(common::start(stream.recv()).await),
                2 => park(&stream, &mut peer, b"unread", Gone::Dropped).await,
                3 => drop(common::start(stream.send_all(vec![7; STALLING])).await),
                _ => {
                    peer.write_all(b"unread").expect("connected");
                    common::wait_for(&stream, libc::POLLIN);
                }
            }
            stream.set_zero_linger().expect("a TCP socket");
            drop(stream);
            common::turn().await;
            let error = blocking_read_to_end(peer).expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "state {state}");
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
                let (stream, mut peer) = common::pair().await;
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

/// CL8. 1 a send of 8 MiB is abandoned; 2 the write half is dropped; 3 the peer gets everything,
/// then the end; 4 reading goes on.
#[test]
fn cl8_the_write_half_ends_behind_its_queue() {
    const LEN: usize = 8 << 20;
    for gone in Gone::BOTH {
        common::everywhere(|| async move {
            let (stream, mut peer) = common::pair().await;
            let (read, write) = stream.into_split();
            gone.leave(common::start(write.send_all(common::pattern(LEN))).await);
            drop(write);
            let answering = thread::spawn(move || {
                let mut bytes = Vec::new();
                peer.read_to_end(&mut bytes).expect("no reset");
                peer.write_all(&[5; 100]).expect("the other direction is open");
                (peer, bytes)
            });
            let answer = read.read_exact(Vec::with_capacity(100), 100).await.expect("it comes");
            assert_eq!(answer, [5; 100]);
            let (_peer, bytes) = common::join(answering).await;
            assert_same(&bytes, &common::pattern(LEN));
        });
    }
}

/// CL8. `forget` leaves the direction open, with what is queued; the end comes with the other half.
#[test]
fn cl8_a_forgotten_write_half_does_not_end() {
    common::everywhere(|| async {
        let (stream, peer) = common::narrow_pair().await;
        let (read, write) = stream.into_split();
        drop(common::start(write.send_all(common::pattern(STALLING))).await);
        write.forget();
        let (mut peer, bytes) = read_some(peer, STALLING).await;
        assert_same(&bytes, &common::pattern(STALLING));
        peer.set_nonblocking(true).expect("a socket");
        let error = blocking_read(&mut peer).expect_err("no end");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        peer.set_nonblocking(false).expect("a socket");
        peer.write_all(b"more").expect("connected");
        assert_eq!(&read.recv().await.expect("no reset").expect("not the end")[..], b"more");
        drop(read);
        common::turn().await;
        assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
    });
}

/// CL9. 1 bytes are parked, a receive is armed; 2 the read half is dropped: they are freed, no op
/// is left; 3 the peer writes until TCP pushes it back; 4 sends arrive all the while.
#[test]
fn cl9_the_read_half_stops_reading_and_nothing_else() {
    common::everywhere(|| async {
        const LEN: usize = 8 << 20;
        let (stream, mut peer) = common::narrow_pair().await;
        park(&stream, &mut peer, &[1; 100], Gone::Dropped).await;
        let (read, write) = stream.into_split();
        drop(read);
        common::turn().await;
        let metrics = tamam::metrics();
        assert_eq!((metrics.buffers_lent, metrics.ops), (0, 0));
        peer.set_nonblocking(true).expect("a socket");
        let (bytes, mut written) = (vec![2; LEN], 0);
        while written < LEN {
            match peer.write(&bytes[written..]) {
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("no end and no reset, just full: {error}"),
            }
            common::turn().await;
        }
        assert!(written < LEN, "the peer could write all of it");
        peer.set_nonblocking(false).expect("a socket");
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; STALLING];
            peer.read_exact(&mut bytes).map(|()| (peer, bytes))
        });
        write.send_all(common::pattern(STALLING)).await.expect("the peer reads");
        let (_peer, bytes) = common::join(reader).await.expect("connected");
        assert_same(&bytes, &common::pattern(STALLING));
        assert_eq!(tamam::metrics().ops, 0, "nothing is received");
    });
}

/// CL11. 1 bytes are parked, a receive is armed, a send is stalled, another queued; 2 the stream
/// is split and made whole again: no op has changed, the bytes come, the queue goes out.
#[test]
fn cl11_reunite_changes_nothing() {
    common::everywhere(|| async {
        let (stream, mut peer) = common::narrow_pair().await;
        park(&stream, &mut peer, b"parked ", Gone::Dropped).await;
        let (read, write) = stream.into_split();
        drop(common::start(write.send_all(common::pattern(STALLING))).await);
        std::mem::forget(common::start(write.send_all("queued")).await);
        common::turn().await;
        let before = tamam::metrics();
        let stream = read.reunite(write).expect("halves of one stream");
        common::turn().await;
        let after = tamam::metrics();
        assert_eq!((after.ops, after.submissions), (before.ops, before.submissions));
        peer.write_all(b"and more").expect("connected");
        let bytes = stream.read_exact(Vec::with_capacity(15), 15).await.expect("they come");
        assert_eq!(bytes, b"parked and more");
        let reader = common::read_to_end(peer);
        stream.send_all(" and sent").await.expect("the peer reads");
        drop(stream);
        let expected = [&common::pattern(STALLING)[..], b"queued and sent"].concat();
        assert_same(&common::join(reader).await.expect("no reset"), &expected);
    });
}

/// CL11. Halves of two streams come back unharmed.
#[test]
fn cl11_halves_of_two_streams_come_back() {
    common::everywhere(|| async {
        let mut sides = Vec::new();
        for _ in 0..2 {
            let (stream, peer) = common::pair().await;
            let (read, write) = stream.into_split();
            sides.push((read, write, peer));
        }
        let (read_b, write_b, mut peer_b) = sides.pop().expect("two");
        let (read_a, write_a, mut peer_a) = sides.pop().expect("two");
        let error = read_a.reunite(write_b).expect_err("not of the same stream");
        assert_eq!(error.to_string(), "these halves are not of the same stream");
        let (read_a, write_b) = (error.0, error.1);
        for (read, write, peer) in [(read_a, write_a, &mut peer_a), (read_b, write_b, &mut peer_b)]
        {
            let stream = read.reunite(write).expect("of the same stream");
            peer.write_all(b"x").expect("connected");
            assert_eq!(&stream.recv().await.expect("no reset").expect("not the end")[..], b"x");
            stream.send_all("y").await.expect("connected");
            drop(stream);
            common::turn().await;
            assert_eq!(
                blocking_read_to_end(peer.try_clone().expect("dup")).expect("no reset"),
                b"y"
            );
        }
    });
}

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
            let (stream, mut peer) = common::pair().await;
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
            let (stream, mut peer) = common::narrow_pair().await;
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
        let (stream, mut peer) = common::pair().await;
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
            let (stream, mut peer) = common::pair().await;
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
        let (mut stream, mut peer) = common::pair().await;
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
            stream = TcpStream::from_std(std).expect("inside a runtime");
        }
        assert_same(&bytes, &common::pattern(LEN));
        common::join(writer).await;
    });
}

/// CL14. 1 a receive is in flight; 2 options are set and names asked for, a dup is made and
/// closed; 3 the receive goes on.
#[test]
fn cl14_options_while_a_receive_is_armed() {
    common::everywhere(|| async {
        let (stream, mut peer) = common::pair().await;
        let recv = common::start(stream.recv()).await;
        common::turn().await;
        stream.set_nodelay(true).expect("a TCP socket");
        assert!(stream.nodelay().expect("a TCP socket"));
        let keepalive = TcpKeepalive { idle: Some(Duration::from_secs(60)), ..Default::default() };
        stream.set_keepalive(keepalive).expect("a TCP socket");
        assert_eq!(stream.local_addr().expect("named"), peer.peer_addr().expect("connected"));
        assert_eq!(stream.peer_addr().expect("named"), peer.local_addr().expect("bound"));
        drop(stream.as_fd().try_clone_to_owned().expect("dup"));
        let dup = StdStream::from(stream.as_fd().try_clone_to_owned().expect("dup"));
        dup.set_nonblocking(false).expect("shared with the stream");
        drop(dup);
        peer.write_all(b"x").expect("connected");
        assert_eq!(&recv.await.expect("no reset").expect("not the end")[..], b"x");
    });
}

/// CL14. Somebody reads by hand from the same socket while receives are armed: each byte goes to
/// one of them, nothing crashes.
#[test]
fn cl14_reading_by_hand_steals() {
    common::everywhere(|| async {
        const LEN: usize = 200_000;
        let (stream, mut peer) = common::pair().await;
        let mut by_hand = StdStream::from(stream.as_fd().try_clone_to_owned().expect("dup"));
        let writer = thread::spawn(move || {
            for piece in common::pattern(LEN).chunks(500) {
                peer.write_all(piece).expect("connected");
                thread::yield_now();
            }
        });
        let (mut stolen, mut received) = (Vec::new(), Vec::new());
        let mut buf = [0; 400];
        loop {
            match by_hand.read(&mut buf) {
                Ok(0) => break,
                Ok(len) => stolen.extend_from_slice(&buf[..len]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            match timeout(Duration::from_micros(100), stream.recv()).await {
                Ok(Ok(Some(chunk))) => received.extend_from_slice(&chunk),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => panic!("no reset: {error}"),
                Err(_elapsed) => {}
            }
        }
        common::join(writer).await;
        by_hand.set_nonblocking(false).expect("a socket");
        by_hand.read_to_end(&mut stolen).expect("no reset");
        while let Some(chunk) = stream.recv().await.expect("no reset") {
            received.extend_from_slice(&chunk);
        }
        println!("{} stolen, {} received", stolen.len(), received.len());
        assert_eq!(stolen.len() + received.len(), LEN);
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        assert_eq!(sum(&stolen) + sum(&received), sum(&common::pattern(LEN)));
    });
}

/// CL15. A socket of std in either mode, with bytes, an end or a reset that came before.
#[test]
fn cl15_from_std_sees_what_was_there() {
    common::everywhere(|| async {
        for nonblocking in [false, true] {
            let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
            let connect = || {
                let std =
                    StdStream::connect(listener.local_addr().expect("bound")).expect("connects");
                std.set_nonblocking(nonblocking).expect("a socket");
                (std, listener.accept().expect("it is there").0)
            };
            let (std, mut peer) = connect();
            peer.write_all(b"early").expect("connected");
            peer.shutdown(Shutdown::Write).expect("connected");
            common::wait_for(&std, libc::POLLIN);
            let dup = std.try_clone().expect("dup");
            let stream = TcpStream::from_std(std).expect("inside a runtime");
            // SAFETY: takes no pointers.
            let flags = unsafe { libc::fcntl(dup.as_raw_fd(), libc::F_GETFL) };
            assert_ne!(flags & libc::O_NONBLOCK, 0, "it is non-blocking, and so are its dups");
            let bytes = stream.read_exact(Vec::with_capacity(5), 5).await.expect("it is there");
            assert_eq!(bytes, b"early");
            assert!(stream.recv().await.expect("the end").is_none());
            stream.send_all("late").await.expect("the other direction is open");
            drop((stream, dup));
            common::turn().await;
            assert_eq!(blocking_read_to_end(peer).expect("no reset"), b"late");

            let (std, peer) = connect();
            common::reset(peer);
            common::wait_for(&std, libc::POLLHUP);
            let stream = TcpStream::from_std(std).expect("inside a runtime");
            for _ in 0..2 {
                let error = stream.recv().await.expect_err("a reset");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
    });
}

/// CL16. 1 connecting to a full backlog; 2 dropped, before or after the kernel saw it: in one turn
/// the descriptor is free; 3 the address behind it is not tried.
#[test]
fn cl16_a_dropped_connect_frees_its_descriptor() {
    common::alone("cl16_a_dropped_connect_frees_its_descriptor", || {
        let (full, _filling) = common::full_listener();
        let full = full.local_addr().expect("bound");
        let next = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
        next.set_nonblocking(true).expect("a socket");
        let addrs = [full, next.local_addr().expect("bound")];
        common::everywhere(|| async {
            for submitted in [false, true] {
                let before = common::descriptors();
                let connects = [
                    Box::pin(TcpStream::connect(addrs)) as Pin<Box<dyn Future<Output = _>>>,
                    Box::pin(TcpSocket::new_v4().expect("a socket").connect(full)),
                ];
                for connect in connects {
                    let connect = common::start(connect).await;
                    if submitted {
                        common::turn().await;
                        common::turn().await;
                    }
                    drop(connect);
                }
                common::turn().await;
                assert_eq!(common::descriptors(), before, "submitted: {submitted}");
                assert_eq!(tamam::metrics().ops, 0);
                let error = next.accept().expect_err("it was not tried");
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
        });
    });
}

/// CL16. A timeout around a connect ends it the same way; many in a row leave nothing.
#[test]
fn cl16_connects_that_time_out() {
    common::alone("cl16_connects_that_time_out", || {
        let (full, _filling) = common::full_listener();
        let full = full.local_addr().expect("bound");
        common::everywhere(|| async {
            let before = common::descriptors();
            for _ in 0..100 {
                timeout(Duration::from_millis(1), TcpStream::connect(full))
                    .await
                    .expect_err("full");
            }
            common::turn().await;
            assert_eq!((common::descriptors(), tamam::metrics().ops), (before, 0));
        });
    });
}

/// CL16. 1 the attempt has won, and nobody polled it since; 2 it is dropped: the peer sees a
/// connection and its end.
#[test]
fn cl16_a_connect_that_won_is_closed() {
    common::everywhere(|| async {
        for turned in [false, true] {
            let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
            let connect = TcpStream::connect(listener.local_addr().expect("bound"));
            let connect = common::start(connect).await;
            if turned {
                common::turn().await;
                common::wait_for(&listener, libc::POLLIN);
            }
            drop(connect);
            common::turn().await;
            listener.set_nonblocking(true).expect("a socket");
            match listener.accept() {
                Ok((mut peer, _)) => {
                    peer.set_nonblocking(false).expect("a socket");
                    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
                    assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
                }
                // Cancelled before the kernel had begun: nothing ever happened.
                Err(error) => assert!(!turned && error.kind() == ErrorKind::WouldBlock, "{error}"),
            }
            assert_eq!(tamam::metrics().ops, 0);
        }
    });
}

/// CL17. 1 connects are forgotten, to a full backlog and to one with room, before and after the
/// kernel saw them; 2 the runtime is dropped: no descriptor is left.
#[test]
fn cl17_a_forgotten_connect_lives_as_long_as_the_runtime() {
    common::alone("cl17_a_forgotten_connect_lives_as_long_as_the_runtime", || {
        let (full, _filling) = common::full_listener();
        let roomy = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
        let addrs = [&full, &roomy].map(|listener| listener.local_addr().expect("bound"));
        for (name, builder) in common::engines() {
            let _watchdog = common::Watchdog::start();
            let before = common::descriptors();
            let runtime = common::build(builder);
            runtime.block_on(async {
                for (addr, submitted) in
                    addrs.into_iter().flat_map(|addr| [(addr, false), (addr, true)])
                {
                    let connect = common::start(TcpStream::connect(addr)).await;
                    if submitted {
                        common::turn().await;
                    }
                    std::mem::forget(connect);
                    let socket = TcpSocket::new_v4().expect("a socket");
                    std::mem::forget(common::start(socket.connect(addr)).await);
                    common::turn().await;
                }
                roomy.set_nonblocking(true).expect("a socket");
                let mut won = 0;
                while let Ok((mut peer, _)) = roomy.accept() {
                    peer.set_nonblocking(true).expect("a socket");
                    let error = blocking_read(&mut peer).expect_err("the socket stays");
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    won += 1;
                }
                assert_eq!(won, 4, "an attempt does not need its future");
            });
            drop(runtime);
            assert_eq!(common::descriptors(), before, "{name}");
        }
    });
}

/// Makes `number` mean /dev/null from now on, as foreign code does that closes descriptors which
/// are not its own and opens others.
fn usurp(number: RawFd) {
    let null = std::fs::File::open("/dev/null").expect("there is /dev/null");
    // SAFETY: takes no pointers. The number's owner is the stream under test.
    let done = unsafe { libc::dup2(null.as_raw_fd(), number) };
    assert_eq!(done, number);
}

/// CL18. 1 a receive is in flight; 2 foreign code closes the number and opens another file there;
/// 3 the receive still gets the peer's bytes, since it holds the file; 4 the drop ends the op, and
/// the peer sees the end. Only an op of the ring holds its file: under epoll a receive that waits is
/// a number, and what is behind that is what foreign code put there.
#[test]
fn cl18_an_op_in_flight_holds_the_file() {
    common::alone("cl18_an_op_in_flight_holds_the_file", || {
        let Some(ring) = common::ring_only(Runtime::builder()) else { return };
        let small = ring.clone().entries(1).completion_entries(2).buffer_size(16).buffer_count(1);
        let test = || async {
            let (stream, mut peer) = common::pair().await;
            let recv = common::start(stream.recv()).await;
            common::turn().await;
            usurp(stream.as_fd().as_raw_fd());
            peer.write_all(b"x").expect("connected");
            assert_eq!(&recv.await.expect("no reset").expect("not the end")[..], b"x");
            drop(stream);
            common::turn().await;
            assert_eq!(blocking_read(&mut peer).expect("no reset"), 0);
        };
        common::with(ring, test);
        common::with(small, test);
    });
}

/// CL18. Later calls say what the kernel says of the number: EBADF, or ENOTSOCK. No crash, no
/// hang, buffers come back.
#[test]
fn cl18_later_calls_say_what_the_kernel_says() {
    common::alone("cl18_later_calls_say_what_the_kernel_says", || {
        common::everywhere(|| async {
            for errno in [libc::EBADF, libc::ENOTSOCK] {
                let (stream, _peer) = common::pair().await;
                let number = stream.as_fd().as_raw_fd();
                if errno == libc::EBADF {
                    // SAFETY: takes no pointers. The number is usurped before the stream goes.
                    assert_eq!(unsafe { libc::close(number) }, 0);
                } else {
                    usurp(number);
                }
                let (error, buf) = stream.send_all("x").await.expect_err("no socket").into_parts();
                assert_eq!((error.raw_os_error(), buf), (Some(errno), "x"));
                let read = stream.read(Vec::with_capacity(10)).await.expect_err("no socket");
                assert_eq!(read.error().raw_os_error(), Some(errno));
                let recv = stream.recv().await.expect_err("no socket");
                assert_eq!(recv.raw_os_error(), Some(errno));
                usurp(number);
                drop(stream);
            }
        });
    });
}

/// CL1 to CL12 together, for each stream a random life: seeded, under all sizes.
#[test]
fn cl_random_lives() {
    common::everywhere(|| async {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        for seed in [11, seed.expect("after 1970").as_nanos() as u64 | 1] {
            println!("seed {seed}");
            let mut random = common::Random(seed);
            for _ in 0..200 {
                let (stream, mut peer) = common::pair().await;
                let gone = Gone::BOTH[random.below(2) as usize];
                let sent = random.below(2) * random.below(100_000);
                if random.below(2) == 0 {
                    peer.write_all(&vec![1; 1 + random.below(3000) as usize]).expect("connected");
                }
                if random.below(2) == 0 {
                    let mut recv = Box::pin(stream.recv());
                    if common::poll_once(&mut recv).await.is_pending() {
                        gone.leave(recv);
                    }
                }
                if random.below(2) == 0 {
                    common::turn().await;
                }
                if random.below(2) == 0 {
                    let mut read = Box::pin(stream.read(Vec::with_capacity(5000)));
                    if common::poll_once(&mut read).await.is_pending() {
                        gone.leave(read);
                    }
                }
                if sent > 0 {
                    gone.leave(
                        common::begin(stream.send_all(common::pattern(sent as usize))).await,
                    );
                }
                let dropping = Dropping::ALL[random.below(3) as usize];
                let whole = random.below(2) == 0;
                if whole {
                    let reader = common::read_to_end(peer);
                    stream.send_all("end").await.expect("the peer reads");
                    dropping.drop(stream);
                    let expected = [&common::pattern(sent as usize)[..], b"end"].concat();
                    assert_same(&common::join(reader).await.expect("no reset"), &expected);
                } else {
                    dropping.drop(stream);
                    let bytes = arriving(peer).await;
                    assert!(bytes.len() <= sent as usize);
                    assert_same(&bytes, &common::pattern(bytes.len()));
                }
            }
        }
    });
}
