//! RD1: every kind of descriptor tells what it has to tell.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use tamam::spawn;

use crate::common::{everywhere, peer, poll_once, settle, start};
use crate::{add, drain, eventfd, fill, opened, pipe, read, sockets, watch};
/// Watches what `open` gives; `rouse` makes it readable. It is told what was there before the first
/// wait, what comes during one, and what came between two; and nothing else.
async fn is_told<T: AsFd>(open: impl Fn() -> T, rouse: impl Fn(&T))
where
    for<'a> &'a T: Read,
{
    let early = open();
    rouse(&early);
    let early = watch(early);
    drain(&early).await;

    let readiness = watch(open());
    for _ in 0..5 {
        let mut waiting = start(readiness.readable()).await;
        settle().await;
        assert!(poll_once(&mut waiting).await.is_pending(), "nothing has happened");
        rouse(readiness.get_ref());
        drop(waiting.await.expect("no error"));
        drain(&readiness).await;
        rouse(readiness.get_ref());
        settle().await;
        drain(&readiness).await;
    }
}

/// As [`is_told`], of one end, which is roused by the other one.
async fn is_told_by_peer<T: AsFd, P: Write>(pair: impl Fn() -> (T, P))
where
    for<'a> &'a T: Read,
{
    let peer = RefCell::new(None);
    let open = || {
        let (ours, theirs) = pair();
        peer.replace(Some(theirs));
        ours
    };
    let rouse = |_: &T| {
        let mut peer = peer.borrow_mut();
        peer.as_mut().expect("it was opened").write_all(b"some").expect("room");
    };
    is_told(open, rouse).await;
}

#[test]
fn rd1_every_kind_of_descriptor_tells() {
    everywhere(async || {
        is_told(eventfd, add).await;

        is_told_by_peer(pipe).await;
        is_told_by_peer(sockets).await;

        let open = || {
            let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
            // SAFETY: takes no pointers.
            opened(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })
        };
        let rouse = |timer: &File| {
            let soon = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let spec = libc::itimerspec { it_interval: once, it_value: soon };
            // SAFETY: `spec` is readable, and the old value is not asked for.
            let set = unsafe {
                libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
            };
            assert_eq!(set, 0, "a timer can be set");
        };
        is_told(open, rouse).await;

        let folder = peer::Folder::new("inotify");
        let path = std::ffi::CString::new(folder.file("")).expect("no zero");
        let open = || {
            // SAFETY: takes no pointers.
            let inotify =
                opened(unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) });
            let (fd, mask) = (inotify.as_raw_fd(), libc::IN_CREATE | libc::IN_MODIFY);
            // SAFETY: the path ends with a zero.
            let added = unsafe { libc::inotify_add_watch(fd, path.as_ptr(), mask) };
            assert!(added >= 0, "{}", io::Error::last_os_error());
            inotify
        };
        let count = Cell::new(0);
        let rouse = |_: &File| {
            count.set(count.get() + 1);
            folder.write(&format!("file {}", count.get()), "text");
        };
        is_told(open, rouse).await;
    });
}

#[test]
fn rd1_room_is_told() {
    everywhere(async || {
        let (mut reader, writer) = pipe();
        let writer = watch(writer);
        for _ in 0..5 {
            let written = fill(&writer).await;
            assert!(written > 0);
            let mut waiting = start(writer.writable()).await;
            // The last read's event may still come. What it tells is over.
            settle().await;
            assert!(poll_once(&mut waiting).await.is_pending(), "it is full");
            let mut bytes = vec![0; written];
            reader.read_exact(&mut bytes).expect("they are there");
            drop(waiting.await.expect("no error"));
        }
    });
}

/// Ten thousand bytes through a loop, one at a time, by a peer that takes turns.
#[test]
fn rd1_no_event_is_lost_in_a_loop() {
    everywhere(async || {
        let (ours, theirs) = sockets();
        let (ours, theirs) = (watch(ours), watch(theirs));
        let echo = spawn(async move {
            let mut buf = [0; 4];
            while let len @ 1.. = read(&theirs, &mut buf).await {
                theirs.get_ref().write_all(&buf[..len]).expect("room");
            }
        });
        for round in 0..2000u32 {
            ours.get_ref().write_all(&round.to_ne_bytes()).expect("room");
            let (mut buf, mut len) = ([0; 4], 0);
            while len < 4 {
                len += read(&ours, &mut buf[len..]).await;
            }
            assert_eq!(u32::from_ne_bytes(buf), round);
        }
        drop(ours);
        echo.await.expect("no panic");
    });
}
