//! UX5: descriptors that are sent along.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use tamam::Runtime;
use tamam::net::UnixStream;
use tamam::time::sleep;

use crate::MS;
use crate::common::{self, Gone, alone, begin, descriptors, everywhere, pattern, start, turn};

/// The end of a pipe to read from, and the other one with a number in it.
pub fn numbered(number: u8) -> File {
    let mut ends = [-1; 2];
    // SAFETY: there is room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: pipe2(2) has just opened them.
    let [read, write] =
        ends.map(|fd| unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
    File::from(write).write_all(&[number]).expect("room");
    File::from(read)
}

/// The numbers of pipes that came. They are close-on-exec.
pub fn numbers(fds: Vec<OwnedFd>) -> Vec<u8> {
    let number = |fd: OwnedFd| {
        // SAFETY: takes no pointers.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        let mut byte = [0];
        File::from(fd).read_exact(&mut byte).expect("a pipe with a number");
        byte[0]
    };
    fds.into_iter().map(number).collect()
}

pub fn stream_pair(keeps: usize) -> (UnixStream, UnixStream) {
    let (sender, receiver) = UnixStream::pair().expect("descriptors are left");
    receiver.accept_fds(keeps).expect("nothing was received");
    (sender, receiver)
}

pub async fn send(sender: &UnixStream, text: &'static str, files: &[File]) {
    let fds: Vec<BorrowedFd> = files.iter().map(AsFd::as_fd).collect();
    assert_eq!(sender.send_fds(text, &fds).await.expect("connected"), text);
}

/// As whole streams: the half that receives gets descriptors, the other one sends some.
#[test]
fn ux5_halves_pass_descriptors() {
    alone("descriptors::ux5_halves_pass_descriptors", || {
        everywhere(async || {
            let (one, other) = UnixStream::pair().expect("descriptors are left");
            let ((_, sender), (receiver, _other)) = (one.into_split(), other.into_split());
            assert_eq!(receiver.recv_fds().await.unwrap_err().kind(), ErrorKind::InvalidInput);
            receiver.accept_fds(1).expect("nothing was received");
            let file = numbered(7);
            assert_eq!(sender.send_fds("one", &[file.as_fd()]).await.expect("connected"), "one");
            let (text, files) = receiver.recv_fds().await.expect("connected").expect("a message");
            assert_eq!((&text[..], numbers(files)), (&b"one"[..], vec![7]));
            sender.send_fds("", &[file.as_fd()]).await.expect_err("no byte");
        });
    });
}

#[test]
fn ux5_descriptors_come_with_their_bytes() {
    alone("descriptors::ux5_descriptors_come_with_their_bytes", || {
        everywhere(async || {
            let (sender, receiver) = stream_pair(10);
            send(&sender, "three", &[numbered(1), numbered(2), numbered(3)]).await;
            sender.send_all("none").await.expect("connected");
            send(&sender, "one", &[numbered(4)]).await;
            drop(sender);
            let mut all = Vec::new();
            let mut text = Vec::new();
            while let Some((chunk, fds)) = receiver.recv_fds().await.expect("connected") {
                text.extend_from_slice(&chunk);
                let came = numbers(fds);
                if came == [4] {
                    assert!(text.len() > "threenone".len(), "not before its bytes");
                }
                all.extend(came);
            }
            assert_eq!((&text[..], &all[..]), (&b"threenoneone"[..], &[1, 2, 3, 4][..]));
        });
    });
}

/// A large buffer with descriptors, among others that wait: order and bytes are as ever, and the
/// duplicates of one that is dropped in its turn are closed.
#[test]
fn ux5_sends_keep_their_order() {
    alone("descriptors::ux5_sends_keep_their_order", || {
        everywhere(async || {
            const LARGE: usize = 1 << 20;
            let before = descriptors().len();
            let (sender, receiver) = stream_pair(253);
            let files: Vec<File> = (0..100).map(numbered).collect();
            let fds: Vec<BorrowedFd> = files.iter().map(AsFd::as_fd).collect();
            let first = start(sender.send_all(pattern(LARGE))).await;
            let with_hundred = start(sender.send_fds(pattern(LARGE), &fds)).await;
            let dropped = start(sender.send_fds("dropped", &fds)).await;
            let behind = start(sender.send_all("behind")).await;
            drop(dropped);
            turn().await;
            let (mut bytes, mut came) = (Vec::new(), Vec::new());
            while bytes.len() < 2 * LARGE + 6 {
                let (chunk, fds) = receiver.recv_fds().await.expect("connected").expect("no end");
                if !fds.is_empty() {
                    assert!(bytes.len() >= LARGE - LARGE / 4, "with its bytes: {}", bytes.len());
                }
                bytes.extend_from_slice(&chunk);
                came.extend(fds);
            }
            first.await.expect("all was taken");
            with_hundred.await.expect("all was taken");
            behind.await.expect("all was taken");
            let expected = [pattern(LARGE), pattern(LARGE), b"behind".to_vec()].concat();
            common::assert_same(&bytes, &expected);
            assert_eq!(numbers(came), (0..100).collect::<Vec<u8>>());
            drop(files);
            drop((sender, receiver));
            turn().await;
            assert_eq!(descriptors().len(), before);
        });
    });
}

/// Bytes that a plain call takes leave their descriptors for the next `recv_fds`, also at the end.
#[test]
fn ux5_descriptors_of_plain_calls_are_kept() {
    everywhere(async || {
        let (sender, receiver) = stream_pair(3);
        send(&sender, "one", &[numbered(1)]).await;
        assert_eq!(receiver.read_exact(Vec::with_capacity(3), 3).await.expect("it came"), b"one");
        send(&sender, "two", &[numbered(2)]).await;
        let (chunk, fds) = receiver.recv_fds().await.expect("connected").expect("no end");
        assert_eq!((&chunk[..], numbers(fds)), (&b"two"[..], vec![1, 2]));
        send(&sender, "three", &[numbered(3)]).await;
        drop(sender);
        assert_eq!(&receiver.recv().await.expect("connected").expect("no end")[..], b"three");
        let (chunk, fds) = receiver.recv_fds().await.expect("connected").expect("descriptors");
        assert_eq!((chunk.len(), numbers(fds)), (0, vec![3]));
        assert!(receiver.recv_fds().await.expect("connected").is_none());
    });
}

/// More than the stream keeps, in one message or over several: an error once, and then those that were
/// kept.
#[test]
fn ux5_too_many_are_told_and_closed() {
    alone("descriptors::ux5_too_many_are_told_and_closed", || {
        everywhere(async || {
            let before = descriptors().len();
            let (sender, receiver) = stream_pair(2);
            send(&sender, "three", &[numbered(1), numbered(2), numbered(3)]).await;
            let error = receiver.recv_fds().await.map(drop).expect_err("one was closed");
            assert!(error.to_string().contains("closed"), "{error}");
            let (chunk, fds) = receiver.recv_fds().await.expect("said once").expect("no end");
            assert_eq!((&chunk[..], numbers(fds)), (&b"three"[..], vec![1, 2]));

            send(&sender, "a", &[numbered(4)]).await;
            receiver.recv().await.expect("connected").expect("no end");
            send(&sender, "b", &[numbered(5), numbered(6)]).await;
            receiver.recv().await.expect("connected").expect("no end");
            receiver.recv_fds().await.map(drop).expect_err("6 was closed");
            sender.send_all("c").await.expect("connected");
            let (_, fds) = receiver.recv_fds().await.expect("said once").expect("no end");
            assert_eq!(numbers(fds), [4, 5]);
            drop((sender, receiver));
            turn().await;
            assert_eq!(descriptors().len(), before);
        });
    });
}

/// Without a descriptor left the bytes come, and the loss is told.
#[test]
fn ux5_a_process_without_descriptors() {
    alone("descriptors::ux5_a_process_without_descriptors", || {
        everywhere(async || {
            let (sender, receiver) = stream_pair(2);
            let file = numbered(1);
            send(&sender, "one", std::slice::from_ref(&file)).await;
            let taken = common::shortage::take_all_descriptors();
            let error = receiver.recv_fds().await.map(drop).expect_err("it was closed");
            assert!(error.to_string().contains("closed"), "{error}");
            let (chunk, fds) = receiver.recv_fds().await.expect("said once").expect("no end");
            assert_eq!((&chunk[..], fds.len()), (&b"one"[..], 0));
            let error = sender.send_fds("x", &[file.as_fd()]).await.expect_err("no duplicate");
            assert_eq!((error.error().raw_os_error(), *error.buf()), (Some(libc::EMFILE), "x"));
            drop(taken);
        });
    });
}

/// Nothing leaks: futures that are dropped or forgotten, a stream or a runtime that is dropped with
/// descriptors unread, in the socket, or in an answer that nobody has seen.
#[test]
fn ux5_nothing_leaks() {
    alone("descriptors::ux5_nothing_leaks", || {
        for (name, builder) in common::engines() {
            eprintln!("-- {name}");
            let ledger = common::Ledger::start();
            for gone in Gone::BOTH {
                for armed in [false, true] {
                    for turned in [false, true] {
                        let runtime = common::build(builder.clone());
                        let outliving = runtime.block_on(async {
                            let (sender, receiver) = stream_pair(5);
                            if armed {
                                gone.leave(start(receiver.recv()).await);
                                turn().await;
                            }
                            send(&sender, "two", &[numbered(1), numbered(2)]).await;
                            send(&sender, "more", &[numbered(3)]).await;
                            if turned {
                                turn().await;
                            }
                            if gone == Gone::Dropped { Some((sender, receiver)) } else { None }
                        });
                        drop(runtime);
                        drop(outliving);
                    }
                }
            }
            ledger.balance();
        }
    });
}

/// A dropped or forgotten `recv_fds` takes no descriptor with it.
#[test]
fn ux5_futures_that_are_gone_lose_nothing() {
    everywhere(async || {
        for gone in Gone::BOTH {
            let (sender, receiver) = stream_pair(5);
            gone.leave(start(receiver.recv_fds()).await);
            turn().await;
            send(&sender, "one", &[numbered(1)]).await;
            turn().await;
            sleep(MS).await;
            let (chunk, fds) = receiver.recv_fds().await.expect("connected").expect("no end");
            assert_eq!((&chunk[..], numbers(fds)), (&b"one"[..], vec![1]));
        }
    });
}

#[test]
fn ux5_what_cannot_be_asked() {
    everywhere(async || {
        let (sender, receiver) = UnixStream::pair().expect("descriptors are left");
        let file = numbered(1);
        let refused = |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::InvalidInput);
        refused(receiver.recv_fds().await.map(drop).expect_err("not asked for"));
        for wrong in [0, 254, usize::MAX] {
            refused(receiver.accept_fds(wrong).expect_err("too few or too many"));
        }
        let error = sender.send_fds("", &[file.as_fd()]).await.expect_err("no byte");
        refused(error.into());
        let many = vec![file.as_fd(); 254];
        refused(sender.send_fds("x", &many).await.expect_err("too many").into());
        sender.send_fds("x", &[]).await.expect("none is fine");
        sender.send_fds("y", &many[..253]).await.expect("the most there can be");
        receiver.recv().await.expect("connected");
        let begun = begin(receiver.recv()).await;
        turn().await;
        drop(begun);
        refused(receiver.accept_fds(1).expect_err("receiving has begun"));
    });
    // A stream that does not ask: the bytes come, the descriptors are closed.
    common::with_both(Runtime::builder(), async || {
        let (sender, receiver) = UnixStream::pair().expect("descriptors are left");
        let before = descriptors().len();
        let files = [numbered(1)];
        send(&sender, "one", &files).await;
        assert_eq!(&receiver.recv().await.expect("connected").expect("no end")[..], b"one");
        drop(files);
        assert_eq!(descriptors().len(), before);
    });
}
