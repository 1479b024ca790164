//! RD2 to RD5: several waits, waits that go, what is left, and hang-ups.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::task::{Context, Poll};

use tamam::spawn;

use crate::common::{Gone, at_once, everywhere, foreign, poll_once, settle, start, turn};
use crate::{add, drain, eventfd, fill, pipe, sockets, watch};
#[test]
fn rd2_an_event_wakes_all_of_its_direction() {
    everywhere(async || {
        let (ours, mut theirs) = sockets();
        let ours = Rc::new(watch(ours));
        fill(&ours).await;
        let mut writing = start(ours.writable()).await;
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let ours = ours.clone();
                spawn(async move { ours.readable().await.map(drop) })
            })
            .collect();
        // One that polls, beside those.
        let other = ours.clone();
        let polling = spawn(poll_fn(move |cx| other.poll_readable(cx).map_ok(drop)));
        settle().await;
        theirs.write_all(b"x").expect("room");
        for task in waiting {
            task.await.expect("no panic").expect("no error");
        }
        polling.await.expect("no panic").expect("no error");
        assert!(poll_once(&mut writing).await.is_pending(), "the other direction");
        theirs.set_nonblocking(true).expect("a socket");
        while theirs.read(&mut [0; 65536]).is_ok() {}
        drop(writing.await.expect("no error"));
    });
}

/// G2. 1 a wait finds nothing; 2 its waker is cloned: foreign code makes the descriptor ready, and
/// has that reaped; 3 the waker is woken all the same.
#[test]
fn g2_an_event_that_comes_while_the_waker_is_cloned() {
    everywhere(async || {
        for by_poll in [false, true] {
            let counter = Rc::new(watch(eventfd()));
            drop(start(counter.readable()).await);
            turn().await; // the poll is with the kernel
            let (listeners, roused) = (foreign::reaping().await, counter.clone());
            let foreign = foreign::ForeignWaker::new(move || {
                add(roused.get_ref());
                drop(listeners);
            });
            let waker = foreign.waker();
            let cx = &mut Context::from_waker(&waker);
            let mut waiting = Box::pin(counter.readable());
            let is_pending = match by_poll {
                true => counter.poll_readable(cx).is_pending(),
                false => waiting.as_mut().poll(cx).is_pending(),
            };
            assert!(is_pending);
            foreign.woken().await;
            drop(waiting.await.expect("no error"));
        }
    });
}

// ---- RD3 ----------------------------------------------------------------------------------------

#[test]
fn rd3_waits_that_go_take_nothing_along() {
    everywhere(async || {
        let counter = watch(eventfd());
        for gone in Gone::BOTH {
            for moment in 0..4 {
                let mut waiting = Some(start(counter.readable()).await);
                if moment == 0 {
                    gone.leave(waiting.take());
                }
                if moment != 3 {
                    turn().await;
                }
                add(counter.get_ref());
                if moment == 1 {
                    gone.leave(waiting.take());
                }
                turn().await;
                gone.leave(waiting.take());
                drain(&counter).await;
            }
        }
        // A poll that goes: its waker is replaced, or woken into nothing.
        for _ in 0..3 {
            let polled = poll_fn(|cx| Poll::Ready(counter.poll_readable(cx).is_pending())).await;
            assert!(polled);
        }
        add(counter.get_ref());
        drain(&counter).await;
    });
}

// ---- RD4 ----------------------------------------------------------------------------------------

/// Ready until it is shown not to be; cleared too early, it is told again, without another event.
#[test]
fn rd4_what_is_left_is_told_again() {
    everywhere(async || {
        let (reader, mut writer) = pipe();
        let reader = watch(reader);
        writer.write_all(b"abc").expect("room");
        for left in (0..3).rev() {
            let mut guard = reader.readable().await.expect("no error");
            assert_eq!(
                guard.try_io(|mut pipe| pipe.read(&mut [0])).expect("bytes").expect("one"),
                1
            );
            // It is still said to be ready.
            let mut again = at_once(reader.readable()).await.expect("no error");
            if left > 0 {
                again.clear_ready();
                settle().await;
                continue;
            }
            let error = again.try_io(|mut pipe| pipe.read(&mut [0])).expect_err("it is empty");
            assert_eq!(io::Error::from(error).kind(), ErrorKind::WouldBlock);
        }
        let waiting = start(reader.readable()).await;
        writer.write_all(b"d").expect("room");
        drop(waiting.await.expect("no error"));
    });
}

// ---- RD5 ----------------------------------------------------------------------------------------

#[test]
fn rd5_a_hang_up_wakes_both_directions() {
    everywhere(async || {
        // The other end is closed: both directions of a socket, each end of a pipe.
        let (ours, theirs) = sockets();
        let ours = watch(ours);
        fill(&ours).await;
        let (reading, writing) = (start(ours.readable()).await, start(ours.writable()).await);
        turn().await;
        drop(theirs);
        drop((reading.await.expect("no error"), writing.await.expect("no error")));
        let mut guard = ours.readable().await.expect("no error");
        let read = guard.try_io(|mut socket| socket.read(&mut [0])).expect("it does not block");
        assert!(read.is_err() || read.is_ok_and(|len| len == 0));

        let (reader, writer) = pipe();
        let reader = watch(reader);
        let waiting = start(reader.readable()).await;
        drop(writer);
        drop(waiting.await.expect("no error"));
        let (reader, writer) = pipe();
        let writer = watch(writer);
        fill(&writer).await;
        let waiting = start(writer.writable()).await;
        turn().await;
        drop(reader);
        let mut guard = waiting.await.expect("no error");
        let error = guard.try_io(|mut pipe| pipe.write(b"x")).expect("it does not block");
        assert_eq!(error.expect_err("nobody reads").kind(), ErrorKind::BrokenPipe);

        // The peer only ends sending: that is for the reading direction.
        let (ours, theirs) = sockets();
        let ours = watch(ours);
        fill(&ours).await;
        let mut writing = start(ours.writable()).await;
        let reading = start(ours.readable()).await;
        turn().await;
        theirs.shutdown(std::net::Shutdown::Write).expect("connected");
        drop(reading.await.expect("no error"));
        settle().await;
        assert!(poll_once(&mut writing).await.is_pending(), "there is no room");
    });
}
