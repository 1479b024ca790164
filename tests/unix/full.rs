//! UX7, UX8: a receiver that is full. Its senders wait, without spinning, whether or not the kernel
//! has an event for them.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Instant;

use tamam::Runtime;
use tamam::net::{UnixAddr, UnixDatagram};
use tamam::time::{sleep, timeout};

use crate::MS;
use crate::common::{
    Begun, Gone, PATIENCE, Random, begin, everywhere, join, poll_once, start, turn, with_both,
};
use crate::datagrams::{named, pair, recv, set_send_buffer};

/// How a datagram gets to its receiver.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// To a peer that has no peer itself: the kernel looks at its queue.
    Peer,
    /// To one of a pair: the kernel looks at the sender's buffer.
    Pair,
    /// To an address: no event tells of room.
    Address,
    /// To an address that is not the peer, which is full.
    OtherThanPeer,
}

/// A sender, and a receiver that it fills.
struct Filled {
    sender: UnixDatagram,
    receiver: UnixDatagram,
    addr: Option<UnixAddr>,
    filling: usize,
    /// Keeps the peer of the sender.
    _peer: Option<UnixDatagram>,
}

impl Filled {
    async fn new(way: Way) -> Filled {
        let (sender, receiver, addr, peer) = match way {
            Way::Pair => {
                let (sender, receiver) = pair();
                set_send_buffer(&sender, 4096);
                (sender, receiver, None, None)
            }
            Way::Peer | Way::Address => {
                let (receiver, addr) = named();
                let sender = UnixDatagram::unbound().expect("a descriptor");
                let is_peer = way == Way::Peer;
                if is_peer {
                    sender.connect_addr(&addr).expect("it is there");
                }
                (sender, receiver, (!is_peer).then_some(addr), None)
            }
            Way::OtherThanPeer => {
                let ((receiver, addr), (peer, peer_addr)) = (named(), named());
                let sender = UnixDatagram::unbound().expect("a descriptor");
                sender.connect_addr(&peer_addr).expect("it is there");
                while sender.try_send(b"fill").is_ok() {}
                (sender, receiver, Some(addr), Some(peer))
            }
        };
        let mut this = Filled { sender, receiver, addr, filling: 0, _peer: peer };
        this.fill().await;
        this
    }

    /// Fills the receiver by another sender where that is possible: this one has not failed yet.
    async fn fill(&mut self) {
        let other = UnixDatagram::unbound().expect("a descriptor");
        match &self.addr {
            Some(addr) => {
                other.connect_addr(addr).expect("it is there");
                while other.try_send(b"fill").is_ok() {
                    self.filling += 1;
                }
            }
            None => {
                while self.try_send().is_ok() {
                    self.filling += 1;
                }
            }
        }
        assert!(self.filling > 0);
    }

    fn try_send(&self) -> std::io::Result<usize> {
        match &self.addr {
            Some(addr) => self.sender.try_send_to_addr(b"fill", addr),
            None => self.sender.try_send(b"fill"),
        }
    }

    async fn send(&self, bytes: Vec<u8>) -> std::io::Result<usize> {
        let result = match &self.addr {
            Some(addr) => self.sender.send_to_addr(bytes, addr).await,
            None => self.sender.send(bytes).await,
        };
        Ok(result?.0)
    }

    /// Receives what has filled the receiver.
    async fn drain(&mut self) {
        for _ in 0..std::mem::take(&mut self.filling) {
            assert_eq!(recv(&self.receiver).await, b"fill");
        }
    }
}

/// Runs a test for each way.
fn each_way(test: impl AsyncFn(Way)) {
    everywhere(async || {
        for way in [Way::Peer, Way::Pair, Way::Address, Way::OtherThanPeer] {
            eprintln!("   {way:?}");
            test(way).await;
        }
    });
}

/// 1 the receiver is full; 2 sends wait, without spinning; 3 it receives, and all of them arrive in the
/// order of their first polls.
#[test]
fn ux7_a_full_receiver() {
    each_way(async |way| {
        let mut filled = Filled::new(way).await;
        let (before, began) = (tamam::metrics().turns, Instant::now());
        assert!(timeout(200 * MS, filled.send(vec![0])).await.is_err());
        let turns = tamam::metrics().turns - before;
        // 1, 2, 4, 8, 16, 32 and then every 50 ms.
        assert!(turns < 40, "{turns} turns in {:?}", began.elapsed());

        let mut waiting = Vec::new();
        let shared = Rc::new(filled);
        for number in 0..30u8 {
            let filled = shared.clone();
            waiting.push(tamam::spawn(async move { filled.send(vec![number]).await }));
        }
        sleep(5 * MS).await;
        for _ in 0..shared.filling {
            assert_eq!(recv(&shared.receiver).await, b"fill");
        }
        for number in 0..30 {
            assert_eq!(recv(&shared.receiver).await, [number], "in order");
        }
        for send in waiting {
            assert_eq!(send.await.expect("no panic").expect("there is room now"), 1);
        }
        assert!(timeout(2 * MS, shared.receiver.recv()).await.is_err(), "that of the timeout");
        filled = Rc::into_inner(shared).expect("the tasks have ended");
        assert_eq!(filled.send(vec![9]).await.expect("there is room"), 1);
        assert_eq!(recv(&filled.receiver).await, [9]);
    });
}

/// `try_send` is told at once, and does not overtake; `poll_send_ready` waits, and does not spin.
#[test]
fn ux7_without_a_future() {
    each_way(async |way| {
        let mut filled = Filled::new(way).await;
        assert_eq!(filled.try_send().unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut send = Box::pin(filled.send(vec![1]));
        assert!(poll_once(&mut send).await.is_pending());
        assert_eq!(filled.try_send().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(filled.receiver.try_recv().expect("it is full").chunk[..], *b"fill");
        assert_eq!(filled.try_send().unwrap_err().kind(), ErrorKind::WouldBlock, "its turn is not");
        drop(send);
        filled.filling -= 1;
        filled.drain().await;
        assert!(timeout(2 * MS, filled.receiver.recv()).await.is_err(), "it was dropped");
        assert_eq!(filled.try_send().expect("room"), 4);
        assert_eq!(recv(&filled.receiver).await, b"fill");
    });
}

#[test]
fn ux7_readiness_comes_with_room() {
    everywhere(async || {
        let path = crate::free_path("ux7-ready");
        let receiver = UnixDatagram::bind(&path).expect("the folder is there");
        let sender = UnixDatagram::unbound().expect("a descriptor");
        let (turns, began) = (tamam::metrics().turns, Instant::now());
        let (mut sent, mut received, mut blocked) = (0, 0, 0);
        while received < 40 {
            match sender.try_send_to(b"x", &path) {
                Ok(_) => sent += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    blocked += 1;
                    if blocked % 3 == 0 {
                        while receiver.try_recv().is_ok() {
                            received += 1;
                        }
                    }
                    poll_fn(|cx| sender.poll_send_ready(cx)).await.expect("at home");
                }
            }
        }
        assert!(sent >= received);
        let turns = tamam::metrics().turns - turns;
        assert!(turns < 100 + 4 * blocked, "{turns} turns in {:?}", began.elapsed());
        assert!(began.elapsed() >= blocked as u32 * MS, "each is a pause");
        // Another receiver has room meanwhile.
        while sender.try_send_to(b"x", &path).is_ok() {}
        let (other, addr) = named();
        let mut ready = Box::pin(poll_fn(|cx| sender.poll_send_ready(cx)));
        assert!(poll_once(&mut ready).await.is_pending());
        sender.send_to_addr("y", &addr).await.expect("it is there");
        assert_eq!(recv(&other).await, b"y");
        ready.await.expect("at home");

        sender.connect(&path).expect("it is there");
        while sender.try_send(b"x").is_ok() {}
        let mut ready = Box::pin(poll_fn(|cx| sender.poll_send_ready(cx)));
        assert!(poll_once(&mut ready).await.is_pending());
        turn().await;
        recv(&receiver).await;
        ready.await.expect("at home");
        assert_eq!(sender.try_send(b"x").expect("room"), 1);
        std::fs::remove_file(&path).expect("ours");
    });
}

/// Those that wait never happened if they are dropped, the first one too, and go out in their turn if
/// they are forgotten.
#[test]
fn ux7_sends_that_go_while_they_wait() {
    each_way(async |way| {
        for gone in Gone::BOTH {
            let mut filled = Filled::new(way).await;
            let bytes: Vec<Vec<u8>> = (0..6u8).map(|number| vec![number]).collect();
            let sends = bytes.iter().map(|bytes| Box::pin(filled.send(bytes.clone())));
            let mut sends: Vec<_> = sends.collect();
            for send in &mut sends {
                assert!(poll_once(send).await.is_pending());
            }
            turn().await;
            let last = sends.pop().expect("there are six");
            sends.into_iter().for_each(|send| gone.leave(send));
            // `last` borrows the object, so it is drained by hand.
            for _ in 0..filled.filling {
                assert_eq!(recv(&filled.receiver).await, b"fill");
            }
            last.await.expect("there is room now");
            let expected = if gone == Gone::Dropped { 5..6 } else { 0..6 };
            for number in expected {
                assert_eq!(recv(&filled.receiver).await, [number]);
            }
            assert!(timeout(2 * MS, filled.receiver.recv()).await.is_err());
            filled.filling = 0;
        }
    });
}

/// A forgotten send goes out even if no other future is there to see to it.
#[test]
fn ux7_a_forgotten_send_goes_out_by_itself() {
    each_way(async |way| {
        let mut filled = Filled::new(way).await;
        let mut send = Box::pin(filled.send(vec![7]));
        assert!(poll_once(&mut send).await.is_pending());
        std::mem::forget(send);
        filled.drain().await;
        assert_eq!(recv(&filled.receiver).await, [7]);
    });
}

/// A send to a peer that is full does not keep others waiting once it was dropped.
#[test]
fn ux7_a_dropped_send_gives_its_turn_to_the_next() {
    everywhere(async || {
        let ((full, full_addr), (other, other_addr)) = (named(), named());
        let sender = UnixDatagram::unbound().expect("a descriptor");
        sender.connect_addr(&full_addr).expect("it is there");
        while sender.try_send(b"fill").is_ok() {}
        let first = start(sender.send("first")).await;
        turn().await;
        let next = start(sender.send_to_addr("next", &other_addr)).await;
        turn().await;
        assert_eq!(other.try_recv().unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(first);
        assert_eq!(&other.try_recv().expect("sent in the drop").chunk[..], b"next");
        next.await.expect("it is out");
        sender.send_to_addr("more", &other_addr).await.expect("it is there");
        assert_eq!(recv(&other).await, b"more");
        // Another peer: what waits goes there.
        let waiting = start(sender.send("elsewhere")).await;
        turn().await;
        sender.connect_addr(&other_addr).expect("it is there");
        waiting.await.expect("there is room");
        assert_eq!(recv(&other).await, b"elsewhere");
        drop(full);
    });
}

/// A thread receives while this one sends: every datagram arrives, in order.
#[test]
fn ux7_a_receiver_on_another_thread() {
    const MANY: u32 = 2000;
    for way in [Way::Peer, Way::Pair, Way::Address] {
        with_both(Runtime::builder(), async || {
            let Filled { sender, receiver, addr, filling, .. } = Filled::new(way).await;
            let (receiver, unread) = receiver.into_std().expect("the ring works");
            assert!(unread.is_empty());
            receiver.set_nonblocking(false).expect("a socket");
            receiver.set_read_timeout(Some(*PATIENCE / 2)).expect("not zero");
            let thread = std::thread::spawn(move || {
                let mut buf = [0; 16];
                let mut next = || receiver.recv(&mut buf).map(|len| buf[..len].to_vec());
                for _ in 0..filling {
                    assert_eq!(next().expect("it is there"), b"fill");
                }
                for number in 0..MANY {
                    assert_eq!(next().expect("it is sent"), number.to_le_bytes());
                }
            });
            for number in 0..MANY {
                let bytes = number.to_le_bytes().to_vec();
                match &addr {
                    Some(addr) => sender.send_to_addr(bytes, addr).await,
                    None => sender.send(bytes).await,
                }
                .expect("there is room in the end");
            }
            join(thread).await;
        });
    }
}

/// Whatever becomes of the futures, and whether they wait or not: what arrives is what was not dropped,
/// in order.
#[test]
fn ux7_random_lives() {
    everywhere(async || {
        let mut random = Random(23);
        for _ in 0..30 {
            let (receiver, addr) = named();
            let (decoy, decoy_addr) = named();
            let sender = UnixDatagram::unbound().expect("a descriptor");
            let peer = if random.below(2) == 0 { &addr } else { &decoy_addr };
            sender.connect_addr(peer).expect("it is there");
            let is_peer = std::ptr::eq(peer, &addr);
            let mut expected = VecDeque::new();
            for number in 0..random.below(60) as u32 {
                let bytes = number.to_le_bytes().to_vec();
                match random.below(8) {
                    0..4 => {
                        let begun = match is_peer && random.below(2) == 0 {
                            true => Sending::Peer(begin(sender.send(bytes.clone())).await),
                            false => {
                                let send = sender.send_to_addr(bytes.clone(), &addr);
                                Sending::Address(begin(send).await)
                            }
                        };
                        let gone = Gone::BOTH[random.below(2) as usize];
                        if begun.leave(gone) {
                            expected.push_back(bytes);
                        }
                    }
                    4 => std::mem::forget(begin(receiver.peek_from(Vec::with_capacity(9))).await),
                    5 => turn().await,
                    _ => {
                        if let Some(expected) = expected.pop_front() {
                            assert_eq!(recv(&receiver).await, expected);
                        }
                    }
                }
            }
            for expected in expected {
                assert_eq!(recv(&receiver).await, expected);
            }
            assert!(receiver.try_recv().is_err() && decoy.try_recv().is_err());
        }
    });
}

/// A send that has begun.
enum Sending<P, A> {
    Peer(P),
    Address(A),
}

impl<P: Future, A: Future> Sending<Begun<P>, Begun<A>> {
    /// Whether the datagram arrives.
    fn leave(self, gone: Gone) -> bool {
        let is_over = match &self {
            Sending::Peer(send) => send.is_over(),
            Sending::Address(send) => send.is_over(),
        };
        gone.leave(self);
        is_over || gone == Gone::Forgotten
    }
}

/// The receiver goes while a send waits for it.
#[test]
fn ux7_a_full_receiver_goes() {
    each_way(async |way| {
        let Filled { sender, receiver, addr, _peer, .. } = Filled::new(way).await;
        let waiting = start(async {
            match &addr {
                Some(addr) => sender.send_to_addr(vec![7], addr).await,
                None => sender.send(vec![7]).await,
            }
        })
        .await;
        turn().await;
        drop(receiver);
        let error = waiting.await.unwrap_err();
        assert_eq!((error.error().kind(), error.buf()), (ErrorKind::ConnectionRefused, &vec![7]));
    });
}

/// What was forgotten while it waited is offered once more when the socket goes, and no timer is left.
#[test]
fn ux7_a_socket_that_goes_while_it_pauses() {
    each_way(async |way| {
        for drains in [true, false] {
            let mut filled = Filled::new(way).await;
            for number in 0..3u8 {
                let mut send = Box::pin(filled.send(vec![number]));
                assert!(poll_once(&mut send).await.is_pending());
                std::mem::forget(send);
            }
            turn().await;
            if drains {
                // Without a turn in between, as far as possible.
                while filled.filling > 0 {
                    assert_eq!(
                        &filled.receiver.try_recv().expect("it is there").chunk[..],
                        b"fill"
                    );
                    filled.filling -= 1;
                }
            }
            let Filled { sender, receiver, filling, .. } = filled;
            drop(sender);
            turn().await;
            turn().await;
            assert_eq!((tamam::metrics().timers, tamam::metrics().ops), (0, 0));
            for _ in 0..filling {
                assert_eq!(recv(&receiver).await, b"fill");
            }
            for number in if drains { 0..3 } else { 0..0 } {
                assert_eq!(recv(&receiver).await, [number]);
            }
            assert_eq!(receiver.try_recv().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    });
}
