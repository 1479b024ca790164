//! Accepts and receives that end at the moment their answer comes: nothing is lost, nothing comes
//! twice, and the order stays. 2000 clients and a million bytes against waits of a millisecond,
//! dropped or forgotten when they run out, on a loaded runtime, on the default rings and on the
//! smallest.
//!
//! 1 a future waits; 2 its answer completes in the kernel, or is reaped, or is not there yet; 3 the
//! future goes; 4 the next one must find what the first would have had.

mod common;

use std::cell::Cell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::{Gone, Random, alone, assert_same, engines, pair, pattern, poll_once, with};
use tamam::JoinHandle;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{sleep, timeout};

const CLIENTS: u32 = 2000;
const BYTES: usize = 1 << 20;

/// Waits about a millisecond for an answer, in one of the ways in which a future ends early.
/// `None`: it went without one.
async fn briefly<F: Future>(random: &mut Random, gone: Gone, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    match random.below(3) {
        // Polled once; the answer comes while nobody looks, or never.
        0 => {
            if let Poll::Ready(answer) = poll_once(&mut future).await {
                return Some(answer);
            }
            if random.below(2) == 0 {
                tamam::yield_now().await;
            }
        }
        // The timeout drops it, or polls it once more and finds the answer.
        1 if gone == Gone::Dropped => {
            return timeout(Duration::from_millis(1), future).await.ok();
        }
        // The answer may have woken the task already when the future goes.
        _ => {
            if let Poll::Ready(answer) = until(&mut future, Duration::from_millis(1)).await {
                return Some(answer);
            }
        }
    }
    gone.leave(future);
    None
}

/// Polls a future until it is ready, or a time has passed; not once more after that.
async fn until<F: Future>(future: &mut Pin<Box<F>>, time: Duration) -> Poll<F::Output> {
    let mut deadline = std::pin::pin!(sleep(time));
    std::future::poll_fn(|cx| match deadline.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Poll::Pending),
        Poll::Pending => future.as_mut().poll(cx).map(Poll::Ready),
    })
    .await
}

/// What else the runtime has to do meanwhile: echoes and tasks that never rest.
async fn load() -> (Rc<Cell<bool>>, Vec<JoinHandle<()>>) {
    let stop = Rc::new(Cell::new(false));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (stream, mut peer) = pair().await;
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok(len @ 1..) = peer.read(&mut bytes) {
                if peer.write_all(&bytes[..len]).is_err() {
                    break;
                }
            }
        });
        let stop = stop.clone();
        tasks.push(tamam::spawn(async move {
            while !stop.get() {
                let sent = stream.send_all(vec![7; 500]).await.expect("connected");
                let echoed = stream.read_exact(Vec::with_capacity(500), 500).await;
                assert_eq!(echoed.expect("an echo"), sent);
            }
        }));
    }
    (stop, tasks)
}

/// Connects one client after the other, in bursts and with pauses; each says its number and goes.
fn numbered_clients(addr: SocketAddr, seed: u64) {
    let mut random = Random(seed);
    let mut burst = 0;
    for number in 0..CLIENTS {
        let mut client = StdStream::connect(addr).expect("the backlog has room");
        client.write_all(&number.to_le_bytes()).expect("connected");
        if burst == 0 {
            thread::sleep(Duration::from_micros(random.below(1500)));
            burst = if random.below(20) == 0 { 100 } else { random.below(4) };
        }
        burst = burst.saturating_sub(1);
    }
}

/// Accepts all clients, in order; every number comes once, and then the end.
async fn accept_all(random: &mut Random, gone: Gone, listener: &TcpListener) {
    for number in 0..CLIENTS {
        let (stream, _) = loop {
            if let Some(accepted) = briefly(random, gone, listener.accept()).await {
                break accepted.expect("a connection");
            }
            if random.below(100) == 0 {
                sleep(Duration::from_millis(5)).await; // connections pile up
            }
        };
        let read = stream.read_exact(Vec::with_capacity(4), 4).await.expect("its number");
        assert_eq!(read, number.to_le_bytes(), "lost, or out of order");
        assert!(stream.recv().await.expect("no reset").is_none());
    }
}

#[test]
fn cancel_race_of_accepts() {
    alone("cancel_race_of_accepts", || {
        for (seed, (name, builder)) in engines().into_iter().enumerate() {
            for gone in Gone::BOTH {
                eprintln!("-- {name}, {gone:?}");
                with(builder.clone(), || async {
                    let mut random = Random(seed as u64 + 1);
                    let (stop, tasks) = load().await;
                    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
                    let addr = listener.local_addr().expect("bound");
                    let clients = thread::spawn(move || numbered_clients(addr, seed as u64 + 11));
                    accept_all(&mut random, gone, &listener).await;
                    common::join(clients).await;
                    stop.set(true);
                    for task in tasks {
                        task.await.expect("the load runs to its end");
                    }
                });
            }
        }
    });
}

/// Receives in every way there is; gives what came, empty for nothing yet, `None` at the end.
async fn receive(random: &mut Random, gone: Gone, stream: &TcpStream) -> Option<Vec<u8>> {
    let len = 1 + random.below(9000) as usize;
    let room = Vec::with_capacity(len);
    match random.below(4) {
        0 | 1 => match briefly(random, gone, stream.recv()).await {
            Some(answer) => answer.expect("no reset").map(Vec::from),
            None => Some(Vec::new()),
        },
        2 => match briefly(random, gone, stream.read(room)).await {
            Some(answer) => {
                let (len, bytes) = answer.expect("no reset");
                (len > 0).then_some(bytes)
            }
            None => Some(Vec::new()),
        },
        _ => match briefly(random, gone, stream.read_exact(room, len)).await {
            Some(Ok(bytes)) => Some(bytes),
            Some(Err(error)) => {
                let (error, bytes) = error.into_parts();
                assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                (!bytes.is_empty()).then_some(bytes)
            }
            None => Some(Vec::new()),
        },
    }
}

/// Writes a million bytes in pieces, with pauses, then ends.
fn write_in_pieces(mut peer: StdStream, bytes: &[u8], seed: u64) {
    let mut random = Random(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = rest.len().min(1 + random.below(4096) as usize);
        peer.write_all(&rest[..len]).expect("connected");
        rest = &rest[len..];
        thread::sleep(Duration::from_micros(random.below(2000)));
    }
}

#[test]
fn cancel_race_of_receives() {
    alone("cancel_race_of_receives", || {
        for (seed, (name, builder)) in engines().into_iter().enumerate() {
            for gone in Gone::BOTH {
                eprintln!("-- {name}, {gone:?}");
                with(builder.clone(), || async {
                    let mut random = Random(seed as u64 + 1);
                    let (stop, tasks) = load().await;
                    let (stream, peer) = pair().await;
                    let writer = thread::spawn(move || {
                        write_in_pieces(peer, &pattern(BYTES), seed as u64 + 11);
                    });
                    let mut received = Vec::new();
                    while let Some(bytes) = receive(&mut random, gone, &stream).await {
                        received.extend_from_slice(&bytes);
                    }
                    assert_same(&received, &pattern(BYTES));
                    common::join(writer).await;
                    stop.set(true);
                    for task in tasks {
                        task.await.expect("the load runs to its end");
                    }
                });
            }
        }
    });
}

/// The listener goes in the middle of it all: each client is served or reset, none hangs, and no
/// descriptor stays behind.
#[test]
fn cancel_race_of_accepts_and_the_drop_of_the_listener() {
    alone("cancel_race_of_accepts_and_the_drop_of_the_listener", || {
        for (name, builder) in engines() {
            eprintln!("-- {name}");
            with(builder, || async {
                let mut random = Random(7);
                for round in 0..200 {
                    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
                    let addr = listener.local_addr().expect("bound");
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    let clients: Vec<_> =
                        (0..3).map(|_| StdStream::connect(addr).expect("it listens")).collect();
                    let mut served = Vec::new();
                    for _ in 0..random.below(4) {
                        let gone = Gone::BOTH[random.below(2) as usize];
                        let accept = briefly(&mut random, gone, listener.accept()).await;
                        served.extend(accept.map(|accepted| accepted.expect("a connection").1));
                    }
                    drop(listener);
                    for mut client in clients {
                        client.set_read_timeout(Some(*common::PATIENCE)).expect("not zero");
                        let is_served = served.contains(&client.local_addr().expect("connected"));
                        let end = client.read(&mut [0]).map_err(|error| error.kind());
                        let reset = Err(std::io::ErrorKind::ConnectionReset);
                        assert_eq!(end, if is_served { Ok(0) } else { reset }, "round {round}");
                    }
                }
            });
        }
    });
}
