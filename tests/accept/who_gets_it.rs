//! AC1, AC2: whoever waits, and whatever becomes of it, each connection reaches exactly one call.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::rc::Rc;
use std::thread;

use crate::common::{Gone, everywhere, start, turn};
use crate::{
    accept, accept_in_order, addr_of, addrs_of, client, clients, common, listening, parked,
    until_parked,
};

/// 1 an accept is polled; 2 it goes before the client connects, or after that and before the
/// runtime turns, or when the connection is there already; 3 nothing is lost, and the order stays.
#[test]
fn ac1_a_future_that_goes_takes_no_connection_with_it() {
    everywhere(|| async {
        let (listener, addr) = listening();
        for gone in Gone::BOTH {
            for moment in 0..12 {
                let mut future = Some(start(listener.accept()).await);
                if moment % 3 == 0 {
                    gone.leave(future.take());
                }
                let clients = clients(addr, 1 + moment % 4);
                if moment % 3 == 1 {
                    gone.leave(future.take());
                }
                until_parked(&listener, clients.len()).await;
                gone.leave(future.take());
                accept_in_order(&listener, &addrs_of(&clients)).await;
            }
        }
    });
}

/// A hundred forgotten futures are one accept in flight, and no answer is kept for any of them.
#[test]
fn ac1_forgotten_futures_are_one_accept() {
    everywhere(|| async {
        let (listener, addr) = listening();
        for _ in 0..100 {
            std::mem::forget(start(listener.accept()).await);
        }
        turn().await;
        assert_eq!(tamam::metrics().ops, 1);
        let clients = clients(addr, 3);
        accept_in_order(&listener, &addrs_of(&clients)).await;
    });
}

const MANY: usize = 1000;

/// Connects many clients from another thread, while the runtime turns.
fn connecting(addr: SocketAddr) -> thread::JoinHandle<Vec<StdStream>> {
    thread::spawn(move || clients(addr, MANY))
}

#[test]
fn ac2_each_connection_goes_to_one_task() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let listener = Rc::new(listener);
        let served = Rc::new(RefCell::new(Vec::new()));
        let connecting = connecting(addr);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (listener, served) = (listener.clone(), served.clone());
                tamam::spawn(async move {
                    loop {
                        let connection = accept(&listener).await;
                        served.borrow_mut().push(connection);
                    }
                })
            })
            .collect();
        let clients = common::join(connecting).await;
        while served.borrow().len() < MANY {
            turn().await;
        }
        for task in tasks {
            task.abort();
            assert!(task.await.is_err_and(|error| error.is_cancelled()), "it accepts for ever");
        }
        let served: BTreeSet<_> = served.take().into_iter().map(|(_, peer)| peer).collect();
        assert_eq!(served, BTreeSet::from_iter(addrs_of(&clients)));
    });
}

/// Three of four tasks wait with a future that is forgotten when they end; the fourth serves all.
#[test]
fn ac2_forgotten_waiters_swallow_no_wake() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let listener = Rc::new(listener);
        for _ in 0..3 {
            let listener = listener.clone();
            let task = tamam::spawn(async move {
                std::mem::forget(start(listener.accept()).await);
            });
            task.await.expect("no panic");
        }
        let connecting = connecting(addr);
        let server = tamam::spawn(async move {
            let mut served = Vec::new();
            for _ in 0..MANY {
                served.push(accept(&listener).await);
            }
            served
        });
        let clients = common::join(connecting).await;
        let served = server.await.expect("no panic");
        // In order of arrival, which on several processors need not be that of connect(2).
        let mut served: Vec<_> = served.into_iter().map(|(_, peer)| peer).collect();
        let mut connected = addrs_of(&clients);
        served.sort();
        connected.sort();
        assert_eq!(served, connected, "each client is served once");
    });
}

/// 1 two tasks wait; 2 a connection comes and wakes both; 3 the first is aborted before its poll;
/// 4 the second has it.
#[test]
fn ac2_an_aborted_task_does_not_keep_the_connection() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let listener = Rc::new(listener);
        let [first, second] = [(); 2].map(|()| {
            let listener = listener.clone();
            tamam::spawn(async move { accept(&listener).await })
        });
        turn().await;
        let client = client(addr);
        while parked(&listener) == 0 {
            turn().await;
        }
        first.abort();
        assert!(first.await.is_err_and(|error| error.is_cancelled()));
        let (_stream, peer) = second.await.expect("no panic");
        assert_eq!(peer, addr_of(&client));
    });
}

/// `accept` is lazy: not polled, it changes nothing.
#[test]
fn ac1_nothing_happens_before_the_first_poll() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let _client = client(addr);
        let accept = listener.accept();
        for _ in 0..3 {
            turn().await;
        }
        assert_eq!((tamam::metrics().ops, parked(&listener)), (0, 0));
        drop::<Box<dyn Future<Output = _>>>(Box::new(accept));
        assert_eq!(parked(&listener), 0);
    });
}
