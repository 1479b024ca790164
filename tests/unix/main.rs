//! Unix sockets (SEMANTICS UX1 to UX8): what they have of their own. The rows of receiving, sending and
//! closing run over them as `receive_unix`, `send_unix` and `close_unix`.

#[path = "../common/mod.rs"]
mod common;

mod chat;
mod datagrams;
mod descriptors;
#[path = "../common/unix.rs"]
mod family;
mod full;
mod passing;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tamam::Runtime;
use tamam::io::{CallError, errno};
use tamam::net::{UnixAddr, UnixListener, UnixStream, UnlinkOnDrop};
use tamam::time::{sleep, timeout};

use common::{Gone, PATIENCE, everywhere, start, turn};

const MS: Duration = Duration::from_millis(1);

fn unnamed() -> UnixAddr {
    UnixAddr::from_pathname("").expect("as std has it")
}

/// A listener with a name that the kernel chooses.
fn listening() -> (UnixListener, UnixAddr) {
    let listener = UnixListener::bind_addr(&unnamed()).expect("there are names");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

fn client(addr: &UnixAddr) -> StdUnixStream {
    let client = StdUnixStream::connect_addr(addr).expect("the backlog has room");
    client.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    client
}

/// A path that nobody has.
fn free_path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tamam-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path); // of a run that was killed
    path
}

// ---- UX1: accepting -----------------------------------------------------------------------------

/// AC1. Connections that come for an accept whose future is gone are the next call's, in order.
#[test]
fn ux1_ac1_no_connection_is_lost() {
    everywhere(async || {
        for gone in Gone::BOTH {
            let (listener, addr) = listening();
            gone.leave(start(listener.accept()).await);
            turn().await;
            let clients: Vec<_> = (0..5).map(|_| client(&addr)).collect();
            turn().await;
            for (number, mut client) in clients.into_iter().enumerate() {
                let (stream, peer) = listener.accept().await.expect("a connection");
                assert!(peer.is_unnamed());
                stream.send_all(vec![number as u8]).await.expect("connected");
                let mut byte = [0];
                client.read_exact(&mut byte).expect("it was sent");
                assert_eq!(byte, [number as u8], "in order of arrival");
            }
        }
    });
}

/// AC2. Each connection goes to one task, and no task sleeps while one waits.
#[test]
fn ux1_ac2_one_listener_several_tasks() {
    everywhere(async || {
        let (listener, addr) = listening();
        let listener = std::rc::Rc::new(listener);
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let listener = listener.clone();
                tamam::spawn(async move { listener.accept().await.map(drop) })
            })
            .collect();
        turn().await;
        let clients: Vec<_> = (0..10).map(|_| client(&addr)).collect();
        for task in tasks {
            task.await.expect("no panic").expect("a connection");
        }
        drop(clients);
    });
}

/// AC5, AC6, AC7, AC11: the drop ends what nobody took, and frees the name; `into_std` gives all back;
/// accepted descriptors are close-on-exec and non-blocking.
#[test]
fn ux1_ac5_ac6_ac7_ac11_the_end_of_a_listener() {
    everywhere(async || {
        let (listener, addr) = listening();
        drop(start(listener.accept()).await);
        let mut clients: Vec<_> = (0..3).map(|_| client(&addr)).collect();
        turn().await;
        drop(listener);
        let again = UnixListener::bind_addr(&addr).expect("the name is free in the same poll");
        for client in &mut clients {
            match client.read(&mut [0]) {
                Ok(len) => assert_eq!(len, 0, "an end"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
        drop(start(again.accept()).await);
        let _clients: Vec<_> = (0..3).map(|_| client(&addr)).collect();
        turn().await;
        let (listener, accepted) = again.into_std().expect("the ring works");
        listener.set_nonblocking(true).expect("a socket");
        let rest = std::iter::from_fn(|| listener.accept().ok()).count();
        assert_eq!(accepted.len() + rest, 3);
        for stream in accepted {
            for (call, flag) in
                [(libc::F_GETFD, libc::FD_CLOEXEC), (libc::F_GETFL, libc::O_NONBLOCK)]
            {
                // SAFETY: takes no pointers.
                let flags = unsafe { libc::fcntl(stream.as_raw_fd(), call) };
                assert_eq!(flags & flag, flag);
            }
        }
    });
}

/// AC8. One caller is told that descriptors are short, the listener pauses, and nobody is lost.
#[test]
fn ux1_ac8_no_descriptors() {
    common::alone("ux1_ac8_no_descriptors", || {
        everywhere(async || {
            let (listener, addr) = listening();
            let client = client(&addr);
            let mut taken = common::shortage::take_all_descriptors();
            let error = listener.accept().await.expect_err("no descriptor");
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            taken.truncate(taken.len() - 8);
            let (stream, _) = listener.accept().await.expect("there are some");
            drop((stream, client));
        });
    });
}

/// AC10. A listener that was shut down: before the accept, or while one is in flight, or two.
#[test]
fn ux1_ac10_a_listener_that_was_shut_down() {
    everywhere(async || {
        for (waiting, before) in [(0, 0), (1, 0), (3, 0), (1, 2), (3, 2)] {
            let (listener, addr) = listening();
            for _ in 0..before {
                let client = client(&addr);
                listener.accept().await.expect("a connection");
                drop(client);
            }
            let mut calls = Vec::new();
            for _ in 0..waiting {
                calls.push(start(listener.accept()).await);
            }
            turn().await;
            // SAFETY: takes no pointers.
            let done = unsafe { libc::shutdown(listener.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
            assert_eq!(done, 0);
            for call in calls {
                let error = call.await.map(drop).expect_err("it does not listen any more");
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
            }
            for _ in 0..3 {
                let error = listener.accept().await.map(drop).expect_err("it does not listen");
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
            }
        }
    });
}

// ---- UX2 ----------------------------------------------------------------------------------------

/// UX2. 100 000 times a peer closes, with and without data before it, while a receive is armed: every
/// end is seen.
#[test]
fn ux2_every_end_is_seen() {
    const ROUNDS: usize = 100_000;
    common::with_both(Runtime::builder(), async || {
        let (ends, taken) = std::sync::mpsc::sync_channel::<StdUnixStream>(64);
        let closer = std::thread::spawn(move || {
            for (number, mut peer) in taken.into_iter().enumerate() {
                if number % 2 == 0 {
                    peer.write_all(b"x").expect("connected");
                }
                drop(peer);
            }
        });
        let rounds = ROUNDS / 2; // on each engine
        for number in 0..rounds {
            let (ours, theirs) = StdUnixStream::pair().expect("a pair");
            let stream = UnixStream::from_std(ours).expect("inside a runtime");
            ends.send(theirs).expect("the thread lives");
            let limit = *PATIENCE / 2;
            let first = timeout(limit, stream.recv()).await.expect("an answer").expect("no reset");
            if number % 2 == 0 {
                assert_eq!(&first.expect("a byte comes first")[..], b"x");
                let end = timeout(limit, stream.recv()).await.expect("an end").expect("no reset");
                assert!(end.is_none());
            } else {
                assert!(first.is_none());
            }
        }
        drop(ends);
        common::join(closer).await;
    });
}

// ---- UX3, UX4 -----------------------------------------------------------------------------------

#[test]
fn ux3_names_are_as_std_has_them() {
    everywhere(async || {
        let path = free_path("ux3");
        let listener = UnixListener::bind(&path).expect("the folder is there");
        assert_eq!(listener.local_addr().expect("bound").as_pathname(), Some(&*path));
        let stream = UnixStream::connect(&path).await.expect("it listens");
        assert_eq!(stream.peer_addr().expect("connected").as_pathname(), Some(&*path));
        assert!(stream.local_addr().expect("connected").is_unnamed());
        let (server, peer) = listener.accept().await.expect("it is there");
        assert!(peer.is_unnamed() && server.peer_addr().expect("connected").is_unnamed());
        drop(stream);
        assert!(server.peer_addr().expect("the peer is gone").is_unnamed());
        std::fs::remove_file(&path).expect("the file stays");

        let (listener, addr) = listening();
        assert_eq!(addr.as_abstract_name().map(<[u8]>::len), Some(5), "autobind");
        let stream = UnixStream::connect_addr(&addr).await.expect("it listens");
        let peer = stream.peer_addr().expect("connected");
        assert_eq!(peer.as_abstract_name(), addr.as_abstract_name());
        drop(listener);
        let odd = UnixAddr::from_abstract_name([0, 1, 0xff]).expect("any bytes");
        let error = UnixStream::connect_addr(&odd).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("connect @\\u{0}\\u{1}"), "{error}");

        let (one, other) = UnixStream::pair().expect("descriptors are left");
        for stream in [&one, &other] {
            assert!(stream.local_addr().expect("a socket").is_unnamed());
            assert!(stream.peer_addr().expect("connected").is_unnamed());
        }
    });
}

/// Nothing is asked of the kernel for a name that cannot be.
#[test]
fn ux3_names_that_cannot_be() {
    everywhere(async || {
        let long = Path::new("/").join("x".repeat(107));
        for path in [long.as_path(), Path::new(std::ffi::OsStr::from_bytes(b"a\0b"))] {
            let bind = UnixListener::bind(path).expect_err("no such name");
            let connect = UnixStream::connect(path).await.expect_err("no such name");
            for (error, call) in [(bind, "bind"), (connect, "connect")] {
                assert_eq!(
                    (error.kind(), errno(&error)),
                    (ErrorKind::InvalidInput, None),
                    "{error}"
                );
                let failed = CallError::of(&error).expect("it says what was asked");
                assert_eq!((failed.call(), failed.subject()), (call, &*path.display().to_string()));
            }
        }
        let longest = Path::new("/").join("x".repeat(106));
        let error = UnixStream::connect(&longest).await.expect_err("it is not there");
        assert_eq!(errno(&error), Some(libc::ENOENT), "{error}");
    });
}

#[test]
fn ux4_a_path_that_is_there() {
    everywhere(async || {
        let path = free_path("ux4");
        std::fs::write(&path, "precious").expect("a folder for it");
        let error = UnixListener::bind(&path).expect_err("it is there");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        assert_eq!(std::fs::read(&path).expect("it is untouched"), b"precious");
        let error = UnixStream::connect(&path).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        std::fs::remove_file(&path).expect("ours");

        drop(UnixListener::bind(&path).expect("it is free"));
        assert!(path.exists(), "the file stays");
        let guard = UnlinkOnDrop::new(&path).expect("it is there");
        drop(guard);
        assert!(!path.exists());
        let error = UnlinkOnDrop::new(&path).expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::NotFound);

        // A guard leaves what came after it, and one that is told to keep.
        let first = UnixListener::bind(&path).expect("it is free");
        let guard = UnlinkOnDrop::new(&path).expect("it is there");
        std::fs::remove_file(&path).expect("ours");
        let second = UnixListener::bind(&path).expect("it is free");
        drop(guard);
        assert!(path.exists(), "another listener's");
        // Nor one that has the number of the first: the guard holds it.
        let guard = UnlinkOnDrop::new(&path).expect("it is there");
        drop(second);
        std::fs::remove_file(&path).expect("ours");
        let second = UnixListener::bind(&path).expect("it is free");
        drop(guard);
        assert!(path.exists(), "another listener's");
        UnlinkOnDrop::new(&path).expect("it is there").keep();
        assert!(path.exists());
        drop((first, second));
        std::fs::remove_file(&path).expect("ours");
    });
}

// ---- UX6, UX7 -----------------------------------------------------------------------------------

#[test]
fn ux6_who_is_at_the_other_end() {
    everywhere(async || {
        let (listener, addr) = listening();
        let client = UnixStream::connect_addr(&addr).await.expect("it listens");
        let (server, _) = listener.accept().await.expect("it is there");
        for stream in [&client, &server] {
            let cred = stream.peer_cred().expect("a socket");
            // SAFETY: both take and return plain values.
            let own = unsafe { (libc::geteuid(), libc::getegid()) };
            assert_eq!((cred.uid, cred.gid), own);
            assert_eq!(cred.pid, std::process::id() as i32);
        }
    });
}

/// UX7. 1 the backlog is full; 2 connects wait, without spinning; 3 the listener accepts, and all of
/// them get through; one that was given up does not.
#[test]
fn ux7_a_full_backlog() {
    everywhere(async || {
        let (listener, addr) = listening();
        // SAFETY: takes no pointers; a second listen(2) changes the backlog.
        assert_eq!(unsafe { libc::listen(listener.as_fd().as_raw_fd(), 1) }, 0);
        let mut filling = Vec::new();
        while let Ok(stream) = timeout(MS, UnixStream::connect_addr(&addr)).await {
            filling.push(stream.expect("it listens"));
            assert!(filling.len() < 10, "a backlog of one is soon full");
        }
        let before = tamam::metrics().turns;
        let began = Instant::now();
        assert!(timeout(200 * MS, UnixStream::connect_addr(&addr)).await.is_err());
        let turns = tamam::metrics().turns - before;
        // 1, 2, 4, 8, 16, 32 and then every 50 ms.
        assert!(turns < 30, "{turns} turns in {:?}", began.elapsed());

        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let addr = addr.clone();
                tamam::spawn(async move { UnixStream::connect_addr(&addr).await })
            })
            .collect();
        sleep(5 * MS).await;
        let mut served = Vec::new();
        for _ in 0..filling.len() + waiting.len() {
            served.push(listener.accept().await.expect("a client").0);
        }
        for connect in waiting {
            connect.await.expect("no panic").expect("there is room now");
        }
        assert!(timeout(20 * MS, listener.accept()).await.is_err(), "nobody else has connected");
    });
}
