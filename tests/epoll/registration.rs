//! EP1: a descriptor is registered once, and taken out before it is closed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tamam::net::TcpStream;
use tamam::{Backend, Runtime};

use crate::common::{assert_same, child, everywhere, poll_once, start, turn, with};
use crate::{asleep, common, waits};

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
    common::alone("registration::ep1_a_dup_that_lives_on_brings_no_event", || {
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
    const NAME: &str = "registration::ep1_registered_once_and_taken_out_before_the_close";
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
