//! AC8: a lack of descriptors costs neither a connection nor the processor.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tamam::Runtime;
use tamam::net::TcpListener;
use tamam::time::{sleep, timeout};

use crate::common::shortage::{lower_descriptor_limit, take_all_descriptors};
use crate::common::{Gone, alone, begin, pair, poll_once, start, turn, with_both};
use crate::{addr_of, client, clients, is_connection_reset, listening};

/// What all threads of the process have used of the processor.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(done, 0, "the clock exists");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn is_emfile<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EMFILE))
}

/// 1 two seconds without a descriptor; 2 the runtime closes one; 3 code that it does not know
/// closes one; each time one client is served.
#[test]
fn ac8_two_seconds_without_descriptors() {
    alone("no_descriptors::ac8_two_seconds_without_descriptors", || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            let (own, _own_peer) = pair().await;
            let mut waiting = clients(addr, 4);
            let mut files = take_all_descriptors();
            let errors = Rc::new(Cell::new(0));
            let served = Rc::new(RefCell::new(Vec::new()));
            let server = tamam::spawn({
                let (errors, served) = (errors.clone(), served.clone());
                async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => served.borrow_mut().push(stream),
                            result if is_emfile(&result) => errors.set(errors.get() + 1),
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
            let (used, start) = (cpu_time(), Instant::now());
            sleep(Duration::from_secs(2)).await;
            let (used, passed) = (cpu_time() - used, start.elapsed());
            let failed = tamam::metrics().accept_errors;
            println!("{failed} failed accepts, {} shown, {used:?} of the processor", errors.get());
            assert!((2..=200).contains(&failed), "{failed} failed accepts");
            assert_eq!(errors.get(), failed, "one waiter, one error each");
            assert!(used * 20 < passed, "{used:?} of the processor in {passed:?}");
            assert!(served.borrow().is_empty(), "there is no descriptor to serve with");

            let until_served = async |count: usize, who: &str| {
                let start = Instant::now();
                while served.borrow().len() < count {
                    sleep(Duration::from_millis(1)).await;
                }
                println!("{who}: served after {:?}", start.elapsed());
                assert!(start.elapsed() < Duration::from_secs(5), "far beyond the 200 ms");
                assert_eq!(served.borrow().len(), count, "there was one descriptor");
            };
            drop(own);
            until_served(1, "the runtime closed one").await;
            sleep(Duration::from_millis(300)).await; // the pauses are long again
            drop(files.pop());
            until_served(2, "foreign code closed one").await;
            sleep(Duration::from_millis(300)).await;
            drop(served.borrow_mut().remove(0));
            until_served(2, "the server closed one").await;
            drop(files);
            until_served(3, "there is enough").await;
            server.abort();
            assert!(server.await.is_err());
            served.take();
            for client in &mut waiting {
                assert!(matches!(client.read(&mut [0]), Ok(0)), "served or not, it ends");
            }
        });
    });
}

/// Futures that come and go every millisecond do not shorten the pauses.
#[test]
fn ac8_short_lived_waiters_pause_too() {
    alone("no_descriptors::ac8_short_lived_waiters_pause_too", || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            let client = client(addr);
            let files = take_all_descriptors();
            let until = Instant::now() + Duration::from_secs(1);
            let mut waits = 0;
            while Instant::now() < until {
                if let Ok(result) = timeout(Duration::from_millis(1), listener.accept()).await {
                    assert!(is_emfile(&result));
                }
                waits += 1;
            }
            let failed = tamam::metrics().accept_errors;
            println!("{failed} failed accepts in {waits} waits");
            assert!(failed <= 100, "{failed} failed accepts in a second");
            drop(files);
            let (_stream, peer) = loop {
                match listener.accept().await {
                    Ok(served) => break served,
                    result => assert!(is_emfile(&result), "from before"),
                }
            };
            assert_eq!(peer, addr_of(&client));
        });
    });
}

/// Fails accepts until the pauses are the longest, 100 ms.
async fn fail_until_pauses_are_long(listener: &TcpListener) {
    for _ in 0..6 {
        assert!(is_emfile(&listener.accept().await));
    }
}

/// 1 the listener begins to pause for 100 ms; 2 the runtime closes a descriptor, somebody waiting
/// or not; 3 the connection is there a few turns later, none of which sleeps.
#[test]
fn ac8_a_close_by_the_runtime_ends_the_pause_at_once() {
    alone("no_descriptors::ac8_a_close_by_the_runtime_ends_the_pause_at_once", || {
        for is_waiting in [true, false] {
            with_both(Runtime::builder(), || async {
                let (listener, addr) = listening();
                let (own, _own_peer) = pair().await;
                let client = client(addr);
                let files = take_all_descriptors();
                fail_until_pauses_are_long(&listener).await;
                let mut own = Some(own);
                if !is_waiting {
                    own = None;
                }
                let mut accept = begin(listener.accept()).await;
                drop(own);
                let mut turns = 0;
                let (_stream, peer) = loop {
                    if let Poll::Ready(result) = poll_once(&mut accept).await {
                        break result.expect("a connection");
                    }
                    turn().await;
                    turns += 1;
                    assert!(turns < 10, "it waits the pause out, is_waiting: {is_waiting}");
                };
                assert_eq!(peer, addr_of(&client));
                drop(files);
            });
        }
    });
}

/// 1 a task waits in a pause of 100 ms, and nobody polls it; 2 the runtime closes a descriptor; 3 the
/// task is woken, and has the connection a few turns later, none of which sleeps.
#[test]
fn ac8_a_close_by_the_runtime_wakes_those_who_wait() {
    alone("no_descriptors::ac8_a_close_by_the_runtime_wakes_those_who_wait", || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            let (own, _own_peer) = pair().await;
            let client = client(addr);
            let files = take_all_descriptors();
            fail_until_pauses_are_long(&listener).await;
            let served = Rc::new(RefCell::new(None));
            let server = tamam::spawn({
                let served = served.clone();
                async move {
                    loop {
                        match listener.accept().await {
                            Ok(connection) => break served.replace(Some(connection)),
                            // The pause was over before the close: a slow machine.
                            result => assert!(is_emfile(&result)),
                        }
                    }
                }
            });
            turn().await;
            drop(own);
            let mut turns = 0;
            while served.borrow().is_none() {
                turn().await;
                turns += 1;
                assert!(turns < 10, "it waits the pause out");
            }
            let (_stream, peer) = served.take().expect("just seen");
            assert_eq!(peer, addr_of(&client));
            assert!(server.await.expect("no panic").is_none());
            drop(files);
        });
    });
}

/// Three wait: one gets the error, the others wait on and get a connection in the end.
#[test]
fn ac8_one_waiter_gets_the_error() {
    alone("no_descriptors::ac8_one_waiter_gets_the_error", || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            let clients = clients(addr, 2);
            let files = take_all_descriptors();
            let mut waiting = Vec::new();
            // Under epoll the first of them fails, and begins the pause, as it is asked.
            let asked = Instant::now();
            for _ in 0..3 {
                waiting.push(begin(listener.accept()).await);
            }
            while tamam::metrics().accept_errors == 0 {
                turn().await;
            }
            let mut failed = 0;
            let mut others = Vec::new();
            for mut accept in waiting {
                match poll_once(&mut accept).await {
                    Poll::Ready(result) => {
                        assert!(is_emfile(&result));
                        failed += 1;
                    }
                    Poll::Pending => others.push(accept),
                }
            }
            // After the pause the next one tries again, and rightly fails: a slow machine. Even then
            // each gets an error of its own.
            let is_slow = asked.elapsed() > Duration::from_millis(10);
            assert!((failed, others.len()) == (1, 2) || (is_slow && failed > 1), "{failed} failed");
            assert!(failed <= tamam::metrics().accept_errors, "one error, shown more than once");
            drop(files);
            for (accept, client) in others.into_iter().zip(&clients) {
                // Fails once more if the pause was over before the files were dropped.
                let (_stream, peer) = accept.await.expect("a connection");
                assert_eq!(peer, addr_of(client));
            }
        });
    });
}

/// 1 an accept waits; 2 there are no descriptors but those of the clients, who connect; 3 the error
/// comes when nobody waits any more: it is not kept. One that woke a future which is then dropped
/// may be shown to the next call (G2), and to no other.
#[test]
fn ac8_no_error_is_kept() {
    alone("no_descriptors::ac8_no_error_is_kept", || {
        for is_woken in [false, true] {
            with_both(Runtime::builder(), || async {
                let (listener, addr) = listening();
                lower_descriptor_limit();
                let mut waiting = Some(start(listener.accept()).await);
                turn().await; // it is with the kernel
                let mut files = take_all_descriptors();
                files.truncate(files.len() - 3);
                let clients = clients(addr, 3);
                if !is_woken {
                    waiting = None;
                }
                while tamam::metrics().accept_errors == 0 {
                    turn().await;
                }
                drop(waiting);
                drop(files);
                let mut shown = 0;
                for client in &clients {
                    let mut result = listener.accept().await;
                    if is_emfile(&result) {
                        shown += 1;
                        result = listener.accept().await;
                    }
                    let (_stream, peer) = result.expect("there are descriptors");
                    assert_eq!(peer, addr_of(client), "is_woken: {is_woken}");
                }
                assert!(
                    shown <= usize::from(is_woken),
                    "shown {shown} times, is_woken: {is_woken}"
                );
                assert_eq!(tamam::metrics().accept_errors, 1, "all errors there were");
            });
        }
    });
}

/// A listener that pauses goes like any other, and its address is free.
#[test]
fn ac8_a_pausing_listener_is_dropped() {
    alone("no_descriptors::ac8_a_pausing_listener_is_dropped", || {
        with_both(Runtime::builder(), || async {
            for gone in Gone::BOTH {
                let (listener, addr) = listening();
                let mut client = client(addr);
                let files = take_all_descriptors();
                fail_until_pauses_are_long(&listener).await;
                gone.leave(start(listener.accept()).await);
                drop(files);
                drop(listener);
                assert!(is_connection_reset(&mut client));
                drop(TcpListener::bind(addr).expect("the address is free"));
                sleep(Duration::from_millis(150)).await; // a forgotten accept's timer fires
            }
        });
    });
}

/// Linux takes a descriptor before it looks for a connection, so an accept fails without a client too.
#[test]
fn ac8_no_client_no_error() {
    alone("no_descriptors::ac8_no_client_no_error", || {
        with_both(Runtime::builder(), || async {
            let (listener, addr) = listening();
            // A socket that connects when there are no descriptors left.
            let late = tamam::net::TcpSocket::new_v4().expect("a socket");
            let files = take_all_descriptors();
            let mut accept = pin!(listener.accept());
            assert!(timeout(Duration::from_millis(300), accept.as_mut()).await.is_err());
            let connecting = late.connect(addr);
            let (result, client) = futures_util::join!(accept, connecting);
            assert!(is_emfile(&result), "now it keeps a client waiting");
            let _client = client.expect("the backlog has room");
            drop(files);
            while listener.accept().await.is_err() {}
        });
    });
}
