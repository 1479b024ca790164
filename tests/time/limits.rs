//! TM6: a limit around everything.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::TcpListener as StdListener;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use std::{io, thread};

use tamam::Runtime;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{Elapsed, interval, sleep, timeout};

use crate::common::poll_once;
use crate::{MS, common};

type Ends = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// A call that cannot end by itself under a limit, and what must be true afterwards.
struct Row {
    name: &'static str,
    limited: Ends,
    afterwards: Pin<Box<dyn Future<Output = ()>>>,
}

const LIMIT: Duration = Duration::from_millis(10);

const LARGE: usize = 4 << 20;

/// TM6. Whatever waits can be given a limit; the error is `TimedOut` as an `io::Error`; what the
/// call waited for is not lost.
#[test]
fn tm6_timeout_around_everything() {
    let rows: [fn(Rc<Ground>) -> Row; 8] = [
        recv_row,
        read_row,
        read_exact_row,
        accept_row,
        connect_row,
        send_row,
        shutdown_row,
        join_row,
    ];
    common::everywhere(|| async {
        for row in rows {
            let ground = Rc::new(Ground::prepare().await);
            let Row { name, limited, afterwards } = row(ground);
            eprintln!("  {name}");
            let before = Instant::now();
            let error = limited.await.expect_err(name);
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{name}: {error}");
            assert!(error.get_ref().is_some_and(|inner| inner.is::<Elapsed>()), "{name}");
            assert!(before.elapsed() >= LIMIT, "{name}: early");
            afterwards.await;
        }
    });
}

/// What the rows wait on: a connection with a peer that does nothing, and a listener nobody
/// connects to.
struct Ground {
    stream: TcpStream,
    peer: RefCell<Option<std::net::TcpStream>>,
    listener: TcpListener,
}

impl Ground {
    async fn prepare() -> Ground {
        let (stream, peer) = common::narrow_pair().await;
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        Ground { stream, peer: RefCell::new(Some(peer)), listener }
    }

    fn peer(&self) -> std::net::TcpStream {
        self.peer.take().expect("a row takes it once")
    }

    async fn receives(&self, expected: &[u8]) {
        let mut bytes = Vec::new();
        while bytes.len() < expected.len() {
            bytes.extend_from_slice(&self.stream.recv().await.expect("no error").expect("no end"));
        }
        assert_eq!(bytes, expected);
    }
}

/// RX17.
fn recv_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "recv",
        limited: Box::pin(async move {
            timeout(LIMIT, it.stream.recv()).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            ground.peer().write_all(b"later").expect("open");
            ground.receives(b"later").await;
        }),
    }
}

/// RX17, RX3.
fn read_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "read",
        limited: Box::pin(async move {
            timeout(LIMIT, it.stream.read(Vec::with_capacity(100_000))).await?.expect("it waits");
            Ok(())
        }),
        afterwards: Box::pin(async move {
            ground.peer().write_all(b"later").expect("open");
            ground.receives(b"later").await;
        }),
    }
}

/// RX17, RX7.
fn read_exact_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "read_exact",
        limited: Box::pin(async move {
            it.peer
                .borrow_mut()
                .as_mut()
                .expect("not taken yet")
                .write_all(b"half,")
                .expect("open");
            timeout(LIMIT, it.stream.read_exact(Vec::with_capacity(10), 10))
                .await?
                .expect("it waits");
            Ok(())
        }),
        afterwards: Box::pin(async move {
            ground.peer().write_all(b"whole").expect("open");
            ground.receives(b"half,whole").await;
        }),
    }
}

/// AC1.
fn accept_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "accept",
        limited: Box::pin(async move {
            timeout(LIMIT, it.listener.accept()).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            let addr = ground.listener.local_addr().expect("bound");
            let client = std::net::TcpStream::connect(addr).expect("it listens");
            let (_, peer) = ground.listener.accept().await.expect("it is there");
            assert_eq!(peer, client.local_addr().expect("connected"));
        }),
    }
}

/// CL16. The queue of the listener is full, so the kernel drops what would connect.
fn connect_row(ground: Rc<Ground>) -> Row {
    let full = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let addr = full.local_addr().expect("bound");
    let mut waiting = Vec::new();
    while let Ok(client) = std::net::TcpStream::connect_timeout(&addr, 200 * MS) {
        waiting.push(client);
        assert!(waiting.len() < 100, "a queue of length 0 is full at some point");
    }
    Row {
        name: "connect",
        limited: Box::pin(async move {
            timeout(LIMIT, TcpStream::connect(addr)).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            // The socket is gone: what connects now are those who waited, and the listener's own.
            drop(waiting);
            let addr = ground.listener.local_addr().expect("bound");
            let connecting = TcpStream::connect(addr);
            timeout(*common::PATIENCE, connecting).await.expect("in time").expect("it listens");
            drop(full);
        }),
    }
}

/// TX13, TX3. The bytes go on.
fn send_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "send_all",
        limited: Box::pin(async move {
            timeout(LIMIT, it.stream.send_all(common::pattern(LARGE))).await?.expect("it stalls");
            Ok(())
        }),
        afterwards: Box::pin(async move {
            let mut peer = ground.peer();
            let reader = thread::spawn(move || {
                let mut bytes = vec![0; LARGE];
                peer.read_exact(&mut bytes).map(|()| (bytes, peer))
            });
            let (bytes, _peer) = common::join(reader).await.expect("all of it comes");
            assert!(bytes == common::pattern(LARGE));
        }),
    }
}

/// TX11. The end follows the bytes.
fn shutdown_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "shutdown",
        limited: Box::pin(async move {
            let stalled = it.stream.send_all(common::pattern(LARGE));
            assert!(poll_once(&mut Box::pin(stalled)).await.is_pending());
            timeout(LIMIT, it.stream.shutdown()).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            let reader = common::read_to_end(ground.peer());
            let bytes = common::join(reader).await.expect("all of it comes, and the end");
            assert!(bytes == common::pattern(LARGE));
        }),
    }
}

/// The task goes on, and the handle is as good as before.
fn join_row(_: Rc<Ground>) -> Row {
    let (go, went) = std::sync::mpsc::channel();
    let task = Rc::new(RefCell::new(tamam::spawn(async move {
        while went.try_recv() != Ok(()) {
            sleep(MS).await;
        }
        "output"
    })));
    let waits = task.clone();
    let ask = move || {
        let waits = waits.clone();
        poll_fn(move |cx| Pin::new(&mut *waits.borrow_mut()).poll(cx))
    };
    let first = ask();
    Row {
        name: "join",
        limited: Box::pin(async move {
            timeout(LIMIT, first).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            assert!(!task.borrow().is_finished());
            go.send(()).expect("the task waits");
            assert_eq!(ask().await.expect("no panic"), "output");
        }),
    }
}

/// In one poll of a task, a future may be polled again and again: the deadline comes all the same.
#[test]
fn tm8_a_timer_is_over_within_one_poll() {
    fn until_ready(mut future: impl Future + Unpin) -> impl Future<Output = ()> {
        let end = Instant::now() + 100 * MS;
        poll_fn(move |cx| {
            while Pin::new(&mut future).poll(cx).is_pending() {
                assert!(Instant::now() < end, "it is Pending, a hundred milliseconds later");
            }
            Poll::Ready(())
        })
    }
    common::with_both(Runtime::builder(), || async {
        until_ready(sleep(2 * MS)).await;
        until_ready(Box::pin(timeout(2 * MS, std::future::pending::<()>()))).await;
        let mut ticks = interval(2 * MS);
        ticks.tick().await;
        until_ready(Box::pin(ticks.tick())).await;
        let mut reset = sleep(Duration::MAX);
        assert!(common::poll_once(&mut reset).await.is_pending());
        reset.reset(Instant::now());
        until_ready(reset).await;
    });
}
