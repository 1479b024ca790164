//! UD3: what becomes of datagrams that no call waits for.

use std::rc::Rc;
use std::time::Duration;

use tamam::Runtime;
use tamam::time::timeout;

use crate::common::{Gone, everywhere, on_epoll, settle, start, turn, with_both};
use crate::{numbered, pair, recv, recv_in_order, unread, until_unread};

/// 1 a `recv` is polled; 2 it goes before the datagrams come, or after that and before the runtime
/// turns, or when they are there; 3 nothing is lost, and the order stays.
#[test]
fn ud3_a_future_that_goes_takes_no_datagram_with_it() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for gone in Gone::BOTH {
            for moment in 0..12 {
                let mut future = Some(start(socket.recv()).await);
                if moment % 3 == 0 {
                    gone.leave(future.take());
                }
                let burst = || (0..1 + moment % 4).map(|number| numbered(number, 30));
                burst().for_each(|bytes| _ = peer.send(&bytes).expect("room"));
                if moment % 3 == 1 {
                    gone.leave(future.take());
                }
                until_unread(&socket, burst().count()).await;
                gone.leave(future.take());
                recv_in_order(&socket, burst()).await;
            }
        }
    });
}

/// The same for a caller's buffer: the buffer goes, the datagram stays.
#[test]
fn ud3_a_dropped_read_from_loses_nothing() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for gone in Gone::BOTH {
            let future = start(socket.read_from(Vec::with_capacity(100))).await;
            peer.send(b"first").expect("room");
            turn().await;
            gone.leave(future);
            recv_in_order(&socket, [b"first".to_vec()]).await;
        }
    });
}

#[test]
fn ud3_a_hundred_forgotten_futures_are_one_receive() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        for _ in 0..100 {
            std::mem::forget(start(socket.recv()).await);
        }
        turn().await;
        assert_eq!(tamam::metrics().ops, 1);
        peer.send(b"one").expect("room");
        recv_in_order(&socket, [b"one".to_vec()]).await;
    });
}

#[test]
fn ud3_timeouts_in_a_loop_lose_nothing() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        let sender = std::thread::spawn(move || {
            for number in 0..100 {
                peer.send(&numbered(number, 50)).expect("room");
                std::thread::sleep(Duration::from_micros(300));
            }
            peer
        });
        let mut number = 0;
        while number < 100 {
            if let Ok(datagram) = timeout(Duration::from_micros(200), socket.recv()).await {
                assert_eq!(datagram.expect("no error").chunk[..], numbered(number, 50));
                number += 1;
            }
        }
        crate::common::join(sender).await;
    });
}

/// No call receives: the socket holds a bounded number, the kernel keeps more, and all of it arrives
/// later. Under epoll the socket holds what a dropped future has asked for: one.
#[test]
fn ud3_the_socket_holds_no_more_than_its_bound() {
    for size in [0, 4, 1000] {
        with_both(Runtime::builder(), || async {
            let (socket, peer) = pair().await;
            socket.set_recv_buffer_size(8 << 20).expect("a socket");
            drop(start(socket.recv()).await);
            let mut sent = 0;
            for _ in 0..100 {
                for _ in 0..20 {
                    peer.send(&numbered(sent, size)).expect("room");
                    sent += 1;
                }
                turn().await;
            }
            settle().await;
            // Beyond the bound there is what one enter brought.
            let most = if on_epoll() { 1 } else { 256 + 64 };
            assert!(unread(&socket) <= most, "{} of {sent} are unread", unread(&socket));
            if size == 1000 {
                assert!(unread(&socket) < 66 + 64, "{} of {sent} are unread", unread(&socket));
            }
            // What the kernel had no room for is gone: the rest is in order.
            let lost = socket.dropped().expect("this kernel counts them");
            assert!(lost < sent, "{lost} of {sent} datagrams were thrown away");
            recv_in_order(&socket, (0..sent - lost).map(|number| numbered(number, size))).await;
            assert!(timeout(Duration::from_millis(5), socket.recv()).await.is_err());
        });
    }
}

#[test]
fn ud3_the_kernel_tells_what_it_threw_away() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        socket.set_recv_buffer_size(4096).expect("a socket");
        for number in 0..100 {
            peer.send(&numbered(number, 1000)).expect("room");
        }
        let lost = socket.dropped().expect("this kernel counts them");
        assert!((1..100).contains(&lost), "{lost} of 100");
        recv_in_order(&socket, (0..100 - lost).map(|number| numbered(number, 1000))).await;
    });
}

/// A datagram wakes everybody who waits; the one that is aborted before its poll does not keep it.
#[test]
fn ud3_an_aborted_task_does_not_keep_the_datagram() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        let socket = Rc::new(socket);
        let [first, second] = [(); 2].map(|()| {
            let socket = socket.clone();
            tamam::spawn(async move { recv(&socket).await.chunk.to_vec() })
        });
        turn().await;
        peer.send(b"one").expect("room");
        while unread(&socket) == 0 {
            turn().await;
        }
        first.abort();
        assert!(first.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(second.await.expect("no panic"), b"one");
    });
}

/// Nothing happens before the first poll.
#[test]
fn ud3_futures_are_lazy() {
    everywhere(|| async {
        let (socket, peer) = pair().await;
        peer.send(b"one").expect("room");
        let future = socket.recv();
        turn().await;
        assert_eq!((tamam::metrics().ops, unread(&socket)), (0, 0));
        drop(future);
        recv_in_order(&socket, [b"one".to_vec()]).await;
    });
}
