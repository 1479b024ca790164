//! Runtimes and their context (SEMANTICS section 7): what works outside one, in another, after one,
//! inside one another, at the end of a thread, when the kernel refuses the ring or fails the engine,
//! and which engine a runtime takes.
//!
//! CX10 is in `drop_in_flight.rs`, CX15 in `full_queue`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/each.rs"]
mod each;

mod outside;
mod elsewhere;
mod nested;
mod endings;
mod engine_failures;
mod leaked_memory;
mod passing_errors;
mod refused_rings;
mod choice;

use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{child, full_backlog, pair, turn};
use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::time::{sleep, timeout};
use tamam::{Runtime, SetupError};

fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
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

const OUTSIDE: &str = "no tamam runtime on this thread";

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

fn vec_of(capacity: usize) -> Vec<u8> {
    Vec::with_capacity(capacity)
}

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

/// A part that is alone in its process already: the ledger must balance.
fn alone_in(test: impl FnOnce()) {
    let ledger = common::Ledger::start();
    test();
    ledger.balance();
}

/// The typed error inside an `io::Error`.
#[track_caller]
fn setup_error(error: &io::Error) -> &SetupError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SetupError>());
    inner.unwrap_or_else(|| panic!("not a SetupError: {error}"))
}

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
