//! AC3: what nobody accepts stays in the backlog of the kernel.

use tamam::Runtime;

use crate::common::{everywhere, on_epoll, start, turn, with};
use crate::{accept_in_order, addr_of, addrs_of, client, clients, common, listening, parked};

#[test]
fn ac3_what_nobody_accepts_stays_in_the_backlog() {
    everywhere(|| async {
        let (listener, addr) = listening();
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
        let mut streams = accept_in_order(&listener, &expected[..held - 31]).await;
        turn().await;
        assert!(
            parked(&listener) > 31,
            "below half the accept starts again, and takes the backlog"
        );
        streams.extend(accept_in_order(&listener, &expected[held - 31..]).await);
        assert_eq!(streams.len(), 500);
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
