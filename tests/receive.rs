//! Receiving (SEMANTICS section 2). Every byte reaches exactly one call, in the order of the
//! stream, whatever becomes of the futures it came for: dropped, forgotten, timed out, aborted,
//! raced with a cancel. After the bytes comes the end, the same to everybody and for ever; a reset
//! is never shown as a clean one.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::{
    Gone, PATIENCE, Random, assert_same, at_once, completing, pair, pattern, poll_once, quarantine,
    start, turn,
};
use tamam::buf::{BufError, IoBuf, IoBufMut};
use tamam::net::{TcpSocket, TcpStream};
use tamam::time::{sleep, timeout};
use tamam::{Builder, Runtime};

/// Room that is larger than any pooled buffer here: the kernel receives straight into it.
const LENT: usize = 64 * 1024;
/// Room that is smaller than any: received into the pool and copied.
const SMALL: usize = 8;

/// How bytes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Recv,
    Read(usize),
    ReadExact(usize),
}

const WAYS: [Way; 5] =
    [Way::Recv, Way::Read(SMALL), Way::Read(LENT), Way::ReadExact(SMALL), Way::ReadExact(LENT)];

/// What a call gave: bytes, and why there were not more. All three ways say [`EOF`] at the end.
type Received = (Vec<u8>, Option<ErrorKind>);

const EOF: ErrorKind = ErrorKind::UnexpectedEof;

async fn receive(stream: &TcpStream, way: Way) -> Received {
    fn from_error(error: BufError<Vec<u8>>) -> Received {
        let (error, buf) = error.into_parts();
        (buf, Some(error.kind()))
    }
    match way {
        Way::Recv => match stream.recv().await {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty(), "a chunk of nothing");
                (chunk.to_vec(), None)
            }
            Ok(None) => (Vec::new(), Some(EOF)),
            Err(error) => (Vec::new(), Some(error.kind())),
        },
        Way::Read(room) => match stream.read(Vec::with_capacity(room)).await {
            Ok((0, buf)) => (buf, Some(EOF)),
            Ok((len, buf)) => {
                assert_eq!(buf.len(), len, "it says how many it appended");
                (buf, None)
            }
            Err(error) => from_error(error),
        },
        Way::ReadExact(len) => match stream.read_exact(Vec::with_capacity(len), len).await {
            Ok(buf) => {
                assert_eq!(buf.len(), len, "no more and no less");
                (buf, None)
            }
            Err(error) => from_error(error),
        },
    }
}

/// Everything to the end, and what the end was.
async fn until_end(stream: &TcpStream, way: Way) -> (Vec<u8>, ErrorKind) {
    let mut all = Vec::new();
    loop {
        let (bytes, end) = receive(stream, way).await;
        all.extend(bytes);
        if let Some(end) = end {
            return (all, end);
        }
    }
}

/// The next `len` bytes, by `recv`, and not one more.
async fn next(stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        let (bytes, end) = receive(stream, Way::Recv).await;
        assert_eq!(end, None, "after {} of {len} bytes", all.len());
        all.extend(bytes);
    }
    assert_eq!(all.len(), len, "more bytes than were expected");
    all
}

/// Every call, again and again, says that this is the end, at once.
async fn assert_ended(stream: &TcpStream, end: ErrorKind) {
    for round in 0..3 {
        for way in WAYS {
            let received = at_once(receive(stream, way)).await;
            assert_eq!(received, (Vec::new(), Some(end)), "{way:?}, round {round}");
        }
    }
}

/// Calls that see their answer only when others have had theirs wait for the next.
async fn assert_waits<F: Future + Unpin>(future: &mut F) {
    assert!(poll_once(future).await.is_pending(), "there was nothing for it");
}

fn write(mut peer: &StdStream, bytes: &[u8]) {
    peer.write_all(bytes).expect("it fits into the kernel");
}

/// A buffer that does something when it is freed.
struct Tracked {
    memory: Vec<u8>,
    at_drop: Option<Box<dyn FnOnce()>>,
}

impl Tracked {
    /// It says whether it is freed.
    fn new(room: usize) -> (Tracked, Rc<Cell<bool>>) {
        let freed = Rc::new(Cell::new(false));
        let tell = freed.clone();
        (Tracked::with(room, move || tell.set(true)), freed)
    }

    fn with(room: usize, at_drop: impl FnOnce() + 'static) -> Tracked {
        Tracked { memory: Vec::with_capacity(room), at_drop: Some(Box::new(at_drop)) }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.at_drop.take().expect("dropped once")();
    }
}

// SAFETY: everything is passed on to the Vec, which keeps the contract.
unsafe impl IoBuf for Tracked {
    fn ptr(&self) -> *const u8 {
        IoBuf::ptr(&self.memory)
    }

    fn len(&self) -> usize {
        self.memory.len()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Tracked {
    fn ptr_mut(&mut self) -> *mut u8 {
        self.memory.ptr_mut()
    }

    fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    unsafe fn set_len(&mut self, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.memory.set_len(len) }
    }
}

/// RX1. 1 readers of all kinds take from one stream at once; 2 the peer sends a mebibyte of
/// counters and ends, by a FIN or a reset; 3 what they got, in the order in which they got it, is
/// what was sent (a reset throws away what was still on its way), and all of them see the end.
async fn readers_share(ways: &[Way], end: ErrorKind) {
    const LEN: usize = 1 << 20;
    let (stream, peer) = pair().await;
    let (stream, log) = (Rc::new(stream), Rc::new(RefCell::new(Vec::new())));
    let readers: Vec<_> = ways
        .iter()
        .map(|&way| {
            let (stream, log) = (stream.clone(), log.clone());
            tamam::spawn(async move {
                loop {
                    let (bytes, end) = receive(&stream, way).await;
                    log.borrow_mut().extend(bytes);
                    if let Some(end) = end {
                        return end;
                    }
                }
            })
        })
        .collect();
    let writer = thread::spawn(move || {
        write(&peer, &pattern(LEN));
        peer
    });
    let peer = common::join(writer).await;
    if end == EOF {
        peer.shutdown(Shutdown::Write).expect("connected");
    } else {
        common::reset(peer);
    }
    for reader in readers {
        assert_eq!(reader.await.expect("no panic"), end);
    }
    let got = log.take();
    let arrived = if end == EOF { LEN } else { got.len() };
    assert_same(&got, &pattern(LEN)[..arrived]);
    assert_ended(&stream, end).await;
}

#[test]
fn rx1_two_tasks_receive_on_one_stream() {
    for end in [EOF, ErrorKind::ConnectionReset] {
        common::everywhere(|| readers_share(&[Way::Recv, Way::Recv], end));
    }
}

#[test]
fn rx1_readers_of_all_kinds_share_one_stream() {
    for end in [EOF, ErrorKind::ConnectionReset] {
        common::everywhere(|| readers_share(&WAYS, end));
        common::everywhere(|| {
            readers_share(
                &[Way::ReadExact(1000), Way::Read(300), Way::ReadExact(70_000), Way::Recv],
                end,
            )
        });
    }
}

/// RX2. 1 `read` and `recv` wait together; 2 a byte arrives; 3 who is polled first gets it, the
/// other waits; 4 another byte arrives: that is for the other.
#[test]
fn rx2_who_is_polled_first_after_an_arrival_gets_it() {
    common::everywhere(|| async {
        let ways = [Way::Recv, Way::Read(SMALL), Way::Read(LENT), Way::ReadExact(1)];
        for (first, second) in ways.iter().flat_map(|a| ways.iter().map(move |b| (*a, *b))) {
            for second_wins in [false, true] {
                let (stream, peer) = pair().await;
                let mut a = start(receive(&stream, first)).await;
                let mut b = start(receive(&stream, second)).await;
                turn().await;
                assert_eq!(tamam::metrics().ops, 1, "one op in flight");
                let (mut winner, mut other) = if second_wins { (b, a) } else { (a, b) };
                completing(|| write(&peer, b"1")).await;
                assert_eq!(poll_once(&mut winner).await, Poll::Ready((b"1".to_vec(), None)));
                assert_waits(&mut other).await;
                turn().await;
                assert!(tamam::metrics().ops <= 1, "one op in flight");
                completing(|| write(&peer, b"2")).await;
                a = other;
                assert_eq!(
                    poll_once(&mut a).await,
                    Poll::Ready((b"2".to_vec(), None)),
                    "{first:?} {second:?}"
                );
                b = winner;
                drop((a, b));
            }
        }
    });
}

/// RX3, RX4, and RX7 for `read_exact`. 1 a call is polled; 2 the peer sends, and perhaps that is
/// reaped, and perhaps the call is polled again; 3 the call goes; 4 the peer sends more; 5 every
/// way to receive sees all the bytes, in order.
async fn bytes_outlive(way: Way, gone: Gone, reaped: bool, polled_again: bool, next_way: Way) {
    let (stream, peer) = pair().await;
    let (before, after) = (&pattern(40)[..SMALL - 1], &pattern(40)[SMALL - 1..]);
    let mut call = start(receive(&stream, way)).await;
    turn().await;
    if reaped {
        completing(|| write(&peer, before)).await;
    } else {
        write(&peer, before);
    }
    // `recv` and `read` would take the bytes.
    if polled_again && matches!(way, Way::ReadExact(_)) {
        assert_waits(&mut call).await;
    }
    gone.leave(call);
    write(&peer, after);
    peer.shutdown(Shutdown::Write).expect("connected");
    let got = until_end(&stream, next_way).await;
    assert_eq!(got, (pattern(40), EOF), "{way:?} {gone:?} {reaped} {polled_again} {next_way:?}");
    assert_ended(&stream, EOF).await;
}

async fn bytes_outlive_everything(gone: Gone) {
    for way in WAYS {
        for next_way in WAYS {
            for (reaped, polled_again) in
                [(false, false), (true, false), (true, true), (false, true)]
            {
                bytes_outlive(way, gone, reaped, polled_again, next_way).await;
            }
        }
    }
}

#[test]
fn rx3_bytes_around_a_dropped_call_come_first_in_the_next() {
    common::everywhere(|| bytes_outlive_everything(Gone::Dropped));
}

#[test]
fn rx4_bytes_around_a_forgotten_call_come_first_in_the_next() {
    common::everywhere(|| bytes_outlive_everything(Gone::Forgotten));
}

/// RX3. On an idle socket 5000 calls are dropped, in one pass or one a turn: there is never more
/// than one op, and the heap does not grow.
#[test]
fn rx3_dropped_calls_on_an_idle_socket_cost_nothing() {
    common::alone("rx3_dropped_calls_on_an_idle_socket_cost_nothing", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            // One poll a turn: there are very many turns.
            common::with(builder.budget(1), || async {
                let (stream, _peer) = pair().await;
                for way in WAYS {
                    for turning in [false, true] {
                        let rounds = async |rounds: usize| {
                            for _ in 0..rounds {
                                drop(start(receive(&stream, way)).await);
                                assert!(tamam::metrics().ops <= 1, "one op in flight");
                                if turning {
                                    turn().await;
                                }
                            }
                            turn().await;
                            turn().await;
                        };
                        rounds(100).await;
                        // A leak of ours shows every time; what other threads of the process hold on
                        // to in passing (libtest, the watchdog) does not.
                        let mut growth = [0; 3];
                        for growth in &mut growth {
                            let heap = quarantine::live();
                            rounds(5000).await;
                            *growth = quarantine::live() - heap;
                        }
                        assert!(growth.contains(&0), "{growth:?}: {way:?}, turning: {turning}");
                    }
                }
            });
        }
    });
}

/// RX3. 5000 calls dropped in one pass of polls are one op and one cancel at most, not 5000.
#[test]
fn rx3_a_call_in_the_same_pass_takes_the_op_over() {
    common::everywhere(|| async {
        for way in WAYS {
            let (stream, peer) = pair().await;
            drop(start(receive(&stream, way)).await);
            turn().await;
            turn().await;
            let before = tamam::metrics();
            tamam::spawn(async move {
                for _ in 0..5000 {
                    drop(start(receive(&stream, way)).await);
                }
                let mut last = start(receive(&stream, Way::Recv)).await;
                turn().await;
                let now = tamam::metrics();
                // Shots keep armed, so there is nothing to submit for them at all.
                assert!(now.submissions - before.submissions <= 1, "{way:?}: {before:?} {now:?}");
                assert_eq!(now.ops, 1, "{way:?}");
                completing(|| write(&peer, b"1")).await;
                assert_eq!(poll_once(&mut last).await, Poll::Ready((b"1".to_vec(), None)));
            })
            .await
            .expect("no panic");
        }
    });
}

/// RX3. The buffer of a dropped `read` is freed before the thread sleeps; if another call adopts
/// the op, when that call has taken what it brought.
#[test]
fn rx3_the_buffer_is_freed_before_the_thread_sleeps() {
    common::everywhere(|| async {
        for room in [SMALL, LENT] {
            for len in [None, Some(room)] {
                let (stream, _peer) = pair().await;
                let (buf, freed) = Tracked::new(room);
                let call = async {
                    match len {
                        None => drop(stream.read(buf).await),
                        Some(len) => drop(stream.read_exact(buf, len).await),
                    }
                };
                let call = start(call).await;
                turn().await;
                drop(call);
                turn().await;
                assert!(freed.get(), "room {room}, exactly {len:?}");
            }
        }
    });
}

#[test]
fn rx3_an_adopted_buffer_is_freed_when_its_bytes_are_taken() {
    common::everywhere(|| async {
        let (stream, peer) = pair().await;
        let (buf, freed) = Tracked::new(LENT);
        drop(start(stream.read(buf)).await);
        assert!(!freed.get(), "the kernel may be writing to it");
        let mut next = start(stream.recv()).await;
        for _ in 0..3 {
            turn().await;
            assert!(!freed.get(), "the op goes on, for the next call");
        }
        completing(|| write(&peer, b"tamam")).await;
        let Poll::Ready(Ok(Some(chunk))) = poll_once(&mut next).await else {
            panic!("5 bytes came")
        };
        assert_eq!(&chunk[..], b"tamam");
        drop(next);
        assert!(freed.get(), "nothing points to it any more");
    });
}

/// How a buffer that the kernel had is freed.
#[derive(Clone, Copy, Debug)]
enum Freed {
    /// By the terminal completion of its cancelled op.
    Cancelled,
    /// By the call that takes what it brought.
    TakenBy(Way),
    /// With the stream, with bytes in it or the op in flight.
    StreamDropped { parked: bool },
    /// With the runtime.
    RuntimeDropped { parked: bool },
}

/// RX3. 1 a `read` into a buffer of the user's own type is dropped; 2 the buffer is freed, one way
/// or another; 3 its drop uses the stream, the runtime, and another stream: no borrow of ours is
/// held, whatever path led there, and nothing is lost.
#[test]
fn rx3_a_buffer_may_do_anything_when_it_is_freed() {
    common::alone("rx3_a_buffer_may_do_anything_when_it_is_freed", || {
        let ways = [
            Freed::Cancelled,
            Freed::TakenBy(Way::Recv),
            Freed::TakenBy(Way::Read(LENT)),
            Freed::TakenBy(Way::ReadExact(5)),
            Freed::StreamDropped { parked: false },
            Freed::StreamDropped { parked: true },
            Freed::RuntimeDropped { parked: false },
            Freed::RuntimeDropped { parked: true },
        ];
        for (name, builder) in common::engines() {
            for how in ways {
                let _watchdog = common::Watchdog::start();
                println!("-- {name}, {how:?}");
                let runtime = common::build(builder.clone());
                let met = Rc::new(Cell::new(0));
                let left = runtime.block_on(free_a_meddling_buffer(how, met.clone()));
                drop(runtime);
                if matches!(how, Freed::RuntimeDropped { .. }) {
                    drop(left);
                }
                assert_eq!(met.get(), 1, "{name}, {how:?}: the buffer is freed once");
            }
        }
    });
}

async fn free_a_meddling_buffer(
    how: Freed,
    met: Rc<Cell<usize>>,
) -> (Option<Rc<TcpStream>>, [StdStream; 2]) {
    let (stream, peer) = pair().await;
    let (other, other_peer) = pair().await;
    let stream = Rc::new(stream);
    let weak = Rc::downgrade(&stream);
    let meddle = move || {
        met.set(met.get() + 1);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        for stream in [weak.upgrade().as_deref(), Some(&other)].into_iter().flatten() {
            // Errors are fine, once the runtime is gone; bytes are not taken.
            let _ = pin!(stream.read(Vec::with_capacity(LENT))).poll(&mut cx);
            let _ = pin!(stream.read_exact(Vec::with_capacity(1), 2)).poll(&mut cx);
            let _ = pin!(stream.send_all("meddling")).poll(&mut cx);
            let _ = stream.peer_addr();
        }
    };
    drop(start(stream.read(Tracked::with(LENT, meddle))).await);
    let is_parked = match how {
        Freed::Cancelled => false,
        Freed::TakenBy(_) => true,
        Freed::StreamDropped { parked } | Freed::RuntimeDropped { parked } => parked,
    };
    if is_parked {
        let keep = start(stream.recv()).await;
        turn().await;
        completing(|| write(&peer, b"tamam")).await;
        drop(keep);
    } else if !matches!(how, Freed::Cancelled) {
        // Adopted, so that the op goes on.
        std::mem::forget(start(stream.recv()).await);
        turn().await;
    }
    let mut stream = Some(stream);
    match how {
        Freed::Cancelled => turn().await,
        Freed::TakenBy(way) => {
            let stream = stream.as_ref().expect("still here");
            assert_eq!(receive(stream, way).await, (b"tamam".to_vec(), None));
            write(&peer, b"more");
            assert_eq!(next(stream, 4).await, b"more");
        }
        Freed::StreamDropped { .. } => {
            stream = None;
            turn().await;
        }
        Freed::RuntimeDropped { .. } => {}
    }
    (stream, [peer, other_peer])
}

/// RX3, and no panic crosses a task boundary. 1 a task drops a `read` into a buffer whose drop
/// panics, perhaps with its stream; 2 the buffer is freed when the op has ended, in the same reap as
/// the bytes that others wait for; 3 the panic ends there: the others get their bytes.
#[test]
fn rx3_a_buffer_that_panics_when_it_is_freed() {
    common::everywhere(|| async {
        for with_stream in [false, true] {
            let (stream, _peer) = pair().await;
            let mut others = Vec::new();
            let mut peers = Vec::new();
            for _ in 0..5 {
                let (other, peer) = pair().await;
                others.push(tamam::spawn(async move { receive(&other, Way::Recv).await }));
                peers.push(peer);
            }
            let freed = Rc::new(Cell::new(false));
            let tell = freed.clone();
            let buf = Tracked::with(LENT, move || {
                tell.set(true);
                panic!("a buffer that panics when it is freed");
            });
            let read = start(stream.read(buf)).await;
            turn().await;
            drop(read);
            let stream = (!with_stream).then_some(stream);
            peers.iter().for_each(|peer| write(peer, b"tamam"));
            for other in others {
                assert_eq!(other.await.expect("not its panic"), (b"tamam".to_vec(), None));
            }
            assert!(freed.get(), "with stream: {with_stream}");
            drop(stream);
        }
    });
}

/// RX4. Forgotten calls wait for ever and take nothing: there is one op for all of them, and the
/// next calls see every byte.
#[test]
fn rx4_a_hundred_forgotten_calls_share_one_op() {
    common::everywhere(|| async {
        for way in WAYS {
            for next_way in [Way::Recv, Way::Read(100), Way::Read(LENT), Way::ReadExact(1000)] {
                for forgotten in [1, 100] {
                    let (stream, peer) = pair().await;
                    for _ in 0..forgotten {
                        std::mem::forget(start(receive(&stream, way)).await);
                        assert_eq!(tamam::metrics().ops, 1, "{way:?}");
                        turn().await;
                    }
                    completing(|| write(&peer, &pattern(1000))).await;
                    let mut got = Vec::new();
                    while got.len() < 1000 {
                        let (bytes, end) = receive(&stream, next_way).await;
                        assert_eq!(end, None);
                        got.extend(bytes);
                        assert!(tamam::metrics().ops <= 1, "{way:?}");
                    }
                    assert_same(&got, &pattern(1000));
                }
            }
        }
    });
}

/// RX4. The buffer of a forgotten `read` stays whole while the kernel may write to it, also when
/// the stream has gone meanwhile; its op ends with the stream.
#[test]
fn rx4_a_forgotten_buffer_outlives_its_op() {
    common::alone("rx4_a_forgotten_buffer_outlives_its_op", || {
        common::everywhere(|| async {
            for sent in [0, 100] {
                let (stream, peer) = pair().await;
                let (buf, freed) = Tracked::new(LENT);
                std::mem::forget(start(stream.read(buf)).await);
                turn().await;
                write(&peer, &pattern(sent));
                assert!(!freed.get() && tamam::metrics().ops == 1);
                drop(stream);
                turn().await;
                assert_eq!(tamam::metrics().ops, 0, "the op ends before the thread sleeps");
            }
        });
    });
}

/// RX5. 1 a `read` is left with its op in flight; 2 a `read` of less room comes in the same pass;
/// 3 the bytes of the first buffer arrive; 4 the second gets as many as it has room for, the rest
/// waits in line. All of that with one op, no cancel.
#[test]
fn rx5_a_smaller_read_takes_from_an_abandoned_one() {
    common::everywhere(|| async {
        for gone in Gone::BOTH {
            for (large, small) in [(100, 10), (10_000, 1000)] {
                let (stream, peer) = pair().await;
                let abandoned = start(stream.read(Vec::with_capacity(large))).await;
                turn().await;
                let before = tamam::metrics().submissions;
                gone.leave(abandoned);
                let mut second = start(stream.read(Vec::with_capacity(small))).await;
                turn().await;
                assert_eq!((tamam::metrics().ops, tamam::metrics().submissions - before), (1, 0));
                completing(|| write(&peer, &pattern(large))).await;
                let Poll::Ready(Ok((len, got))) = poll_once(&mut second).await else {
                    panic!("{large} bytes have come")
                };
                assert_eq!(len, got.len());
                assert_same(&got, &pattern(large)[..small]);
                let rest = stream.read_exact(Vec::with_capacity(large), large - small).await;
                assert_same(&rest.expect("the rest is in line"), &pattern(large)[small..]);
            }
        }
    });
}

/// What is parked comes out in pieces by `recv`, never merged, and as far as it fits by `read`,
/// which does not wait once it has a byte.
#[test]
fn rx5_read_gathers_what_is_parked_and_recv_takes_one_piece() {
    common::everywhere(|| async {
        let (stream, peer) = pair().await;
        drop(start(stream.recv()).await);
        turn().await;
        for piece in [&b"abcde"[..], b"fghij", b"klmno", b"pqrst"] {
            // A receive that is not a shot ended with the first piece: each is asked for.
            if tamam::metrics().ops == 0 {
                return eprintln!("skipped: no multishot receive");
            }
            completing(|| write(&peer, piece)).await;
        }
        assert_eq!(at_once(receive(&stream, Way::Recv)).await.0, b"abcde");
        assert_eq!(at_once(receive(&stream, Way::Read(7))).await.0, b"fghijkl");
        assert_eq!(at_once(receive(&stream, Way::Recv)).await.0, b"mno");
        assert_eq!(at_once(receive(&stream, Way::Read(100))).await.0, b"pqrst");
        assert_waits(&mut pin!(receive(&stream, Way::Read(100)))).await;
    });
}

/// `read` appends: what the buffer held stays in front, and the room ends at the capacity.
#[test]
fn rx5_bytes_are_appended_to_what_the_buffer_holds() {
    common::everywhere(|| async {
        for room in [SMALL, LENT] {
            let (stream, peer) = pair().await;
            let prefixed = || {
                let mut buf = Vec::with_capacity(3 + room);
                buf.extend(b"abc");
                buf
            };
            let mut read = start(stream.read(prefixed())).await;
            turn().await;
            completing(|| write(&peer, b"defg")).await;
            let Poll::Ready(Ok((len, buf))) = poll_once(&mut read).await else {
                panic!("4 bytes came")
            };
            assert_eq!((len, &buf[..]), (4, &b"abcdefg"[..]));
            write(&peer, b"de");
            let exact = stream.read_exact(prefixed(), 2).await.expect("two bytes");
            assert_eq!(exact, b"abcde");
            peer.shutdown(Shutdown::Write).expect("connected");
            let error = stream.read_exact(prefixed(), 5).await.expect_err("the end");
            assert_eq!((error.kind(), &error.buf()[..]), (EOF, &b"abc"[..]));
        }
    });
}

/// RX6. Reading into a full buffer fails at once, whatever the stream is up to, and takes nothing.
async fn full_buffers_are_refused(stream: &TcpStream, state: &str) {
    let refused = |error: BufError<Vec<u8>>, expected: &[u8]| {
        assert_eq!(
            (error.kind(), &error.buf()[..]),
            (ErrorKind::InvalidInput, expected),
            "{state}"
        );
    };
    let mut full = vec![0; 16];
    full.shrink_to_fit();
    assert_eq!(full.capacity(), 16);
    refused(at_once(stream.read(full.clone())).await.expect_err("no room"), &full);
    refused(at_once(stream.read(Vec::new())).await.expect_err("no room"), &[]);
    refused(at_once(stream.read_exact(full.clone(), 1)).await.expect_err("no room"), &full);
    let room = Vec::with_capacity(10);
    let more = room.capacity() + 1;
    refused(at_once(stream.read_exact(room, more)).await.expect_err("too little room"), &[]);
    let nothing = at_once(stream.read_exact(full.clone(), 0)).await;
    assert_eq!(nothing.expect("nothing is wanted"), full, "{state}");
}

#[test]
fn rx6_no_spare_room_is_an_error_and_takes_nothing() {
    common::everywhere(|| async {
        let (stream, peer) = pair().await;
        full_buffers_are_refused(&stream, "nothing in flight").await;
        drop(start(stream.recv()).await);
        turn().await;
        full_buffers_are_refused(&stream, "a receive in flight").await;
        completing(|| write(&peer, &pattern(10))).await;
        full_buffers_are_refused(&stream, "data parked").await;
        assert_eq!(next(&stream, 10).await, pattern(10));
        peer.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(receive(&stream, Way::Recv).await.1, Some(EOF));
        full_buffers_are_refused(&stream, "the end").await;
        assert_ended(&stream, EOF).await;

        let (stream, peer) = pair().await;
        write(&peer, &pattern(10));
        common::reset(peer);
        full_buffers_are_refused(&stream, "data in the kernel").await;
        assert_eq!(until_end(&stream, Way::Recv).await, (pattern(10), ErrorKind::ConnectionReset));
        full_buffers_are_refused(&stream, "an error").await;
        assert_ended(&stream, ErrorKind::ConnectionReset).await;
    });
}

/// RX7. 1 `read_exact` of 1000 has 300 bytes; 2 it goes; 3 those 300 are there at once.
#[test]
fn rx7_what_read_exact_had_comes_first() {
    common::everywhere(|| async {
        for gone in Gone::BOTH {
            for room in [1000, LENT] {
                for next_way in [Way::Recv, Way::Read(300), Way::Read(LENT), Way::ReadExact(300)] {
                    let (stream, peer) = pair().await;
                    let mut exact = start(stream.read_exact(Vec::with_capacity(room), room)).await;
                    turn().await;
                    let mut sent = 0;
                    for len in [100, 150, 50] {
                        completing(|| write(&peer, &pattern(300)[sent..sent + len])).await;
                        sent += len;
                        // With a pool of 16 bytes a write takes several completions.
                        while common::unread(&stream) > 0 {
                            assert_waits(&mut exact).await;
                            turn().await;
                        }
                        assert_waits(&mut exact).await;
                    }
                    gone.leave(exact);
                    let mut got = Vec::new();
                    while got.len() < 300 {
                        let (bytes, end) = at_once(receive(&stream, next_way)).await;
                        assert_eq!(end, None);
                        got.extend(bytes);
                    }
                    assert_same(&got, &pattern(300));
                    write(&peer, b"more");
                    assert_eq!(next(&stream, 4).await, b"more", "{gone:?} {room} {next_way:?}");
                }
            }
        }
    });
}

/// RX7. Another call takes what a live `read_exact` had: that one goes on with what comes next.
#[test]
fn rx7_read_exact_goes_on_when_another_call_took_from_it() {
    common::everywhere(|| async {
        for room in [1000, LENT] {
            let (stream, peer) = pair().await;
            let mut exact = start(stream.read_exact(Vec::with_capacity(room), room)).await;
            turn().await;
            let sent = pattern(10 + 300 + room);
            for (from, taken) in [(0, 10), (10, 300)] {
                completing(|| write(&peer, &sent[from..from + taken])).await;
                while common::unread(&stream) > 0 {
                    assert_waits(&mut exact).await;
                    turn().await;
                }
                assert_waits(&mut exact).await;
                let half = taken / 2;
                let mut got = Vec::new();
                while got.len() < half {
                    let left = half - got.len();
                    got.extend(at_once(receive(&stream, Way::Read(left))).await.0);
                }
                assert_waits(&mut exact).await;
                got.extend(next(&stream, taken - half).await);
                assert_same(&got, &sent[from..from + taken]);
                assert_waits(&mut exact).await;
            }
            let rest = sent[310..].to_vec();
            let writer = thread::spawn(move || {
                write(&peer, &rest);
                peer
            });
            assert_same(&exact.await.expect("all of it"), &sent[310..]);
            common::join(writer).await;
        }
    });
}

/// RX8. The end or an error midway: the buffer comes back with what it had, and nobody else gets
/// those bytes.
#[test]
fn rx8_read_exact_meets_the_end_midway() {
    common::everywhere(|| async {
        for end in [EOF, ErrorKind::ConnectionReset] {
            for room in [1000, LENT] {
                for armed in [false, true] {
                    let (stream, peer) = pair().await;
                    let mut buf = Vec::with_capacity(2 + room);
                    buf.extend(b"ab");
                    let mut exact = Box::pin(stream.read_exact(buf, room));
                    if armed {
                        assert_waits(&mut exact).await;
                        turn().await;
                    }
                    write(&peer, &pattern(300));
                    let kept = match end {
                        EOF => {
                            peer.shutdown(Shutdown::Write).expect("connected");
                            Some(peer)
                        }
                        _ => {
                            common::reset(peer);
                            None
                        }
                    };
                    let (error, buf) =
                        exact.await.expect_err("300 bytes are not enough").into_parts();
                    assert_eq!(error.kind(), end, "room {room}, armed: {armed}");
                    assert_eq!(&buf[..2], b"ab");
                    assert_same(&buf[2..], &pattern(300));
                    assert_ended(&stream, end).await;
                    drop(kept);
                }
            }
        }
    });
}

/// RX9. 100 bytes, then a reset: whatever is asked for, the reset is never shown as an end.
#[test]
fn rx9_a_reset_after_data_is_no_clean_end() {
    common::everywhere(|| async {
        for way in [Way::ReadExact(1000), Way::ReadExact(LENT)] {
            for armed in [false, true] {
                for reaped in [false, true] {
                    let (stream, peer) = pair().await;
                    let mut call = Box::pin(receive(&stream, way));
                    if armed {
                        assert_waits(&mut call).await;
                        turn().await;
                    }
                    if armed && reaped {
                        completing(|| write(&peer, &pattern(100))).await;
                    } else {
                        write(&peer, &pattern(100));
                    }
                    common::reset(peer);
                    let received = call.await;
                    assert_eq!(received, (pattern(100), Some(ErrorKind::ConnectionReset)));
                    assert_ended(&stream, ErrorKind::ConnectionReset).await;
                }
            }
        }
    });
}

/// RX10. The end is for ever and for all; sending goes on.
#[test]
fn rx10_the_end_is_for_ever_and_sending_goes_on() {
    common::everywhere(|| async {
        for way in WAYS {
            let (stream, mut peer) = pair().await;
            let mut waiting = Vec::new();
            for other in WAYS {
                waiting.push(start(receive(&stream, other)).await);
            }
            peer.shutdown(Shutdown::Write).expect("connected");
            assert_eq!(receive(&stream, way).await, (Vec::new(), Some(EOF)));
            for call in waiting {
                assert_eq!(call.await, (Vec::new(), Some(EOF)), "those who waited hear of it too");
            }
            turn().await;
            let before = tamam::metrics();
            assert_ended(&stream, EOF).await;
            turn().await;
            let now = tamam::metrics();
            assert_eq!(
                (now.ops, now.submissions),
                (0, before.submissions),
                "nothing is armed again"
            );
            stream.send_all("still here").await.expect("the peer reads");
            let mut got = [0; 10];
            peer.read_exact(&mut got).expect("it came");
            assert_eq!(&got, b"still here");
            assert_ended(&stream, EOF).await;
        }
    });
}

/// RX11. Data, then the reset, on every call.
#[test]
fn rx11_data_then_the_reset_for_ever() {
    common::everywhere(|| async {
        for way in [Way::Recv, Way::Read(10), Way::Read(LENT), Way::ReadExact(50)] {
            for armed in [false, true] {
                let (stream, peer) = pair().await;
                if armed {
                    drop(start(stream.recv()).await);
                    turn().await;
                }
                write(&peer, &pattern(100));
                common::reset(peer);
                let got = until_end(&stream, way).await;
                assert_eq!(
                    got,
                    (pattern(100), ErrorKind::ConnectionReset),
                    "{way:?}, armed: {armed}"
                );
                assert_ended(&stream, ErrorKind::ConnectionReset).await;
            }
        }
    });
}

/// RX11. 1 more bytes than a multishot receive takes in one go, and a reset, wait in the socket; 2 a
/// receive is armed; 3 everything comes, and then the reset. A shot that finds both does not complete
/// any more (6.18.44, 7.3.4). The last row has 17 messages of a buffer's size before, after which a
/// stream is not so soon taken for a bulk transfer.
#[test]
fn rx11_many_bytes_and_the_reset_before_the_receive() {
    let rows = [
        (64, 256, 3000, 0),
        (64, 4, 3000, 0),
        (512, 256, 20_000, 0),
        (1024, 256, 60_000, 0),
        (4096, 256, 150_000, 0),
        (4096, 256, 150_000, 17),
    ];
    for (size, count, len, messages) in rows {
        let builder = Runtime::builder().buffer_size(size).buffer_count(count);
        common::with_both(builder, || async {
            let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
            let socket = TcpSocket::new_v4().expect("a socket").recv_buffer_size(400 << 10);
            let connected = socket.connect(listener.local_addr().expect("bound")).await;
            let stream = connected.expect("it listens");
            let (peer, _) = listener.accept().expect("it is there");
            for _ in 0..messages {
                write(&peer, &pattern(size));
                assert_eq!(next(&stream, size).await, pattern(size));
            }
            write(&peer, &pattern(len));
            while common::unread(&stream) < len {
                thread::yield_now(); // what is still with the peer would go with the reset
            }
            common::reset(peer);
            common::wait_for(&stream, libc::POLLERR);
            let (got, end) = until_end(&stream, Way::Recv).await;
            assert_eq!((got.len(), end), (len, ErrorKind::ConnectionReset), "{size} x {count}");
            assert!(got == pattern(len));
            assert_ended(&stream, ErrorKind::ConnectionReset).await;
        });
    }
}

/// RX12. 1 a receive is armed, or is not; 2 a send stalls; 3 the peer sends 100 bytes and resets,
/// so that the kernel tells one of the two; 4 the receive gives the data, then the reset.
async fn send_meets_the_reset(stalled: usize, narrow: bool, armed: Option<Way>, send_first: bool) {
    let (stream, peer) = if narrow { common::narrow_pair().await } else { pair().await };
    let mut receiving = None;
    if !send_first {
        if let Some(way) = armed {
            receiving = Some(start(receive(&stream, way)).await);
        }
    }
    let sending = start(stream.send_all(vec![7; stalled])).await;
    if send_first {
        if let Some(way) = armed {
            receiving = Some(start(receive(&stream, way)).await);
        }
    }
    turn().await;
    write(&peer, &pattern(100));
    common::reset(peer);
    let error = sending.await.expect_err("the peer did not read all of it");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop(receiving);
    let (got, end) = until_end(&stream, Way::Recv).await;
    assert_eq!(
        (got, end),
        (pattern(100), ErrorKind::ConnectionReset),
        "stalled {stalled}, armed {armed:?}, send first: {send_first}"
    );
    assert_ended(&stream, ErrorKind::ConnectionReset).await;
}

#[test]
fn rx12_a_stalled_send_meets_the_reset_first() {
    common::with_both(Runtime::builder(), || {
        send_meets_the_reset(40 << 20, false, Some(Way::Recv), false)
    });
    common::everywhere(|| async {
        for armed in [None, Some(Way::Recv), Some(Way::Read(LENT))] {
            for send_first in [false, true] {
                send_meets_the_reset(1 << 20, true, armed, send_first).await;
            }
        }
    });
}

/// RX12. The reset has arrived before anything is asked for; then sends and receives come, in any
/// order and any number: no receive ever sees an end.
#[test]
fn rx12_a_send_after_the_reset_leaves_it_to_the_receive() {
    common::everywhere(|| async {
        for sends in 1..4 {
            for armed in [false, true] {
                for len in [1, 100_000] {
                    let (stream, peer) = pair().await;
                    if armed {
                        drop(start(stream.recv()).await);
                        turn().await;
                    }
                    write(&peer, &pattern(100));
                    common::reset(peer);
                    for _ in 0..sends {
                        let error = stream.send_all(vec![1; len]).await.expect_err("it was reset");
                        assert_eq!(
                            error.kind(),
                            ErrorKind::ConnectionReset,
                            "{sends} {armed} {len}"
                        );
                    }
                    let got = until_end(&stream, Way::Recv).await;
                    assert_eq!(
                        got,
                        (pattern(100), ErrorKind::ConnectionReset),
                        "{sends} {armed} {len}"
                    );
                    assert_ended(&stream, ErrorKind::ConnectionReset).await;
                }
            }
        }
    });
}

/// RX12. In one pass both are submitted on a connection that was reset.
#[test]
fn rx12_a_send_and_a_receive_meet_the_reset_together() {
    common::everywhere(|| async {
        for recv_first in [false, true] {
            let (stream, peer) = pair().await;
            common::reset(peer);
            let mut recv = Box::pin(receive(&stream, Way::Recv));
            let mut send = Box::pin(stream.send_all("x"));
            // Submitted together to a ring; tried one after the other under epoll.
            let (received, sent) = if recv_first {
                (common::begin(recv.as_mut()).await, common::begin(send.as_mut()).await)
            } else {
                let sent = common::begin(send.as_mut()).await;
                (common::begin(recv.as_mut()).await, sent)
            };
            assert_eq!(
                (received.is_over(), sent.is_over()),
                (common::on_epoll(), common::on_epoll())
            );
            assert_eq!(received.await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
            // The kernel tells one of the two of the reset, and the other that the pipe is broken.
            let error = sent.await.expect_err("it was reset").kind();
            let broken = recv_first && error == ErrorKind::BrokenPipe;
            assert!(broken || error == ErrorKind::ConnectionReset, "{error}, {recv_first}");
            assert_ended(&stream, ErrorKind::ConnectionReset).await;
        }
    });
}

/// RX12, TX9. The peer finished with a FIN before our sends broke: its data and its end are there.
#[test]
fn rx12_a_broken_pipe_alone_does_not_hide_the_end() {
    common::everywhere(|| async {
        let (stream, peer) = pair().await;
        write(&peer, &pattern(100));
        drop(peer);
        let mut failed = None;
        for _ in 0..1000 {
            if let Err(error) = stream.send_all("x").await {
                failed = Some(error.kind());
                break;
            }
            turn().await;
        }
        assert_eq!(failed, Some(ErrorKind::BrokenPipe));
        assert_eq!(until_end(&stream, Way::Recv).await, (pattern(100), EOF));
        assert_ended(&stream, EOF).await;
    });
}

/// RX13. The user shuts down receiving through a dup: the end, whatever the peer sends later.
#[test]
fn rx13_shut_down_through_a_dup() {
    common::everywhere(|| async {
        for way in WAYS {
            for waiting in [false, true] {
                let (stream, peer) = pair().await;
                let dup = StdStream::from(
                    stream.as_fd().try_clone_to_owned().expect("a descriptor is left"),
                );
                let call = if waiting { Some(start(receive(&stream, way)).await) } else { None };
                turn().await;
                dup.shutdown(Shutdown::Read).expect("connected");
                let received = match call {
                    Some(call) => call.await,
                    None => receive(&stream, way).await,
                };
                assert_eq!(received, (Vec::new(), Some(EOF)), "{way:?}, waiting: {waiting}");
                write(&peer, b"too late");
                common::settle().await;
                assert_ended(&stream, EOF).await;
                stream.send_all("x").await.expect("sending goes on");
            }
        }
    });
}

/// RX14. 1 the peer sends a million bytes in random pieces; 2 calls of all kinds start and are
/// dropped, now and then forgotten, in the same pass or turns later, racing their cancels with the
/// data; 3 what the others got is what was sent.
async fn random_cancels(seed: u64) {
    const LEN: usize = 1_000_000;
    let (stream, peer) = pair().await;
    let sent = pattern(LEN);
    let writer = {
        let sent = sent.clone();
        thread::spawn(move || {
            let (mut random, mut left) = (Random(seed), &sent[..]);
            while !left.is_empty() {
                let len = (1 + random.below(2000) as usize).min(left.len());
                write(&peer, &left[..len]);
                left = &left[len..];
                if random.below(8) == 0 {
                    thread::yield_now();
                }
            }
        })
    };
    let (mut random, mut got, mut cancelled) = (Random(seed + 1), Vec::new(), 0);
    loop {
        let way = match random.below(4) {
            0 => Way::Recv,
            1 => Way::Read(1 + random.below(100) as usize),
            2 => Way::Read(LENT),
            _ => Way::ReadExact(1 + random.below(3 * LENT as u64 / 2) as usize),
        };
        let mut call = Box::pin(receive(&stream, way));
        let mut received = None;
        for _ in 0..random.below(3) {
            if let Poll::Ready(done) = poll_once(&mut call).await {
                received = Some(done);
                break;
            }
            match random.below(3) {
                0 => {}
                1 => tamam::yield_now().await,
                _ => turn().await,
            }
        }
        match received {
            Some((bytes, end)) => {
                got.extend(bytes);
                match end {
                    None => {}
                    Some(end) => {
                        assert_eq!(end, EOF, "seed {seed}");
                        break;
                    }
                }
            }
            None if random.below(50) == 0 => std::mem::forget(call),
            None => cancelled += 1,
        }
        assert!(tamam::metrics().ops <= 1, "seed {seed}: one op in flight");
    }
    common::join(writer).await;
    assert_same(&got, &sent);
    assert!(cancelled > 0, "seed {seed}: no call was dropped");
}

#[test]
fn rx14_a_million_bytes_under_random_cancels() {
    let seed = Cell::new(1);
    for _ in 0..3 {
        common::everywhere(|| random_cancels(seed.replace(seed.get() + 1)));
    }
}

/// RX15. Queues of a few entries and pools of a few bytes: shots end for want of buffers and
/// completions overflow, and nothing of it is visible.
#[test]
fn rx15_shots_that_end_with_data_are_invisible() {
    let tiny = Runtime::builder().entries(1).completion_entries(4).buffer_size(16);
    for buffers in [1, 2, 4, 8] {
        common::with_both(tiny.clone().buffer_count(buffers), || async {
            for way in WAYS {
                for armed in [false, true] {
                    for end in [EOF, ErrorKind::ConnectionReset] {
                        let (stream, peer) = pair().await;
                        if armed {
                            drop(start(receive(&stream, way)).await);
                            turn().await;
                        }
                        write(&peer, &pattern(200));
                        match end {
                            EOF => drop(peer),
                            _ => common::reset(peer),
                        }
                        let got = until_end(&stream, way).await;
                        assert_eq!(got, (pattern(200), end), "{way:?}, armed: {armed}");
                        assert_ended(&stream, end).await;
                    }
                }
            }
        });
    }
}

/// RX15. As above with 64 streams at once and chunks that are kept: buffers run out for certain.
#[test]
fn rx15_many_streams_over_few_buffers() {
    let tiny = Runtime::builder().entries(1).completion_entries(4).buffer_size(16).buffer_count(4);
    common::with_both(tiny, || async {
        const LEN: usize = 2000;
        let mut tasks = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..64 {
            let (stream, peer) = pair().await;
            peers.push(peer);
            tasks.push(tamam::spawn(async move {
                let mut kept = Vec::new();
                while let Some(chunk) = stream.recv().await.expect("no error") {
                    kept.push(chunk);
                }
                kept.iter().flat_map(|chunk| chunk.to_vec()).collect::<Vec<u8>>()
            }));
        }
        let writer = thread::spawn(move || {
            for piece in pattern(LEN).chunks(50) {
                for peer in &peers {
                    write(peer, piece);
                }
            }
        });
        for task in tasks {
            assert_same(&task.await.expect("no panic"), &pattern(LEN));
        }
        common::join(writer).await;
        let metrics = tamam::metrics();
        // Epoll has no queue that could overflow, and sees an empty pool before it asks.
        let is_tested = metrics.pool_empty > 0 && metrics.overflows > 0;
        assert!(is_tested || common::on_epoll(), "the test tests nothing: {metrics:?}");
    });
}

/// A stream whose receives stall the peer early: small kernel buffers on that way.
async fn narrow_inbound() -> (TcpStream, StdStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let socket = TcpSocket::new_v4().expect("a socket").recv_buffer_size(16 * 1024);
    let stream = socket.connect(addr).await.expect("connects");
    let (peer, _) = listener.accept().expect("it is there");
    let len: libc::c_int = 16 * 1024;
    // SAFETY: an int is passed, with its length.
    let done = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&peer),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const len).cast(),
            size_of_val(&len) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "SO_SNDBUF can be set");
    peer.set_nodelay(true).expect("a TCP socket");
    peer.set_write_timeout(Some(*PATIENCE)).expect("not zero");
    (stream, peer)
}

/// RX16. 1 a stream is read once, with a shot; 2 the peer writes `len` bytes; 3 the shot is stopped, and
/// what is parked by then is bounded; 4 the peer blocks; 5 all of it is read.
async fn nobody_reads(credit: usize, len: usize) {
    /// What may be parked above the credit: one enter's harvest of default buffers.
    const HARVEST: usize = 256 * 1024;
    let (stream, peer) = narrow_inbound().await;
    write(&peer, b"x");
    assert_eq!(next(&stream, 1).await, b"x");
    drop(start(stream.recv()).await);
    turn().await;
    assert_eq!(tamam::metrics().ops, 1, "the shot goes on");
    let heap = quarantine::live();
    let written = Arc::new(AtomicUsize::new(0));
    let writer = {
        let written = written.clone();
        let sent = pattern(len);
        thread::spawn(move || {
            for piece in sent.chunks(4096) {
                (&peer).write_all(piece).expect("the stream is read in the end");
                written.fetch_add(piece.len(), Ordering::Relaxed);
            }
            peer
        })
    };
    while tamam::metrics().ops > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    // The peer goes on until the kernel's buffers are full as well.
    let mut last = usize::MAX;
    while std::mem::replace(&mut last, written.load(Ordering::Relaxed)) != last {
        sleep(Duration::from_millis(50)).await;
    }
    let in_kernel = common::unread(&stream) + 256 * 1024;
    assert!(last < credit + HARVEST + in_kernel, "{last} bytes went out with nobody reading");
    assert!(!writer.is_finished(), "the peer blocks");
    let pinned = tamam::metrics().buffers_lent * 4096;
    assert!(pinned <= credit + HARVEST, "{pinned} bytes of buffers are pinned");
    let growth = quarantine::live() - heap - len as isize;
    println!("parked {last} bytes at most, heap grew by {growth}, {:?}", tamam::metrics());
    assert!(growth <= (credit + 4 * HARVEST) as isize, "the heap grew by {growth}");
    let mut got = Vec::new();
    while got.len() < len {
        got.extend(receive(&stream, Way::Recv).await.0);
    }
    assert_same(&got, &pattern(len));
    drop(common::join(writer).await);
    assert_ended_soon(&stream).await;
}

/// The end comes, after which it stays.
async fn assert_ended_soon(stream: &TcpStream) {
    assert_eq!(receive(stream, Way::Recv).await, (Vec::new(), Some(EOF)));
    turn().await; // with a full budget: what is ready is ready at once
    assert_ended(stream, EOF).await;
}

#[test]
fn rx16_what_nobody_reads_is_bounded() {
    common::alone("rx16_what_nobody_reads_is_bounded", || {
        // 16 bytes at a time take long.
        common::everywhere(|| nobody_reads(64 * 1024, 2 << 20));
        for credit in [1, 5000, 64 * 1024, 256 * 1024] {
            common::with_both(Runtime::builder().stream_credit(credit), || {
                nobody_reads(credit, 8 << 20)
            });
        }
    });
}

/// RX16. 1 others keep the pool at low water, so that what comes is copied to the heap; 2 the peer
/// sends single bytes, each a completion of its own, and nobody reads: the credit bounds what they
/// cost, not only what they are.
#[test]
fn rx16_single_bytes_are_charged_what_they_cost() {
    common::alone("rx16_single_bytes_are_charged_what_they_cost", || {
        const CREDIT: usize = 64 * 1024;
        let small = Runtime::builder().buffer_count(4).stream_credit(CREDIT);
        common::with_both(small, || async {
            let (keeping, keeping_peer) = pair().await;
            let mut kept = Vec::new();
            while tamam::metrics().buffers_lent < 3 {
                write(&keeping_peer, b"x");
                kept.push(keeping.recv().await.expect("no error").expect("a byte"));
            }
            drop((keeping, keeping_peer));
            let (stream, peer) = pair().await;
            drop(start(stream.recv()).await);
            turn().await;
            let (heap, mut sent) = (quarantine::live(), 0);
            while tamam::metrics().ops > 0 && sent < 2 * CREDIT {
                completing(|| write(&peer, b"x")).await;
                sent += 1;
            }
            let growth = quarantine::live() - heap;
            println!("{sent} bytes, the heap grew by {growth}");
            assert!(sent < 2 * CREDIT, "the credit is never used up");
            assert!(growth < 4 * CREDIT as isize, "{CREDIT} bytes of credit cost {growth} of heap");
            drop(peer);
            let (got, end) = until_end(&stream, Way::Read(LENT)).await;
            assert_eq!((got.len(), end), (sent, EOF));
        });
    });
}

/// RX17. 8000 bytes through calls that are given a millisecond each: all arrive.
#[test]
fn rx17_timeouts_lose_nothing() {
    common::everywhere(|| async {
        let ways =
            [Way::Recv, Way::Read(100), Way::Read(LENT), Way::ReadExact(100), Way::ReadExact(4000)];
        for way in ways {
            let (stream, peer) = pair().await;
            let writer = thread::spawn(move || {
                let (mut random, sent) = (Random(17), pattern(8000));
                let mut left = &sent[..];
                while !left.is_empty() {
                    let len = (1 + random.below(300) as usize).min(left.len());
                    write(&peer, &left[..len]);
                    left = &left[len..];
                    thread::sleep(Duration::from_micros(random.below(2500)));
                }
                peer
            });
            let (mut got, mut elapsed) = (Vec::new(), 0);
            while got.len() < 8000 {
                match timeout(Duration::from_millis(1), receive(&stream, way)).await {
                    Ok((bytes, None)) => got.extend(bytes),
                    Ok((_, end)) => panic!("{end:?} after {} bytes", got.len()),
                    Err(_) => elapsed += 1,
                }
            }
            println!("{way:?}: {elapsed} timeouts");
            assert_same(&got, &pattern(8000));
            drop(common::join(writer).await);
        }
    });
}

/// RX17. 1 a call with a deadline waits; 2 the thread is busy past it, the bytes come, and the
/// runtime notices both; 3 in the next poll both are ready: the bytes win.
#[test]
fn rx17_the_value_wins() {
    common::everywhere(|| async {
        let ways = [Way::Recv, Way::Read(SMALL), Way::Read(LENT), Way::ReadExact(SMALL)];
        for way in ways {
            let (stream, peer) = pair().await;
            let mut limited = loop {
                let mut limited =
                    Box::pin(timeout(Duration::from_millis(1), receive(&stream, way)));
                // On a slow machine the deadline may pass before the first poll.
                if poll_once(&mut limited).await.is_pending() {
                    break limited;
                }
            };
            turn().await;
            thread::sleep(Duration::from_millis(5));
            completing(|| write(&peer, &pattern(SMALL))).await;
            assert_eq!(tamam::metrics().timers, 0, "the deadline has passed");
            let both = poll_once(&mut limited).await;
            assert_eq!(both, Poll::Ready(Ok((pattern(SMALL), None))), "{way:?}");
        }
    });
}

/// RX18. 1 the main task, then two others wait for one stream; 2 bytes arrive, all three are
/// woken; 3 the main task, which is polled first, aborts the second and drops its own call; 4 the
/// third returns the bytes.
#[test]
fn rx18_a_woken_reader_is_aborted() {
    common::everywhere(|| async {
        for way in [Way::Recv, Way::Read(SMALL), Way::Read(LENT), Way::ReadExact(3)] {
            for gone in Gone::BOTH {
                let (stream, peer) = pair().await;
                let stream = Rc::new(stream);
                let mine = start(receive(&stream, Way::Recv)).await;
                let reader = || {
                    let stream = stream.clone();
                    tamam::spawn(async move { receive(&stream, way).await })
                };
                let (aborted, other) = (reader(), reader());
                turn().await; // they wait
                write(&peer, b"abc");
                next_wake().await;
                assert!(!aborted.is_finished() && !other.is_finished(), "not polled yet");
                aborted.abort();
                gone.leave(mine);
                assert_eq!(other.await.expect("not aborted"), (b"abc".to_vec(), None), "{way:?}");
                assert!(aborted.await.expect_err("aborted before its poll").is_cancelled());
            }
        }
    });
}

/// Waits until something that the task was polled for wakes it.
async fn next_wake() {
    let mut woken = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut woken, true) {
        false => Poll::Pending,
        true => Poll::Ready(()),
    })
    .await;
}

/// RX18. Any number of readers, aborted at random as the bytes come: those that are left get every
/// byte that the aborted ones have not returned.
#[test]
fn rx18_random_aborts_lose_nothing() {
    common::everywhere(|| async {
        const LEN: usize = 20_000;
        let (stream, peer) = pair().await;
        let (stream, log) = (Rc::new(stream), Rc::new(RefCell::new(Vec::new())));
        let reader = |way: Way| {
            let (stream, log) = (stream.clone(), log.clone());
            tamam::spawn(async move {
                loop {
                    let (bytes, end) = receive(&stream, way).await;
                    log.borrow_mut().extend(bytes);
                    if end.is_some() {
                        return;
                    }
                }
            })
        };
        let writer = thread::spawn(move || {
            for piece in pattern(LEN).chunks(77) {
                write(&peer, piece);
                thread::yield_now();
            }
        });
        let (mut random, mut readers) = (Random(18), VecDeque::new());
        while log.borrow().len() < LEN {
            let way = WAYS[random.below(4) as usize];
            readers.push_back(reader(way));
            if readers.len() > 3 {
                readers.pop_front().expect("there are four").abort();
            }
            match random.below(2) {
                0 => tamam::yield_now().await,
                _ => turn().await,
            }
        }
        common::join(writer).await;
        for reader in readers {
            reader.await.expect("the last ones see the end");
        }
        assert_same(&log.borrow(), &pattern(LEN));
    });
}

/// Builds a runtime with an open connection in it, whose stream is to outlive it.
fn outliving(builder: Builder) -> (Runtime, TcpStream, StdStream) {
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
async fn park_hundred(stream: &TcpStream, peer: &StdStream, parked_by: Way) -> usize {
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
fn left_in_socket(stream: TcpStream) -> Vec<u8> {
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
    common::alone("rx19_a_waiting_call_gets_its_buffer_back", || {
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

/// RX20. 1 the peer writes much; 2 after a while it comes in larger chunks than a pooled buffer; 3 some
/// futures are dropped on the way, and reads of every kind take their part: every byte is there, in
/// order; 4 a short message afterwards comes in a pooled buffer again, and no large one is kept.
#[test]
fn rx20_a_bulk_transfer_comes_in_large_chunks() {
    let pooled = 4096;
    common::with_both(Runtime::builder().buffer_size(pooled), || async {
        let bytes = pattern(8 << 20);
        let (stream, mut peer) = common::pair().await;
        let sent = bytes.clone();
        let writer = thread::spawn(move || {
            peer.write_all(&sent).expect("it is read");
            peer
        });
        let (mut got, mut longest, mut random) = (Vec::new(), 0, common::Random(20));
        while got.len() < bytes.len() {
            let left = bytes.len() - got.len();
            match random.below(20) {
                0 => {
                    let brief = Duration::from_micros(random.below(200));
                    if let Ok(chunk) = timeout(brief, stream.recv()).await {
                        got.extend_from_slice(&chunk.expect("no reset").expect("no end"));
                    }
                }
                1 => {
                    let room = 1 + random.below(100_000) as usize;
                    let (_, part) = stream.read(Vec::with_capacity(room)).await.expect("bytes");
                    got.extend_from_slice(&part);
                }
                2 => {
                    let len = left.min(1 + random.below(10_000) as usize);
                    let part = stream.read_exact(Vec::with_capacity(len), len).await;
                    got.extend_from_slice(&part.expect("bytes"));
                }
                _ => {
                    let chunk = stream.recv().await.expect("no reset").expect("no end");
                    longest = longest.max(chunk.len());
                    got.extend_from_slice(&chunk);
                }
            }
        }
        common::assert_same(&got, &bytes);
        assert!(longest > pooled, "the longest chunk has {longest} bytes");
        let mut peer = common::join(writer).await;
        // The first may still be received by what was armed for more.
        for message in ["first", "second", "third"] {
            peer.write_all(message.as_bytes()).expect("open");
            let chunk = stream.recv().await.expect("no reset").expect("no end");
            assert_eq!(&chunk[..], message.as_bytes());
            assert!(chunk.is_pooled() || message == "first");
        }
    });
}

/// RX20. 1 the peer sends message after message, each as long as a pooled buffer, and waits for the
/// answer; 2 that is no bulk transfer: almost all of them come in pooled buffers.
#[test]
fn rx20_messages_of_the_size_of_a_buffer_are_no_bulk_transfer() {
    let pooled = 4096;
    common::with_both(Runtime::builder().buffer_size(pooled), || async {
        let (stream, mut peer) = common::pair().await;
        let message = pattern(pooled);
        let mut on_the_heap = 0;
        for _ in 0..1000 {
            peer.write_all(&message).expect("open");
            let mut got = 0;
            while got < pooled {
                let chunk = stream.recv().await.expect("no reset").expect("no end");
                common::assert_same(&chunk, &message[got..got + chunk.len()]);
                got += chunk.len();
                on_the_heap += usize::from(!chunk.is_pooled());
            }
        }
        // After 16 messages, 64 more, 256 more; and what was armed by then.
        assert!((1..=6).contains(&on_the_heap), "{on_the_heap} of 1000 on the heap");
    });
}
