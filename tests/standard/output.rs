//! PP2: order, ends and failures of stdout.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write, read_to_string};
use std::time::Duration;

use tamam::io::{errno, stdout};
use tamam::time::sleep;

use crate::common::{
    self, Gone, alone, assert_same, everywhere, join, pattern, poll_once, start, with,
};
use crate::{MS, Redirected, STALLING, file_of, pipe};

/// `shutdown` waits for what is queued, and does not end the stream.
#[test]
fn pp2_shutdown_of_stdout_flushes_only() {
    alone("output::pp2_shutdown_of_stdout_flushes_only", || {
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
    alone("output::pp2_buffers_go_out_whole", || {
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
    alone("output::pp2_failures_of_stdout_are_told", || {
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

            let (reader, writer) = pipe();
            let redirected = Redirected::stdout(&writer);
            stdout().expect("a pipe").send_all("a new handle").await.expect("room");
            drop((redirected, writer));
            let read = read_to_string(reader).expect("text");
            assert_eq!(read, "a new handle");
        });
    });
}

/// A reader that has stopped keeps neither the drop of the handle nor the end of the runtime.
#[test]
fn pp2_a_stopped_reader_holds_nothing_up() {
    alone("output::pp2_a_stopped_reader_holds_nothing_up", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let (mut reader, writer) = pipe();
            let redirected = Redirected::stdout(&writer);
            drop(writer);
            with(builder, async || {
                let handle = stdout().expect("a pipe");
                let mut sending = start(handle.send_all(pattern(STALLING))).await;
                while common::unread(&reader) < 65536 {
                    sleep(MS).await; // what was not begun would be withdrawn
                }
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

/// The position of a file is shared with others: nothing is overwritten or read twice.
#[test]
fn pp2_the_position_of_a_file_is_shared() {
    alone("output::pp2_the_position_of_a_file_is_shared", || {
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
            (&file).rewind().expect("a file");
            let read = read_to_string(&file).expect("text");
            assert_eq!(read.lines().filter(|line| *line == "own").count(), 1000);
            assert_eq!(read.lines().filter(|line| *line == "other").count(), 3000);
        });
    });
}

/// A piece that was begun goes out once, and what the next handle sends comes behind it.
#[test]
fn pp2_handles_that_come_and_go_keep_the_order() {
    alone("output::pp2_handles_that_come_and_go_keep_the_order", || {
        everywhere(async || {
            for to_file in [false, true] {
                let ((mut reader, writer), file) = (pipe(), file_of(b""));
                let redirected =
                    if to_file { Redirected::stdout(&file) } else { Redirected::stdout(&writer) };
                drop(writer);
                let draining = std::thread::spawn(move || {
                    let mut bytes = Vec::new();
                    let mut piece = [0; 8192];
                    // Slowly, so that most buffers are cut by the drop of their handle.
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
                    (&file).rewind().expect("a file");
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

/// What could not be written, and whose future is dropped before it was told, is not lost.
#[test]
fn st7_a_dropped_copy_gives_back_what_has_failed() {
    alone("output::st7_a_dropped_copy_gives_back_what_has_failed", || {
        everywhere(async || {
            let full = File::options().write(true).open("/dev/full").expect("it is there");
            let redirected = Redirected::stdout(full);
            let (sender, receiver) = tamam::io::duplex(100);
            sender.send_all("kept").await.expect("room");
            let stdout = stdout().expect("/dev/full");
            let mut copying = Box::pin(tamam::io::copy(&receiver, &stdout));
            let _ = poll_once(&mut copying).await;
            let failed = stdout.shutdown().await.unwrap_err();
            assert_eq!(errno(&failed), Some(libc::ENOSPC), "{failed}");
            drop(copying);
            assert_eq!(&receiver.recv().await.expect("open").expect("bytes")[..], b"kept");
            drop((stdout, redirected));
        });
    });
}
