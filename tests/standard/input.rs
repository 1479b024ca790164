//! PP2: what was read ahead of stdin, and who reads.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use tamam::io::stdin;
use tamam::time::{sleep, timeout};

use crate::common::{
    self, Gone, Watchdog, alone, assert_same, build, everywhere, pattern, poll_once, start, turn,
};
use crate::{MS, Redirected, all_of, pipe, terminal};

/// Bytes that came to a dropped or forgotten future, or were not used, are for the next `stdin()`, in
/// this runtime and in the next one.
#[test]
fn pp2_what_was_read_ahead_stays() {
    alone("input::pp2_what_was_read_ahead_stays", || {
        let engines = common::engines();
        let (reader, mut writer) = pipe();
        let _redirected = Redirected::stdin(&reader);
        let mut expected = Vec::new();
        let mut seen = Vec::new();
        let pieces = pattern(engines.len() * 2 * 3 * 4);
        let mut pieces = pieces.chunks(4);
        let mut write = |writer: &mut File| {
            let piece = pieces.next().expect("as many as are used");
            expected.extend_from_slice(piece);
            writer.write_all(piece).expect("room");
        };
        for (name, builder) in engines {
            eprintln!("-- {name}");
            for gone in Gone::BOTH {
                let runtime = build(builder.clone());
                let taken = runtime.block_on(async {
                    let stdin = stdin().expect("a pipe");
                    gone.leave(start(stdin.recv()).await);
                    write(&mut writer);
                    turn().await;
                    // Of what came, one byte is used.
                    let one =
                        stdin.read_exact(Vec::with_capacity(1), 1).await.expect("it is there");
                    gone.leave(start(stdin.read_exact(Vec::with_capacity(99), 99)).await);
                    write(&mut writer);
                    turn().await;
                    one
                });
                seen.extend(taken);
                let runtime = build(builder.clone());
                let taken = runtime.block_on(async {
                    let stdin = stdin().expect("a pipe");
                    write(&mut writer);
                    stdin.read_exact(Vec::with_capacity(7), 7).await.expect("it is there")
                });
                seen.extend(taken);
                let taken = runtime.block_on(async {
                    let stdin = stdin().expect("a pipe");
                    stdin.read_exact(Vec::with_capacity(4), 4).await.expect("it is there")
                });
                seen.extend(taken);
            }
        }
        assert_same(&seen, &expected);
    });
}

/// A handle that outlives its runtime has what its receive brought, and gives it to the next.
#[test]
fn pp2_bytes_of_a_handle_that_outlives_its_runtime_stay() {
    alone("input::pp2_bytes_of_a_handle_that_outlives_its_runtime_stay", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let (reader, mut writer) = pipe();
            let _redirected = Redirected::stdin(&reader);
            let runtime = build(builder.clone());
            let kept = runtime.block_on(async {
                let stdin = stdin().expect("a pipe");
                drop(start(stdin.recv()).await);
                writer.write_all(b"ab").expect("room");
                turn().await;
                stdin
            });
            drop(runtime);
            drop(kept);
            writer.write_all(b"cd").expect("room");
            drop(writer);
            let bytes = build(builder).block_on(async { all_of(&stdin().expect("a pipe")).await });
            assert_eq!(bytes, b"abcd");
        }
    });
}

/// When no handle is left, what comes is for others.
#[test]
fn pp2_nothing_is_read_without_a_handle() {
    alone("input::pp2_nothing_is_read_without_a_handle", || {
        everywhere(async || {
            for is_terminal in [false, true] {
                let ((reader, mut writer), echo) = match is_terminal {
                    false => (pipe(), None),
                    true => {
                        let (emulator, terminal) = terminal();
                        let echo = emulator.try_clone().expect("descriptors are left");
                        ((terminal, emulator), Some(echo))
                    }
                };
                let redirected = Redirected::stdin(&reader);
                let handle = stdin().expect("it is there");
                let waited = timeout(20 * MS, handle.recv()).await;
                assert!(waited.is_err(), "nothing was written");
                drop(handle);
                turn().await;
                writer.write_all(b"for another\n").expect("room");
                sleep(20 * MS).await;
                let child = Command::new("head")
                    .arg("-n1")
                    .stdin(Stdio::inherit())
                    .output()
                    .expect("head is there");
                assert_eq!(String::from_utf8_lossy(&child.stdout), "for another\n");
                drop((redirected, echo));
            }
        });
    });
}

/// All handles of a runtime are one stream.
#[test]
fn pp2_handles_share_what_is_unread() {
    alone("input::pp2_handles_share_what_is_unread", || {
        everywhere(async || {
            let (reader, mut writer) = pipe();
            let _redirected = Redirected::stdin(&reader);
            let (one, other) = (stdin().expect("a pipe"), stdin().expect("a pipe"));
            writer.write_all(b"abcdef").expect("room");
            assert_eq!(one.read_exact(Vec::with_capacity(2), 2).await.expect("there"), b"ab");
            assert_eq!(other.read_exact(Vec::with_capacity(2), 2).await.expect("there"), b"cd");
            drop(one);
            assert_eq!(other.read_exact(Vec::with_capacity(2), 2).await.expect("there"), b"ef");
            let waiting = start(other.recv()).await;
            drop(writer);
            assert!(waiting.await.expect("the end").is_none());
            assert!(other.recv().await.expect("for ever").is_none());
        });
    });
}

/// An error of read(2) is told: here the file is a folder.
#[test]
fn pp2_an_error_of_stdin_is_told() {
    alone("input::pp2_an_error_of_stdin_is_told", || {
        everywhere(async || {
            let _redirected = Redirected::stdin(File::open("/").expect("it is there"));
            let error = stdin().expect("opening it is no error").recv().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IsADirectory, "{error}");
        });
    });
}

/// Each of two runtimes of a thread has one stream, in whatever order handles are made.
#[test]
fn pp2_runtimes_of_one_thread_have_a_stream_each() {
    alone("input::pp2_runtimes_of_one_thread_have_a_stream_each", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let _watchdog = Watchdog::start();
            let (reader, mut writer) = pipe();
            let _redirected = Redirected::stdin(&reader);
            let (one, other) = (build(builder.clone()), build(builder));
            let first = one.block_on(async { stdin().expect("a pipe") });
            let _of_other = other.block_on(async { stdin().expect("a pipe") });
            writer.write_all(b"abc").expect("room");
            let a = one.block_on(first.read_exact(Vec::with_capacity(1), 1)).expect("it is there");
            writer.write_all(b"later").expect("room");
            let rest = one.block_on(async {
                let second = stdin().expect("a pipe");
                second.read_exact(Vec::with_capacity(7), 7).await.expect("it is there")
            });
            assert_eq!((&a[..], &rest[..]), (&b"a"[..], &b"bclater"[..]));
        }
    });
}

/// Callers that poll in two threads have a waker each.
#[test]
fn tx15_each_runtime_has_a_poller_of_its_own() {
    alone("input::tx15_each_runtime_has_a_poller_of_its_own", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let _watchdog = Watchdog::start();
            let (reader, mut writer) = pipe();
            let _redirected = Redirected::stdin(&reader);
            let (tell, told) = std::sync::mpsc::channel();
            let threads = [(); 2].map(|()| {
                let (builder, tell) = (builder.clone(), tell.clone());
                std::thread::spawn(move || {
                    build(builder).block_on(async {
                        let mut stdin = stdin().expect("a pipe");
                        let mut buf = [0; 1];
                        let mut reading = futures_util::AsyncReadExt::read(&mut stdin, &mut buf);
                        let _ = poll_once(&mut reading).await;
                        tell.send(()).expect("the test waits");
                        assert_eq!(reading.await.expect("a byte"), 1);
                        tell.send(()).expect("the test waits");
                    });
                })
            });
            (0..2).for_each(|_| told.recv().expect("both wait"));
            for byte in [b"a", b"b"] {
                writer.write_all(byte).expect("room");
                told.recv().expect("one has it");
            }
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        }
    });
}
