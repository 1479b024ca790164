//! PP2, BL4, SY2: a lack of means, closed numbers, the end of the process, forked children.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write, read_to_string};
use std::os::fd::AsRawFd;

use tamam::Backend;
use tamam::io::{errno, stderr, stdin, stdout};
use tamam::time::timeout;

use crate::common::shortage::{limit_memory, take_all_descriptors};
use crate::common::{self, Watchdog, alone, build, everywhere, poll_once, start};
use crate::{MS, Redirected, all_of, close, file_of, pipe, replace};

/// Opening one without descriptors is an error, if it needs any, and works later.
#[test]
fn pp2_a_lack_of_descriptors_is_told() {
    alone("process::pp2_a_lack_of_descriptors_is_told", || {
        everywhere(async || {
            let taken = take_all_descriptors();
            for opened in [stdin().map(drop), stdout().map(drop), stderr().map(drop)] {
                match opened {
                    Ok(()) => assert!(common::on_epoll(), "the ring needs a duplicate of a pipe"),
                    Err(error) => {
                        assert_eq!(errno(&error), Some(libc::EMFILE), "{error}");
                        assert!(error.to_string().starts_with("open std"), "{error}");
                    }
                }
            }
            drop(taken);
            stdin().and_then(|_| stdout()).and_then(|_| stderr()).expect("there are some again");
        });
    });
}

/// BL4. A thread that cannot be started is an error of one call.
#[test]
fn bl4_a_lack_of_threads_is_told() {
    alone("process::bl4_a_lack_of_threads_is_told", || {
        let _watchdog = Watchdog::start();
        let ((reader, mut writer), (from_stdout, to_reader)) = (pipe(), pipe());
        let redirected = (Redirected::stdin(&reader), Redirected::stdout(&to_reader));
        drop(to_reader);
        build(tamam::Runtime::builder().backend(Backend::Epoll)).block_on(async {
            let (stdin, stdout) = (stdin().expect("a pipe"), stdout().expect("a pipe"));
            limit_memory(Some(1 << 20));
            let received = stdin.recv().await;
            let sent = stdout.send_all("kept").await;
            limit_memory(None);
            let error = received.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
            let error = sent.unwrap_err();
            assert_eq!(error.error().kind(), ErrorKind::OutOfMemory, "{error}");
            assert_eq!(error.into_parts().1, "kept");

            writer.write_all(b"here").expect("room");
            assert_eq!(&stdin.recv().await.expect("open").expect("bytes")[..], b"here");
            stdout.send_all("there").await.expect("open");
        });
        drop(redirected);
        let read = read_to_string(from_stdout).expect("text");
        assert_eq!(read, "there");
    });
}

/// Numbers that are closed when a runtime begins are taken by /dev/null, not by its descriptors.
#[test]
fn pp2_closed_before_the_runtime() {
    alone("process::pp2_closed_before_the_runtime", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let _watchdog = Watchdog::start();
            let null = File::open("/dev/null").expect("it is there");
            let redirected = (Redirected::stdin(&null), Redirected::stdout(&null));
            close(0);
            close(1);
            build(builder).block_on(async {
                assert_eq!(all_of(&stdin().expect("nothing is there")).await, b"");
                stdout().expect("nothing is there").send_all("lost").await.expect("as /dev/null");
                for number in [0, 1] {
                    let open = std::fs::read_link(format!("/proc/self/fd/{number}"));
                    assert_eq!(open.expect("it is open").to_string_lossy(), "/dev/null");
                }
            });
            drop(redirected);
        }
    });
}

/// What a handle has queued when it is dropped is there when the process ends.
#[test]
fn pp2_what_was_written_survives_the_end() {
    alone("process::pp2_what_was_written_survives_the_end", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            for round in 0..10 {
                let ((reader, writer), file) = (pipe(), file_of(b""));
                let to_file = round % 2 == 0;
                let child = child(|| {
                    let out = if to_file { file.as_raw_fd() } else { writer.as_raw_fd() };
                    replace(1, out);
                    build(builder.clone()).block_on(async {
                        let mut handle = stdout().expect("open");
                        futures_util::AsyncWriteExt::write_all(&mut handle, b"hello\n")
                            .await
                            .expect("room");
                        let mut dropped = Box::pin(handle.send_all("world\n"));
                        let _ = poll_once(&mut dropped).await; // it may have been written already
                        drop(dropped);
                    });
                });
                assert_eq!(child, 0);
                drop(writer);
                (&file).rewind().expect("a file");
                let read = read_to_string((&file).chain(reader)).expect("text");
                assert!(read.starts_with("hello\n"), "{read:?}");
            }
        }
    });
}

/// Runs `run` in a forked child, and returns the status it has ended with.
fn child(run: impl FnOnce()) -> i32 {
    // SAFETY: the child runs this test's code and ends by _exit. No other thread of this process holds
    // a lock that the child needs.
    match unsafe { libc::fork() } {
        0 => {
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok();
            // SAFETY: ends the child.
            unsafe { libc::_exit(if passed { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the child is this process's own.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status
        }
    }
}

/// A forked child has streams of its own: what it drops of its parent's ends at once, and it neither reads
/// for its parent nor gets what that had read ahead.
#[test]
fn sy2_a_forked_child_begins_anew() {
    alone("process::sy2_a_forked_child_begins_anew", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let _watchdog = Watchdog::start();
            let ((reader, mut writer), (from_stdout, to_reader)) = (pipe(), pipe());
            let redirected = (Redirected::stdin(&reader), Redirected::stdout(&to_reader));
            drop(to_reader);
            let runtime = build(builder.clone());
            let handles = runtime.block_on(async {
                let (stdin, stdout) = (stdin().expect("a pipe"), stdout().expect("a pipe"));
                stdout.send_all("parent ").await.expect("room");
                writer.write_all(b"ab").expect("room");
                stdin.read_exact(Vec::with_capacity(1), 1).await.expect("it is there");
                std::mem::forget(start(stdin.read_exact(Vec::with_capacity(99), 99)).await);
                (stdin, stdout)
            });
            let kept = std::cell::Cell::new(Some((handles, runtime)));
            let status = child(|| {
                drop(kept.take());
                build(builder.clone()).block_on(async {
                    let (stdin, stdout) = (stdin().expect("a pipe"), stdout().expect("a pipe"));
                    stdout.send_all("child").await.expect("room");
                    assert!(timeout(10 * MS, stdin.recv()).await.is_err(), "nothing is there");
                });
            });
            assert_eq!(status, 0);
            let (handles, runtime) = kept.take().expect("the child has a copy");
            writer.write_all(b"c").expect("room");
            let (stdin, stdout) = handles;
            let rest = runtime.block_on(stdin.read_exact(Vec::with_capacity(2), 2));
            assert_eq!(rest.expect("all of it"), b"bc");
            drop((stdin, stdout, redirected));
            let said = read_to_string(from_stdout).expect("text");
            assert_eq!(said, "parent child");
        }
    });
}
