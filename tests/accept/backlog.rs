//! AC3: what nobody accepts stays in the backlog of the kernel.

use tamam::Runtime;

use crate::common::{everywhere, on_epoll, start, turn, with};
use crate::{
    accept_in_order, addr_of, addrs_of, client, clients, common, listening, parked, serve_one,
};

#[test]
fn ac3_what_nobody_accepts_stays_in_the_backlog() {
    everywhere(|| async {
        let (listener, addr) = listening();
        serve_one(&listener, addr).await;
        drop(start(listener.accept()).await);
        let mut clients = Vec::new();
        for _ in 0..500 {
            clients.push(client(addr));
            turn().await;
        }
        let held = parked(&listener);
        assert_eq!(tamam::metrics().ops, 0, "the accept is stopped");
        let expected = addrs_of(&clients);
        if on_epoll() {
            assert_eq!(held, 1, "the accept that waited brings one");
            assert_eq!(accept_in_order(&listener, &expected).await.len(), 500);
            return;
        }
        // The cancel goes out one turn after the 64th, and then takes one to work.
        assert!((64..64 + 8).contains(&held), "{held} of 500 are parked");
        let mut streams = accept_in_order(&listener, &expected[..held]).await;
        turn().await;
        assert_eq!((parked(&listener), tamam::metrics().ops), (0, 0), "no call found none");
        streams.extend(accept_in_order(&listener, &expected[held..]).await);
        assert_eq!(streams.len(), 500);
    });
}

/// 600 clients are there at once, and there is one call: it takes one of them, and none ahead.
#[test]
fn ac3_a_listener_that_is_asked_once_takes_none_ahead() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let clients = clients(addr, 600);
        let mut streams = accept_in_order(&listener, &addrs_of(&clients[..1])).await;
        for _ in 0..4 {
            turn().await;
        }
        assert_eq!((parked(&listener), tamam::metrics().ops), (0, 0));
        streams.extend(accept_in_order(&listener, &addrs_of(&clients[1..])).await);
        assert_eq!(streams.len(), 600);
    });
}

/// What one enter brings is more than the bound: no more than was in the backlog then. Only the ring
/// accepts ahead.
#[test]
fn ac3_beyond_the_bound_there_is_one_backlog() {
    let Some(ring) = common::ring_only(Runtime::builder()) else { return };
    with(ring, || async {
        let (listener, addr) = listening();
        serve_one(&listener, addr).await;
        let mut clients = clients(addr, 300);
        drop(start(listener.accept()).await);
        for _ in 0..4 {
            turn().await;
        }
        let held = parked(&listener);
        assert!(held <= 300 && tamam::metrics().ops == 0, "{held} are parked");
        clients.extend(crate::clients(addr, 300));
        for _ in 0..4 {
            turn().await;
        }
        assert_eq!(parked(&listener), held, "the accept is stopped");
        assert_eq!(accept_in_order(&listener, &addrs_of(&clients)).await.len(), 600);
    });
}

/// The accept is stopped at 64, and wanted again before the cancel is out, or after. Only the ring
/// accepts so many that nobody asked for.
#[test]
fn ac3_a_stop_that_is_withdrawn() {
    let Some(ring) = common::ring_only(Runtime::builder()) else { return };
    with(ring, || async {
        for turns in 0..3 {
            let (listener, addr) = listening();
            serve_one(&listener, addr).await;
            drop(start(listener.accept()).await);
            let mut clients = clients(addr, 63);
            while parked(&listener) < 63 {
                turn().await;
            }
            clients.push(client(addr));
            while parked(&listener) < 64 {
                turn().await; // the 64th asks for the stop
            }
            for _ in 0..turns {
                turn().await;
            }
            let streams = accept_in_order(&listener, &addrs_of(&clients)).await;
            let waiting = start(listener.accept()).await;
            let last = client(addr);
            let (_stream, peer) = waiting.await.expect("a connection");
            assert_eq!((peer, streams.len()), (addr_of(&last), 64), "after {turns} turns");
        }
    });
}
