//! Completions made of readiness (SEMANTICS EP1 to EP6): a descriptor is registered once and leaves
//! before it is closed, no edge is missed, no flag is believed, and what was begun goes on without
//! any task. Whatever a user can see of it must be the same in the ring, so most of this runs there
//! too.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::{
    Gone, PATIENCE, Random, assert_same, begin, child, everywhere, pattern, poll_once, start, turn,
    with, with_both,
};
use tamam::net::{TcpListener, TcpStream};
use tamam::time::timeout;
use tamam::{Backend, Runtime};

/// More than the kernel holds between the two ends of [`common::narrow_pair`].
const STALLING: usize = 1 << 20;

/// A std peer of a stream that std made too, so that nothing is known of its descriptor yet.
fn unknown_pair() -> (TcpStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    let stream = StdStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (peer, _) = listener.accept().expect("it is there");
    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    peer.set_nodelay(true).expect("a TCP socket");
    (TcpStream::from_std(stream).expect("inside a runtime"), peer)
}

/// Runs something on another thread, while the runtime sleeps and no timer rouses it; how many turns
/// and polls of tasks that took.
async fn asleep<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (T, u64, u64) {
    turn().await;
    turn().await; // what was woken has been polled
    let (done, answer) = tokio::sync::oneshot::channel();
    let before = tamam::metrics();
    let thread = thread::spawn(move || {
        let output = work();
        assert!(done.send(output).is_ok(), "somebody waits");
    });
    let output = answer.await.expect("the thread does not panic");
    let after = tamam::metrics();
    common::join(thread).await;
    (output, after.turns - before.turns, after.polls - before.polls)
}

// ---- EP1 -----------------------------------------------------------------------------------

/// How a stream gives its descriptor up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Dropped,
    Converted,
}

/// 1 a receive waits, and goes; 2 the socket is duplicated, and leaves the runtime; 3 a new stream
/// gets its number; 4 what the old peer writes is the dup's alone, and rouses nobody; what the new
/// peer writes is the new stream's.
#[test]
fn ep1_a_dup_that_lives_on_brings_no_event() {
    common::alone("ep1_a_dup_that_lives_on_brings_no_event", || {
        everywhere(|| async {
            let listener = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
            let addr = listener.local_addr().expect("bound");
            for (leaving, late) in [Leaving::Dropped, Leaving::Converted]
                .into_iter()
                .flat_map(|leaving| [(leaving, false), (leaving, true)])
            {
                let (old, mut old_peer) = common::pair().await;
                drop(start(old.recv()).await);
                turn().await; // it is with the kernel
                let number = old.as_fd().as_raw_fd();
                let dup = old.as_fd().try_clone_to_owned().expect("a descriptor is left");
                let mut dup = StdStream::from(dup);
                let mut unread = Vec::new();
                if late {
                    old_peer.write_all(b"early").expect("connected");
                    common::wait_for(&dup, libc::POLLIN);
                }
                match leaving {
                    Leaving::Dropped => drop(old),
                    Leaving::Converted => unread = old.into_std().expect("nothing is sent").1,
                }
                turn().await;
                let new = TcpStream::connect(addr).await.expect("it listens");
                assert_eq!(new.as_fd().as_raw_fd(), number, "the lowest number that is free");
                let (mut new_peer, _) = listener.accept().expect("it connected");
                let mut recv = start(new.recv()).await;
                let ((), turns, _) = asleep(move || {
                    for _ in 0..50 {
                        old_peer.write_all(b"x").expect("connected");
                        thread::sleep(Duration::from_micros(200));
                    }
                    old_peer.shutdown(Shutdown::Both).expect("connected");
                })
                .await;
                assert!(turns <= 3, "{turns} turns for a socket that left, {leaving:?}");
                assert!(poll_once(&mut recv).await.is_pending(), "another's bytes");
                dup.set_nonblocking(false).expect("a socket");
                dup.read_to_end(&mut unread).expect("no reset");
                // A drop throws away what is unread; else every byte is somewhere.
                let early: &[u8] = match (late, leaving) {
                    (true, Leaving::Converted) => b"early",
                    _ => b"",
                };
                assert_same(&unread, &[early, &[b'x'; 50]].concat());
                new_peer.write_all(b"new").expect("connected");
                assert_eq!(&recv.await.expect("no reset").expect("not the end")[..], b"new");
            }
        });
    });
}

/// Converted there and back, a socket is registered anew: an edge is seen each time.
#[test]
fn ep1_a_socket_that_comes_back() {
    everywhere(|| async {
        let (mut stream, mut peer) = common::pair().await;
        for round in 0..100u8 {
            let recv = start(stream.recv()).await;
            if round % 2 == 0 {
                turn().await;
            }
            peer.write_all(&[round]).expect("connected");
            assert_eq!(recv.await.expect("no reset").expect("not the end")[..], [round]);
            drop(start(stream.recv()).await);
            let (std, unread) = stream.into_std().expect("nothing is sent");
            assert!(unread.is_empty());
            stream = TcpStream::from_std(std).expect("inside a runtime");
        }
    });
}

/// Ten streams and a listener wait again and again, in both directions; an eleventh stream never has
/// to wait. Gives how many descriptors have waited.
async fn waits() -> usize {
    const STREAMS: usize = 10;
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    for number in 0..=STREAMS {
        let accept = start(listener.accept()).await;
        let mut peer = StdStream::connect(addr).expect("it listens");
        let (stream, _) = accept.await.expect("a connection");
        if number == STREAMS {
            for _ in 0..10 {
                stream.send_all("x").await.expect("it fits");
            }
            peer.write_all(b"y").expect("connected");
            common::wait_for(&stream, libc::POLLIN);
            common::at_once(stream.recv()).await.expect("no reset").expect("a byte");
            break;
        }
        for round in 0..10 {
            let recv = start(stream.recv()).await;
            peer.write_all(b"y").expect("connected");
            recv.await.expect("no reset").expect("a byte");
            if round == 5 && number < 3 {
                let send = start(stream.send_all(pattern(STALLING * 16))).await;
                let (back, bytes) = common::read_some(peer, STALLING * 16).await;
                peer = back;
                assert_same(&bytes, &pattern(STALLING * 16));
                send.await.expect("the peer reads");
            }
        }
        Gone::BOTH[number % 2].leave(start(stream.recv()).await);
        drop(stream);
        turn().await;
    }
    STREAMS + 1
}

/// What strace saw of a program that registers and closes: a line for each call.
fn trace_of_registrations(name: &str, part: &str) -> Option<String> {
    let strace = ["strace", "-f", "-qq", "-e", "trace=epoll_ctl,close", "-e", "signal=none"];
    // Stops at these calls only; older ones stop at all.
    let quick = [&strace[..], &["--seccomp-bpf"]].concat();
    for launcher in [quick, strace.to_vec()] {
        let works = Command::new(launcher[0]).args(&launcher[1..]).arg("true").output();
        if works.is_ok_and(|output| output.status.success()) {
            let launcher: Vec<_> = launcher.into_iter().map(str::to_owned).collect();
            return Some(child::play(name, part, &launcher));
        }
    }
    println!("skipped: no strace");
    None
}

/// The number that follows `before` in a line.
fn number_after(line: &str, before: &str) -> Option<i32> {
    let (_, rest) = line.split_once(before)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Each descriptor that waits is added once, for both directions, and taken out before it is
/// closed; one that never waits is not added.
#[test]
fn ep1_registered_once_and_taken_out_before_the_close() {
    const NAME: &str = "ep1_registered_once_and_taken_out_before_the_close";
    const WAITED: &str = "descriptors waited: ";
    if child::part(NAME).is_some() {
        return with(Runtime::builder().backend(Backend::Epoll), || async {
            println!("\n{WAITED}{}", waits().await);
        });
    }
    let Some(trace) = trace_of_registrations(NAME, "traced") else { return };
    let waited = trace.lines().find_map(|line| number_after(line, WAITED)).expect("it says so");
    let (mut registered, mut added) = (BTreeMap::new(), 0);
    for line in trace.lines() {
        if let Some(fd) = number_after(line, "EPOLL_CTL_ADD, ") {
            added += 1;
            assert_eq!(registered.insert(fd, line), None, "added twice: {line}");
        } else if let Some(fd) = number_after(line, "EPOLL_CTL_DEL, ") {
            assert!(registered.remove(&fd).is_some(), "taken out twice, or never added: {line}");
        } else if let Some(fd) = number_after(line, "close(") {
            let early =
                registered.get(&fd).filter(|added| !added.contains("events=EPOLLIN|EPOLLET"));
            assert_eq!(early, None, "closed while it is registered: {line}");
        }
        assert!(!line.contains("EPOLL_CTL_MOD"), "{line}");
    }
    // The eventfd of the runtime is added at birth, and goes with it.
    assert_eq!((added, registered.len()), (waited + 1, 1), "{registered:?}");
}

// ---- EP2 -----------------------------------------------------------------------------------

/// Receives in every way, in pieces of all sizes, some of whose futures are left.
async fn receive_some(stream: &TcpStream, random: &mut Random, received: &mut Vec<u8>) -> bool {
    let room = random_room(random);
    let gone = Gone::BOTH[random.below(2) as usize];
    match random.below(8) {
        0 => {
            let mut recv = Box::pin(stream.recv());
            match poll_once(&mut recv).await {
                Poll::Pending => gone.leave(recv),
                Poll::Ready(chunk) => match chunk.expect("no reset") {
                    Some(chunk) => received.extend_from_slice(&chunk),
                    None => return false,
                },
            }
        }
        1 => {
            let mut read = Box::pin(stream.read(Vec::with_capacity(room)));
            match poll_once(&mut read).await {
                Poll::Pending => gone.leave(read),
                Poll::Ready(read) => received.extend(read.expect("no reset").1),
            }
        }
        2..5 => match stream.recv().await.expect("no reset") {
            Some(chunk) => received.extend_from_slice(&chunk),
            None => return false,
        },
        5..7 => {
            let (len, bytes) = stream.read(Vec::with_capacity(room)).await.expect("no reset");
            received.extend(bytes);
            return len > 0;
        }
        _ => match stream.read_exact(Vec::with_capacity(room), room).await {
            Ok(bytes) => received.extend(bytes),
            Err(error) => {
                let (error, bytes) = error.into_parts();
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                received.extend(bytes);
                return false;
            }
        },
    }
    true
}

/// Mostly little, so that what comes fills it to the last byte as often as not.
fn random_room(random: &mut Random) -> usize {
    let most = [2, 4, 40, 10_000][random.below(4) as usize];
    1 + random.below(most) as usize
}

/// A peer that writes single bytes: each receive may be full, short or in vain, and each byte may
/// come right behind it. None is lost, none is waited for in vain.
#[test]
fn ep2_a_million_single_bytes() {
    for (number, (name, builder)) in common::engines().into_iter().enumerate() {
        // The rungs of the ring have their own tests.
        let len = match name {
            "epoll" => 1 << 20,
            "ring" | "epoll with one buffer of 16 bytes" => 1 << 18,
            _ => continue,
        };
        eprintln!("-- {name}");
        with(builder, || async move {
            let (stream, mut peer) = common::pair().await;
            let writer = thread::spawn(move || {
                for byte in pattern(len) {
                    peer.write_all(&[byte]).expect("connected");
                }
            });
            let (mut received, mut random) = (Vec::new(), Random(number as u64 + 1));
            while receive_some(&stream, &mut random, &mut received).await {}
            assert_same(&received, &pattern(len));
            common::join(writer).await;
        });
    }
}

/// As above, one byte at a time, and the next comes only when the last was received: an edge that is
/// missed is a hang.
#[test]
fn ep2_every_byte_is_an_edge() {
    with_both(Runtime::builder(), || async {
        let (stream, peer) = common::pair().await;
        let mut echo = peer.try_clone().expect("a descriptor is left");
        let answering = thread::spawn(move || {
            let mut byte = [0];
            while let Ok(1) = echo.read(&mut byte) {
                if echo.write_all(&byte).is_err() {
                    break;
                }
            }
        });
        for number in 0..20_000u32 {
            let byte = number as u8;
            stream.send_all(vec![byte]).await.expect("connected");
            let room = Vec::with_capacity([1, 2, 8192][number as usize % 3]);
            let (len, bytes) = stream.read(room).await.expect("no reset");
            assert_eq!((len, &bytes[..]), (1, &[byte][..]));
        }
        drop((stream, peer));
        turn().await;
        common::join(answering).await;
    });
}

/// Urgent data ends a receive early though more is there: what is behind the mark comes without
/// another edge.
#[test]
fn ep2_a_receive_that_ends_at_an_urgent_mark() {
    let test = || async {
        for waits in [false, true] {
            for is_large in [false, true] {
                let (stream, mut peer) = common::pair().await;
                if waits {
                    // Known to the engine, and nothing in flight.
                    let recv = start(stream.recv()).await;
                    peer.write_all(b"first").expect("connected");
                    recv.await.expect("no reset").expect("bytes");
                }
                peer.write_all(b"before").expect("connected");
                // SAFETY: pointer and length are those of one byte.
                let sent =
                    unsafe { libc::send(peer.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
                assert_eq!(sent, 1);
                peer.write_all(b"behind").expect("connected");
                common::wait_for(&stream, libc::POLLIN);
                thread::sleep(Duration::from_millis(5));
                let mut received = Vec::new();
                while received.len() < 12 {
                    if is_large {
                        let read = stream.read(Vec::with_capacity(64 * 1024));
                        let read = timeout(Duration::from_secs(5), read).await;
                        received.extend(read.expect("it is there").expect("no reset").1);
                    } else {
                        let chunk = timeout(Duration::from_secs(5), stream.recv()).await;
                        let chunk = chunk.expect("it is there").expect("no reset");
                        received.extend_from_slice(&chunk.expect("not the end"));
                    }
                }
                assert_eq!(received, b"beforebehind", "waits: {waits}, is_large: {is_large}");
            }
        }
    };
    for (name, builder) in common::both(&Runtime::builder()) {
        eprintln!("-- {name}");
        // The kernel's work for a ring that was dropped on this thread a moment ago would be pending
        // here like a signal. With one pending, recv(2) at the mark says EAGAIN though there is more
        // (tcp_recvmsg), and with the next segment it comes.
        let thread = thread::spawn(move || common::with(builder, test));
        thread.join().expect("as expected");
    }
}

/// Bytes and the end come together, before the engine knows the socket, while a receive waits, or
/// between two: short receives take the bytes, and the end is there without another edge. A peer
/// that is gone for good (`Both`) is no different.
#[test]
fn ep2_the_end_behind_the_bytes() {
    everywhere(|| async {
        for how in [Shutdown::Write, Shutdown::Both] {
            for moment in 0..3 {
                for room in [1, 7, 100, 10_000] {
                    let (stream, mut peer) = unknown_pair();
                    let mut finish = || {
                        peer.write_all(&pattern(100)).expect("connected");
                        peer.shutdown(how).expect("connected");
                    };
                    match moment {
                        0 => finish(),
                        1 => {
                            drop(start(stream.recv()).await);
                            turn().await;
                            finish();
                        }
                        _ => {
                            drop(start(stream.recv()).await);
                            turn().await;
                            finish();
                            common::wait_for(&stream, libc::POLLIN);
                            common::settle().await;
                        }
                    }
                    let mut received = Vec::new();
                    loop {
                        let read = stream.read(Vec::with_capacity(room));
                        let (len, bytes) = read.await.expect("no reset");
                        if len == 0 {
                            break;
                        }
                        received.extend(bytes);
                    }
                    assert_same(&received, &pattern(100));
                    for _ in 0..3 {
                        let end = common::at_once(stream.recv()).await;
                        assert!(end.expect("no reset").is_none());
                    }
                }
            }
        }
    });
}

// ---- EP3 -----------------------------------------------------------------------------------

/// 1 a receive waits, and perhaps a send that has stalled; 2 the peer resets, perhaps after last
/// bytes; 3 those come first, then each direction hears of the reset.
#[test]
fn ep3_a_reset_is_told_by_each_call() {
    everywhere(|| async {
        for (stalled, last) in
            [false, true].into_iter().flat_map(|stalled| [(stalled, ""), (stalled, "last")])
        {
            let (stream, mut peer) = common::narrow_pair().await;
            let recv = start(stream.recv()).await;
            let mut send = None;
            if stalled {
                send = Some(start(stream.send_all(pattern(STALLING))).await);
            }
            turn().await;
            peer.write_all(last.as_bytes()).expect("connected");
            if !last.is_empty() {
                common::wait_for(&stream, libc::POLLIN);
            }
            common::reset(peer);
            common::wait_for(&stream, libc::POLLHUP);
            let (mut bytes, mut answer) = (Vec::new(), recv.await);
            while let Ok(Some(chunk)) = &answer {
                bytes.extend_from_slice(chunk);
                answer = stream.recv().await;
            }
            assert_eq!(bytes, last.as_bytes());
            let error = answer.expect_err("a reset is no end");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "stalled: {stalled}");
            if let Some(send) = send {
                let error = send.await.expect_err("it cannot be sent").into_parts().0;
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "last: {last:?}");
            }
            stream.send_all("x").await.expect_err("the connection is gone");
            let error = stream.recv().await.expect_err("it stays so");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

/// 1 a receive waits, and perhaps a send that has stalled; 2 the peer finishes, which ends the
/// receive and nothing else.
#[test]
fn ep3_an_end_is_of_one_direction() {
    everywhere(|| async {
        for len in [0, STALLING] {
            let (stream, peer) = common::narrow_pair().await;
            let recv = start(stream.recv()).await;
            let send = begin(stream.send_all(pattern(len))).await;
            turn().await;
            peer.shutdown(Shutdown::Write).expect("connected");
            assert!(recv.await.expect("no reset").is_none());
            let (peer, bytes) = common::read_some(peer, len).await;
            assert_same(&bytes, &pattern(len));
            send.await.expect("the peer reads");
            stream.send_all("and more").await.expect("this direction is open");
            stream.shutdown().await.expect("and can be ended");
            assert_eq!(common::arriving(peer).await, b"and more");
        }
    });
}

/// A connect that waits hears from connect(2) how it went: the listener gets room, or goes.
#[test]
fn ep3_a_connect_that_waited() {
    with_both(Runtime::builder(), || async {
        for goes in [false, true] {
            let (full, filling) = common::full_listener();
            let addr = full.local_addr().expect("bound");
            let connect = start(TcpStream::connect(addr)).await;
            turn().await;
            let mut served = Vec::new();
            let mut listening = Some(full);
            match &listening {
                Some(full) if !goes => {
                    full.set_nonblocking(true).expect("a socket");
                    while let Ok(accepted) = full.accept() {
                        served.push(accepted);
                    }
                    assert!(!served.is_empty() && filling.len() >= served.len());
                }
                _ => listening = None,
            }
            // The kernel tries again after a second, then after two.
            let connected = timeout(Duration::from_secs(60), connect).await.expect("an answer");
            match connected {
                Ok(stream) => {
                    assert!(!goes);
                    assert_eq!(stream.peer_addr().expect("connected"), addr);
                    let listener = listening.expect("it is kept");
                    listener.set_nonblocking(false).expect("a socket");
                    let (mut peer, _) = listener.accept().expect("it connected");
                    stream.send_all("x").await.expect("connected");
                    assert_eq!(peer.read(&mut [0; 2]).expect("connected"), 1);
                }
                Err(error) => {
                    assert!(goes, "{error}");
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                }
            }
        }
    });
}

// ---- EP4 -----------------------------------------------------------------------------------

/// Files that are no sockets, as a program may find them for its standard input: epoll would refuse
/// the first, the ring would not.
fn no_sockets() -> [(&'static str, OwnedFd); 3] {
    let path = std::env::current_exe().expect("a test has a binary");
    let regular = File::open(path).expect("it can be read");
    let null = File::open("/dev/null").expect("it is everywhere");
    let mut pipe = [-1; 2];
    // SAFETY: there is room for two descriptors.
    let made = unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(made, 0, "a descriptor is left");
    // SAFETY: pipe2(2) just returned them, nobody else owns them.
    let [reading, _writing] = pipe.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    [("a regular file", regular.into()), ("a device", null.into()), ("a pipe", reading)]
}

/// A stream or a listener over something else: every call says so at once, and nothing spins.
#[test]
fn ep4_a_file_instead_of_a_socket() {
    everywhere(|| async {
        for (what, file) in no_sockets() {
            let dup = file.try_clone().expect("a descriptor is left");
            let stream = TcpStream::from_std(StdStream::from(file)).expect("inside a runtime");
            let listener = TcpListener::from_std(StdListener::from(dup)).expect("inside a runtime");
            for _ in 0..3 {
                let errors = [
                    stream.recv().await.map(drop).expect_err("no socket"),
                    stream
                        .read(Vec::with_capacity(64 * 1024))
                        .await
                        .expect_err("room")
                        .into_parts()
                        .0,
                    stream.send_all("x").await.expect_err("no socket").into_parts().0,
                    listener.accept().await.map(drop).expect_err("no socket"),
                ];
                let errnos = errors.map(|error| error.raw_os_error());
                assert_eq!(errnos, [Some(libc::ENOTSOCK); 4], "{what}");
            }
            let ((), turns, _) = asleep(|| thread::sleep(Duration::from_millis(20))).await;
            assert!(turns <= 3, "{turns} turns, {what}");
            assert_eq!(tamam::metrics().ops, 0, "{what}");
        }
    });
}

/// epoll_ctl(2) refuses what would have to wait, since the user watches too many descriptors, or
/// memory is short: the calls say so, nothing spins, what need not wait works, and no message is
/// torn unsaid.
#[test]
fn ep4_a_socket_that_cannot_be_watched() {
    const NAME: &str = "ep4_a_socket_that_cannot_be_watched";
    let errnos = [("ENOSPC", libc::ENOSPC), ("ENOMEM", libc::ENOMEM)];
    if let Some(part) = child::part(NAME) {
        let (_, errno) = errnos.iter().find(|(name, _)| *name == part).expect("one of them");
        return with(Runtime::builder().backend(Backend::Epoll), || nothing_can_wait(*errno));
    }
    for (name, _) in errnos {
        // The first is the runtime's own.
        let injection = format!("epoll_ctl:error={name}:when=2+");
        let Some(launcher) = child::strace(&[&injection]) else { return };
        child::play(NAME, name, &launcher);
    }
}

async fn nothing_can_wait(errno: i32) {
    let refused = Some(errno);
    let (stream, mut peer) = unknown_pair();
    peer.write_all(b"here").expect("connected");
    common::wait_for(&stream, libc::POLLIN);
    assert_eq!(&stream.recv().await.expect("it is there").expect("bytes")[..], b"here");
    stream.send_all("x").await.expect("it fits");
    let recv = stream.recv().await.map(drop).expect_err("it would have to wait");
    assert_eq!(recv.raw_os_error(), refused);

    let all = pattern(64 << 20);
    let (sent, _) = stream.send(all.clone()).await.expect("a part of it fits");
    assert!(sent > 0 && sent < all.len(), "{sent} bytes");
    let torn = stream.send_all("the next").await.expect_err("it would stand in for the rest");
    assert_eq!(torn.error().raw_os_error(), refused);
    drop(stream);
    let bytes = common::arriving(peer).await;
    assert_same(&bytes[1..], &all[..sent]);

    let (full, _filling) = common::full_listener();
    let connect = TcpStream::connect(full.local_addr().expect("bound")).await;
    assert_eq!(connect.map(drop).expect_err("it would wait").raw_os_error(), refused);

    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let accept = listener.accept().await.map(drop).expect_err("nobody is there");
    assert_eq!(accept.raw_os_error(), refused);
    let client = StdStream::connect(listener.local_addr().expect("bound"));
    let client = client.expect("the backlog has room");
    let (_, addr) = listener.accept().await.expect("somebody is there");
    assert_eq!(addr, client.local_addr().expect("connected"));
    let ((), turns, _) = asleep(|| thread::sleep(Duration::from_millis(50))).await;
    assert!(turns <= 3, "{turns} turns");
}

// ---- EP5 -----------------------------------------------------------------------------------

/// What is begun, and then left to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Send,
    SendAndShutdown,
    WriteHalf,
}

/// 1 a send stalls, and its future goes; perhaps a shutdown behind it, or the half itself; 2 the peer
/// reads, while this thread sleeps and polls no task: everything arrives, and the end if it was
/// asked for.
#[test]
fn ep5_what_was_begun_needs_no_task() {
    const LEN: usize = 8 << 20;
    for left in [Left::Send, Left::SendAndShutdown, Left::WriteHalf] {
        for gone in Gone::BOTH {
            with_both(Runtime::builder(), || async move {
                eprintln!("{left:?}, {gone:?}");
                let (stream, mut peer) = common::pair().await;
                let (read, write) = stream.into_split();
                gone.leave(start(write.send_all(pattern(LEN))).await);
                let mut write = Some(write);
                match left {
                    Left::Send => {}
                    Left::SendAndShutdown => {
                        let write = write.as_ref().expect("it is kept");
                        gone.leave(start(write.shutdown()).await);
                    }
                    Left::WriteHalf => drop(write.take()),
                }
                let ((peer, bytes), turns, polls) = asleep(move || {
                    let mut bytes = Vec::new();
                    if left == Left::Send {
                        bytes.resize(LEN, 0);
                        peer.read_exact(&mut bytes).expect("no reset");
                    } else {
                        peer.read_to_end(&mut bytes).expect("no reset");
                    }
                    (peer, bytes)
                })
                .await;
                assert_same(&bytes, &pattern(LEN));
                eprintln!("{turns} turns, {polls} polls");
                // The main future, at the start of the sleep and at its end.
                assert!(polls <= 3, "{polls} polls while the engine was to go on alone");
                drop((read, write, peer));
            });
        }
    }
}

/// A drop with a send that has stalled: what the kernel takes goes out, and the end, before this
/// thread sleeps; no task is polled for it, and the buffer is gone.
#[test]
fn ep5_a_drop_ends_without_a_task() {
    with_both(Runtime::builder(), || async {
        for gone in Gone::BOTH {
            let (stream, mut peer) = common::narrow_pair().await;
            gone.leave(start(stream.send_all(pattern(STALLING))).await);
            std::mem::forget(begin(stream.send_all("queued")).await);
            turn().await;
            drop(stream);
            let (bytes, _, polls) = asleep(move || {
                let mut bytes = Vec::new();
                peer.read_to_end(&mut bytes).map(|_| bytes)
            })
            .await;
            let bytes = bytes.expect("no reset");
            assert!(!bytes.is_empty() && bytes.len() < STALLING, "{} bytes", bytes.len());
            assert_same(&bytes, &pattern(bytes.len()));
            assert!(polls <= 3, "{polls} polls");
            assert_eq!(tamam::metrics().ops, 0);
        }
    });
}

// ---- EP6 -----------------------------------------------------------------------------------

/// 40 MiB in one call, as one buffer and as many, against a peer that reads in small pieces with
/// pauses: the answer is 40 MiB, and not what one edge had room for.
#[test]
fn ep6_forty_mebibytes_in_one_send() {
    const LEN: usize = 40 << 20;
    for pieces in [1, 3, 1000] {
        with_both(Runtime::builder(), || async move {
            let (stream, mut peer) = common::pair().await;
            let reader = thread::spawn(move || {
                let (mut bytes, mut buf) = (Vec::with_capacity(LEN), vec![0; 100_000]);
                let mut random = Random(6);
                loop {
                    let len = 1 + random.below(buf.len() as u64) as usize;
                    match peer.read(&mut buf[..len]).expect("no reset") {
                        0 => return bytes,
                        len => bytes.extend_from_slice(&buf[..len]),
                    }
                    if random.below(50) == 0 {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            let all = pattern(LEN);
            let sent = if pieces == 1 {
                let (sent, back) = stream.send(all).await.expect("the peer reads");
                assert_same(&back, &pattern(LEN));
                sent
            } else {
                let bufs: Vec<_> = all.chunks(LEN / pieces).map(<[u8]>::to_vec).collect();
                let count = bufs.len();
                let (sent, back) = stream.sendv(bufs).await.expect("the peer reads");
                assert_eq!(back.len(), count);
                assert_same(&back.concat(), &all);
                sent
            };
            assert_eq!(sent, LEN, "in {pieces} pieces");
            drop(stream);
            turn().await;
            assert_same(&common::join(reader).await, &pattern(LEN));
        });
    }
}

/// Many sends at once, large and small, through buffers that hold a few kilobytes: each is whole, in
/// the order of the first polls, and each answer is of the whole.
#[test]
fn ep6_sends_behind_a_send_that_stalls() {
    everywhere(|| async {
        let (stream, peer) = common::narrow_pair().await;
        let reader = common::read_to_end(peer);
        let (mut expected, mut sends, mut random) = (Vec::new(), Vec::new(), Random(66));
        for number in 0..200u32 {
            let len = [1, 100, 5_000, 70_000][random.below(4) as usize];
            let buf = vec![number as u8; len];
            expected.extend_from_slice(&buf);
            sends.push((begin(stream.send(buf)).await, len));
        }
        for (send, len) in sends {
            let (sent, buf) = send.await.expect("the peer reads");
            assert_eq!((sent, buf.len()), (len, len));
        }
        drop(stream);
        turn().await;
        assert_same(&common::join(reader).await.expect("no reset"), &expected);
    });
}
