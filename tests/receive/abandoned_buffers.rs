//! RX3, RX4: what becomes of the buffer of a call that is dropped or forgotten.

use std::cell::Cell;
use std::future::Future;
use std::net::TcpStream as StdStream;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tamam::buf::{IoBuf, IoBufMut};

use crate::common::{completing, pattern, poll_once, start, turn};
use crate::family::{Stream, pair};
use crate::{LENT, SMALL, Way, common, next, receive, write};

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
    common::alone("abandoned_buffers::rx3_a_buffer_may_do_anything_when_it_is_freed", || {
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
) -> (Option<Rc<Stream>>, [StdStream; 2]) {
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

/// RX4. The buffer of a forgotten `read` stays whole while the kernel may write to it, also when
/// the stream has gone meanwhile; its op ends with the stream.
#[test]
fn rx4_a_forgotten_buffer_outlives_its_op() {
    common::alone("abandoned_buffers::rx4_a_forgotten_buffer_outlives_its_op", || {
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
