//! RD6 to RD12: what cannot be watched, numbers that are closed elsewhere, the end of a watch, and of its
//! runtime.

use std::fs::File;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use tamam::io::{CallError, Readiness, ReadyFor, errno};
use tamam::net::{TcpListener, TcpStream};
use tamam::{Runtime, spawn};

use crate::common::{self, alone, everywhere, on_epoll, start, turn};
use crate::{add, drain, eventfd, fill, pipe, sockets, watch};
#[test]
fn rd6_files_that_are_always_ready_are_refused() {
    everywhere(async || {
        let exe = std::env::current_exe().expect("a test has a binary");
        for path in [&*exe, "/".as_ref(), "/dev/null".as_ref(), "/dev/zero".as_ref()] {
            let file = File::open(path).expect("every machine has it");
            let number = file.as_raw_fd();
            let error = Readiness::new(file).expect_err("it is always ready");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{path:?}");
            assert_eq!(errno(&error), Some(libc::EPERM), "{path:?}");
            let told = CallError::of(&error).expect("it says what was asked");
            assert_eq!((told.call(), told.subject()), ("poll", &*format!("descriptor {number}")));
        }
        // A regular file by its type, and it tells when the mounts change. Its content is there.
        let mounts = watch(File::open("/proc/self/mounts").expect("proc is mounted"));
        assert!(mounts.get_ref().metadata().expect("a file").is_file());
        drop(mounts.readable().await.expect("no error"));
    });
}

// ---- RD7 ----------------------------------------------------------------------------------------

/// A number, whoever owns it.
struct Number(RawFd);

impl AsFd for Number {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open where it is used as one; after it was closed, calls with it fail.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// 1 a wait is in flight, or was; 2 the number is closed elsewhere, and gets to be a socket of the
/// runtime, which works; 3 the watch goes on with the file that it was made of.
#[test]
fn rd7_a_number_that_is_closed_elsewhere() {
    alone("surroundings::rd7_a_number_that_is_closed_elsewhere", || {
        everywhere(async || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
            for early in [false, true] {
                let (reader, mut writer) = pipe();
                let number = reader.as_raw_fd();
                let readiness = Rc::new(watch(Number(number)));
                if early {
                    drop(start(readiness.readable()).await);
                    turn().await;
                }
                let waiting = (!early).then(|| {
                    let readiness = readiness.clone();
                    spawn(async move { readiness.readable().await.map(drop) })
                });
                turn().await;
                drop(reader);
                let addr = listener.local_addr().expect("bound");
                let client = TcpStream::connect(addr).await.expect("it listens");
                let (server, _) = listener.accept().await.expect("it is there");
                let reused = [client.as_fd(), server.as_fd()].map(|fd| fd.as_raw_fd());
                assert!(reused.contains(&number), "{reused:?} without {number}");
                for _ in 0..20 {
                    let receiving = start(server.recv()).await;
                    let answering = start(client.recv()).await;
                    client.send_all("ping").await.expect("connected");
                    server.send_all("pong").await.expect("connected");
                    assert_eq!(&receiving.await.expect("open").expect("bytes")[..], b"ping");
                    assert_eq!(&answering.await.expect("open").expect("bytes")[..], b"pong");
                }
                writer.write_all(b"x").expect("the duplicate reads");
                match waiting {
                    Some(waiting) => waiting.await.expect("no panic").expect("no error"),
                    None => drop(readiness.readable().await.expect("no error")),
                }
                drop(readiness);
                turn().await;
                let error = writer.write(b"x").expect_err("the duplicate is closed too");
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            }
        });
    });
}

// ---- RD8 ----------------------------------------------------------------------------------------

#[test]
fn rd8_a_drop_ends_the_watch() {
    alone("surroundings::rd8_a_drop_ends_the_watch", || {
        everywhere(async || {
            for round in 0..8 {
                let (ours, mut theirs) = sockets();
                let ours = watch(ours);
                if round % 2 == 0 {
                    fill(&ours).await;
                    drop((start(ours.readable()).await, start(ours.writable()).await));
                    while theirs.read(&mut [0; 65536]).is_ok() {}
                }
                if round % 4 < 2 {
                    turn().await;
                }
                if round < 4 {
                    drop(ours);
                } else {
                    // It works on by itself.
                    let mut ours = ours.into_inner();
                    ours.write_all(b"x").expect("connected");
                    turn().await;
                    assert_eq!(theirs.read(&mut [0; 8]).expect("connected"), 1);
                    drop(ours);
                }
                turn().await;
                assert_eq!(theirs.read(&mut [0; 8]).expect("the end"), 0, "round {round}");
            }
        });
    });
}

/// The runtime ends, or is forgotten by what it leaves behind.
#[test]
fn rd8_a_watch_that_outlives_its_runtime() {
    for (name, builder) in common::both(&Runtime::builder()) {
        eprintln!("-- {name}");
        let runtime = common::build(builder);
        let (ours, theirs) = sockets();
        let (readiness, ready) = runtime.block_on(async {
            let ready = watch(eventfd());
            add(ready.get_ref());
            drop(ready.readable().await.expect("no error"));
            let readiness = watch(ours);
            drop(start(readiness.readable()).await);
            turn().await;
            (readiness, ready)
        });
        drop(runtime);
        let other = Runtime::new().expect("an engine");
        other.block_on(async {
            // RD10: what is known is told; what would wait is an error.
            drop(ready.readable().await.expect("it was ready"));
            let error = readiness.readable().await.map(drop).expect_err("its runtime is gone");
            assert_eq!(error.kind(), ErrorKind::Other, "{error}");
        });
        drop(readiness);
        assert_eq!((&theirs).read(&mut [0; 8]).expect("the end"), 0);
    }
}

// ---- RD9 ----------------------------------------------------------------------------------------

/// A hundred events that nobody waits for; the last of them is told all the same.
#[test]
fn rd9_what_nobody_asks_for_does_not_keep_the_thread_awake() {
    everywhere(async || {
        let counter = watch(eventfd());
        drop(start(counter.readable()).await);
        turn().await;
        let before = tamam::metrics();
        for _ in 0..100 {
            add(counter.get_ref());
            turn().await;
        }
        let completions = tamam::metrics().completions - before.completions;
        if !on_epoll() {
            assert!(completions < 50, "{completions} completions, timers of `turn` included");
        }
        drain(&counter).await;
        let waiting = start(counter.readable()).await;
        add(counter.get_ref());
        drop(waiting.await.expect("no error"));
        assert!(tamam::metrics().ops <= 1);
    });
}

// ---- RD10, RD11, RD12 ---------------------------------------------------------------------------

#[test]
fn rd10_elsewhere_is_an_error() {
    let error = Readiness::new(eventfd()).map(drop).expect_err("no runtime");
    assert!(error.to_string().starts_with("no tamam runtime on this thread"), "{error}");
    for (name, builder) in common::both(&Runtime::builder()) {
        eprintln!("-- {name}");
        let (home, other) = (common::build(builder), Runtime::new().expect("an engine"));
        let counter = home.block_on(async { watch(eventfd()) });
        other.block_on(async {
            let error = counter.readable().await.map(drop).expect_err("another runtime");
            assert_eq!(error.kind(), ErrorKind::Other, "{error}");
        });
        add(counter.get_ref());
        home.block_on(drain(&counter));
    }
}

#[test]
fn rd11_a_direction_that_was_not_asked_for() {
    everywhere(async || {
        let reader = Readiness::with_interest(pipe().0, ReadyFor::Read).expect("a pipe");
        let (_kept, writer) = pipe();
        let writer = Readiness::with_interest(writer, ReadyFor::Write).expect("a pipe");
        let refused = [
            reader.writable().await.map(drop).expect_err("for reading"),
            writer.readable().await.map(drop).expect_err("for writing"),
            poll_fn(|cx| reader.poll_writable(cx).map_ok(drop)).await.expect_err("for reading"),
            poll_fn(|cx| writer.poll_readable(cx).map_ok(drop)).await.expect_err("for writing"),
        ];
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        drop(writer.writable().await.expect("there is room"));
        drop(poll_fn(|cx| writer.poll_writable(cx)).await.expect("there is room"));
    });
}

/// Several of one descriptor, and of a stream of the crate, which receives at the same time.
#[test]
fn rd12_several_watches_of_one_file() {
    everywhere(async || {
        let (ours, mut theirs) = sockets();
        let (first, second) = (watch(&ours), watch(&ours));
        let waiting = [start(first.readable()).await, start(second.readable()).await];
        turn().await;
        theirs.write_all(b"x").expect("room");
        for waiting in waiting {
            drop(waiting.await.expect("no error"));
        }

        let (stream, mut peer) = common::pair().await;
        let watching = watch(&stream);
        let (receiving, waiting) = (start(stream.recv()).await, start(watching.readable()).await);
        peer.write_all(b"x").expect("connected");
        assert_eq!(&receiving.await.expect("open").expect("a byte")[..], b"x");
        // Epoll asks when the event is handled: the stream may have taken the byte before.
        peer.write_all(b"y").expect("connected");
        drop(peer);
        drop(tamam::time::timeout(Duration::from_secs(9), waiting).await.expect("the end tells"));
        drop(watching);
    });
}
