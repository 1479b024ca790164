//! The standard streams (SEMANTICS PP2). Each test is a process of its own, with its descriptors 0, 1
//! and 2 replaced for a while.

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use tamam::Backend;
use tamam::io::{Lines, Stdin, errno, read_to_end, stderr, stdin, stdout};
use tamam::time::{sleep, timeout};

use common::shortage::{limit_memory, take_all_descriptors};
use common::{
    Gone, Watchdog, alone, assert_same, build, everywhere, join, pattern, poll_once, start, turn,
    with,
};

const MS: Duration = Duration::from_millis(1);

/// More than a pipe holds, which is 64 KiB.
const STALLING: usize = 1 << 20;

/// A standard descriptor that means something else, until this is dropped.
struct Redirected {
    number: RawFd,
    before: OwnedFd,
}

impl Redirected {
    fn to(number: RawFd, file: impl AsFd) -> Redirected {
        // SAFETY: the number is that of a standard stream, which libtest has open.
        let before = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        let before = before.try_clone_to_owned().expect("descriptors are left");
        replace(number, file.as_fd().as_raw_fd());
        Redirected { number, before }
    }

    fn stdin(file: impl AsFd) -> Redirected {
        Redirected::to(0, file)
    }

    fn stdout(file: impl AsFd) -> Redirected {
        Redirected::to(1, file)
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        replace(self.number, self.before.as_raw_fd());
    }
}

fn replace(number: RawFd, by: RawFd) {
    // SAFETY: takes no pointers; the test's process has no other thread that uses this number.
    assert_eq!(unsafe { libc::dup2(by, number) }, number);
}

fn close(number: RawFd) {
    // SAFETY: as in `replace`.
    assert_eq!(unsafe { libc::close(number) }, 0);
}

/// The reading and the writing end of a pipe, which wait in their calls.
fn pipe() -> (File, File) {
    let mut fds = [0; 2];
    // SAFETY: there is room for two descriptors, which are this test's.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1]))
    }
}

/// The side of a terminal emulator, and the terminal.
fn terminal() -> (File, File) {
    let (mut emulator, mut terminal) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: there is room for two descriptors, which are this test's; a name, settings and a size
    // are not asked for.
    unsafe {
        let made = libc::openpty(&mut emulator, &mut terminal, none, none.cast(), none.cast());
        assert_eq!(made, 0, "terminals are left");
        for fd in [emulator, terminal] {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        (File::from_raw_fd(emulator), File::from_raw_fd(terminal))
    }
}

/// A file without a name, at its start.
fn file_of(bytes: &[u8]) -> File {
    // SAFETY: the name ends with a zero byte; the descriptor is this test's.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"test".as_ptr(), 0)) };
    file.write_all(bytes).expect("memory");
    std::io::Seek::rewind(&mut file).expect("a file");
    file
}

fn is_nonblocking(file: &impl AsFd) -> bool {
    // SAFETY: takes no pointers.
    unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

/// Calls `read` until it is over, and gives all bytes.
async fn all_of(stdin: &Stdin) -> Vec<u8> {
    read_to_end(stdin, 1 << 24).await.expect("an end")
}

// ---- what they are ------------------------------------------------------------------------------

#[test]
fn pp2_stdin_is_of_any_kind() {
    alone("pp2_stdin_is_of_any_kind", || {
        everywhere(async || {
            let text = pattern(300_000);

            let (reader, mut writer) = pipe();
            let redirected = Redirected::stdin(&reader);
            let written = text.clone();
            let peer = std::thread::spawn(move || writer.write_all(&written));
            assert_same(&all_of(&stdin().expect("a pipe")).await, &text);
            join(peer).await.expect("it is read");
            assert!(!is_nonblocking(&reader));
            drop(redirected);

            let redirected = Redirected::stdin(file_of(&text));
            assert_same(&all_of(&stdin().expect("a file")).await, &text);
            drop(redirected);

            let redirected = Redirected::stdin(File::open("/dev/null").expect("it is there"));
            assert_eq!(all_of(&stdin().expect("/dev/null")).await, b"");
            drop(redirected);

            let (socket, mut peer) = StdUnixStream::pair().expect("sockets");
            let redirected = Redirected::stdin(&socket);
            let written = text.clone();
            let peer = std::thread::spawn(move || peer.write_all(&written));
            assert_same(&all_of(&stdin().expect("a socket")).await, &text);
            join(peer).await.expect("it is read");
            assert!(!is_nonblocking(&socket));
            drop(redirected);

            let (mut emulator, terminal) = terminal();
            let redirected = Redirected::stdin(&terminal);
            let mut lines = Lines::new(stdin().expect("a terminal"));
            for _ in 0..3 {
                let mut line = start(lines.next_line()).await;
                emulator.write_all(b"hello\n").expect("room");
                assert_eq!(line.as_mut().await.expect("a line").as_deref(), Some("hello"));
            }
            emulator.write_all(&[4]).expect("room"); // Ctrl-D at the start of a line
            assert_eq!(lines.next_line().await.expect("the end"), None);
            drop(lines);
            let after_the_end = stdin().expect("a terminal");
            emulator.write_all(b"more\n").expect("room");
            assert_eq!(&after_the_end.recv().await.expect("open").expect("a line")[..], b"more\n");
            assert!(!is_nonblocking(&terminal));
            drop((after_the_end, redirected));

            let redirected = Redirected::stdin(File::open("/dev/null").expect("it is there"));
            close(0);
            assert_eq!(all_of(&stdin().expect("nothing is there")).await, b"");
            drop(redirected);
        });
    });
}

#[test]
fn pp2_stdout_is_of_any_kind() {
    alone("pp2_stdout_is_of_any_kind", || {
        everywhere(async || {
            let text = pattern(300_000);

            let (mut reader, writer) = pipe();
            let redirected = Redirected::stdout(&writer);
            let peer = std::thread::spawn(move || {
                let mut bytes = vec![0; 300_000];
                reader.read_exact(&mut bytes).map(|()| bytes)
            });
            stdout().expect("a pipe").send_all(text.clone()).await.expect("it is read");
            assert_same(&join(peer).await.expect("all of it"), &text);
            assert!(!is_nonblocking(&writer));
            drop(redirected);

            let file = file_of(b"before ");
            let redirected = Redirected::stdout(&file);
            std::io::Seek::seek(&mut &file, std::io::SeekFrom::End(0)).expect("a file");
            let stdout_of_file = stdout().expect("a file");
            stdout_of_file.send_all("one ").await.expect("room");
            stdout_of_file.sendv(vec!["two ", "three"]).await.expect("room");
            drop((stdout_of_file, redirected));
            let mut read = String::new();
            std::io::Seek::rewind(&mut &file).expect("a file");
            (&file).read_to_string(&mut read).expect("a file");
            assert_eq!(read, "before one two three");

            let redirected = Redirected::stdout(
                File::options().write(true).open("/dev/null").expect("it is there"),
            );
            stdout().expect("/dev/null").send_all(text.clone()).await.expect("it takes all");
            close(1);
            stdout().expect("nothing is there").send_all(text.clone()).await.expect("as /dev/null");
            drop(redirected);

            let (mut emulator, terminal) = terminal();
            let redirected = Redirected::stdout(&terminal);
            stdout().expect("a terminal").send_all("hello\n").await.expect("room");
            let mut shown = [0; 7];
            emulator.read_exact(&mut shown).expect("it is there");
            assert_eq!(&shown, b"hello\r\n");
            assert!(!is_nonblocking(&terminal));
            drop(redirected);

            let (mut reader, writer) = pipe();
            let redirected = Redirected::to(2, &writer);
            stderr().expect("a pipe").send_all("failed").await.expect("room");
            drop((redirected, writer));
            let mut said = String::new();
            reader.read_to_string(&mut said).expect("a pipe");
            assert_eq!(said, "failed");
        });
    });
}

// ---- stdin --------------------------------------------------------------------------------------

/// Bytes that came to a dropped or forgotten future, or were not used, are for the next `stdin()`, in
/// this runtime and in the next one.
#[test]
fn pp2_what_was_read_ahead_stays() {
    alone("pp2_what_was_read_ahead_stays", || {
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
    alone("pp2_bytes_of_a_handle_that_outlives_its_runtime_stay", || {
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
    alone("pp2_nothing_is_read_without_a_handle", || {
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
    alone("pp2_handles_share_what_is_unread", || {
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
    alone("pp2_an_error_of_stdin_is_told", || {
        everywhere(async || {
            let _redirected = Redirected::stdin(File::open("/").expect("it is there"));
            let error = stdin().expect("opening it is no error").recv().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IsADirectory, "{error}");
        });
    });
}

// ---- stdout -------------------------------------------------------------------------------------

/// `shutdown` waits for what is queued, and does not end the stream.
#[test]
fn pp2_shutdown_of_stdout_flushes_only() {
    alone("pp2_shutdown_of_stdout_flushes_only", || {
        everywhere(async || {
            let (reader, writer) = pipe();
            let redirected = Redirected::stdout(&writer);
            drop(writer);
            let stdout = stdout().expect("a pipe");
            stdout.shutdown().await.expect("nothing is queued");
            for gone in Gone::BOTH {
                let sending = start(stdout.send_all(pattern(STALLING))).await;
                while common::unread(&reader) == 0 {
                    sleep(MS).await; // what was not begun would be withdrawn
                }
                gone.leave(sending);
                let mut shutdown = start(stdout.shutdown()).await;
                assert!(poll_once(&mut shutdown).await.is_pending(), "nobody reads");
                let mut reading = reader.try_clone().expect("descriptors are left");
                let peer = std::thread::spawn(move || {
                    let mut bytes = vec![0; STALLING + 5];
                    reading.read_exact(&mut bytes).map(|()| bytes)
                });
                shutdown.await.expect("all is out");
                stdout.send_all("again").await.expect("it is open");
                let bytes = join(peer).await.expect("all of it");
                assert_same(&bytes[..STALLING], &pattern(STALLING));
                assert_eq!(&bytes[STALLING..], b"again");
            }
            drop((stdout, redirected));
        });
    });
}

/// Buffers of many tasks go out whole, also those that a pipe does not take at once.
#[test]
fn pp2_buffers_go_out_whole() {
    alone("pp2_buffers_go_out_whole", || {
        everywhere(async || {
            let (mut reader, writer) = pipe();
            let redirected = Redirected::stdout(&writer);
            drop(writer);
            let (tasks, len) = (20, 100_000);
            let peer = std::thread::spawn(move || {
                let mut bytes = vec![0; tasks * len];
                reader.read_exact(&mut bytes).map(|()| bytes)
            });
            let sends: Vec<_> = (0..tasks)
                .map(|task| {
                    tamam::spawn(async move {
                        let stdout = stdout().expect("a pipe");
                        stdout.send_all(vec![task as u8; len]).await.expect("it is read");
                    })
                })
                .collect();
            for send in sends {
                send.await.expect("no panic");
            }
            let bytes = join(peer).await.expect("all of it");
            let mut order: Vec<u8> = bytes.chunks(len).map(|piece| piece[0]).collect();
            assert!(bytes.chunks(len).all(|piece| piece.iter().all(|byte| *byte == piece[0])));
            order.sort_unstable();
            assert_eq!(order, (0..tasks as u8).collect::<Vec<_>>());
            drop(redirected);
        });
    });
}

#[test]
fn pp2_failures_of_stdout_are_told() {
    alone("pp2_failures_of_stdout_are_told", || {
        // SAFETY: takes no pointers. The default action ends the process, if the signal comes.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        everywhere(async || {
            let (reader, writer) = pipe();
            let redirected = Redirected::stdout(&writer);
            drop(reader);
            let handle = stdout().expect("a pipe");
            let error = handle.send_all("lost").await.unwrap_err();
            assert_eq!(error.error().kind(), ErrorKind::BrokenPipe, "{error}");
            assert_eq!(error.into_parts().1, "lost");
            assert_eq!(handle.shutdown().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            drop((handle, redirected));

            let full = File::options().write(true).open("/dev/full").expect("it is there");
            let redirected = Redirected::stdout(full);
            let handle = stdout().expect("/dev/full");
            let error = handle.send_all("lost").await.unwrap_err();
            assert_eq!(errno(error.error()), Some(libc::ENOSPC), "{error}");
            drop((handle, redirected));

            let (mut reader, writer) = pipe();
            let redirected = Redirected::stdout(&writer);
            stdout().expect("a pipe").send_all("a new handle").await.expect("room");
            drop((redirected, writer));
            let mut read = String::new();
            reader.read_to_string(&mut read).expect("a pipe");
            assert_eq!(read, "a new handle");
        });
    });
}

/// A reader that has stopped keeps neither the drop of the handle nor the end of the runtime.
#[test]
fn pp2_a_stopped_reader_holds_nothing_up() {
    alone("pp2_a_stopped_reader_holds_nothing_up", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let (mut reader, writer) = pipe();
            let redirected = Redirected::stdout(&writer);
            drop(writer);
            with(builder, async || {
                let handle = stdout().expect("a pipe");
                let mut sending = start(handle.send_all(pattern(STALLING))).await;
                sleep(5 * MS).await;
                assert!(poll_once(&mut sending).await.is_pending(), "nobody reads");
                drop(sending);
                drop(handle);
            });
            drop(redirected);
            // What it reads later is a beginning of what was sent, with nothing twice.
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).expect("a pipe");
            assert!(bytes.len() >= 65536 && bytes.len() <= STALLING, "{}", bytes.len());
            assert_same(&bytes, &pattern(STALLING)[..bytes.len()]);
        }
    });
}

/// Opening one without descriptors is an error, if it needs any, and works later.
#[test]
fn pp2_a_lack_of_descriptors_is_told() {
    alone("pp2_a_lack_of_descriptors_is_told", || {
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
    alone("bl4_a_lack_of_threads_is_told", || {
        let _watchdog = Watchdog::start();
        let ((reader, mut writer), (mut from_stdout, to_reader)) = (pipe(), pipe());
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
        let mut read = String::new();
        from_stdout.read_to_string(&mut read).expect("a pipe");
        assert_eq!(read, "there");
    });
}

/// The position of a file is shared with others: nothing is overwritten or read twice.
#[test]
fn pp2_the_position_of_a_file_is_shared() {
    alone("pp2_the_position_of_a_file_is_shared", || {
        everywhere(async || {
            // The kernel locks the position of files with a name only.
            let folder = common::peer::Folder::new("position");
            let path = folder.file("file");
            let file = File::options().create_new(true).read(true).write(true).open(path);
            let file = file.expect("a folder of its own");
            let redirected = Redirected::stdout(&file);
            let mut other = file.try_clone().expect("descriptors are left");
            let writing =
                std::thread::spawn(move || (0..3000).try_for_each(|_| other.write_all(b"other\n")));
            let stdout = stdout().expect("a file");
            for _ in 0..1000 {
                stdout.send_all("own\n").await.expect("room");
            }
            join(writing).await.expect("room");
            drop((stdout, redirected));
            let mut read = String::new();
            std::io::Seek::rewind(&mut &file).expect("a file");
            (&file).read_to_string(&mut read).expect("text");
            assert_eq!(read.lines().filter(|line| *line == "own").count(), 1000);
            assert_eq!(read.lines().filter(|line| *line == "other").count(), 3000);
        });
    });
}

/// A piece that was begun goes out once, and what the next handle sends comes behind it.
#[test]
fn pp2_handles_that_come_and_go_keep_the_order() {
    alone("pp2_handles_that_come_and_go_keep_the_order", || {
        everywhere(async || {
            for to_file in [false, true] {
                let ((mut reader, writer), file) = (pipe(), file_of(b""));
                let redirected =
                    if to_file { Redirected::stdout(&file) } else { Redirected::stdout(&writer) };
                drop(writer);
                let draining = std::thread::spawn(move || {
                    let mut bytes = Vec::new();
                    let mut piece = [0; 8192];
                    while let Ok(len @ 1..) = reader.read(&mut piece) {
                        bytes.extend_from_slice(&piece[..len]);
                        std::thread::sleep(Duration::from_micros(300));
                    }
                    bytes
                });
                for round in 0..40u8 {
                    let handle = stdout().expect("open");
                    let old = vec![b'a' + round % 20; 100_000];
                    let mut sending = Box::pin(handle.send_all(old));
                    let _ = poll_once(&mut sending).await;
                    if round % 2 == 0 {
                        sleep(MS).await;
                    }
                    drop(sending);
                    drop(handle);
                    stdout()
                        .expect("open")
                        .send_all(vec![b'A' + round % 20; 10])
                        .await
                        .expect("it is read");
                }
                drop(redirected);
                let mut bytes = draining.join().expect("no panic");
                if to_file {
                    std::io::Seek::rewind(&mut &file).expect("a file");
                    (&file).read_to_end(&mut bytes).expect("a file");
                }
                let mut at = 0;
                for round in 0..40u8 {
                    let old =
                        bytes[at..].iter().take_while(|byte| **byte == b'a' + round % 20).count();
                    assert!(old <= 100_000, "round {round}: {old} bytes");
                    at += old;
                    assert_eq!(bytes[at..at + 10], [b'A' + round % 20; 10], "round {round}");
                    at += 10;
                }
                assert_eq!(at, bytes.len());
            }
        });
    });
}

/// Each of two runtimes of a thread has one stream, in whatever order handles are made.
#[test]
fn pp2_runtimes_of_one_thread_have_a_stream_each() {
    alone("pp2_runtimes_of_one_thread_have_a_stream_each", || {
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

/// Numbers that are closed when a runtime begins are taken by /dev/null, not by its descriptors.
#[test]
fn pp2_closed_before_the_runtime() {
    alone("pp2_closed_before_the_runtime", || {
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

/// A stream that was opened for the other direction is an error, not an end.
#[test]
fn pp2_the_wrong_direction_is_told() {
    alone("pp2_the_wrong_direction_is_told", || {
        everywhere(async || {
            let (reader, writer) = pipe();
            let redirected = (Redirected::stdin(&writer), Redirected::stdout(&reader));
            let error = stdin().expect("open").recv().await.unwrap_err();
            assert_eq!(errno(&error), Some(libc::EBADF), "{error}");
            let error = stdout().expect("open").send_all("lost").await.unwrap_err();
            assert_eq!(errno(error.error()), Some(libc::EBADF), "{error}");
            drop(redirected);
        });
    });
}

/// What a handle has queued when it is dropped is there when the process ends.
#[test]
fn pp2_what_was_written_survives_the_end() {
    alone("pp2_what_was_written_survives_the_end", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            for round in 0..10 {
                let ((mut reader, writer), file) = (pipe(), file_of(b""));
                let to_file = round % 2 == 0;
                let child = child(|| {
                    let out = if to_file { file.as_raw_fd() } else { writer.as_raw_fd() };
                    replace(1, out);
                    build(builder.clone()).block_on(async {
                        let mut handle = stdout().expect("open");
                        futures_util::AsyncWriteExt::write_all(&mut handle, b"hello\n")
                            .await
                            .expect("room");
                        drop(start(handle.send_all("world\n")).await);
                    });
                });
                assert_eq!(child, 0);
                drop(writer);
                let mut read = String::new();
                std::io::Seek::rewind(&mut &file).expect("a file");
                (&file).read_to_string(&mut read).expect("text");
                reader.read_to_string(&mut read).expect("text");
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
    alone("sy2_a_forked_child_begins_anew", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let _watchdog = Watchdog::start();
            let ((reader, mut writer), (mut from_stdout, to_reader)) = (pipe(), pipe());
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
            let mut said = String::new();
            from_stdout.read_to_string(&mut said).expect("a pipe");
            assert_eq!(said, "parent child");
        }
    });
}

// ---- both ---------------------------------------------------------------------------------------

#[test]
fn pp2_outside_a_runtime_it_is_an_error() {
    for error in [stdin().map(drop), stdout().map(drop), stderr().map(drop)] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Other);
    }
}

/// stdin and stdout are streams as others are.
#[test]
fn pp2_code_for_every_stream_takes_them() {
    alone("pp2_code_for_every_stream_takes_them", || {
        everywhere(async || {
            let ((reader, mut to_stdin), (mut from_stdout, writer)) = (pipe(), pipe());
            let redirected = (Redirected::stdin(&reader), Redirected::stdout(&writer));
            drop(writer);
            to_stdin.write_all(b"hello").expect("room");
            drop(to_stdin);
            let (stdin, stdout) = (stdin().expect("a pipe"), stdout().expect("a pipe"));
            assert_eq!(tamam::io::copy(&stdin, &stdout).await.expect("it is read"), 5);
            drop((stdin, stdout, redirected));
            let mut read = String::new();
            from_stdout.read_to_string(&mut read).expect("a pipe");
            assert_eq!(read, "hello");
        });
    });
}
