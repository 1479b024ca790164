//! PP2: streams of every kind, and in the wrong direction.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write, read_to_string};
use std::os::unix::net::UnixStream as StdUnixStream;

use tamam::io::{Lines, errno, stderr, stdin, stdout};

use crate::common::{alone, assert_same, everywhere, join, pattern, start};
use crate::{Redirected, all_of, close, file_of, is_nonblocking, pipe, terminal};

#[test]
fn pp2_stdin_is_of_any_kind() {
    alone("kinds::pp2_stdin_is_of_any_kind", || {
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
    alone("kinds::pp2_stdout_is_of_any_kind", || {
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
            (&file).seek(SeekFrom::End(0)).expect("a file");
            let stdout_of_file = stdout().expect("a file");
            stdout_of_file.send_all("one ").await.expect("room");
            stdout_of_file.sendv(vec!["two ", "three"]).await.expect("room");
            drop((stdout_of_file, redirected));
            (&file).rewind().expect("a file");
            let read = read_to_string(&file).expect("text");
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

            let (reader, writer) = pipe();
            let redirected = Redirected::to(2, &writer);
            stderr().expect("a pipe").send_all("failed").await.expect("room");
            drop((redirected, writer));
            let said = read_to_string(reader).expect("text");
            assert_eq!(said, "failed");
        });
    });
}

/// A stream that was opened for the other direction is an error, not an end.
#[test]
fn pp2_the_wrong_direction_is_told() {
    alone("kinds::pp2_the_wrong_direction_is_told", || {
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

#[test]
fn pp2_outside_a_runtime_it_is_an_error() {
    for error in [stdin().map(drop), stdout().map(drop), stderr().map(drop)] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Other);
    }
}

/// stdin and stdout are streams as others are.
#[test]
fn pp2_code_for_every_stream_takes_them() {
    alone("kinds::pp2_code_for_every_stream_takes_them", || {
        everywhere(async || {
            let ((reader, mut to_stdin), (from_stdout, writer)) = (pipe(), pipe());
            let redirected = (Redirected::stdin(&reader), Redirected::stdout(&writer));
            drop(writer);
            to_stdin.write_all(b"hello").expect("room");
            drop(to_stdin);
            let (stdin, stdout) = (stdin().expect("a pipe"), stdout().expect("a pipe"));
            assert_eq!(tamam::io::copy(&stdin, &stdout).await.expect("it is read"), 5);
            drop((stdin, stdout, redirected));
            let read = read_to_string(from_stdout).expect("text");
            assert_eq!(read, "hello");
        });
    });
}
