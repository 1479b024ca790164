//! Sends that find no room. A UDP socket has room on loopback whatever is sent, so these are over a
//! pair of Unix sockets, whose receiver holds the sender's memory until it receives. The object does
//! not know the difference.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::context;
use crate::driver::{Backend, Driver, Settings, Wait};

type Socket = Rc<DatagramSocket<SocketAddr>>;

/// What is under test, and what brings it about.
struct Pair {
    driver: Rc<Driver>,
    socket: Socket,
    peer: UnixDatagram,
    /// How many datagrams were sent to fill the pair.
    filling: Cell<usize>,
}

impl Pair {
    fn new(backend: Backend) -> Option<Pair> {
        let settings = Settings { entries: 4, completion_entries: 8, ..Settings::small(backend) };
        let Ok(driver) = Driver::new(settings) else {
            println!("skipped: {backend:?} is not available here");
            return None;
        };
        let (socket, peer) = UnixDatagram::pair().expect("a pair");
        socket.set_nonblocking(true).expect("a socket");
        sys::set(socket.as_fd(), sys::IntOption::SendBuffer, 4096).expect("a socket");
        let socket = DatagramSocket::new(OwnedFd::from(socket), driver.clone()).expect("memory");
        Some(Pair { driver, socket, peer, filling: Cell::new(0) })
    }

    /// Runs a test on each engine, and lets its driver end.
    fn each<F: Future<Output = ()>>(test: impl Fn(Rc<Pair>) -> F) {
        for backend in [Backend::Ring, Backend::Epoll] {
            let Some(pair) = Pair::new(backend).map(Rc::new) else { continue };
            println!("-- {backend:?}");
            pair.drive(test(pair.clone()));
            let pair = Rc::into_inner(pair).expect("the test keeps nothing");
            pair.socket.close();
            drop(pair.socket);
            pair.driver.close();
            assert_eq!(pair.driver.in_flight(), 0);
        }
    }

    /// Polls a future until it is ready, and turns the driver.
    fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            let polled = {
                let _turning = context::turn(&self.driver).expect("no runtime turns here");
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            };
            if let Poll::Ready(output) = polled {
                return output;
            }
            self.turn();
        }
    }

    fn turn(&self) {
        let mut deferred = Deferred::default();
        self.driver.prepare_to_park(&mut deferred);
        self.driver.park(Wait::No, &mut deferred);
        deferred.run();
    }

    /// Sends until there is no room, and leaves nothing queued.
    fn fill(&self) {
        while self.socket.try_send(b"fill", &Envelope::default()).is_ok() {
            self.filling.set(self.filling.get() + 1);
        }
        assert!(self.filling.get() > 0 && !sys::is_writable(self.socket.as_fd()));
    }

    /// Receives what has filled the pair.
    fn drain(&self) {
        for _ in 0..self.filling.take() {
            assert_eq!(self.next(), b"fill");
        }
    }

    /// What the peer receives next.
    fn next(&self) -> Vec<u8> {
        let mut buf = [0; 64];
        let len = self.peer.recv(&mut buf).expect("a datagram");
        buf[..len].to_vec()
    }

    /// Whether the peer has nothing to receive.
    fn is_drained(&self) -> bool {
        self.peer.set_nonblocking(true).expect("a socket");
        let is_drained = self.peer.recv(&mut [0; 64]).is_err();
        self.peer.set_nonblocking(false).expect("a socket");
        is_drained
    }
}

type Sending<'a> = Pin<Box<dyn Future<Output = DatagramSent<Vec<u8>>> + 'a>>;

/// Polls a send for the first time: it waits.
async fn start(socket: &Socket, byte: u8) -> Sending<'_> {
    let mut send: Sending<'_> = Box::pin(socket.send(vec![byte], Envelope::default()));
    assert!(poll_fn(|cx| Poll::Ready(send.as_mut().poll(cx).is_pending())).await);
    send
}

/// One turn: what was submitted is with the kernel.
async fn turned() {
    let mut is_first = true;
    poll_fn(|_| if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

#[test]
fn sends_that_wait_go_out_in_order() {
    Pair::each(|pair| async move {
        for _ in 0..3 {
            pair.fill();
            let mut sends = Vec::new();
            for byte in 0..9 {
                sends.push(start(&pair.socket, byte).await);
            }
            turned().await;
            assert!(pair.socket.try_send(b"x", &Envelope::default()).is_err(), "it overtakes none");
            pair.drain();
            for (byte, send) in sends.into_iter().enumerate() {
                let (sent, buf) = send.await.map_err(io::Error::from).expect("there is room now");
                assert_eq!((sent, &buf[..]), (1, &[byte as u8][..]));
                assert_eq!(pair.next(), [byte as u8]);
            }
        }
    });
}

/// The first is in flight and goes out, also without its future. Those that wait never happened if
/// they are dropped, and go out in their turn if they are forgotten.
#[test]
fn futures_that_go_while_their_sends_wait() {
    Pair::each(|pair| async move {
        pair.fill();
        let mut sends = Vec::new();
        for byte in 0..6 {
            sends.push(start(&pair.socket, byte).await);
        }
        turned().await;
        for (byte, send) in sends.into_iter().enumerate() {
            match byte {
                5 => {
                    pair.drain();
                    send.await.map_err(io::Error::from).expect("there is room now");
                }
                2 | 4 => std::mem::forget(send),
                _ => drop(send),
            }
        }
        for byte in [0, 2, 4, 5] {
            assert_eq!(pair.next(), [byte]);
        }
        assert!(pair.is_drained());
    });
}

#[test]
fn readiness_comes_with_room() {
    Pair::each(|pair| async move {
        let ready = || poll_fn(|cx| pair.socket.poll_send_ready(&mut None, cx));
        ready().await.expect("there is room");
        pair.fill();
        for _ in 0..2 {
            let mut waiting = pin!(ready());
            assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
            turned().await;
            // A send that comes meanwhile waits behind it.
            let send = start(&pair.socket, 7).await;
            pair.drain();
            waiting.await.expect("there is room now");
            send.await.map_err(io::Error::from).expect("there is room now");
            assert_eq!(pair.next(), [7]);
            pair.fill();
        }
    });
}

/// A future that is polled away from home gets its buffer back, and its datagram is not sent; those
/// behind it are.
#[test]
fn a_send_is_taken_back_away_from_home() {
    Pair::each(|pair| async move {
        for in_flight in [false, true] {
            pair.fill();
            let mut sends = Vec::new();
            for byte in 0..3 {
                sends.push(start(&pair.socket, byte).await);
            }
            turned().await;
            let mut taken = sends.remove(if in_flight { 0 } else { 1 });
            let other = Driver::new(Settings::small(Backend::Epoll));
            let other = other.unwrap_or_else(|error| panic!("epoll: {error}"));
            let result = {
                // As if the runtime of `other` ran inside a task of the pair's.
                let _turning = context::turn_nested(&other);
                taken.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            };
            let Poll::Ready(Err(error)) = result else { panic!("it is told at once") };
            assert_eq!(error.buf()[..], [u8::from(!in_flight)]);
            other.close();
            pair.drain();
            for send in sends {
                send.await.map_err(io::Error::from).expect("there is room now");
            }
            assert_eq!(pair.next(), if in_flight { [1] } else { [0] });
            assert_eq!(pair.next(), [2]);
            assert!(pair.is_drained());
        }
    });
}

/// When the socket goes, what waits is offered to the kernel once more.
#[test]
fn what_waits_is_offered_once_more_at_the_end() {
    for drains in [false, true] {
        Pair::each(|pair| async move {
            pair.fill();
            for byte in 0..3 {
                std::mem::forget(start(&pair.socket, byte).await);
            }
            turned().await;
            if drains {
                pair.drain();
            }
            pair.socket.close();
            turned().await;
            if drains {
                assert_eq!(pair.driver.in_flight(), 0);
            }
        });
    }
}

/// The end of the runtime gives every buffer back.
#[test]
fn the_end_of_the_runtime_gives_buffers_back() {
    for backend in [Backend::Ring, Backend::Epoll] {
        let Some(pair) = Pair::new(backend) else { continue };
        let buffer: Rc<[u8]> = Rc::from(&b"shared"[..]);
        pair.fill();
        let mut sends = Vec::new();
        for _ in 0..4 {
            sends.push(Box::pin(pair.socket.send(buffer.clone(), Envelope::default())));
        }
        for send in &mut sends {
            let _turning = context::turn(&pair.driver).expect("no runtime turns here");
            let polled = send.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
        }
        pair.turn();
        std::mem::forget(sends.pop());
        drop(sends.remove(0)); // in flight
        pair.driver.close();
        for send in &mut sends {
            let polled = send.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Err(error)) = polled else { panic!("the runtime is gone") };
            assert!(Rc::ptr_eq(error.buf(), &buffer) && error.error().to_string().contains("gone"));
        }
        drop(sends);
        assert_eq!(Rc::strong_count(&buffer), 2, "that of the future that was forgotten is left");
        pair.socket.close();
    }
}
