//! Accepting (SEMANTICS section 5): every connection reaches exactly one `accept`, in order of
//! arrival, whatever becomes of the futures that waited; what nobody will serve is reset; and a lack
//! of descriptors costs neither a connection nor the processor.
//!
//! AC9, errors of single connections, needs a kernel that can be told what to answer: not here.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Gone, alone, begin, both, child, everywhere, on_epoll, pair, poll_once, start, turn, with,
    with_both,
};
use tamam::Runtime;
use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::time::{sleep, timeout};

// ---- tools ---------------------------------------------------------------------------------

fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

/// A client that is connected as far as the kernels go: it waits in the listener's backlog.
fn client(addr: SocketAddr) -> StdStream {
    let stream = StdStream::connect(addr).expect("the backlog has room");
    stream.set_read_timeout(Some(*common::PATIENCE / 4)).expect("not zero");
    stream
}

fn clients(addr: SocketAddr, count: usize) -> Vec<StdStream> {
    (0..count).map(|_| client(addr)).collect()
}

fn addr_of(client: &StdStream) -> SocketAddr {
    client.local_addr().expect("connected")
}

fn addrs_of(clients: &[StdStream]) -> Vec<SocketAddr> {
    clients.iter().map(addr_of).collect()
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.accept().await.expect("a connection")
}

/// Accepts as many as there are `expected`, which must come in this order.
async fn accept_in_order(listener: &TcpListener, expected: &[SocketAddr]) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for (number, expected) in expected.iter().enumerate() {
        let (stream, peer) = accept(listener).await;
        assert_eq!(peer, *expected, "connection {number}");
        assert_eq!(stream.peer_addr().expect("it was connected"), *expected);
        streams.push(stream);
    }
    streams
}

/// How many connections the listener holds that nobody took.
fn parked(listener: &TcpListener) -> usize {
    let text = format!("{listener:?}");
    let (_, number) = text.split_once("parked: ").expect("the listener says how many");
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Connects `count` clients to a listener with an accept in flight, whose future has gone. Under
/// epoll an accept is in flight only if it found nobody: there they come after it.
async fn arriving(
    listener: &TcpListener,
    addr: SocketAddr,
    gone: Gone,
    count: usize,
) -> Vec<StdStream> {
    let early = if on_epoll() { Vec::new() } else { clients(addr, count) };
    gone.leave(start(listener.accept()).await);
    if on_epoll() { clients(addr, count) } else { early }
}

/// As [`arriving`], and waits until the accept has brought what it brings.
async fn park(
    listener: &TcpListener,
    addr: SocketAddr,
    gone: Gone,
    count: usize,
) -> Vec<StdStream> {
    let clients = arriving(listener, addr, gone, count).await;
    until_parked(listener, count).await;
    clients
}

/// Waits until the accept in flight has brought `count`, or as many as a small queue has room for:
/// the kernel ends the accept there, and it starts again when somebody asks. Under epoll it brings
/// one.
async fn until_parked(listener: &TcpListener, count: usize) {
    while parked(listener) < count && tamam::metrics().ops > 0 {
        turn().await;
    }
}

fn is_connection_reset(client: &mut StdStream) -> bool {
    matches!(client.read(&mut [0; 16]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

// ---- AC1 -----------------------------------------------------------------------------------

/// 1 an accept is polled; 2 it goes before the client connects, or after that and before the
/// runtime turns, or when the connection is there already; 3 nothing is lost, and the order stays.
#[test]
fn ac1_a_future_that_goes_takes_no_connection_with_it() {
    everywhere(|| async {
        let (listener, addr) = listening();
        for gone in Gone::BOTH {
            for moment in 0..12 {
                let mut future = Some(start(listener.accept()).await);
                if moment % 3 == 0 {
                    gone.leave(future.take());
                }
                let clients = clients(addr, 1 + moment % 4);
                if moment % 3 == 1 {
                    gone.leave(future.take());
                }
                until_parked(&listener, clients.len()).await;
                gone.leave(future.take());
                accept_in_order(&listener, &addrs_of(&clients)).await;
            }
        }
    });
}

/// A hundred forgotten futures are one accept in flight, and no answer is kept for any of them.
#[test]
fn ac1_forgotten_futures_are_one_accept() {
    everywhere(|| async {
        let (listener, addr) = listening();
        for _ in 0..100 {
            std::mem::forget(start(listener.accept()).await);
        }
        turn().await;
        assert_eq!(tamam::metrics().ops, 1);
        let clients = clients(addr, 3);
        accept_in_order(&listener, &addrs_of(&clients)).await;
    });
}

// ---- AC2 -----------------------------------------------------------------------------------

const MANY: usize = 1000;

/// Connects many clients from another thread, while the runtime turns.
fn connecting(addr: SocketAddr) -> thread::JoinHandle<Vec<StdStream>> {
    thread::spawn(move || clients(addr, MANY))
}

#[test]
fn ac2_each_connection_goes_to_one_task() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let listener = Rc::new(listener);
        let served = Rc::new(RefCell::new(Vec::new()));
        let connecting = connecting(addr);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (listener, served) = (listener.clone(), served.clone());
                tamam::spawn(async move {
                    loop {
                        let connection = accept(&listener).await;
                        served.borrow_mut().push(connection);
                    }
                })
            })
            .collect();
        let clients = common::join(connecting).await;
        while served.borrow().len() < MANY {
            turn().await;
        }
        for task in tasks {
            task.abort();
            assert!(task.await.is_err_and(|error| error.is_cancelled()), "it accepts for ever");
        }
        let served: BTreeSet<_> = served.take().into_iter().map(|(_, peer)| peer).collect();
        assert_eq!(served, BTreeSet::from_iter(addrs_of(&clients)));
    });
}

/// Three of four tasks wait with a future that is forgotten when they end; the fourth serves all.
#[test]
fn ac2_forgotten_waiters_swallow_no_wake() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let listener = Rc::new(listener);
        for _ in 0..3 {
            let listener = listener.clone();
            let task = tamam::spawn(async move {
                std::mem::forget(start(listener.accept()).await);
            });
            task.await.expect("no panic");
        }
        let connecting = connecting(addr);
        let server = tamam::spawn(async move {
            let mut served = Vec::new();
            for _ in 0..MANY {
                served.push(accept(&listener).await);
            }
            served
        });
        let clients = common::join(connecting).await;
        let served = server.await.expect("no panic");
        // In order of arrival, which on several processors need not be that of connect(2).
        let mut served: Vec<_> = served.into_iter().map(|(_, peer)| peer).collect();
        let mut connected = addrs_of(&clients);
        served.sort();
        connected.sort();
        assert_eq!(served, connected, "each client is served once");
    });
}

/// 1 two tasks wait; 2 a connection comes and wakes both; 3 the first is aborted before its poll;
/// 4 the second has it.
#[test]
fn ac2_an_aborted_task_does_not_keep_the_connection() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let listener = Rc::new(listener);
        let [first, second] = [(); 2].map(|()| {
            let listener = listener.clone();
            tamam::spawn(async move { accept(&listener).await })
        });
        turn().await;
        let client = client(addr);
        while parked(&listener) == 0 {
            turn().await;
        }
        first.abort();
        assert!(first.await.is_err_and(|error| error.is_cancelled()));
        let (_stream, peer) = second.await.expect("no panic");
        assert_eq!(peer, addr_of(&client));
    });
}

// ---- AC3 -----------------------------------------------------------------------------------

#[test]
fn ac3_what_nobody_accepts_stays_in_the_backlog() {
    everywhere(|| async {
        let (listener, addr) = listening();
        drop(start(listener.accept()).await);
        let mut clients = Vec::new();
        for _ in 0..500 {
            clients.push(client(addr));
            turn().await;
        }
        let held = parked(&listener);
        assert_eq!(tamam::metrics().ops, 0, "the accept is stopped");
        let expected = addrs_of(&clients);
        if on_epoll() {
            assert_eq!(held, 1, "the accept that waited brings one");
            assert_eq!(accept_in_order(&listener, &expected).await.len(), 500);
            return;
        }
        // The cancel goes out one turn after the 64th, and then takes one to work.
        assert!((64..64 + 8).contains(&held), "{held} of 500 are parked");
        let mut streams = accept_in_order(&listener, &expected[..held - 31]).await;
        turn().await;
        assert!(
            parked(&listener) > 31,
            "below half the accept starts again, and takes the backlog"
        );
        streams.extend(accept_in_order(&listener, &expected[held - 31..]).await);
        assert_eq!(streams.len(), 500);
    });
}

/// The accept is stopped at 64, and wanted again before the cancel is out, or after. Only the ring
/// accepts so many that nobody asked for.
#[test]
fn ac3_a_stop_that_is_withdrawn() {
    let Some(ring) = common::ring_only(Runtime::builder()) else { return };
    with(ring, || async {
        for turns in 0..3 {
            let (listener, addr) = listening();
            drop(start(listener.accept()).await);
            let mut clients = clients(addr, 63);
            while parked(&listener) < 63 {
                turn().await;
            }
            clients.push(client(addr));
            while parked(&listener) < 64 {
                turn().await; // the 64th asks for the stop
            }
            for _ in 0..turns {
                turn().await;
            }
            let streams = accept_in_order(&listener, &addrs_of(&clients)).await;
            let waiting = start(listener.accept()).await;
            let last = client(addr);
            let (_stream, peer) = waiting.await.expect("a connection");
            assert_eq!((peer, streams.len()), (addr_of(&last), 64), "after {turns} turns");
        }
    });
}

// ---- AC4 -----------------------------------------------------------------------------------

/// The client writes and resets, before or after the accept completes in the kernel.
#[test]
fn ac4_a_client_that_reset_has_an_address_and_last_bytes() {
    everywhere(|| async {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let listener = match TcpListener::bind(loopback) {
                Ok(listener) => listener,
                Err(error) => {
                    println!("skipped: {loopback}: {error}");
                    continue;
                }
            };
            let addr = listener.local_addr().expect("bound");
            for is_parked in [false, true] {
                let mut client = match is_parked {
                    true => park(&listener, addr, Gone::Dropped, 1).await.remove(0),
                    false => client(addr),
                };
                let expected = addr_of(&client);
                client.write_all(b"last bytes").expect("connected");
                common::reset(client);
                let (stream, peer) = accept(&listener).await;
                assert_eq!(peer, expected);
                assert_eq!(stream.peer_addr().expect("it was connected"), expected);
                let mut bytes = Vec::new();
                let error = loop {
                    match stream.recv().await {
                        Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                        Ok(None) => panic!("a reset is no end"),
                        Err(error) => break error,
                    }
                };
                assert_eq!(bytes, b"last bytes");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
    });
}

// ---- AC5, AC6, AC7 --------------------------------------------------------------------------

/// Three connections are parked (under epoll one of them) and three wait in the backlog: the
/// listener goes, and all six are reset; those too that the accept in flight brings while it is
/// ended.
#[test]
fn ac5_connections_that_nobody_took_are_reset() {
    alone("ac5_connections_that_nobody_took_are_reset", || {
        everywhere(|| async {
            for gone in Gone::BOTH {
                let (listener, addr) = listening();
                let mut all = park(&listener, addr, gone, 3).await;
                all.extend(clients(addr, 3));
                all[0].write_all(b"unread").expect("connected");
                drop(listener);
                for (number, client) in all.iter_mut().enumerate() {
                    assert!(is_connection_reset(client), "client {number}, {gone:?}");
                }
                let refused = StdStream::connect(addr).expect_err("nobody listens");
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            }
        });
    });
}

/// With the accept never armed, and with it stopped because too much is parked.
#[test]
fn ac5_whether_or_not_the_accept_is_armed() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let mut unarmed = clients(addr, 3);
        drop(listener);
        let (listener, addr) = listening();
        let mut stopped = arriving(&listener, addr, Gone::Dropped, 100).await;
        until_parked(&listener, 64).await;
        stopped.extend(clients(addr, 10));
        drop(listener);
        for client in unarmed.iter_mut().chain(&mut stopped) {
            assert!(is_connection_reset(client));
        }
    });
}

/// A runtime that is dropped with the listener in a task resets them too.
#[test]
fn ac5_in_the_teardown() {
    alone("ac5_in_the_teardown", || {
        for (name, builder) in both(&Runtime::builder()) {
            let runtime = common::build(builder);
            let mut all = runtime.block_on(async {
                let (listener, addr) = listening();
                let all = park(&listener, addr, Gone::Forgotten, 4).await;
                let (first, _) = accept(&listener).await;
                tamam::spawn(async move {
                    std::future::pending::<()>().await;
                    drop((first, listener));
                });
                all
            });
            drop(runtime);
            let end = all[0].read(&mut [0; 16]);
            assert_eq!(end.expect("an end: this one was served"), 0, "{name}");
            for client in &mut all[1..] {
                assert!(is_connection_reset(client), "{name}");
            }
        }
    });
}

/// As std's listeners do it; `only_v6` leaves IPv4 to another socket at the same port.
#[test]
fn a_listener_at_all_addresses_serves_both_families() {
    let Ok(bare) = std::net::TcpListener::bind("[::]:0") else {
        return println!("skipped: no IPv6");
    };
    let takes_v4 = |addr: SocketAddr| StdStream::connect(("127.0.0.1", addr.port())).is_ok();
    let expected = takes_v4(bare.local_addr().expect("bound"));
    with_both(Runtime::builder(), || async move {
        let both = TcpListener::bind("[::]:0").expect("there is IPv6");
        let addr = both.local_addr().expect("bound");
        assert_eq!(takes_v4(addr), expected);
        if expected {
            let (_stream, peer) = accept(&both).await;
            assert_eq!(peer.ip().to_canonical(), std::net::Ipv4Addr::LOCALHOST);
        }
        let v6 = TcpSocket::new_v6().expect("a socket").only_v6(true);
        let v6 = v6.listen("[::]:0".parse().expect("an address")).expect("there is IPv6");
        assert!(!takes_v4(v6.local_addr().expect("bound")));
        let v4 = TcpSocket::new_v4().expect("a socket").only_v6(true);
        v4.listen("127.0.0.1:0".parse().expect("an address")).expect_err("it is for IPv6");
    });
}

#[test]
fn a_socket_is_bound_once() {
    with_both(Runtime::builder(), || async {
        let addr = "127.0.0.1:0".parse().expect("an address");
        let socket = TcpSocket::new_v4().and_then(|socket| socket.bind(addr)).expect("loopback");
        let error = socket.listen(addr).map(drop).expect_err("it is bound");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("bound already"), "{error}");
    });
}

/// 127.0.0.6 is used by nobody else, so the port stays free between drop and bind.
#[test]
fn ac6_the_address_is_free_at_once() {
    // A process that another test starts has a copy of the listener until its exec.
    alone("ac6_the_address_is_free_at_once", || {
        everywhere(|| async {
            let mut addr: SocketAddr = "127.0.0.6:0".parse().expect("an address");
            for round in 0..100 {
                // Without SO_REUSEADDR: any socket that still listens there would be in the way.
                let listener = TcpSocket::new_v4().and_then(|socket| socket.listen(addr));
                let listener = listener.unwrap_or_else(|error| panic!("round {round}: {error}"));
                addr = listener.local_addr().expect("bound");
                Gone::BOTH[round % 2].leave(start(listener.accept()).await);
                if round % 3 == 0 {
                    turn().await; // the accept is with the kernel
                }
                drop(listener);
            }
        });
    });
}

/// As before, with connections: the dead listener accepts none that is meant for the next.
#[test]
fn ac6_the_next_listener_gets_the_next_client() {
    // A process that another test starts has a copy of the listener until its exec.
    alone("ac6_the_next_listener_gets_the_next_client", || {
        everywhere(|| async {
            let mut addr: SocketAddr = "127.0.0.6:0".parse().expect("an address");
            let mut previous: Option<(TcpListener, StdStream)> = None;
            for round in 0..100 {
                let lost = previous.take().map(|(listener, client)| {
                    drop(listener);
                    client
                });
                let listener =
                    TcpListener::bind(addr).unwrap_or_else(|e| panic!("round {round}: {e}"));
                addr = listener.local_addr().expect("bound");
                let (first, second) = (client(addr), client(addr));
                accept_in_order(&listener, &[addr_of(&first), addr_of(&second)]).await;
                let parked = arriving(&listener, addr, Gone::BOTH[round % 2], 1).await.remove(0);
                assert!(lost.is_none_or(|mut client| is_connection_reset(&mut client)));
                previous = Some((listener, parked));
            }
        });
    });
}

/// Five are parked (under epoll one of them), five come later, by way of the backlog or of the accept
/// that is being ended: all ten are handed over, in order.
#[test]
fn ac7_into_std_hands_everything_over() {
    everywhere(|| async {
        for gone in Gone::BOTH {
            let (listener, addr) = listening();
            let mut all = park(&listener, addr, gone, 5).await;
            all.extend(clients(addr, 3)); // while the accept is armed
            let (listener, taken) = listener.into_std().expect("nothing failed");
            all.extend(clients(addr, 2)); // when it is not
            listener.set_nonblocking(false).expect("a socket");
            let mut served = taken;
            while served.len() < 10 {
                served.push(listener.accept().expect("it waits in the backlog"));
            }
            let peers: Vec<_> = served.iter().map(|(_, peer)| *peer).collect();
            assert_eq!(peers, addrs_of(&all), "{gone:?}");
            for ((mut stream, _), client) in served.into_iter().zip(&mut all) {
                stream.set_nonblocking(false).expect("a socket");
                stream.write_all(b"served").expect("connected");
                let mut answer = [0; 6];
                client.read_exact(&mut answer).expect("an answer");
                assert_eq!(&answer, b"served");
            }
        }
    });
}

/// Also when nothing turns, and when the runtime is gone.
#[test]
fn ac7_into_std_outside() {
    for (name, builder) in both(&Runtime::builder()) {
        let runtime = common::build(builder);
        let listener_with_five = || {
            runtime.block_on(async {
                let (listener, addr) = listening();
                let clients = park(&listener, addr, Gone::Forgotten, 5).await;
                (listener, clients)
            })
        };
        let check = |listener: TcpListener, clients: Vec<StdStream>| {
            let (listener, mut taken) = listener.into_std().expect("it needs no turn");
            assert_eq!(taken.len(), if on_epoll() { 1 } else { 5 }, "{name}");
            listener.set_nonblocking(false).expect("a socket");
            while taken.len() < 5 {
                taken.push(listener.accept().expect("it waits in the backlog"));
            }
            let peers: Vec<_> = taken.iter().map(|(_, peer)| *peer).collect();
            assert_eq!(peers, addrs_of(&clients), "{name}");
        };
        let (listener, clients) = listener_with_five();
        check(listener, clients);
        let (listener, clients) = listener_with_five();
        drop(runtime);
        check(listener, clients);
    }
}

// ---- AC8 -----------------------------------------------------------------------------------

/// Lowers the limit of descriptors. An accept of the ring keeps to the limit of when it began.
fn lower_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur = 64;
    // SAFETY: `limit` is a valid limit.
    let lowered = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!((known, lowered), (0, 0), "anyone may lower their limit");
}

/// Lowers the limit of descriptors and takes all that are left; each file dropped frees one.
fn take_all_descriptors() -> Vec<File> {
    lower_descriptor_limit();
    let mut taken = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                return taken;
            }
        }
    }
}

/// What all threads of the process have used of the processor.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(done, 0, "the clock exists");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn is_emfile<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EMFILE))
}

/// 1 two seconds without a descriptor; 2 the runtime closes one; 3 code that it does not know
/// closes one; each time one client is served.
#[test]
fn ac8_two_seconds_without_descriptors() {
    alone("ac8_two_seconds_without_descriptors", || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            let (own, _own_peer) = pair().await;
            let mut waiting = clients(addr, 4);
            let mut files = take_all_descriptors();
            let errors = Rc::new(Cell::new(0));
            let served = Rc::new(RefCell::new(Vec::new()));
            let server = tamam::spawn({
                let (errors, served) = (errors.clone(), served.clone());
                async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => served.borrow_mut().push(stream),
                            result if is_emfile(&result) => errors.set(errors.get() + 1),
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
            let (used, start) = (cpu_time(), Instant::now());
            sleep(Duration::from_secs(2)).await;
            let (used, passed) = (cpu_time() - used, start.elapsed());
            let failed = tamam::metrics().accept_errors;
            println!("{failed} failed accepts, {} shown, {used:?} of the processor", errors.get());
            assert!((2..=200).contains(&failed), "{failed} failed accepts");
            assert_eq!(errors.get(), failed, "one waiter, one error each");
            assert!(used * 20 < passed, "{used:?} of the processor in {passed:?}");
            assert!(served.borrow().is_empty(), "there is no descriptor to serve with");

            let until_served = async |count: usize, who: &str| {
                let start = Instant::now();
                while served.borrow().len() < count {
                    sleep(Duration::from_millis(1)).await;
                }
                println!("{who}: served after {:?}", start.elapsed());
                assert!(start.elapsed() < Duration::from_secs(5), "far beyond the 200 ms");
                assert_eq!(served.borrow().len(), count, "there was one descriptor");
            };
            drop(own);
            until_served(1, "the runtime closed one").await;
            sleep(Duration::from_millis(300)).await; // the pauses are long again
            drop(files.pop());
            until_served(2, "foreign code closed one").await;
            sleep(Duration::from_millis(300)).await;
            drop(served.borrow_mut().remove(0));
            until_served(2, "the server closed one").await;
            drop(files);
            until_served(3, "there is enough").await;
            server.abort();
            assert!(server.await.is_err());
            served.take();
            for client in &mut waiting {
                assert!(matches!(client.read(&mut [0]), Ok(0)), "served or not, it ends");
            }
        });
    });
}

/// Futures that come and go every millisecond do not shorten the pauses.
#[test]
fn ac8_short_lived_waiters_pause_too() {
    alone("ac8_short_lived_waiters_pause_too", || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            let client = client(addr);
            let files = take_all_descriptors();
            let until = Instant::now() + Duration::from_secs(1);
            let mut waits = 0;
            while Instant::now() < until {
                if let Ok(result) = timeout(Duration::from_millis(1), listener.accept()).await {
                    assert!(is_emfile(&result));
                }
                waits += 1;
            }
            let failed = tamam::metrics().accept_errors;
            println!("{failed} failed accepts in {waits} waits");
            assert!(failed <= 100, "{failed} failed accepts in a second");
            drop(files);
            let (_stream, peer) = loop {
                match listener.accept().await {
                    Ok(served) => break served,
                    result => assert!(is_emfile(&result), "from before"),
                }
            };
            assert_eq!(peer, addr_of(&client));
        });
    });
}

/// Fails accepts until the pauses are the longest, 100 ms.
async fn fail_until_pauses_are_long(listener: &TcpListener) {
    for _ in 0..6 {
        assert!(is_emfile(&listener.accept().await));
    }
}

/// 1 the listener begins to pause for 100 ms; 2 the runtime closes a descriptor, somebody waiting
/// or not; 3 the connection is there a few turns later, none of which sleeps.
#[test]
fn ac8_a_close_by_the_runtime_ends_the_pause_at_once() {
    alone("ac8_a_close_by_the_runtime_ends_the_pause_at_once", || {
        for is_waiting in [true, false] {
            with_both(Runtime::builder(), || async {
                let (listener, addr) = listening();
                let (own, _own_peer) = pair().await;
                let client = client(addr);
                let files = take_all_descriptors();
                fail_until_pauses_are_long(&listener).await;
                let mut own = Some(own);
                if !is_waiting {
                    own = None;
                }
                let mut accept = begin(listener.accept()).await;
                drop(own);
                let mut turns = 0;
                let (_stream, peer) = loop {
                    if let Poll::Ready(result) = poll_once(&mut accept).await {
                        break result.expect("a connection");
                    }
                    turn().await;
                    turns += 1;
                    assert!(turns < 10, "it waits the pause out, is_waiting: {is_waiting}");
                };
                assert_eq!(peer, addr_of(&client));
                drop(files);
            });
        }
    });
}

/// Three wait: one gets the error, the others wait on and get a connection in the end.
#[test]
fn ac8_one_waiter_gets_the_error() {
    alone("ac8_one_waiter_gets_the_error", || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            let clients = clients(addr, 2);
            let files = take_all_descriptors();
            let mut waiting = Vec::new();
            // Under epoll the first of them fails, and begins the pause, as it is asked.
            let asked = Instant::now();
            for _ in 0..3 {
                waiting.push(begin(listener.accept()).await);
            }
            while tamam::metrics().accept_errors == 0 {
                turn().await;
            }
            let mut failed = 0;
            let mut others = Vec::new();
            for mut accept in waiting {
                match poll_once(&mut accept).await {
                    Poll::Ready(result) => {
                        assert!(is_emfile(&result));
                        failed += 1;
                    }
                    Poll::Pending => others.push(accept),
                }
            }
            // After the pause the next one tries again, and rightly fails: a slow machine. Even then
            // each gets an error of its own.
            let is_slow = asked.elapsed() > Duration::from_millis(10);
            assert!((failed, others.len()) == (1, 2) || (is_slow && failed > 1), "{failed} failed");
            assert!(failed <= tamam::metrics().accept_errors, "one error, shown more than once");
            drop(files);
            for (accept, client) in others.into_iter().zip(&clients) {
                // Fails once more if the pause was over before the files were dropped.
                let (_stream, peer) = accept.await.expect("a connection");
                assert_eq!(peer, addr_of(client));
            }
        });
    });
}

/// 1 an accept waits; 2 there are no descriptors but those of the clients, who connect; 3 the error
/// comes when nobody waits any more: it is not kept. One that woke a future which is then dropped
/// may be shown to the next call (G2), and to no other.
#[test]
fn ac8_no_error_is_kept() {
    alone("ac8_no_error_is_kept", || {
        for is_woken in [false, true] {
            with_both(Runtime::builder(), || async {
                let (listener, addr) = listening();
                lower_descriptor_limit();
                let mut waiting = Some(start(listener.accept()).await);
                turn().await; // it is with the kernel
                let mut files = take_all_descriptors();
                files.truncate(files.len() - 3);
                let clients = clients(addr, 3);
                if !is_woken {
                    waiting = None;
                }
                while tamam::metrics().accept_errors == 0 {
                    turn().await;
                }
                drop(waiting);
                drop(files);
                let mut shown = 0;
                for client in &clients {
                    let mut result = listener.accept().await;
                    if is_emfile(&result) {
                        shown += 1;
                        result = listener.accept().await;
                    }
                    let (_stream, peer) = result.expect("there are descriptors");
                    assert_eq!(peer, addr_of(client), "is_woken: {is_woken}");
                }
                assert!(
                    shown <= usize::from(is_woken),
                    "shown {shown} times, is_woken: {is_woken}"
                );
                assert_eq!(tamam::metrics().accept_errors, 1, "all errors there were");
            });
        }
    });
}

/// A listener that pauses goes like any other, and its address is free.
#[test]
fn ac8_a_pausing_listener_is_dropped() {
    alone("ac8_a_pausing_listener_is_dropped", || {
        with_both(Runtime::builder(), || async {
            for gone in Gone::BOTH {
                let (listener, addr) = listening();
                let mut client = client(addr);
                let files = take_all_descriptors();
                fail_until_pauses_are_long(&listener).await;
                gone.leave(start(listener.accept()).await);
                drop(files);
                drop(listener);
                assert!(is_connection_reset(&mut client));
                drop(TcpListener::bind(addr).expect("the address is free"));
                sleep(Duration::from_millis(150)).await; // a forgotten accept's timer fires
            }
        });
    });
}

// ---- AC10 ----------------------------------------------------------------------------------

fn refusing() -> [(&'static str, i32, TcpListener); 4] {
    let (shut_down, _) = listening();
    let dup = shut_down.as_fd().try_clone_to_owned().expect("a descriptor is left");
    // SAFETY: takes no pointers.
    let done = unsafe { libc::shutdown(dup.as_raw_fd(), libc::SHUT_RDWR) };
    assert_eq!(done, 0, "a listener can be shut down");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let file = File::open("/dev/null").expect("it is everywhere");
    let connected = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let connected = StdStream::connect(connected.local_addr().expect("bound")).expect("connects");
    let from = |fd: OwnedFd| TcpListener::from_std(StdListener::from(fd)).expect("a descriptor");
    [
        ("shut down", libc::EINVAL, shut_down),
        ("a datagram socket", libc::EOPNOTSUPP, from(udp.into())),
        ("no socket", libc::ENOTSOCK, from(file.into())),
        ("no listener", libc::EINVAL, from(connected.into())),
    ]
}

#[test]
fn ac10_a_socket_that_cannot_accept() {
    everywhere(|| async {
        for (what, errno, listener) in refusing() {
            let failed = || tamam::metrics().accept_errors;
            let before = failed();
            let mut waiting = Vec::new();
            for _ in 0..3 {
                waiting.push(begin(listener.accept()).await);
            }
            for (number, accept) in waiting.into_iter().enumerate() {
                let error = accept.await.map(drop).expect_err("it cannot accept");
                assert_eq!(error.raw_os_error(), Some(errno), "{what}, waiter {number}");
            }
            // In the ring three wait for one attempt; under epoll none of them has to wait.
            let attempts = failed() - before;
            assert_eq!(attempts, if on_epoll() { 3 } else { 1 }, "{what}");
            for calls in 1..=5 {
                let error = listener.accept().await.map(drop).expect_err("it cannot accept");
                assert_eq!(error.raw_os_error(), Some(errno), "{what}");
                assert_eq!(failed() - before, attempts + calls, "{what}: each call tries once");
            }
            for gone in Gone::BOTH {
                gone.leave(begin(listener.accept()).await);
            }
            for _ in 0..20 {
                turn().await;
            }
            let last = if on_epoll() { 2 } else { 1 };
            assert_eq!(failed() - before, attempts + 5 + last, "{what}: no attempt without a call");
            assert_eq!(tamam::metrics().ops, 0, "{what}");
        }
    });
}

/// The accept waits when the socket is shut down; what came before is served, then every waiter
/// hears of it.
#[test]
fn ac10_shut_down_under_waiters() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(start(listener.accept()).await);
        }
        turn().await;
        let client = client(addr);
        while parked(&listener) == 0 {
            turn().await;
        }
        // SAFETY: takes no pointers.
        let done = unsafe { libc::shutdown(listener.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
        assert_eq!(done, 0, "a listener can be shut down");
        let mut results = Vec::new();
        for accept in waiting {
            results.push(accept.await);
        }
        let (_stream, peer) = results.remove(0).expect("it came before");
        assert_eq!(peer, addr_of(&client));
        for result in results {
            let error = result.map(drop).expect_err("it cannot accept");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    });
}

// ---- AC11 ----------------------------------------------------------------------------------

#[test]
fn ac11_descriptors_are_nonblocking_and_not_inherited() {
    alone("ac11_descriptors_are_nonblocking_and_not_inherited", || {
        let before = child::inherited();
        everywhere(|| async {
            let (listener, addr) = listening();
            let mut clients: Vec<StdStream> = Vec::new();
            let mut accepted = Vec::new();
            for is_parked in [false, true] {
                if is_parked {
                    clients.extend(park(&listener, addr, Gone::Dropped, 1).await);
                } else {
                    clients.push(client(addr));
                }
                accepted.push(accept(&listener).await.0);
            }
            let connected = TcpStream::connect(addr).await.expect("it listens");
            let sockets =
                [accepted[0].as_fd(), accepted[1].as_fd(), connected.as_fd(), listener.as_fd()];
            for (number, socket) in sockets.iter().enumerate() {
                // SAFETY: takes no pointers.
                let [descriptor, status] = [libc::F_GETFD, libc::F_GETFL]
                    .map(|command| unsafe { libc::fcntl(socket.as_raw_fd(), command) });
                assert_eq!(descriptor & libc::FD_CLOEXEC, libc::FD_CLOEXEC, "socket {number}");
                assert_eq!(status & libc::O_NONBLOCK, libc::O_NONBLOCK, "socket {number}");
            }
            assert_eq!(child::inherited(), before);
        });
    });
}

/// `accept` is lazy: not polled, it changes nothing.
#[test]
fn ac1_nothing_happens_before_the_first_poll() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let _client = client(addr);
        let accept = listener.accept();
        for _ in 0..3 {
            turn().await;
        }
        assert_eq!((tamam::metrics().ops, parked(&listener)), (0, 0));
        drop::<Box<dyn Future<Output = _>>>(Box::new(accept));
        assert_eq!(parked(&listener), 0);
    });
}
