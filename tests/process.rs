//! Processes (SEMANTICS section 10, SY1 to SY4): what a program that is started inherits, what a
//! forked child may do with its parent's runtime, and how a process ends with one.

mod common;
#[path = "common/each.rs"]
mod each;

use std::fs::File;
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{
    Watchdog, alone, both, build, child, narrow_pair, pair, poll_once, quarantine, start, turn,
};
use tamam::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tamam::time::sleep;
use tamam::{Builder, EnterGuard, Runtime};

async fn works() {
    let (stream, mut peer) = pair().await;
    peer.write_all(b"works").expect("connected");
    let bytes = stream.read_exact(Vec::with_capacity(5), 5).await;
    assert_eq!(bytes.expect("connected"), b"works");
    sleep(Duration::from_millis(1)).await;
}

// ---- SY1 -----------------------------------------------------------------------------------

/// A program started in a task, with everything open that a runtime opens, finds what it would
/// have found without; and what it was given on purpose.
#[test]
fn sy1_a_program_inherits_nothing() {
    alone("sy1_a_program_inherits_nothing", || {
        each::engine(|runtime| {
            let before = child::inherited();
            let runtime = runtime();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
                let addr = listener.local_addr().expect("bound");
                let connected = TcpStream::connect(addr).await.expect("it listens");
                let (accepted, _) = listener.accept().await.expect("a connection");
                let parked = TcpStream::connect(addr).await.expect("it listens");
                let socket = TcpSocket::new_v4().expect("a socket");
                let (adopted, _peer) = pair().await;
                turn().await;
                assert_eq!(child::inherited(), before);

                // dup(2) clears the flag: this one is asked for.
                // SAFETY: takes no pointers.
                let asked_for = unsafe { libc::dup(connected.as_fd().as_raw_fd()) };
                assert!(asked_for >= 0, "a descriptor is left");
                let mut found = child::inherited();
                found.retain(|number| !before.contains(number));
                assert_eq!(found, [asked_for.to_string()]);
                // SAFETY: the number is the dup's, which nobody else closes.
                unsafe { libc::close(asked_for) };
                drop((accepted, parked, socket, adopted));
            });
        });
    });
}

// ---- SY2 -----------------------------------------------------------------------------------

/// A forked copy of this process.
struct Forked(libc::pid_t);

impl Forked {
    /// Waits for its end, which must be a good one.
    fn join(self) {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let waited = unsafe { libc::waitpid(self.0, &mut status, 0) };
        assert_eq!(waited, self.0);
        assert_eq!(status, 0, "the child failed");
    }
}

/// Forks. The child runs `child` and ends there; a panic of it is a bad end.
///
/// The other threads of the process (libtest's, the watchdog's) sleep meanwhile, so the child finds
/// no lock taken.
fn fork(child: impl FnOnce()) -> Forked {
    // SAFETY: see above; the child leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let status = i32::from(catch_unwind(AssertUnwindSafe(child)).is_err());
            // SAFETY: ends the process.
            unsafe { libc::_exit(status) }
        }
        pid => {
            assert!(pid > 0, "fork works");
            Forked(pid)
        }
    }
}

/// A call in a forked child must panic, and say why.
#[track_caller]
fn belongs_to_the_parent<T>(what: &str, call: impl FnOnce() -> T) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else { panic!("{what}: no panic") };
    let text = match panic.downcast_ref::<&str>() {
        Some(text) => text,
        None => panic.downcast_ref::<String>().expect("a panic of ours has a text").as_str(),
    };
    assert!(text.contains("belongs to the process that forked"), "{what}: {text}");
}

/// A runtime with everything in flight.
struct Busy {
    runtime: Runtime,
    listener: TcpListener,
    receiving: (TcpStream, StdStream),
    reading: (TcpStream, StdStream),
    sending: (TcpStream, StdStream),
    /// Has received before; epoll knows its descriptor, and no op waits for it.
    served: (TcpStream, StdStream),
    idle: (TcpStream, StdStream),
}

const SENT_LEN: usize = 4 << 20;

impl Busy {
    /// 1 an accept, a receive, a read into a buffer of the caller and a stalled send are in flight;
    /// their futures are forgotten, so the ops go on.
    fn new(runtime: Runtime) -> Busy {
        let (listener, [receiving, reading, sending, served, idle]) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
            std::mem::forget(start(listener.accept()).await);
            let receiving = pair().await;
            std::mem::forget(start(receiving.0.recv()).await);
            let reading = pair().await;
            std::mem::forget(start(reading.0.read(Vec::with_capacity(100_000))).await);
            let sending = narrow_pair().await;
            std::mem::forget(start(sending.0.send_all(common::pattern(SENT_LEN))).await);
            let mut served = pair().await;
            let recv = start(served.0.recv()).await;
            served.1.write_all(b"served").expect("connected");
            assert_eq!(&recv.await.expect("connected").expect("bytes")[..], b"served");
            let idle = pair().await;
            turn().await;
            (listener, [receiving, reading, sending, served, idle])
        });
        Busy { runtime, listener, receiving, reading, sending, served, idle }
    }

    /// Everything that was in flight goes on, and all comes.
    fn goes_on(self) {
        let Busy { runtime, listener, receiving, reading, sending, served, idle } = self;
        runtime.block_on(async {
            let client = StdStream::connect(listener.local_addr().expect("bound"));
            let client = client.expect("it listens");
            let (_, peer) = listener.accept().await.expect("a connection");
            assert_eq!(peer, client.local_addr().expect("connected"));
            for (stream, mut peer) in [receiving, reading, served, idle] {
                peer.write_all(b"goes on").expect("connected");
                let bytes = stream.read_exact(Vec::with_capacity(7), 7).await;
                assert_eq!(bytes.expect("no end, no reset"), b"goes on");
                // Nothing is there any more: this one waits.
                let bytes = start(stream.read_exact(Vec::with_capacity(4), 4)).await;
                peer.write_all(b"more").expect("connected");
                assert_eq!(bytes.await.expect("no end, no reset"), b"more");
            }
            let (stream, peer) = sending;
            let arriving = common::read_to_end(peer);
            stream.shutdown().await.expect("connected");
            let arrived = common::join(arriving).await.expect("no reset");
            common::assert_same(&arrived, &common::pattern(SENT_LEN));
        });
        assert_eq!(runtime.metrics().stray_completions, 0);
    }
}

/// 1 everything is in flight; 2 the process forks; 3 the child tries everything and drops
/// everything; 4 the parent has noticed nothing.
#[test]
fn sy2_a_forked_child_leaves_the_parent_alone() {
    alone("sy2_a_forked_child_leaves_the_parent_alone", || {
        each::engine(|runtime| {
            let _watchdog = Watchdog::start();
            let busy = Busy::new(runtime());
            let child = fork(|| {
                let new_runtime = runtime;
                let Busy { runtime, idle, receiving, .. } = &busy;
                belongs_to_the_parent("block_on", || runtime.block_on(async {}));
                let guard = runtime.enter();
                let mut cx = Context::from_waker(Waker::noop());
                let mut recv = Box::pin(idle.0.recv());
                assert!(matches!(recv.as_mut().poll(&mut cx), Poll::Ready(Err(_))), "none turns");
                let mut send = Box::pin(idle.0.send("x"));
                assert!(matches!(send.as_mut().poll(&mut cx), Poll::Ready(Err(_))), "none turns");
                // It would be the end of the parent's connection too.
                let mut end = Box::pin(idle.0.shutdown());
                assert!(matches!(end.as_mut().poll(&mut cx), Poll::Ready(Err(_))), "not ours");
                drop(guard);
                assert!(receiving.0.peer_addr().is_ok(), "names can be asked for");
                assert!(runtime.metrics().ops >= 4);
                // A runtime of the child's own works, and is not its own child's.
                let own = new_runtime();
                own.block_on(works());
                fork(|| {
                    belongs_to_the_parent("block_on of the child's", || own.block_on(async {}));
                    drop(own);
                })
                .join();
            });
            child.join();
            busy.goes_on();
        });
    });
}

/// 1 everything is in flight; 2 the process forks; 3 the child drops its copies of all objects,
/// then of the runtime, or the other way round; 4 the parent has noticed nothing.
#[test]
fn sy2_drops_in_the_child_only_close_numbers() {
    alone("sy2_drops_in_the_child_only_close_numbers", || {
        each::engine(|runtime| {
            let _watchdog = Watchdog::start();
            for is_runtime_first in [false, true] {
                let mut busy = Some(Busy::new(runtime()));
                let child = fork(|| {
                    let Busy { runtime, listener, receiving, reading, sending, served, idle } =
                        busy.take().expect("it is there");
                    let open = common::descriptors().len();
                    if is_runtime_first {
                        drop(runtime);
                        drop((listener, receiving, reading, sending, served, idle));
                    } else {
                        drop((listener, receiving, reading, sending, served, idle));
                        drop(runtime);
                    }
                    assert!(common::descriptors().len() < open, "they are closed here");
                    assert_eq!(quarantine::changed(), 0, "freed blocks were written to");
                });
                child.join();
                busy.take().expect("the parent's copy").goes_on();
            }
        });
    });
}

/// 1 a datagram socket has a receive in flight; 2 the process forks; 3 the child tries to receive and
/// to send, takes the socket apart and drops it; 4 the parent's receive goes on.
#[test]
fn sy2_a_datagram_socket_in_a_forked_child() {
    alone("sy2_a_datagram_socket_in_a_forked_child", || {
        each::engine(|runtime| {
            let _watchdog = Watchdog::start();
            let runtime = runtime();
            let mut socket = Some(runtime.block_on(async {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
                socket.connect(socket.local_addr().expect("bound")).await.expect("a route");
                std::mem::forget(start(socket.recv()).await);
                turn().await;
                socket
            }));
            for takes_apart in [false, true] {
                let child = fork(|| {
                    let socket = socket.take().expect("the child's copy");
                    let mut cx = Context::from_waker(Waker::noop());
                    let polled = Box::pin(socket.recv()).as_mut().poll(&mut cx);
                    assert!(matches!(polled, Poll::Ready(Err(_))), "none turns");
                    let polled = Box::pin(socket.send("no")).as_mut().poll(&mut cx);
                    assert!(matches!(polled, Poll::Ready(Err(_))), "none turns");
                    let error = socket.try_send(b"no").expect_err("it is the parent's");
                    assert!(error.to_string().contains("the process that forked"), "{error}");
                    match takes_apart {
                        true => assert!(socket.into_std().is_err()),
                        false => drop(socket),
                    }
                });
                child.join();
            }
            runtime.block_on(async {
                let socket = socket.expect("the parent's copy");
                for _ in 0..3 {
                    socket.send("goes on").await.expect("a route");
                    assert_eq!(&socket.recv().await.expect("no error").chunk[..], b"goes on");
                }
            });
            assert_eq!(runtime.metrics().stray_completions, 0);
        });
    });
}

/// 1 a task forks, in the middle of a turn; 2 in the child that turn ends in a panic, before the
/// kernel is asked for anything; 3 the parent's goes on.
#[test]
fn sy2_forked_in_a_task() {
    alone("sy2_forked_in_a_task", || {
        each::engine(|runtime| {
            let _watchdog = Watchdog::start();
            let runtime = runtime();
            let mut child = None;
            let parent = std::process::id();
            let turned = catch_unwind(AssertUnwindSafe(|| {
                runtime.block_on(async {
                    let (stream, mut peer) = pair().await;
                    let mut recv = start(stream.recv()).await;
                    turn().await;
                    // SAFETY: as in `fork`; the child leaves by `_exit` below.
                    let pid = unsafe { libc::fork() };
                    assert!(pid >= 0, "fork works");
                    child = Some(Forked(pid));
                    sleep(Duration::from_millis(1)).await; // the child gets no further
                    assert_eq!(std::process::id(), parent);
                    Forked(pid).join();
                    peer.write_all(b"parent").expect("connected");
                    let chunk = (&mut recv).await.expect("connected").expect("bytes");
                    assert_eq!(&chunk[..], b"parent");
                    works().await;
                });
            }));
            if std::process::id() != parent {
                let status = match turned {
                    Ok(()) => 1,
                    Err(_) => i32::from(catch_unwind(AssertUnwindSafe(|| drop(runtime))).is_err()),
                };
                // SAFETY: ends the process.
                unsafe { libc::_exit(status) }
            }
            turned.expect("the parent goes on");
        });
    });
}

/// 1 the process forks; 2 the parent drops a stream with a receive in flight, and its runtime;
/// 3 the peer sees nothing while the child lives; 4 the child ends, and the peer sees the end.
#[test]
fn sy2_no_end_while_the_child_holds_a_copy() {
    alone("sy2_no_end_while_the_child_holds_a_copy", || {
        each::engine(|runtime| {
            let _watchdog = Watchdog::start();
            let runtime = runtime();
            let (stream, mut peer) = runtime.block_on(async {
                let (stream, peer) = pair().await;
                std::mem::forget(start(stream.recv()).await);
                turn().await;
                (stream, peer)
            });
            let (parent_end, child_end) = UnixStream::pair().expect("a descriptor is left");
            let child = fork(|| {
                // SAFETY: the child's copy of the number; its owner here is never dropped.
                unsafe { libc::close(parent_end.as_raw_fd()) };
                let ended = (&child_end).read(&mut [0]).expect("the parent lets go");
                assert_eq!(ended, 0);
            });
            drop(stream);
            runtime.block_on(turn());
            drop(runtime);
            peer.set_nonblocking(true).expect("a socket");
            let nothing = peer.read(&mut [0]).expect_err("a copy is alive");
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            peer.set_nonblocking(false).expect("a socket");
            drop(parent_end);
            child.join();
            assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
        });
    });
}

// ---- SY3 -----------------------------------------------------------------------------------

const PORT: &str = "TAMAM_TEST_PORT";
/// More than both kernels hold.
const UNSENT_LEN: usize = 64 << 20;

/// Everything that can be in flight when a process ends, a send to the test's listener included.
async fn in_flight() {
    let port = std::env::var(PORT).expect("the parent says where").parse::<u16>();
    let stream =
        TcpStream::connect(("127.0.0.1", port.expect("a port"))).await.expect("it listens");
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    tamam::spawn(async move {
        let first = start(stream.send_all(common::pattern(UNSENT_LEN))).await;
        let second = start(stream.send_all(vec![9; 1000])).await;
        let third = start(stream.read(Vec::with_capacity(100_000))).await;
        let fourth = start(listener.accept()).await;
        sleep(Duration::from_secs(3600)).await;
        drop((first, second, third, fourth));
    });
    turn().await;
    turn().await;
}

/// Ends the process with sends queued, in the middle of a task; on another thread while the runtime
/// sleeps; by returning from `main` with a runtime that was leaked.
#[test]
fn sy3_the_process_ends() {
    const NAME: &str = "sy3_the_process_ends";
    let parts = [("in a task", 7), ("on another thread", 7), ("from main", 0)];
    let part = child::part(NAME);
    for (engine, builder) in both(&Runtime::builder()) {
        let Some(part) = &part else {
            for (how, code) in parts {
                ends_with(NAME, &format!("{engine}: {how}"), code);
            }
            continue;
        };
        let Some(how) = part.strip_prefix(engine).and_then(|how| how.strip_prefix(": ")) else {
            continue;
        };
        let runtime = build(builder);
        match how {
            "in a task" => runtime.block_on(async {
                in_flight().await;
                let exiting = tamam::spawn(async { std::process::exit(7) });
                exiting.await.expect("the process has ended")
            }),
            "on another thread" => runtime.block_on(async {
                in_flight().await;
                thread::spawn(|| {
                    thread::sleep(Duration::from_millis(20));
                    std::process::exit(7)
                });
                std::future::pending().await
            }),
            _ => {
                runtime.block_on(in_flight());
                std::mem::forget(runtime);
            }
        }
    }
}

/// Plays a part that connects, and looks at what arrives when its process has ended.
fn ends_with(name: &str, part: &str, code: i32) {
    let _watchdog = Watchdog::start();
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let port = listener.local_addr().expect("bound").port();
    let mut command = child::command(name, part, &[]);
    let status = command.env(PORT, port.to_string()).status().expect("it can be run");
    assert_eq!(status.code(), Some(code), "{part}");
    let (mut peer, _) = listener.accept().expect("it connected");
    peer.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
    let mut arrived = Vec::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match peer.read(&mut block) {
            Ok(0) => break,
            Ok(len) => arrived.extend_from_slice(&block[..len]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{part}");
                break;
            }
        }
    }
    println!("{part}: {} of {UNSENT_LEN} bytes", arrived.len());
    assert!(!arrived.is_empty() && arrived.len() < UNSENT_LEN, "{part}: nothing is flushed");
    common::assert_same(&arrived, &common::pattern(arrived.len()));
}

// ---- SY4 -----------------------------------------------------------------------------------

/// Is implemented twice for what is `Send`, and then cannot be named.
trait NotSend<Which> {
    fn proof() {}
}

impl<T: ?Sized> NotSend<()> for T {}
impl<T: ?Sized + Send> NotSend<u8> for T {}

#[test]
fn sy4_a_runtime_stays_on_its_thread() {
    let proofs: [fn(); 5] = [
        <Runtime as NotSend<_>>::proof,
        <TcpStream as NotSend<_>>::proof,
        <TcpListener as NotSend<_>>::proof,
        <TcpSocket as NotSend<_>>::proof,
        <EnterGuard<'static> as NotSend<_>>::proof,
    ];
    assert_eq!(proofs.map(|proof| proof()).len(), 5);
}

/// 1 a thread leaks its runtime with a read in flight, and ends; 2 the peer writes, a waker of the
/// runtime is woken; 3 nothing is delivered, nothing is freed, nobody else is hurt.
#[test]
fn sy4_a_runtime_leaked_by_a_thread_that_is_gone() {
    const NAME: &str = "sy4_a_runtime_leaked_by_a_thread_that_is_gone";
    if child::part(NAME).is_none() {
        child::play(NAME, "leaked", &[]); // its descriptors stay open: no ledger
        return;
    }
    let _watchdog = Watchdog::start();
    for (name, builder) in both(&Runtime::builder()) {
        eprintln!("-- {name}");
        leaked_by_a_thread(builder);
    }
}

fn leaked_by_a_thread(builder: Builder) {
    let (sender, wakers) = mpsc::channel();
    let leaked = builder.clone();
    let thread = thread::spawn(move || {
        let runtime = build(leaked);
        let peers = runtime.block_on(async {
            let mut peers = Vec::new();
            for _ in 0..10 {
                let (stream, peer) = pair().await;
                peers.push(peer);
                let sender = sender.clone();
                tamam::spawn(async move {
                    let mut read = Box::pin(stream.read(Vec::with_capacity(100_000)));
                    std::future::poll_fn(|cx| {
                        sender.send(cx.waker().clone()).expect("the test listens");
                        Poll::Ready(())
                    })
                    .await;
                    drop(poll_once(&mut read).await);
                    panic!("woken by nobody, but went on: {:?}", read.await);
                });
            }
            turn().await;
            turn().await;
            peers
        });
        assert!(runtime.metrics().ops >= 10);
        std::mem::forget(runtime);
        peers
    });
    let mut peers = thread.join().expect("no panic");
    for peer in &mut peers {
        peer.write_all(&[7; 1000]).expect("the socket is leaked, not closed");
    }
    wakers.try_iter().for_each(Waker::wake);
    for _ in 0..10 {
        build(builder.clone()).block_on(works());
    }
    assert_eq!(quarantine::changed(), 0, "freed blocks were written to");
    drop(File::open("/dev/null").expect("the process is well"));
}
