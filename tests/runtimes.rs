//! Runtimes and their context (SEMANTICS section 7): what works outside one, in another, after one,
//! inside one another, at the end of a thread, when the kernel refuses the ring or fails the engine,
//! and which engine a runtime takes.
//!
//! CX10 is in `drop_in_flight.rs`, CX15 in `full_queue.rs`.

mod common;
#[path = "common/each.rs"]
mod each;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::{Future, pending, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    alone, at_once, both, build, child, narrow_pair, pair, poll_once, ring_only, start, turn,
};
use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::time::{interval, sleep, timeout};
use tamam::{Backend, Builder, Runtime, SetupError, Support};

// ---- tools ---------------------------------------------------------------------------------

fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

/// Two connected std sockets.
fn std_pair() -> (StdStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let client = StdStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (server, _) = listener.accept().expect("it is there");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
    }
    (client, server)
}

/// Polls a future once where no runtime of ours is: what a foreign executor does.
fn poll_outside<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => panic!("a panic of ours has a text"),
    }
}

/// The words of the panic that `call` must end in.
#[track_caller]
fn panics<T>(call: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(_) => panic!("it had to panic"),
        Err(panic) => words(&*panic).to_owned(),
    }
}

/// A runtime works: a task, a timer, a connection with an echo in it.
async fn works() {
    let (stream, mut peer) = pair().await;
    let echo = tamam::spawn(async move {
        let chunk = stream.recv().await.expect("connected").expect("bytes");
        stream.send_all(chunk).await.expect("connected");
    });
    sleep(Duration::from_millis(1)).await;
    peer.write_all(b"echo").expect("connected");
    echo.await.expect("no panic");
    let mut answer = [0; 4];
    peer.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"echo");
}

/// How each call that has to wait or to submit answers in its first poll, where it must not be
/// `Pending` and must not succeed. Buffers must come back.
async fn refusals(stream: &TcpStream, listener: &TcpListener, socket: TcpSocket) -> Vec<io::Error> {
    let (error, buf) = at_once(stream.read(Vec::with_capacity(10))).await.unwrap_err().into_parts();
    let mut errors = vec![error];
    assert_eq!((buf.len(), buf.capacity()), (0, 10));
    let (error, buf) =
        at_once(stream.read(Vec::with_capacity(100_000))).await.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!((buf.len(), buf.capacity()), (0, 100_000));
    let read = at_once(stream.read_exact(Vec::with_capacity(10), 10)).await;
    let (error, buf) = read.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!((buf.len(), buf.capacity()), (0, 10));
    let (error, buf) = at_once(stream.send("send")).await.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!(buf, "send");
    let (error, buf) = at_once(stream.send_all("send")).await.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!(buf, "send");
    let (error, buf) = at_once(stream.sendv(vec!["a", "b"])).await.unwrap_err().into_parts();
    errors.push(error);
    assert_eq!(buf, ["a", "b"]);
    errors.push(at_once(stream.recv()).await.map(drop).unwrap_err());
    errors.push(at_once(listener.accept()).await.map(drop).unwrap_err());
    let addr = listener.local_addr().expect("bound");
    errors.push(at_once(socket.connect(addr)).await.map(drop).unwrap_err());
    errors
}

#[track_caller]
fn assert_refused(errors: &[io::Error], reason: &str) {
    for (number, error) in errors.iter().enumerate() {
        assert_eq!(error.kind(), ErrorKind::Other, "call {number}: {error}");
        assert!(error.to_string().contains(reason), "call {number}: {error}");
    }
}

/// Objects of a runtime, to be used elsewhere.
struct Objects {
    stream: TcpStream,
    peer: StdStream,
    listener: TcpListener,
    addr: SocketAddr,
}

impl Objects {
    fn of(runtime: &Runtime) -> Objects {
        runtime.block_on(async {
            let (stream, peer) = pair().await;
            let (listener, addr) = listening();
            Objects { stream, peer, listener, addr }
        })
    }

    fn socket(runtime: &Runtime) -> TcpSocket {
        let _guard = runtime.enter();
        TcpSocket::new_v4().expect("a socket")
    }

    /// At home everything works, and nothing was lost.
    fn work_at(mut self, home: &Runtime) {
        self.peer.write_all(b"still here").expect("connected");
        let client = StdStream::connect(self.addr).expect("it listens");
        home.block_on(async {
            let bytes = self.stream.read_exact(Vec::with_capacity(10), 10).await;
            assert_eq!(bytes.expect("connected"), b"still here");
            self.stream.send_all("me too").await.expect("connected");
            let (_stream, peer) = self.listener.accept().await.expect("a connection");
            assert_eq!(peer, client.local_addr().expect("connected"));
        });
        let mut answer = [0; 6];
        self.peer.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"me too");
    }
}

// ---- CX1, CX2, CX3 --------------------------------------------------------------------------

const OUTSIDE: &str = "no tamam runtime on this thread";

#[test]
fn cx1_constructors_outside_are_errors() {
    let (client, _server) = std_pair();
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let mut connect = Box::pin(TcpStream::connect(addr));
    let Poll::Ready(connected) = poll_outside(&mut connect) else { panic!("an answer at once") };
    let errors = [
        TcpListener::bind("127.0.0.1:0").map(drop),
        TcpListener::from_std(listener).map(drop),
        TcpStream::from_std(client).map(drop),
        TcpSocket::new_v4().map(drop),
        TcpSocket::new_v6().map(drop),
        connected.map(drop),
    ]
    .map(|result| result.expect_err("there is no runtime"));
    for (number, error) in errors.iter().enumerate() {
        assert!(error.to_string().starts_with(OUTSIDE), "constructor {number}: {error}");
        assert_eq!(error.kind(), ErrorKind::Other, "constructor {number}");
    }
}

/// `connect` does nothing before it is polled, so it may be made anywhere.
#[test]
fn cx1_connect_counts_where_it_is_polled() {
    each::engine(|runtime| {
        let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
        let connect = TcpStream::connect(listener.local_addr().expect("bound"));
        runtime().block_on(async { drop(connect.await.expect("it listens")) });
    });
}

/// The hook that sees the panic's place belongs to the process.
#[test]
fn cx2_outside_a_runtime_is_a_panic_at_the_callers_line() {
    alone("cx2_outside_a_runtime_is_a_panic_at_the_callers_line", || {
        let place = Arc::new(Mutex::new(String::new()));
        let noted = place.clone();
        std::panic::set_hook(Box::new(move |info| {
            let location = info.location().map(Location::file);
            *noted.lock().expect("not poisoned") = location.expect("a place").to_owned();
        }));
        let calls: [(&str, fn()); 2] =
            [("spawn", || drop(tamam::spawn(async {}))), ("metrics", || _ = tamam::metrics())];
        for (name, call) in calls {
            let text = panics(call);
            let file = place.lock().expect("not poisoned").clone();
            assert!(text.starts_with(OUTSIDE), "{name}: {text}");
            assert_eq!(file, file!(), "{name}");
        }
        // Made outside they are fine; polled they are not, due or not.
        let (mut due, mut later) = (sleep(Duration::ZERO), sleep(Duration::from_secs(3600)));
        let mut interval = interval(Duration::from_secs(1));
        let mut never = timeout(Duration::from_secs(1), Box::pin(pending::<()>()));
        for (name, text) in [
            ("sleep that is due", panics(|| poll_outside(&mut due))),
            ("sleep", panics(|| poll_outside(&mut later))),
            ("tick", panics(|| poll_outside(&mut Box::pin(interval.tick())))),
            ("timeout", panics(|| poll_outside(&mut Pin::new(&mut never)))),
        ] {
            assert!(text.starts_with(OUTSIDE), "{name}: {text}");
        }
        drop(std::panic::take_hook());
    });
}

#[test]
fn cx3_spawned_before_runs_in_the_next_block_on() {
    each::engine(|runtime| {
        let runtime = runtime();
        let trace = Rc::new(RefCell::new(Vec::new()));
        let note = |name: &'static str| {
            let trace = trace.clone();
            async move {
                trace.borrow_mut().push(name);
                tamam::yield_now().await;
                trace.borrow_mut().push(name);
            }
        };
        drop(runtime.spawn(note("one")));
        drop(runtime.spawn(note("two")));
        {
            let _guard = runtime.enter();
            drop(tamam::spawn(note("three")));
        }
        assert!(trace.borrow().is_empty(), "nothing runs by itself");
        assert_eq!(runtime.metrics().tasks, 3);
        runtime.block_on(async {});
        assert_eq!(*trace.borrow(), ["one", "two", "three"]);
        runtime.block_on(async {});
        assert_eq!(*trace.borrow(), ["one", "two", "three", "one", "two", "three"]);
        assert_eq!(runtime.metrics().tasks, 0);
    });
}

/// Constructors find the runtime under the guard, and only there.
#[test]
fn cx3_enter_is_for_constructors_too() {
    each::engine(|runtime| {
        let runtime = runtime();
        let (listener, addr) = {
            let _guard = runtime.enter();
            listening()
        };
        assert!(TcpListener::bind("127.0.0.1:0").is_err());
        let client = StdStream::connect(addr).expect("it listens");
        let (_, peer) = runtime.block_on(listener.accept()).expect("a connection");
        assert_eq!(peer, client.local_addr().expect("connected"));
    });
}

// ---- CX4, CX5 ------------------------------------------------------------------------------

/// In another runtime, under another executor, under none.
#[test]
fn cx4_elsewhere_is_an_error_and_home_still_works() {
    each::mixed(|runtime| {
        let (home, other) = (runtime(), runtime());
        let tokio = tokio::runtime::Builder::new_current_thread().build().expect("tokio works");
        let objects = Objects::of(&home);
        let calls = || refusals(&objects.stream, &objects.listener, Objects::socket(&home));
        assert_refused(
            &other.block_on(calls()),
            "polled outside its runtime: another one turns here",
        );
        assert_refused(&tokio.block_on(calls()), "polled outside its runtime: none turns");
        let Poll::Ready(errors) = poll_outside(&mut Box::pin(calls())) else { panic!("at once") };
        assert_refused(&errors, "polled outside its runtime");
        // To enter a runtime is not to turn it: nobody would submit what is asked for.
        let guard = home.enter();
        let Poll::Ready(errors) = poll_outside(&mut Box::pin(calls())) else { panic!("at once") };
        assert_refused(&errors, "polled outside its runtime: none turns");
        drop(guard);
        objects.work_at(&home);
    });
}

#[test]
fn cx4_what_is_parked_is_served_anywhere() {
    each::mixed(|runtime| {
        let other = runtime();
        for is_gone in [false, true] {
            let home = runtime();
            let mut objects = Objects::of(&home);
            let client = home.block_on(async {
                drop(start(objects.stream.recv()).await);
                drop(start(objects.listener.accept()).await);
                turn().await;
                objects.peer.write_all(b"parked").expect("connected");
                let client = StdStream::connect(objects.addr).expect("it listens");
                while tamam::metrics().parked < 2 {
                    turn().await;
                }
                client
            });
            let home = (!is_gone).then_some(home);
            let Objects { stream, listener, .. } = &objects;
            other.block_on(async {
                let read = at_once(stream.read(Vec::with_capacity(2))).await.expect("parked bytes");
                assert_eq!(read, (2, b"pa".to_vec()));
                let chunk =
                    at_once(stream.recv()).await.expect("parked bytes").expect("not the end");
                assert_eq!(&chunk[..], b"rked");
                let (accepted, peer) =
                    at_once(listener.accept()).await.expect("a parked connection");
                assert_eq!(peer, client.local_addr().expect("connected"));
                let reason = if is_gone { "runtime is gone" } else { "polled outside its runtime" };
                assert_refused(&[at_once(stream.recv()).await.map(drop).unwrap_err()], reason);
                // It belongs to the runtime of its listener.
                assert_refused(&[at_once(accepted.recv()).await.map(drop).unwrap_err()], reason);
            });
            drop(home);
        }
    });
}

/// A listener whose backlog is full: the next connect waits.
fn full_backlog() -> (TcpListener, Vec<StdStream>) {
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpSocket::new_v4().and_then(|socket| socket.backlog(0).listen(addr));
    let listener = listener.expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let mut clients = Vec::new();
    while let Ok(client) = StdStream::connect_timeout(&addr, Duration::from_millis(100)) {
        clients.push(client);
    }
    (listener, clients)
}

/// 1 futures wait at home, their ops are in flight; 2 each is polled in another runtime; 3 it gives
/// an error at once and its buffer back; 4 at home no byte and no connection is missing.
#[test]
fn cx4_waiting_at_home_then_polled_elsewhere() {
    each::mixed(|runtime| {
        let (home, other) = (runtime(), runtime());
        let is_refused = |error: io::Error| assert_refused(&[error], "polled outside its runtime");
        for room in [10, 100_000] {
            let mut objects = Objects::of(&home);
            let mut read = Box::pin(objects.stream.read(Vec::with_capacity(room)));
            assert!(home.block_on(poll_once(&mut read)).is_pending());
            let (error, buf) = other.block_on(at_once(read)).unwrap_err().into_parts();
            is_refused(error);
            assert_eq!((buf.len(), buf.capacity()), (0, room));
            let mut exact = Box::pin(objects.stream.read_exact(Vec::with_capacity(room), room));
            objects.peer.write_all(b"some").expect("connected");
            home.block_on(async {
                let completed = tamam::metrics().completions;
                assert!(poll_once(&mut exact).await.is_pending());
                while tamam::metrics().completions == completed {
                    turn().await;
                }
                assert!(poll_once(&mut exact).await.is_pending());
            });
            let (error, _buf) = other.block_on(at_once(exact)).unwrap_err().into_parts();
            is_refused(error);
            let mut recv = Box::pin(
                home.block_on(objects.stream.recv())
                    .map(|chunk| {
                        assert_eq!(&chunk.expect("not the end")[..], b"some", "room {room}");
                        objects.stream.recv()
                    })
                    .expect("connected"),
            );
            assert!(home.block_on(poll_once(&mut recv)).is_pending());
            is_refused(other.block_on(at_once(recv)).map(drop).unwrap_err());
            let mut accept = Box::pin(objects.listener.accept());
            assert!(home.block_on(poll_once(&mut accept)).is_pending());
            is_refused(other.block_on(at_once(accept)).map(drop).unwrap_err());
            objects.work_at(&home);
        }
        let (full, _clients) = home.block_on(async { full_backlog() });
        let mut connect = Box::pin(TcpStream::connect(full.local_addr().expect("bound")));
        assert!(home.block_on(poll_once(&mut connect)).is_pending());
        is_refused(other.block_on(at_once(connect)).map(drop).unwrap_err());
        home.block_on(turn());
        assert_eq!(home.metrics().ops, 0, "the attempt has ended");
    });
}

/// The same for sends: what the kernel has seen a part of goes out whole, in its turn; what was
/// still queued is as if it had never been.
#[test]
fn cx4_sends_waiting_at_home_then_polled_elsewhere() {
    each::mixed(|runtime| {
        const LEN: usize = 8 << 20;
        let (home, other) = (runtime(), runtime());
        let (stream, peer) = home.block_on(narrow_pair());
        let in_flight = common::pattern(LEN);
        let mut first = Box::pin(stream.send_all(in_flight.clone()));
        let mut second = Box::pin(stream.send_all(vec![1; 1000]));
        let mut third = Box::pin(stream.send_all(vec![2; 1000]));
        home.block_on(async {
            assert!(poll_once(&mut first).await.is_pending());
            assert!(poll_once(&mut second).await.is_pending());
            assert!(poll_once(&mut third).await.is_pending());
            turn().await;
        });
        let (error, buf) = other.block_on(at_once(second)).unwrap_err().into_parts();
        assert_refused(&[error], "polled outside its runtime");
        assert_eq!(buf, [1; 1000]);
        let (error, buf) = other.block_on(at_once(first)).unwrap_err().into_parts();
        assert_refused(&[error], "polled outside its runtime");
        common::assert_same(&buf, &in_flight);
        drop(buf); // what goes out from now on is a copy
        let reading = common::read_to_end(peer);
        let received = home.block_on(async {
            third.await.expect("connected");
            stream.shutdown().await.expect("connected");
            common::join(reading).await.expect("no reset")
        });
        common::assert_same(&received[..LEN], &in_flight);
        assert_eq!(&received[LEN..], [2; 1000]);
    });
}

/// Every method, outside of all runtimes and in another one: an error, never a panic or a hang.
#[test]
fn cx5_after_the_runtime() {
    each::mixed(|runtime| {
        let other = runtime();
        for is_inside in [false, true] {
            let home = runtime();
            let Objects { stream, mut peer, listener, addr } = Objects::of(&home);
            let (to_split, mut split_peer) = home.block_on(pair());
            let (to_convert, mut convert_peer) = home.block_on(pair());
            let sockets = [(); 4].map(|()| Objects::socket(&home));
            drop(home);
            let [connecting, binding, bound, dropped] = sockets;
            let use_all = async {
                assert_refused(
                    &refusals(&stream, &listener, connecting).await,
                    "its tamam runtime is gone",
                );
                assert_eq!(
                    stream.local_addr().expect("a socket"),
                    peer.peer_addr().expect("connected")
                );
                assert_eq!(
                    stream.peer_addr().expect("a socket"),
                    peer.local_addr().expect("connected")
                );
                stream.set_nodelay(true).expect("a socket");
                assert!(stream.nodelay().expect("a socket"));
                assert_eq!(listener.local_addr().expect("a socket"), addr);
                assert!(!format!("{stream:?} {listener:?}").is_empty());
                let (read, write) = to_split.into_split();
                let recv = at_once(read.recv()).await.map(drop).unwrap_err();
                let send = at_once(write.send_all("x")).await.unwrap_err().into_parts().0;
                assert_refused(&[recv, send], "its tamam runtime is gone");
                drop(read.reunite(write).expect("one pair"));
                let (mut converted, unread) = to_convert.into_std().expect("nothing is unsent");
                assert!(unread.is_empty());
                converted.write_all(b"converted").expect("connected");
                let (_listener, parked) = listener.into_std().expect("it has no need of the ring");
                assert!(parked.is_empty());
                let listener = bound.bind("127.0.0.1:0".parse().expect("an address"));
                drop(listener.expect("bind(2) has no need of the ring"));
                drop(binding.listen("127.0.0.1:0".parse().expect("an address")));
                drop(dropped);
                // Nothing is queued, so this does not wait: shutdown(2), and the peer has the end.
                let _ = at_once(stream.shutdown()).await;
                drop(stream);
            };
            match is_inside {
                true => other.block_on(use_all),
                false => {
                    let mut use_all = Box::pin(use_all);
                    assert!(poll_outside(&mut use_all).is_ready());
                }
            }
            for peer in [&mut peer, &mut split_peer] {
                assert_eq!(peer.read(&mut [0]).expect("closed"), 0);
            }
            let mut text = String::new();
            convert_peer.read_to_string(&mut text).expect("closed");
            assert_eq!(text, "converted");
        }
    });
}

/// The runtime goes while futures wait: each gives an error, and its buffer back.
#[test]
fn cx5_futures_that_waited_when_the_runtime_went() {
    each::mixed(|runtime| {
        let home = runtime();
        let Objects { stream, peer: _peer, listener, .. } = Objects::of(&home);
        let (stalled, _stalled_peer) = home.block_on(narrow_pair());
        let mut read = Box::pin(stream.read(Vec::with_capacity(100_000)));
        let mut recv = Box::pin(stream.recv());
        let mut accept = Box::pin(listener.accept());
        let mut in_flight = Box::pin(stalled.send_all(vec![1; 8 << 20]));
        let mut queued = Box::pin(stalled.send_all(vec![2; 1000]));
        let mut shutdown = Box::pin(stalled.shutdown());
        home.block_on(async {
            assert!(poll_once(&mut read).await.is_pending());
            assert!(poll_once(&mut recv).await.is_pending());
            assert!(poll_once(&mut accept).await.is_pending());
            assert!(poll_once(&mut in_flight).await.is_pending());
            assert!(poll_once(&mut queued).await.is_pending());
            assert!(poll_once(&mut shutdown).await.is_pending());
            turn().await;
        });
        drop(home);
        runtime().block_on(async {
            let (error, buf) = at_once(read).await.unwrap_err().into_parts();
            assert_eq!(buf.capacity(), 100_000);
            let mut errors = vec![error];
            errors.push(at_once(recv).await.map(drop).unwrap_err());
            errors.push(at_once(accept).await.map(drop).unwrap_err());
            let (error, buf) = at_once(in_flight).await.unwrap_err().into_parts();
            errors.push(error);
            assert_eq!(buf.len(), 8 << 20);
            let (error, buf) = at_once(queued).await.unwrap_err().into_parts();
            errors.push(error);
            assert_eq!(buf.len(), 1000);
            assert_refused(&errors, "its tamam runtime is gone");
            drop(at_once(shutdown).await); // Ok or not: it does not hang
        });
    });
}

// ---- CX6, CX7, CX8 --------------------------------------------------------------------------

#[test]
fn cx6_block_on_inside_block_on() {
    each::mixed(|runtime| {
        let (outer, other) = (Rc::new(runtime()), runtime());
        let polled = Rc::new(Cell::new(0));
        let count = || {
            let polled = polled.clone();
            async move { polled.set(polled.get() + 1) }
        };
        outer.block_on(async {
            // In `block_on`'s own future.
            for text in [
                panics(|| outer.block_on(count())),
                panics(|| other.block_on(count())),
                panics(|| tamam::run(count())),
            ] {
                assert!(text.contains("`block_on`") && text.contains("inside"), "{text}");
            }
            works().await;
            // In a task.
            let (inner, nested) = (outer.clone(), count());
            let text = tamam::spawn(async move { panics(|| inner.block_on(nested)) });
            assert!(text.await.expect("caught in the task").contains("inside"));
            works().await;
        });
        assert_eq!(polled.get(), 0, "nothing was polled");
        other.block_on(works());
    });
}

/// A foreign `block_on` in a task blocks the thread, as everywhere, and confuses nothing.
#[test]
fn cx6_a_foreign_block_on_inside() {
    each::engine(|runtime| {
        let tokio =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        runtime().block_on(async {
            tokio.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            works().await;
        });
        let runtime = runtime();
        tokio.block_on(async {
            runtime.block_on(works()); // and the other way round
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
    });
}

async fn fails() {
    panic!("by intent");
}

#[test]
fn cx7_one_after_the_other_and_in_turns() {
    each::mixed(|runtime| {
        let (first, second) = (runtime(), runtime());
        for runtime in [&first, &second, &first] {
            runtime.block_on(works());
        }
        // Objects of both live at once, each used at home.
        let (mut a, mut b) = (Objects::of(&first), Objects::of(&second));
        for round in 0..10u8 {
            for (home, objects) in [(&first, &mut a), (&second, &mut b)] {
                objects.peer.write_all(&[round]).expect("connected");
                let chunk = home.block_on(objects.stream.recv()).expect("connected");
                assert_eq!(&chunk.expect("bytes")[..], [round]);
            }
        }
        a.work_at(&first);
        drop(first);
        b.work_at(&second);
    });
}

/// 1 `block_on` unwinds, in either runtime; 2 the thread has no runtime then, or the one that was
/// entered before; 3 both work.
#[test]
fn cx7_the_context_comes_back_when_block_on_unwinds() {
    each::mixed(|runtime| {
        let (first, second) = (runtime(), runtime());
        let text = panics(|| first.block_on(fails()));
        assert_eq!(text, "by intent");
        assert!(panics(|| tamam::spawn(async {})).starts_with(OUTSIDE));
        let guard = first.enter();
        panics(|| second.block_on(fails()));
        let task = tamam::spawn(works());
        drop(guard);
        assert_eq!((first.metrics().tasks, second.metrics().tasks), (1, 0), "spawned in the first");
        first.block_on(task).expect("no panic");
        second.block_on(works());
    });
}

/// Guards may be dropped in any order: what is left when all are gone is no runtime.
#[test]
fn cx7_guards_dropped_out_of_order() {
    each::mixed(|runtime| {
        let (first, second) = (runtime(), runtime());
        let guards = (first.enter(), second.enter());
        drop(guards.0);
        let task = tamam::spawn(async { 7 });
        assert_eq!(second.metrics().tasks, 1, "the second is still entered");
        drop(guards.1);
        assert!(panics(|| tamam::spawn(async {})).starts_with(OUTSIDE));
        assert_eq!(second.block_on(task).expect("no panic"), 7);
    });
}

/// Starts `count` tasks that receive for ever; gives the peers.
async fn receivers(count: usize) -> Vec<StdStream> {
    let mut peers = Vec::new();
    for index in 0..count {
        let (stream, peer) = pair().await;
        peers.push(peer);
        tamam::spawn(async move {
            loop {
                match index % 2 {
                    0 => drop(stream.recv().await),
                    _ => drop(stream.read(Vec::with_capacity(64 * 1024)).await),
                }
            }
        });
    }
    turn().await;
    peers
}

#[test]
fn cx8_a_runtime_dropped_in_a_task_of_another() {
    alone("cx8_a_runtime_dropped_in_a_task_of_another", || {
        each::mixed(|runtime| {
            let outer = runtime();
            let inner = runtime();
            let mut peers = inner.block_on(receivers(100));
            assert!(inner.metrics().ops >= 100, "the receives are in flight");
            outer.block_on(async move {
                let task = tamam::spawn(async move {
                    drop(inner);
                    // The context is this runtime's again.
                    works().await;
                    tamam::metrics().tasks
                });
                assert_eq!(task.await.expect("no panic"), 1);
                works().await;
            });
            for peer in &mut peers {
                assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
            }
            assert_eq!(outer.metrics().stray_completions, 0);
        });
    });
}

/// Built inside a task too; it cannot turn there, but take spawns.
#[test]
fn cx8_a_runtime_that_lives_and_dies_in_a_task() {
    each::mixed(|runtime| {
        runtime().block_on(async {
            let inner = runtime();
            let task = inner.spawn(works());
            let objects = {
                let _guard = inner.enter();
                listening()
            };
            assert_refused(
                &[at_once(objects.0.accept()).await.map(drop).unwrap_err()],
                "polled outside",
            );
            drop(inner);
            assert!(task.await.is_err_and(|error| error.is_cancelled()));
            works().await;
        });
    });
}

// ---- CX9, CX11 ------------------------------------------------------------------------------

thread_local! {
    static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    static STREAM: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
}

/// 1 a thread keeps its runtime in a thread-local, and a stream of it in another, which goes before
/// or after it; 2 receives are in flight; 3 the thread ends; 4 every peer sees the end.
#[test]
fn cx9_a_runtime_in_a_thread_local() {
    alone("cx9_a_runtime_in_a_thread_local", || {
        let engines = both(&Runtime::builder()).into_iter();
        for ((name, builder), is_stream_first) in
            engines.flat_map(|it| [(it.clone(), true), (it, false)])
        {
            eprintln!("-- {name}, stream first: {is_stream_first}");
            let thread = thread::spawn(move || {
                // The order of first uses is the order of destructors, one way or the other.
                if is_stream_first {
                    STREAM.with(|_| ());
                }
                let runtime = build(builder);
                let (mut peers, stream) = runtime.block_on(async {
                    let mut peers = receivers(100).await;
                    let (stream, peer) = pair().await;
                    peers.push(peer);
                    std::mem::forget(start(stream.recv()).await);
                    turn().await;
                    (peers, stream)
                });
                assert!(runtime.metrics().ops >= 101, "the receives are in flight");
                RUNTIME.set(Some(runtime));
                STREAM.set(Some(stream));
                peers[0].write_all(b"unread").expect("connected");
                peers
            });
            for peer in &mut thread.join().expect("no panic, in destructors neither") {
                match peer.read(&mut [0]) {
                    Ok(len) => assert_eq!(len, 0),
                    Err(error) => panic!("no reset: {error}"),
                }
            }
        }
    });
}

/// Notes when it is dropped.
struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// What the drop of a future found, when it used the runtime that is being dropped.
#[derive(Default)]
struct Found {
    errors: Vec<io::Error>,
    is_spawned_dropped: bool,
    is_handle_cancelled: bool,
    is_sleep_ready: bool,
}

/// Uses everything when it is dropped.
struct Guard {
    objects: Option<Objects>,
    found: Rc<RefCell<Found>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut found = self.found.borrow_mut();
        let dropped = Rc::new(Cell::new(false));
        let guard = Dropped(dropped.clone());
        let mut handle = tamam::spawn(async move {
            pending::<()>().await;
            drop(guard);
        });
        found.is_spawned_dropped = dropped.get();
        found.is_handle_cancelled = matches!(
            poll_outside(&mut handle), Poll::Ready(Err(error)) if error.is_cancelled());
        found.is_sleep_ready = poll_outside(&mut sleep(Duration::from_secs(3600))).is_ready();
        let Objects { stream, listener, addr, .. } = self.objects.take().expect("dropped once");
        let mut note = |what: Poll<Option<io::Error>>| {
            found.errors.push(match what {
                Poll::Ready(error) => error.expect("an error"),
                Poll::Pending => io::Error::other("nothing: it waits, for ever"),
            });
        };
        let error = |result: io::Result<()>| result.err();
        note(poll_outside(&mut Box::pin(stream.recv())).map(|it| error(it.map(drop))));
        let read = stream.read(Vec::with_capacity(100_000));
        note(poll_outside(&mut Box::pin(read)).map(|it| it.err().map(|it| it.into_parts().0)));
        let send = stream.send_all("in the teardown");
        note(poll_outside(&mut Box::pin(send)).map(|it| it.err().map(|it| it.into_parts().0)));
        note(poll_outside(&mut Box::pin(listener.accept())).map(|it| error(it.map(drop))));
        note(poll_outside(&mut Box::pin(TcpStream::connect(addr))).map(|it| error(it.map(drop))));
        drop(TcpListener::bind("127.0.0.1:0")); // whatever it says, it does not panic
    }
}

#[test]
fn cx11_a_future_that_uses_the_runtime_in_its_drop() {
    alone("cx11_a_future_that_uses_the_runtime_in_its_drop", || {
        each::engine(|runtime| {
            let found = Rc::new(RefCell::new(Found::default()));
            let runtime = runtime();
            let objects = Objects::of(&runtime);
            let mut peer = objects.peer.try_clone().expect("a descriptor is left");
            let guard = Guard { objects: Some(objects), found: found.clone() };
            let others = runtime.block_on(receivers(10));
            drop(runtime.spawn(async move {
                pending::<()>().await;
                drop(guard);
            }));
            runtime.block_on(turn());
            drop(runtime);
            let found = found.take();
            assert!(found.is_spawned_dropped, "what is spawned is dropped at once");
            assert!(found.is_handle_cancelled);
            assert!(!found.is_sleep_ready, "an hour has not passed");
            assert_refused(&found.errors, "its tamam runtime is gone");
            assert_eq!(found.errors.len(), 5);
            assert_eq!(peer.read(&mut [0]).expect("the end, and nothing before it"), 0);
            drop(others);
        });
    });
}

/// A panic in there is caught, and the others are dropped all the same.
#[test]
fn cx11_a_panic_in_the_drop() {
    alone("cx11_a_panic_in_the_drop", || {
        each::engine(|runtime| {
            let runtime = runtime();
            let peers = runtime.block_on(receivers(3));
            let dropped = Rc::new(Cell::new(false));
            let (bomb, guard) = (Bomb, Dropped(dropped.clone()));
            drop(runtime.spawn(async move {
                pending::<()>().await;
                drop(bomb);
            }));
            drop(runtime.spawn(async move {
                pending::<()>().await;
                drop(guard);
            }));
            runtime.block_on(turn());
            drop(runtime);
            assert!(dropped.get());
            for mut peer in peers {
                assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
            }
        });
    });
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("by intent, in a drop during teardown");
    }
}

// ---- CX12 ----------------------------------------------------------------------------------

/// The descriptors of the rings of this process, or of its sets of epoll.
fn descriptors_of(engine: Backend) -> Vec<i32> {
    let kind = if engine == Backend::Ring { "[io_uring]" } else { "[eventpoll]" };
    let is_ring = |line: &String| line.ends_with(kind);
    let number = |line: String| line.split(' ').next().and_then(|number| number.parse().ok());
    let open = common::descriptors().into_iter().filter(is_ring);
    open.map(|line| number(line).expect("`number -> what`")).collect()
}

/// A thread that wakes a future of another: the way of `std::task::Waker` alone.
async fn woken_by_a_thread() {
    let state = Arc::new(Mutex::new((false, None::<Waker>)));
    let thread = thread::spawn({
        let state = state.clone();
        move || {
            thread::sleep(Duration::from_millis(20));
            let mut state = state.lock().expect("not poisoned");
            state.0 = true;
            state.1.take().expect("it waits").wake();
        }
    });
    poll_fn(|cx| {
        let mut state = state.lock().expect("not poisoned");
        state.1 = Some(cx.waker().clone());
        if state.0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    thread.join().expect("no panic");
}

/// An error of an engine that failed: names what it said, and which it was.
#[track_caller]
fn assert_broken(what: &str, error: &io::Error, (engine, errno): (Backend, i32)) {
    let cause = io::Error::from_raw_os_error(errno).to_string();
    let text = error.to_string();
    assert!(text.contains(&cause), "{what}: {text}, not {cause}");
    let engine = if engine == Backend::Ring { "io_uring" } else { "epoll" };
    assert!(text.contains(engine), "{what}: {text}: not a word about {engine}");
}

/// 1 every kind of future waits; 2 `break_engine` sees to it that an enter fails with `errno`; 3
/// every waiter hears of it; 4 tasks, timers, wakes from other threads and the teardown go on.
fn engine_fails(runtime: Runtime, errno: i32, break_engine: impl FnOnce()) {
    let _watchdog = common::Watchdog::start();
    let errno = (runtime.backend(), errno);
    runtime.block_on(async {
        let (idle, _idle_peer) = pair().await;
        let (stream, _peer) = pair().await;
        let (reading, _reading_peer) = pair().await;
        let (stalled, _stalled_peer) = narrow_pair().await;
        let (full, _clients) = full_backlog();
        let (listener, _) = listening();
        let (stream, listener) = (Rc::new(stream), Rc::new(listener));
        let recv = tamam::spawn({
            let stream = stream.clone();
            async move { stream.recv().await.map(drop) }
        });
        let accept = tamam::spawn({
            let listener = listener.clone();
            async move { listener.accept().await.map(drop) }
        });
        let full_addr = full.local_addr().expect("bound");
        let connect = tamam::spawn(async move { TcpStream::connect(full_addr).await.map(drop) });
        // Their buffers are the kernel's: they cannot be given back, and a panic says so.
        let read = tamam::spawn(async move { drop(reading.read(vec_of(100_000)).await) });
        let send = tamam::spawn(async move { drop(stalled.send_all(vec![7; 8 << 20]).await) });
        let ticks = Rc::new(Cell::new(0));
        let ticking = tamam::spawn({
            let ticks = ticks.clone();
            async move {
                loop {
                    sleep(Duration::from_millis(1)).await;
                    ticks.set(ticks.get() + 1);
                }
            }
        });
        turn().await;
        break_engine();
        for (what, task) in [("recv", recv), ("accept", accept), ("connect", connect)] {
            let error = task.await.expect("no panic").expect_err("the engine has failed");
            println!("{what}: {error}");
            assert_broken(what, &error, errno);
        }
        for task in [read, send] {
            let panic = task.await.expect_err("the buffer is lost").into_panic();
            assert!(words(&*panic).contains("failed with this buffer"));
        }
        let before = ticks.get();
        while ticks.get() < before + 10 {
            sleep(Duration::from_millis(3)).await;
        }
        ticking.abort();
        woken_by_a_thread().await;
        assert_eq!(tamam::spawn(async { 7 }).await.expect("no panic"), 7);
        assert_broken("recv", &stream.recv().await.map(drop).unwrap_err(), errno);
        assert_broken("recv on another", &idle.recv().await.map(drop).unwrap_err(), errno);
        let (error, buf) = idle.send_all("back").await.unwrap_err().into_parts();
        assert_broken("send", &error, errno);
        assert_eq!(buf, "back");
        let (error, buf) = idle.read(vec_of(10)).await.unwrap_err().into_parts();
        assert_broken("read", &error, errno);
        assert_eq!(buf.capacity(), 10);
        assert_broken("accept", &listener.accept().await.map(drop).unwrap_err(), errno);
        let connect = TcpStream::connect(full_addr).await.map(drop).unwrap_err();
        assert_broken("connect", &connect, errno);
    });
    assert_eq!(runtime.metrics().ops, 0);
    drop(runtime);
}

fn vec_of(capacity: usize) -> Vec<u8> {
    Vec::with_capacity(capacity)
}

/// Errors after which a ring is of no use, as strace names them.
const FATAL_TO_RINGS: [(&str, i32); 8] = [
    ("EBADF", libc::EBADF),
    ("ENXIO", libc::ENXIO),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("EEXIST", libc::EEXIST),
    ("EFAULT", libc::EFAULT),
    ("EBADR", libc::EBADR),
    // A filter that lets set-up pass.
    ("EPERM", libc::EPERM),
    ("ENOSYS", libc::ENOSYS),
];
/// The same for a set of epoll. (EPERM and ENOSYS say that there is no epoll_pwait2(2).)
const FATAL_TO_EPOLL: [(&str, i32); 3] =
    [("EBADF", libc::EBADF), ("EFAULT", libc::EFAULT), ("EINVAL", libc::EINVAL)];

#[test]
fn cx12_an_enter_that_fails_for_good() {
    const NAME: &str = "cx12_an_enter_that_fails_for_good";
    for (engine, builder) in both(&Runtime::builder()) {
        let (call, errors) = match engine {
            "ring" => ("io_uring_enter", &FATAL_TO_RINGS[..]),
            _ if has(&build(builder.clone()), "exact waits") => {
                ("epoll_pwait2", &FATAL_TO_EPOLL[..])
            }
            _ => ("epoll_wait", &FATAL_TO_EPOLL[..]),
        };
        for (error, errno) in errors {
            let name = format!("{engine} {error}");
            match child::part(NAME) {
                // The fiftieth enter fails; the ticks get there.
                Some(part) if part == name => return engine_fails(build(builder), *errno, || ()),
                Some(_) => continue,
                None => {}
            }
            // Once, or from then on.
            for when in ["50", "50+1"] {
                let injection = format!("{call}:error={error}:when={when}");
                let Some(launcher) = child::strace(&[&injection]) else { return };
                child::play(NAME, &name, &launcher);
            }
        }
    }
}

/// Makes number `fd` mean /dev/null.
fn replace(fd: i32) {
    let null = File::open("/dev/null").expect("it is everywhere");
    // SAFETY: takes no pointers. The number is the ring's, which the test means to break.
    assert_eq!(unsafe { libc::dup2(null.as_raw_fd(), fd) }, fd);
}

/// Whether a kernel feature is in use.
fn has(runtime: &Runtime, feature: &str) -> bool {
    let support = runtime.capabilities().support(feature);
    support.expect("a feature of this name") == Support::Native
}

/// Code that knows nothing of the ring replaces its descriptor. A registered ring does not notice;
/// a thread has room for sixteen of those.
#[test]
fn cx12_the_rings_descriptor_is_replaced() {
    const NAME: &str = "cx12_the_rings_descriptor_is_replaced";
    let Some(ring) = ring_only(Runtime::builder()) else { return };
    match child::part(NAME).as_deref() {
        Some("registered") => {
            let runtime = build(ring.clone());
            if !has(&runtime, "registered ring") {
                return println!("skipped: no registered rings");
            }
            runtime.block_on(works());
            replace(descriptors_of(Backend::Ring)[0]);
            runtime.block_on(works());
            drop(runtime);
            build(ring).block_on(works());
        }
        Some("not registered") => {
            let (runtime, fd, _registered) = not_registered(ring);
            engine_fails(runtime, libc::EOPNOTSUPP, || replace(fd));
        }
        _ => {
            child::play(NAME, "registered", &[]);
            child::play(NAME, "not registered", &[]);
        }
    }
}

/// A runtime that enters by its descriptor, since the thread has registered as many as it can.
fn not_registered(ring: Builder) -> (Runtime, i32, Vec<Runtime>) {
    let registered: Vec<_> = (0..16).map(|_| build(ring.clone())).collect();
    let before = descriptors_of(Backend::Ring);
    let runtime = build(ring);
    assert!(!has(&runtime, "registered ring"), "there is no room");
    let new = descriptors_of(Backend::Ring).into_iter().find(|fd| !before.contains(fd));
    (runtime, new.expect("a new one"), registered)
}

/// The same done to epoll's set.
#[test]
fn cx12_the_sets_descriptor_is_replaced() {
    const NAME: &str = "cx12_the_sets_descriptor_is_replaced";
    if child::part(NAME).is_none() {
        child::play(NAME, "replaced", &[]);
        return;
    }
    let runtime = build(Runtime::builder().backend(Backend::Epoll));
    engine_fails(runtime, libc::EINVAL, || replace(descriptors_of(Backend::Epoll)[0]));
}

/// The only waiter there is, and no timer that would end the sleep: the failure does.
#[test]
fn cx12_a_lone_waiter_hears_of_it() {
    const NAME: &str = "cx12_a_lone_waiter_hears_of_it";
    let Some(part) = child::part(NAME) else {
        for (engine, _) in both(&Runtime::builder()) {
            for what in ["recv", "accept", "connect"] {
                child::play(NAME, &format!("{engine} {what}"), &[]);
            }
        }
        return;
    };
    let (engine, part) = part.split_once(' ').expect("an engine, and what waits");
    let _watchdog = common::Watchdog::start();
    let (runtime, fd, _registered, errno) = if engine == "ring" {
        let (runtime, fd, registered) = not_registered(Runtime::builder().backend(Backend::Ring));
        (runtime, fd, registered, libc::EOPNOTSUPP)
    } else {
        let runtime = build(Runtime::builder().backend(Backend::Epoll));
        (runtime, descriptors_of(Backend::Epoll)[0], Vec::new(), libc::EINVAL)
    };
    let error = runtime.block_on(async {
        let (stream, _peer) = pair().await;
        let (listener, _) = listening();
        let (full, _clients) = full_backlog();
        let full = full.local_addr().expect("bound");
        turn().await;
        let waiting = async {
            match part {
                "recv" => stream.recv().await.map(drop),
                "accept" => listener.accept().await.map(drop),
                _ => TcpStream::connect(full).await.map(drop),
            }
        };
        let mut waiting = start(waiting).await;
        replace(fd);
        (&mut waiting).await.expect_err("the engine has failed")
    });
    assert_broken(part, &error, (runtime.backend(), errno));
}

// ---- CX13 ----------------------------------------------------------------------------------

/// Work in which every kind of enter happens: many streams, timers, cancels, closes, a settle.
async fn busy() {
    let (listener, addr) = listening();
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let client = TcpStream::connect(addr).await.expect("it listens");
        let (server, _) = listener.accept().await.expect("a connection");
        tasks.push(tamam::spawn(async move {
            while let Some(chunk) = server.recv().await.expect("no reset") {
                server.send_all(chunk).await.expect("connected");
            }
        }));
        tasks.push(tamam::spawn(async move {
            for round in 0..20u8 {
                client.send_all(vec![round; 300]).await.expect("connected");
                let early = timeout(Duration::from_micros(100), client.read(vec_of(10_000))).await;
                let mut bytes = early.map_or_else(|_| Vec::new(), |read| read.expect("no reset").1);
                let rest = 300 - bytes.len();
                bytes.extend(client.read_exact(vec_of(rest), rest).await.expect("connected"));
                assert_eq!(bytes, [round; 300]);
                sleep(Duration::from_micros(500)).await;
            }
        }));
    }
    drop(listener);
    for task in tasks {
        task.await.expect("no panic");
    }
}

/// What is injected, and on which engines the part runs.
const IN_PASSING: [(&str, &str); 8] = [
    ("ring", "io_uring_enter:error=EINTR:when=3+3"),
    ("ring", "io_uring_enter:error=EAGAIN:when=3+3"),
    ("ring", "io_uring_enter:error=EBUSY:when=3+3"),
    ("ring", "io_uring_enter:error=ENOMEM:when=3+3"),
    ("epoll", "epoll_wait:error=EINTR:when=3+3"),
    ("epoll", "epoll_pwait2:error=EINTR:when=3+3"),
    ("epoll", "recvfrom:error=EINTR:when=2+2"),
    ("epoll", "sendto,sendmsg,accept4:error=EINTR:when=2+2"),
];

#[test]
fn cx13_errors_in_passing_are_invisible() {
    const NAME: &str = "cx13_errors_in_passing_are_invisible";
    if let Some(part) = child::part(NAME) {
        return alone_in(|| {
            for (name, builder) in common::engines() {
                if name.split(' ').any(|word| word == part) {
                    eprintln!("-- {name}");
                    common::with(builder, busy);
                }
            }
        });
    }
    let engines = both(&Runtime::builder());
    for (engine, injection) in IN_PASSING {
        if !engines.iter().any(|(name, _)| *name == engine) {
            continue;
        }
        let Some(launcher) = child::strace(&[injection]) else { return };
        child::play(NAME, engine, &launcher);
    }
}

/// A part that is alone in its process already: the ledger must balance.
fn alone_in(test: impl FnOnce()) {
    let ledger = common::Ledger::start();
    test();
    ledger.balance();
}

/// 500 enters in a row fail: after the sixteenth each is followed by a pause of a millisecond.
#[test]
fn cx13_no_spinning() {
    const NAME: &str = "cx13_no_spinning";
    const FAILING: u64 = 500;
    let Some(ring) = ring_only(Runtime::builder()) else { return };
    if let Some(error) = child::part(NAME) {
        return common::with(ring, || async {
            let (stream, mut peer) = pair().await;
            let start = Instant::now();
            peer.write_all(b"arrives in the end").expect("connected");
            let arrived = stream.read_exact(vec_of(18), 18).await;
            assert_eq!(arrived.expect("connected"), b"arrives in the end");
            while tamam::metrics().enters < FAILING {
                sleep(Duration::from_millis(1)).await;
            }
            let passed = start.elapsed();
            println!("{FAILING} enters in {passed:?}");
            // EINTR is no lack of anything: it may come as often as it likes.
            assert!(error == "EINTR" || passed > Duration::from_millis(FAILING - 50), "{passed:?}");
        });
    }
    for error in ["EINTR", "EAGAIN", "EBUSY", "ENOMEM"] {
        let injection = format!("io_uring_enter:error={error}:when=10..{}", 10 + FAILING);
        let Some(launcher) = child::strace(&[&injection]) else { return };
        child::play(NAME, error, &launcher);
    }
}

// ---- CX14 ----------------------------------------------------------------------------------

/// The typed error inside an `io::Error`.
#[track_caller]
fn setup_error(error: &io::Error) -> &SetupError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SetupError>());
    inner.unwrap_or_else(|| panic!("not a SetupError: {error}"))
}

#[test]
fn cx14_many_rings_at_once() {
    alone("cx14_many_rings_at_once", || {
        for (name, builder) in both(&Runtime::builder()) {
            eprintln!("-- {name}");
            // Not epoll where a ring finds no memory: that it says so is looked at here.
            let engine = if name == "ring" { Backend::Ring } else { Backend::Epoll };
            many_at_once(builder.backend(engine));
        }
    });
}

fn many_at_once(builder: Builder) {
    const THREADS: usize = 64;
    let gate = Arc::new(std::sync::Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (gate, builder) = (gate.clone(), builder.clone());
            thread::spawn(move || {
                gate.wait();
                let built: Vec<_> = (0..8).map(|_| builder.clone().build()).collect();
                let mut working = 0;
                for runtime in &built {
                    match runtime {
                        Ok(runtime) => {
                            runtime.block_on(works());
                            working += 1;
                        }
                        Err(error) => match setup_error(error) {
                            SetupError::LockedMemory { .. } | SetupError::Descriptors { .. } => {}
                            other => panic!("no limit: {other}"),
                        },
                    }
                }
                working
            })
        })
        .collect();
    let working = threads.into_iter().map(|thread| thread.join().expect("no panic"));
    let working: usize = working.sum();
    println!("{working} of {} runtimes", THREADS * 8);
    assert!(working >= THREADS, "most of them should work");
}

/// More than a thread can register, and then one after the other, for whom memory must come back.
#[test]
fn cx14_many_rings_on_one_thread() {
    alone("cx14_many_rings_on_one_thread", || {
        each::engine(|runtime| {
            let runtimes: Vec<_> = (0..40).map(|_| runtime()).collect();
            for runtime in &runtimes {
                runtime.block_on(works());
            }
            drop(runtimes);
            for _ in 0..200 {
                runtime().block_on(works());
            }
        });
    });
}

/// What strace injects, and what the error of `Runtime::new` says then. (EMFILE and EIO have no
/// kind of their own.)
const REFUSALS: [(&str, Option<ErrorKind>, &str); 8] = [
    ("io_uring_setup:error=EPERM", Some(ErrorKind::PermissionDenied), "seccomp"),
    ("io_uring_setup:error=EACCES", Some(ErrorKind::PermissionDenied), "seccomp"),
    ("io_uring_setup:error=ENOSYS", Some(ErrorKind::PermissionDenied), "seccomp"),
    ("io_uring_setup:error=EINVAL", Some(ErrorKind::Unsupported), "too old"),
    ("io_uring_setup:error=ENOMEM", Some(ErrorKind::OutOfMemory), "RLIMIT_MEMLOCK"),
    ("io_uring_setup:error=EMFILE", None, "RLIMIT_NOFILE"),
    ("io_uring_setup:error=EIO", None, "io_uring_setup failed"),
    ("io_uring_register:error=EPERM", Some(ErrorKind::PermissionDenied), "register"),
];

/// Plays a part with these two variables, whatever they are in this process.
fn play_with(
    name: &str,
    part: &str,
    launcher: &[String],
    backend: Option<&str>,
    kernel: Option<&str>,
) {
    let mut command = child::command(name, part, launcher);
    for (variable, value) in [("TAMAM_BACKEND", backend), ("TAMAM_PRETEND_KERNEL", kernel)] {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    let output = command.output().expect("the test's own binary can be run");
    let [text, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    println!("-- {part}\n{text}{errors}");
    assert!(output.status.success(), "{name}, {part}: {}", output.status);
    assert!(text.contains("1 passed"), "{name} is not the path of a test");
}

/// Who asked for the ring hears why there is none; who left the choice has epoll, and can ask.
#[test]
fn cx14_a_refused_ring_says_why() {
    const NAME: &str = "cx14_a_refused_ring_says_why";
    if let Some(part) = child::part(NAME) {
        let (_, kind, word) = REFUSALS.iter().find(|row| row.0 == part).expect("a part");
        return alone_in(|| {
            let error = Runtime::builder().backend(Backend::Ring).build();
            let error = error.expect_err("it is refused");
            println!("{error}");
            let refused = setup_error(&error);
            assert!(kind.is_none_or(|kind| error.kind() == kind), "{:?}", error.kind());
            assert!(error.to_string().contains(word), "{error}");
            let runtime = Runtime::new().expect("epoll is there");
            assert_eq!(runtime.backend(), Backend::Epoll);
            assert_eq!(runtime.ring_refused(), Some(refused));
            runtime.block_on(busy());
            drop(runtime);
            tamam::run(works());
            let epoll = build(Runtime::builder().backend(Backend::Epoll));
            assert_eq!(epoll.ring_refused(), None, "nobody asked for a ring");
        });
    }
    // Where the kernel is too old, that is the reason, whatever a call says.
    if let Err(error) = Runtime::builder().backend(Backend::Ring).build() {
        if matches!(setup_error(&error), SetupError::OldKernel { .. }) {
            return println!("skipped: {error}");
        }
    }
    for (injection, ..) in REFUSALS {
        let Some(launcher) = child::strace(&[injection]) else { return };
        play_with(NAME, injection, &launcher, None, None);
    }
}

/// Refusals that set-up has an answer to.
#[test]
fn cx14_a_ring_with_less() {
    const NAME: &str = "cx14_a_ring_with_less";
    const PARTS: [(&str, Option<&str>); 7] = [
        // A kernel without IORING_SETUP_NO_SQARRAY.
        ("io_uring_setup:error=EINVAL:when=1", Some("no sqarray")),
        // A kernel that registers no rings.
        ("io_uring_register:error=EINVAL:when=1", Some("registered ring")),
        // Memory that comes back, and memory for half as many completions only.
        ("io_uring_setup:error=ENOMEM:when=1..3", None),
        ("io_uring_setup:error=ENOMEM:when=1..5", None),
        // While set-up tries the kernel's receive.
        ("io_uring_enter:error=EINTR:when=2..5", None),
        ("io_uring_enter:error=ENOMEM:when=2", None),
        ("io_uring_enter:error=EBUSY:when=3", None),
    ];
    if let Some(part) = child::part(NAME) {
        let (_, missing) = PARTS.iter().find(|row| row.0 == part).expect("a part");
        return alone_in(|| {
            let runtime = build(Runtime::builder().backend(Backend::Ring));
            if let Some(missing) = missing {
                assert!(!has(&runtime, missing), "{}", runtime.capabilities());
            }
            runtime.block_on(busy());
        });
    }
    if ring_only(Runtime::builder()).is_none() {
        return;
    }
    for (injection, _) in PARTS {
        let Some(launcher) = child::strace(&[injection]) else { return };
        play_with(NAME, injection, &launcher, None, None);
    }
}

fn set_limit(resource: libc::__rlimit_resource_t, limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `limit` is a valid limit.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0, "anyone may lower their limits");
}

/// A user who may lock no memory at all: the ring works, or says which limit is in the way; epoll
/// takes its place where it may.
#[test]
fn cx14_no_locked_memory() {
    const NAME: &str = "cx14_no_locked_memory";
    if child::part(NAME).is_none() {
        if ring_only(Runtime::builder()).is_some() {
            play_with(NAME, "unprivileged", &[], None, None);
        }
        return;
    }
    set_limit(libc::RLIMIT_MEMLOCK, 0);
    // SAFETY: takes no pointers. As root the limit does not count; others keep their id.
    let is_root = unsafe { libc::geteuid() == 0 };
    // SAFETY: as above.
    assert!(!is_root || unsafe { libc::setuid(65534) } == 0, "root may become nobody");
    for _ in 0..3 {
        let refused = match Runtime::builder().backend(Backend::Ring).build() {
            Ok(runtime) => {
                runtime.block_on(works());
                None
            }
            Err(error) => {
                println!("{error}");
                assert!(error.to_string().contains("RLIMIT_MEMLOCK is 0 bytes"), "{error}");
                Some(setup_error(&error).clone())
            }
        };
        let limit = Some(SetupError::LockedMemory { limit: 0 });
        assert!(refused.is_none() || refused == limit, "{refused:?}");
        let any = build(Runtime::builder());
        assert_eq!(any.ring_refused(), refused.as_ref());
        any.block_on(works());
    }
}

/// With none, one, two … descriptors left: an error that names the limit, and keeps none of them;
/// until there are enough.
#[test]
fn cx14_no_descriptors_for_the_ring() {
    alone("cx14_no_descriptors_for_the_ring", || {
        each::engine(|runtime| drop(runtime())); // what a process makes once is there from now on
        set_limit(libc::RLIMIT_NOFILE, 64);
        for (name, builder) in both(&Runtime::builder()) {
            let mut files = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                files.push(file);
            }
            let mut failures = 0;
            loop {
                match builder.clone().build() {
                    Ok(runtime) => {
                        runtime.block_on(async { sleep(Duration::from_millis(1)).await });
                        break;
                    }
                    Err(error) => {
                        assert_eq!(
                            setup_error(&error),
                            &SetupError::Descriptors { errno: libc::EMFILE }
                        );
                        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
                        failures += 1;
                    }
                }
                drop(files.pop().expect("a runtime needs a few descriptors"));
            }
            println!("{name}: a runtime has {failures} descriptors");
            assert!((1..8).contains(&failures));
            // Each failure gave back what it had.
            let mut opened = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                opened.push(file);
            }
            assert_eq!(opened.len(), failures);
        }
    });
}

// ---- H25 -----------------------------------------------------------------------------------

/// What becomes of a runtime.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// It has this engine, and asked for no other.
    Takes(Backend),
    /// It has epoll, since the kernel is too old for the ring.
    FallsBack,
    /// It does not start, for the same reason.
    TooOld,
    /// It does not start, since a variable is wrong: a word of the complaint.
    Invalid(&'static str),
}

/// The variables for engine and kernel, the builder's own choices, and what becomes of it.
type Choice = ([Option<&'static str>; 2], Backend, Option<(u32, u32)>, Outcome);

const CHOICES: [Choice; 30] = {
    use Backend::{Auto, Epoll, Ring};
    use Outcome::{FallsBack, Invalid, Takes, TooOld};
    [
        ([None, None], Auto, None, Takes(Ring)),
        ([Some(""), None], Auto, None, Takes(Ring)),
        ([Some("auto"), None], Auto, None, Takes(Ring)),
        ([Some("ring"), None], Auto, None, Takes(Ring)),
        ([Some("epoll"), None], Auto, None, Takes(Epoll)),
        // The program's choice stands, and nobody looks at the variable.
        ([Some("ring"), None], Epoll, None, Takes(Epoll)),
        ([Some("epoll"), None], Ring, None, Takes(Ring)),
        ([Some("nonsense"), None], Epoll, None, Takes(Epoll)),
        ([Some("nonsense"), None], Ring, None, Takes(Ring)),
        ([Some("nonsense"), None], Auto, None, Invalid("TAMAM_BACKEND is `nonsense`")),
        ([Some("Ring"), None], Auto, None, Invalid("ring, epoll or auto")),
        // Older kernels.
        ([None, Some("6.1")], Auto, None, Takes(Ring)),
        ([None, Some("6.12")], Auto, None, Takes(Ring)),
        ([None, Some("6.12.57+deb13-amd64")], Ring, None, Takes(Ring)),
        ([None, Some("6.18")], Auto, None, Takes(Ring)),
        ([None, Some("6.0")], Auto, None, FallsBack),
        ([None, Some("5.10")], Auto, None, FallsBack),
        ([Some("auto"), Some("5.10")], Auto, None, FallsBack),
        ([Some("ring"), Some("5.10")], Auto, None, TooOld),
        ([None, Some("5.10")], Ring, None, TooOld),
        ([None, Some("5.10")], Epoll, None, Takes(Epoll)),
        ([Some("epoll"), Some("5.10")], Auto, None, Takes(Epoll)),
        ([None, None], Auto, Some((5, 10)), FallsBack),
        ([None, Some("6.12")], Auto, Some((5, 10)), FallsBack),
        ([None, Some("5.10")], Auto, Some((6, 1)), Takes(Ring)),
        ([None, Some("nonsense")], Auto, Some((6, 12)), Takes(Ring)),
        ([None, Some("nonsense")], Auto, None, Invalid("TAMAM_PRETEND_KERNEL is `nonsense`")),
        ([None, Some("6")], Epoll, None, Invalid("a version such as 6.12")),
        ([None, Some("6,1")], Epoll, None, Invalid("a version such as 6.12")),
        ([None, Some("")], Auto, None, Takes(Ring)),
    ]
};

/// Each choice in a process of its own, which is where its variables are.
#[test]
fn h25_which_engine_a_runtime_has() {
    const NAME: &str = "h25_which_engine_a_runtime_has";
    if let Some(part) = child::part(NAME) {
        return chosen(CHOICES[part.parse::<usize>().expect("a number")]);
    }
    let has_ring = ring_only(Runtime::builder().pretend_kernel(6, 1)).is_some();
    for (number, choice) in CHOICES.into_iter().enumerate() {
        let ([backend, kernel], _, _, outcome) = choice;
        if has_ring || !matches!(outcome, Outcome::Takes(Backend::Ring)) {
            println!("-- {choice:?}");
            play_with(NAME, &number.to_string(), &[], backend, kernel);
        }
    }
}

fn chosen((_, backend, kernel, outcome): Choice) {
    let mut builder = Runtime::builder().backend(backend);
    if let Some((major, minor)) = kernel {
        builder = builder.pretend_kernel(major, minor);
    }
    let built = builder.build();
    let is_too_old = |error: &SetupError| {
        let SetupError::OldKernel { release, .. } = error else { panic!("{error}") };
        assert!(release.contains("pretended"), "{release}");
        assert!(error.to_string().contains("too old"), "{error}");
    };
    match (outcome, built) {
        (Outcome::Takes(engine), Ok(runtime)) => {
            assert_eq!((runtime.backend(), runtime.ring_refused()), (engine, None));
            runtime.block_on(busy());
        }
        (Outcome::FallsBack, Ok(runtime)) => {
            assert_eq!(runtime.backend(), Backend::Epoll);
            is_too_old(runtime.ring_refused().expect("it was tried"));
            runtime.block_on(busy());
        }
        (Outcome::TooOld, Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            is_too_old(setup_error(&error));
        }
        (Outcome::Invalid(word), Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
            let text = panics(|| tamam::run(async {}));
            assert!(text.contains(word), "{text}");
        }
        (outcome, built) => panic!("not {outcome:?} but {:?}", built.map(|it| it.backend())),
    }
}

/// What came after a kernel is not used when that kernel is pretended.
#[test]
fn h25_a_pretended_kernel_has_what_it_had() {
    let newest = ring_only(Runtime::builder().pretend_kernel(99, 0));
    let Some(newest) = newest else { return };
    let here = build(newest.clone());
    for (kernel, sqarray, iowait, multishot) in [
        ((6, 1), false, false, false),
        ((6, 5), false, false, false),
        ((6, 6), true, false, false),
        ((6, 12), true, false, false),
        ((6, 15), true, true, false),
        ((6, 18), true, true, false),
        ((7, 0), true, true, true),
    ] {
        let runtime = build(newest.clone().pretend_kernel(kernel.0, kernel.1));
        for (feature, had) in
            [("no sqarray", sqarray), ("no iowait", iowait), ("multishot receive", multishot)]
        {
            assert_eq!(has(&runtime, feature), had && has(&here, feature), "{kernel:?}, {feature}");
        }
        runtime.block_on(works());
    }
}
