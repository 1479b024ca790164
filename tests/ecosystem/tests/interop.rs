//! Crates that know nothing of this runtime run on it unmodified; one test for each row of the table
//! in `src/docs/ecosystem.md`. HTTP has its own file.

#[path = "../../common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::PATIENCE;
use futures_util::{SinkExt, StreamExt};
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{sleep, timeout};

/// Channels of tokio, from another thread and back; payloads may be `Rc` at home.
#[test]
fn tokio_sync() {
    use tokio::sync::{Mutex, Notify, Semaphore, broadcast, mpsc, oneshot, watch};
    common::everywhere(|| async {
        let (to_thread, mut in_thread) = mpsc::unbounded_channel::<u32>();
        let (back, mut from_thread) = mpsc::channel::<u32>(4);
        let worker = thread::spawn(move || {
            while let Some(number) = in_thread.blocking_recv() {
                back.blocking_send(number * 2).expect("the runtime receives");
            }
        });
        for number in 0..1000 {
            to_thread.send(number).expect("the thread receives");
        }
        drop(to_thread);
        for number in 0..1000 {
            assert_eq!(from_thread.recv().await, Some(number * 2));
        }
        assert_eq!(from_thread.recv().await, None);
        common::join(worker).await;

        let (sender, receiver) = oneshot::channel::<Rc<str>>();
        tamam::spawn(async move { sender.send(Rc::from("at home")).expect("awaited") });
        assert_eq!(&*receiver.await.expect("sent"), "at home");

        let (notify, state) = (Rc::new(Notify::new()), Rc::new(Mutex::new(Vec::new())));
        let (told, seen) = (notify.clone(), state.clone());
        let task = tamam::spawn(async move {
            told.notified().await;
            seen.lock().await.push(1);
        });
        common::turn().await;
        notify.notify_one();
        task.await.expect("no panic");
        assert_eq!(*state.lock().await, [1]);

        let permits = Arc::new(Semaphore::new(2));
        let running: Vec<_> = (0..10)
            .map(|_| {
                let permits = permits.clone();
                tamam::spawn(async move {
                    let _permit = permits.acquire_owned().await.expect("open");
                    sleep(Duration::from_millis(1)).await;
                })
            })
            .collect();
        for task in running {
            task.await.expect("no panic");
        }
        let (all, mut one) = broadcast::channel(8);
        let (set, mut see) = watch::channel(0);
        all.send("news").expect("somebody listens");
        set.send(7).expect("somebody watches");
        see.changed().await.expect("set");
        assert_eq!((one.recv().await.expect("sent"), *see.borrow()), ("news", 7));
    });
}

/// `tokio::select!`: the branch that loses is dropped and loses no byte.
#[test]
fn tokio_select() {
    common::everywhere(|| async {
        let (stream, mut peer) = common::pair().await;
        let mut ticks = 0;
        let (tick, ticked) = mpsc::channel();
        let writer = thread::spawn(move || {
            for byte in 0..20u8 {
                thread::sleep(Duration::from_millis(1));
                // On a slow machine there may be bytes each time.
                if byte == 10 {
                    ticked.recv().expect("the reader goes on");
                }
                std::io::Write::write_all(&mut peer, &[byte]).expect("it is read");
            }
        });
        let mut got = Vec::new();
        loop {
            tokio::select! {
                chunk = stream.recv() => match chunk.expect("no reset") {
                    Some(chunk) => got.extend_from_slice(&chunk),
                    None => break,
                },
                () = sleep(Duration::from_micros(300)) => {
                    ticks += 1;
                    let _ = tick.send(()); // the writer may be done
                }
            }
        }
        common::join(writer).await;
        assert_eq!((got, ticks > 0), ((0..20).collect::<Vec<u8>>(), true));
    });
}

/// A codec of tokio-util frames a stream: a sink and a stream of messages.
#[test]
fn tokio_util_codec() {
    use tokio_util::codec::{Framed, LengthDelimitedCodec};
    common::everywhere(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let server = tamam::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
            while let Some(message) = framed.next().await {
                let message = message.expect("a message").freeze();
                framed.send(message).await.expect("open");
            }
        });
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
        for len in [0, 1, 4096, 100_000] {
            let message = bytes::Bytes::from(common::pattern(len));
            framed.send(message.clone()).await.expect("open");
            let echo = framed.next().await.expect("an echo").expect("no error");
            common::assert_same(&echo, &message);
        }
        SinkExt::<bytes::Bytes>::close(&mut framed).await.expect("open");
        server.await.expect("no panic");
    });
}

/// `CancellationToken` and `TaskTracker` of tokio-util end tasks in good order.
#[test]
fn tokio_util_cancellation() {
    use tokio_util::sync::CancellationToken;
    common::everywhere(|| async {
        let token = CancellationToken::new();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let token = token.child_token();
                tamam::spawn(async move {
                    token.run_until_cancelled(sleep(Duration::MAX)).await.is_none()
                })
            })
            .collect();
        common::turn().await;
        thread::spawn(move || token.cancel());
        for task in tasks {
            let cancelled = timeout(*PATIENCE, task).await.expect("it ends").expect("no panic");
            assert!(cancelled);
        }
    });
}

/// Combinators of futures-util: join, unordered sets, buffered streams.
#[test]
fn futures_util_combinators() {
    use futures_util::stream::{FuturesUnordered, iter};
    common::everywhere(|| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut set: FuturesUnordered<_> = [6u64, 1, 3]
            .into_iter()
            .map(|ms| async move {
                sleep(Duration::from_millis(20 * ms)).await;
                ms
            })
            .collect();
        while let Some(ms) = set.next().await {
            order.borrow_mut().push(ms);
        }
        assert_eq!(*order.borrow(), [1, 3, 6]);
        let squares: Vec<u64> = iter(0..20)
            .map(|number| async move {
                tamam::yield_now().await;
                number * number
            })
            .buffered(4)
            .collect()
            .await;
        assert_eq!(squares, (0..20).map(|number| number * number).collect::<Vec<_>>());
        let (one, two) = futures_util::join!(sleep(Duration::ZERO), tamam::yield_now());
        assert_eq!((one, two), ((), ()));
    });
}

/// Messages of another thread through a channel, each way.
macro_rules! channel {
    ($name:ident, $bounded:expr, $blocking_send:ident, $blocking_recv:ident, $send:ident, $recv:ident) => {
        #[test]
        fn $name() {
            common::everywhere(|| async {
                let (to_thread, in_thread) = $bounded(4);
                let (back, from_thread) = $bounded(4);
                let worker = thread::spawn(move || {
                    while let Ok(number) = in_thread.$blocking_recv() {
                        let number: u32 = number;
                        back.$blocking_send(number + 1).expect("the runtime receives");
                    }
                });
                let sending = tamam::spawn(async move {
                    for number in 0..1000u32 {
                        to_thread.$send(number).await.expect("the thread receives");
                    }
                });
                for number in 0..1000 {
                    assert_eq!(from_thread.$recv().await, Ok(number + 1));
                }
                sending.await.expect("no panic");
                assert!(from_thread.$recv().await.is_err(), "closed");
                common::join(worker).await;
            });
        }
    };
}

channel!(async_channel, async_channel::bounded, send_blocking, recv_blocking, send, recv);
channel!(flume, flume::bounded, send, recv, send_async, recv_async);

/// Locks of async-lock, among tasks and against another thread.
#[test]
fn async_lock() {
    common::everywhere(|| async {
        let shared = Arc::new(async_lock::Mutex::new(0u64));
        let other = shared.clone();
        let elsewhere = thread::spawn(move || {
            for _ in 0..1000 {
                *other.lock_blocking() += 1;
            }
        });
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let shared = shared.clone();
                tamam::spawn(async move {
                    for _ in 0..100 {
                        let mut value = shared.lock().await;
                        tamam::yield_now().await;
                        *value += 1;
                    }
                })
            })
            .collect();
        for task in tasks {
            timeout(*PATIENCE, task).await.expect("it gets the lock").expect("no panic");
        }
        common::join(elsewhere).await;
        assert_eq!(*shared.lock().await, 2000);
        let barrier = Rc::new(async_lock::Barrier::new(3));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let barrier = barrier.clone();
                tamam::spawn(async move { barrier.wait().await.is_leader() })
            })
            .collect();
        let mut leaders = 0;
        for task in waiting {
            leaders += u32::from(task.await.expect("no panic"));
        }
        assert_eq!(leaders, 1);
    });
}

/// async-tungstenite over futures-io: WebSocket both ways, pings, a close handshake.
#[test]
fn async_tungstenite() {
    use ::async_tungstenite::tungstenite::{Bytes, Message};
    common::everywhere(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let server = tamam::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let mut socket = ::async_tungstenite::accept_async(stream).await.expect("a handshake");
            while let Some(message) = socket.next().await {
                match message.expect("a message") {
                    message if message.is_text() || message.is_binary() => {
                        socket.send(message).await.expect("open")
                    }
                    _ => {}
                }
            }
        });
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let (mut socket, _) =
            ::async_tungstenite::client_async(format!("ws://{addr}/"), stream).await.expect("one");
        for len in [0, 125, 126, 65_536, 300_000] {
            let message = Message::Binary(Bytes::from(common::pattern(len)));
            socket.send(message.clone()).await.expect("open");
            assert!(socket.next().await.expect("an echo").expect("no error") == message, "{len}");
        }
        socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.expect("open");
        let pong = socket.next().await.expect("a pong").expect("no error");
        assert_eq!(pong, Message::Pong(Bytes::from_static(b"there?")));
        socket.close(None).await.expect("open");
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
        server.await.expect("no panic");
    });
}
