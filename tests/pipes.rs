//! Pipes (SEMANTICS PP1): the rows of receiving, sending and closing, as far as a pipe has them.

mod common;

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tamam::Runtime;
use tamam::io::{CallError, errno};
use tamam::pipe::{OpenOptions, Receiver, Sender, pipe};
use tamam::time::{sleep, timeout};

use common::{Gone, assert_same, everywhere, join, pattern, poll_once, start, turn};

const MS: Duration = Duration::from_millis(1);

/// More than a pipe holds, which is 64 KiB.
const STALLING: usize = 1 << 20;

/// A receiver, and the other end as a file that waits in its calls.
fn inbound() -> (Receiver, File) {
    let (sender, receiver) = pipe().expect("descriptors are left");
    (receiver, File::from(sender.into_blocking_fd().expect("nothing was sent")))
}

/// A sender, and the other end as a file that waits in its calls.
fn outbound() -> (Sender, File) {
    let (sender, receiver) = pipe().expect("descriptors are left");
    let (fd, unread) = receiver.into_blocking_fd().expect("nothing is in flight");
    assert!(unread.is_empty());
    (sender, File::from(fd))
}

fn read_to_end(mut file: File) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("a pipe");
        bytes
    })
}

// ---- receiving ----------------------------------------------------------------------------------

/// RX3, RX4, RX7: bytes that reach a future which is dropped or forgotten are first in the next call.
#[test]
fn pp1_rx_no_byte_is_lost_with_a_future() {
    everywhere(async || {
        for gone in Gone::BOTH {
            let (receiver, mut file) = inbound();
            gone.leave(start(receiver.recv()).await);
            turn().await;
            file.write_all(b"ab").expect("room");
            gone.leave(start(receiver.read_exact(Vec::with_capacity(100), 100)).await);
            turn().await;
            file.write_all(b"cd").expect("room");
            turn().await;
            gone.leave(start(receiver.read_exact(Vec::with_capacity(70_000), 70_000)).await);
            turn().await;
            file.write_all(b"ef").expect("room");
            let all = receiver.read_exact(Vec::with_capacity(6), 6).await.expect("they came");
            assert_eq!(all, b"abcdef");
            drop(file);
            for _ in 0..3 {
                assert!(receiver.recv().await.expect("a pipe").is_none(), "the end is for ever");
                assert_eq!(receiver.read(Vec::with_capacity(1)).await.expect("a pipe").0, 0);
            }
        }
    });
}

/// RX1, RX16: several tasks share the bytes; a writer that nobody reads from is pushed back.
#[test]
fn pp1_rx_several_receive_and_a_writer_is_pushed_back() {
    everywhere(async || {
        let (receiver, mut file) = inbound();
        let written = std::thread::spawn(move || {
            file.write_all(&pattern(STALLING)).expect("it is read in the end");
        });
        sleep(20 * MS).await;
        assert!(!written.is_finished(), "64 KiB in the pipe, 64 KiB unread, and no more");
        let receiver = Rc::new(receiver);
        let bytes = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (receiver, bytes) = (receiver.clone(), bytes.clone());
                tamam::spawn(async move {
                    while let Some(chunk) = receiver.recv().await.expect("a pipe") {
                        bytes.set(bytes.get() + chunk.len());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        join(written).await;
        assert_eq!(bytes.get(), STALLING);
    });
}

// ---- sending ------------------------------------------------------------------------------------

/// TX1, TX2, TX3: buffers larger than the pipe go out whole, in the order of first polls; of what was
/// dropped in its turn all, of what was dropped before it nothing.
#[test]
fn pp1_tx_buffers_go_out_whole_and_in_order() {
    everywhere(async || {
        let (sender, file) = outbound();
        let first = start(sender.send_all(pattern(STALLING))).await;
        let dropped = start(sender.send_all(vec![1; 1000])).await;
        let pieces: Vec<Vec<u8>> = pattern(30_000).chunks(100).map(<[u8]>::to_vec).collect();
        let listed = start(sender.sendv(pieces)).await;
        let last = start(sender.send(vec![2; 200_000])).await;
        drop(dropped);
        turn().await;
        drop(first);
        let reader = read_to_end(file);
        let (sent, pieces) = listed.await.expect("it is read");
        assert_eq!((sent, pieces.concat()), (30_000, pattern(30_000)));
        assert_eq!(last.await.expect("it is read").0, 200_000);
        sender.shutdown().await.expect("all is out");
        let expected = [pattern(STALLING), pattern(30_000), vec![2; 200_000]].concat();
        assert_same(&join(reader).await, &expected);
        let (error, buf) = sender.send_all("late").await.expect_err("it is closed").into_parts();
        assert_eq!((error.kind(), buf), (ErrorKind::BrokenPipe, "late"));
        sender.shutdown().await.expect("it is done");
    });
}

/// TX5, TX8: without a receiver, sends are `BrokenPipe` with their buffers, and the process lives though
/// SIGPIPE has its default action. Also what a drop tries once more raises none.
#[test]
fn pp1_tx_no_sigpipe_ever() {
    common::alone("pp1_tx_no_sigpipe_ever", || {
        // SAFETY: sets the default action; no handler of ours is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        everywhere(async || {
            let (sender, file) = outbound();
            let stalled = start(sender.send_all(pattern(STALLING))).await;
            let queued = start(sender.send_all("queued")).await;
            turn().await;
            drop(file);
            let error = stalled.await.expect_err("nobody reads");
            assert_eq!((error.kind(), error.buf().len()), (ErrorKind::BrokenPipe, STALLING));
            assert_eq!(*queued.await.expect_err("nobody reads").buf(), "queued");
            for _ in 0..3 {
                let (error, buf) = sender.send_all("x").await.expect_err("as well").into_parts();
                assert_eq!((error.kind(), buf), (ErrorKind::BrokenPipe, "x"));
                let error = sender.sendv(vec!["x", "y"]).await.expect_err("as well");
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
                let error = sender.shutdown().await.expect_err("the error that stays");
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            }
            let (sender, file) = outbound();
            drop(start(sender.send_all(pattern(STALLING))).await);
            turn().await;
            drop(file);
            drop(sender);
            turn().await;
        });
    });
}

// ---- closing ------------------------------------------------------------------------------------

/// CL1, CL5, TX10, TX11: the drop closes; what is queued goes out as far as the pipe has room; after
/// `shutdown`, also of a future that is dropped or forgotten, all of it, and then the end.
#[test]
fn pp1_cl_the_end_of_a_sender() {
    everywhere(async || {
        let (sender, file) = outbound();
        sender.send_all("all").await.expect("room");
        drop(sender);
        assert_eq!(join(read_to_end(file)).await, b"all");

        let (sender, file) = outbound();
        drop(start(sender.send_all(pattern(STALLING))).await);
        turn().await;
        drop(sender);
        turn().await;
        let came = join(read_to_end(file)).await;
        assert!((60_000..STALLING).contains(&came.len()), "{}", came.len());
        assert_same(&came, &pattern(STALLING)[..came.len()]);

        for gone in Gone::BOTH {
            let (sender, file) = outbound();
            drop(start(sender.send_all(pattern(STALLING))).await);
            gone.leave(start(sender.shutdown()).await);
            let error = sender.send_all("late").await.expect_err("the end was asked for");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            assert_same(&join(read_to_end(file)).await, &pattern(STALLING));
            sender.shutdown().await.expect("it is done");
        }
    });
}

/// CL2: a receiver that is dropped with a receive in flight is closed before the thread sleeps.
#[test]
fn pp1_cl_the_end_of_a_receiver() {
    common::alone("pp1_cl_the_end_of_a_receiver", || {
        everywhere(async || {
            let before = common::descriptors().len();
            let (receiver, mut file) = inbound();
            let mut waiting = start(receiver.recv()).await;
            turn().await;
            assert!(poll_once(&mut waiting).await.is_pending());
            drop(waiting);
            drop(receiver);
            // The descriptor is closed; newer kernels (7.3.4) may let go of the file of a cancelled op
            // some milliseconds later.
            let mut written = Ok(());
            for _ in 0..1000 {
                sleep(MS).await;
                written = file.write_all(b"x");
                if written.is_err() {
                    break;
                }
            }
            assert_eq!(written.expect_err("nobody receives").kind(), ErrorKind::BrokenPipe);
            drop(file);
            assert_eq!(common::descriptors().len(), before);
        });
    });
}

/// CX10, RX19: the runtime is dropped with both directions in flight; what is unread is served.
#[test]
fn pp1_cx_ends_outlive_their_runtime() {
    for (name, builder) in common::both(&Runtime::builder()) {
        eprintln!("-- {name}");
        let runtime = common::build(builder);
        let (receiver, mut file, sender, _other) = runtime.block_on(async {
            let (receiver, file) = inbound();
            let (sender, other) = pipe().expect("descriptors are left");
            (receiver, file, sender, other)
        });
        runtime.block_on(async {
            drop(start(receiver.recv()).await);
            drop(start(sender.send_all(pattern(STALLING))).await);
            turn().await;
            file.write_all(b"parked").expect("room");
            while common::unread(&file) == 6 {
                turn().await;
            }
        });
        drop(runtime);
        let runtime = Runtime::new().expect("one of the engines works");
        runtime.block_on(async {
            let parked = receiver.recv().await.expect("it was here").expect("bytes");
            assert_eq!(&parked[..], b"parked");
            assert_eq!(receiver.recv().await.expect_err("no runtime").kind(), ErrorKind::Other);
            sender.send_all("x").await.expect_err("no runtime");
        });
    }
}

/// CL14: a cleared O_NONBLOCK makes no call wait.
#[test]
fn pp1_cl14_a_cleared_flag_does_not_block_the_thread() {
    everywhere(async || {
        fn clear(fd: &impl AsFd) {
            // SAFETY: takes no pointers.
            let done = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFL, 0) };
            assert_eq!(done, 0);
        }
        let mut ends = [-1; 2];
        // SAFETY: there is room for two descriptors.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        // SAFETY: pipe2(2) has just opened them.
        let [read, write] =
            ends.map(|fd| unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
        let (read_dup, write_dup) =
            (read.try_clone().expect("dup"), write.try_clone().expect("dup"));
        let receiver = Receiver::from_fd(read).expect("a pipe");
        let sender = Sender::from_fd(write).expect("a pipe");
        clear(&read_dup);
        clear(&write_dup);
        assert!(timeout(10 * MS, receiver.recv()).await.is_err(), "nothing is there");
        let sending = timeout(10 * MS, sender.send_all(pattern(STALLING)));
        assert!(sending.await.is_err(), "the pipe is full");
        let all = receiver.read_exact(Vec::with_capacity(STALLING), STALLING).await;
        assert_same(&all.expect("it goes on in the background"), &pattern(STALLING));
    });
}

/// FIFOs have no RWF_NOWAIT: neither they nor the pipes after them raise SIGPIPE.
#[test]
fn pp1_tx_no_sigpipe_from_a_fifo() {
    common::alone("pp1_tx_no_sigpipe_from_a_fifo", || {
        // SAFETY: sets the default action; no handler of ours is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        everywhere(async || {
            let path = fifo("sigpipe");
            let receiver = OpenOptions::new().open_receiver(&path).expect("a FIFO");
            assert!(receiver.recv().await.expect("a FIFO").is_none(), "nobody sends");
            let sender = OpenOptions::new().open_sender(&path).expect("somebody receives");
            let dropped = OpenOptions::new().open_sender(&path).expect("somebody receives");
            drop(start(dropped.send_all(pattern(STALLING))).await);
            turn().await;
            drop(receiver);
            let error = sender.send_all("x").await.expect_err("nobody receives");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            let error = sender.sendv(vec!["x", "y"]).await.expect_err("nobody receives");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            drop(dropped);
            turn().await;
            let (sender, receiver) = pipe().expect("descriptors are left");
            drop(receiver);
            sender.send_all("x").await.expect_err("nobody receives");
            std::fs::remove_file(&path).expect("ours");
        });
    });
}

/// TX10, CX5: the end is told also when the runtime has gone; a sender that was shut down gives no
/// descriptor.
#[test]
fn pp1_cl_shutdown_after_the_runtime() {
    for (name, builder) in common::both(&Runtime::builder()) {
        eprintln!("-- {name}");
        let runtime = common::build(builder);
        let (sender, mut file) = runtime.block_on(async { outbound() });
        drop(runtime);
        let other = Runtime::new().expect("one of the engines works");
        other.block_on(async {
            sender.shutdown().await.expect("nothing is queued");
            assert_eq!(file.read(&mut [0]).expect("a pipe"), 0);
            let error = sender.into_blocking_fd().expect_err("it is closed");
            assert_eq!(std::io::Error::from(error).kind(), ErrorKind::NotConnected);
        });
    }
}

/// TX11: a waker whose clone shuts down: nothing is sent behind the end.
#[test]
fn pp1_a_shutdown_while_the_waker_is_cloned() {
    use std::future::Future;
    use std::task::{Context, Waker};
    common::with_both(Runtime::builder(), async || {
        let (sender, file) = outbound();
        let sender = Rc::new(sender);
        let inside = sender.clone();
        let foreign = common::foreign::ForeignWaker::new(move || {
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(std::pin::pin!(inside.shutdown()).poll(cx).is_ready(), "nothing is queued");
        });
        let waker = foreign.waker();
        let mut send = Box::pin(sender.send_all("late"));
        let _ = send.as_mut().poll(&mut Context::from_waker(&waker));
        drop(send);
        sender.shutdown().await.expect("it is done, or all is out");
        let came = join(read_to_end(file)).await;
        assert!(came.is_empty() || came == b"late", "{came:?}");
    });
}

// ---- both ends ----------------------------------------------------------------------------------

/// Both ends in one runtime, with random lengths, ways and lives of futures: every byte arrives, in
/// order.
#[test]
fn pp1_random_lives() {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64;
    eprintln!("seed {seed}");
    everywhere(async || {
        let mut random = seed | 1;
        let mut next = move |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        let (sender, receiver) = pipe().expect("descriptors are left");
        let (mut sent, mut received) = (0, 0);
        let all = pattern(600_000);
        let mut last = None;
        while received < all.len() {
            if sent < all.len() && last.is_none() {
                let is_alone = received == sent;
                if is_alone {
                    turn().await; // what was sent before has ended
                }
                let len = (1 + next(20_000)).min(all.len() - sent);
                let piece = all[sent..sent + len].to_vec();
                sent += len;
                let mut send = Box::pin(sender.send_all(piece));
                match (poll_once(&mut send).await.is_pending(), next(3)) {
                    (true, 0) if is_alone => drop(send), // its turn had come: it is carried out
                    (true, 1) => std::mem::forget(send),
                    (true, _) => last = Some(send),
                    (false, _) => {}
                }
                turn().await;
            }
            let room = 1 + next(9000);
            let came = match next(4) {
                0 => {
                    Gone::BOTH[next(2)].leave(start_or_put_back(&receiver).await);
                    Vec::new()
                }
                1 => match timeout(MS, receiver.read(Vec::with_capacity(room))).await {
                    Ok(read) => read.expect("a pipe").1,
                    Err(_) => Vec::new(),
                },
                _ => match timeout(MS, receiver.recv()).await {
                    Ok(chunk) => chunk.expect("a pipe").expect("no end").to_vec(),
                    Err(_) => Vec::new(),
                },
            };
            assert_same(&came, &all[received..received + came.len()]);
            received += came.len();
            if let Some(mut send) = last.take() {
                if poll_once(&mut send).await.is_pending() {
                    last = Some(send);
                }
            }
        }
    });
}

/// A receive that was polled once, if it had to wait; what it found goes back.
async fn start_or_put_back(receiver: &Receiver) -> impl Future<Output = ()> {
    let mut recv = Box::pin(receiver.recv());
    match poll_once(&mut recv).await {
        std::task::Poll::Ready(chunk) => {
            receiver.unread(chunk.expect("a pipe").expect("no end"));
            Box::pin(std::future::ready(())) as std::pin::Pin<Box<dyn Future<Output = ()>>>
        }
        std::task::Poll::Pending => Box::pin(async move { drop(recv.await) }),
    }
}

// ---- making them --------------------------------------------------------------------------------

fn fifo(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tamam-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path); // of a run that was killed
    let text = std::ffi::CString::new(path.to_str().expect("plain")).expect("no zero byte");
    // SAFETY: the text ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
    path
}

#[test]
fn pp1_fifos_by_path() {
    everywhere(async || {
        let path = fifo("fifo");
        let error = OpenOptions::new().open_sender(&path).expect_err("nobody receives");
        assert_eq!(errno(&error), Some(libc::ENXIO));
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        let receiver = OpenOptions::new().open_receiver(&path).expect("it does not wait");
        assert!(receiver.recv().await.expect("a FIFO").is_none(), "nobody sends");
        drop(receiver);

        let receiver = OpenOptions::new().read_write(true).open_receiver(&path).expect("a FIFO");
        for number in 0..3 {
            let sender = OpenOptions::new().open_sender(&path).expect("somebody receives");
            sender.send_all(vec![number]).await.expect("room");
            drop(sender);
            assert_eq!(&receiver.recv().await.expect("a FIFO").expect("no end")[..], [number]);
        }
        drop(receiver);
        let early = OpenOptions::new().read_write(true).open_sender(&path).expect("a FIFO");
        early.send_all("early").await.expect("room");
        let receiver = OpenOptions::new().open_receiver(&path).expect("a FIFO");
        assert_eq!(&receiver.recv().await.expect("a FIFO").expect("bytes")[..], b"early");
        std::fs::remove_file(&path).expect("ours");

        let error = OpenOptions::new().open_receiver(&path).expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(CallError::of(&error).expect("it says what was asked").call(), "open");
        let error = OpenOptions::new().open_receiver("/dev/null").expect_err("no FIFO");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn pp1_what_is_no_end_of_a_pipe() {
    everywhere(async || {
        let null = || File::open("/dev/null").expect("there is /dev/null");
        assert_eq!(Receiver::from_fd(null()).expect_err("no pipe").kind(), ErrorKind::InvalidInput);
        assert_eq!(Sender::from_fd(null()).expect_err("no pipe").kind(), ErrorKind::InvalidInput);
        let (sender, receiver) = pipe().expect("descriptors are left");
        let write = sender.into_blocking_fd().expect("nothing was sent");
        let (read, _) = receiver.into_blocking_fd().expect("nothing is in flight");
        for fd in [&read, &write] {
            // SAFETY: takes no pointers.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
            assert_eq!(flags & libc::O_NONBLOCK, 0, "it waits in its calls");
        }
        let error = Sender::from_fd(read).expect_err("the wrong end");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = Receiver::from_fd(write).expect_err("the wrong end");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn pp1_into_a_descriptor_while_bytes_are_on_their_way() {
    everywhere(async || {
        let (sender, file) = outbound();
        drop(start(sender.send_all(pattern(STALLING))).await);
        turn().await;
        let error = sender.into_blocking_fd().expect_err("bytes are on their way");
        let sender = error.into_stream();
        let reader = read_to_end(file);
        sender.send_all("last").await.expect("it is read");
        drop(sender.into_blocking_fd().expect("all is out"));
        assert_same(&join(reader).await, &[&pattern(STALLING)[..], b"last"].concat());
    });
}
