//! AC12: connections as a stream.

use futures_util::StreamExt;

use crate::common::{Gone, everywhere, start};
use crate::{addr_of, addrs_of, client, clients, listening};

#[test]
fn ac12_incoming_gives_all_in_order() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let clients = clients(addr, 10);
        let mut incoming = listener.incoming();
        let mut peers = Vec::new();
        for round in 0..10 {
            // `next` and `accept` and the trait take from one line.
            let (stream, peer) = match round % 3 {
                0 => incoming.next().await.expect("a connection"),
                1 => listener.accept().await.expect("a connection"),
                _ => StreamExt::next(&mut incoming).await.expect("no end").expect("a connection"),
            };
            assert_eq!(stream.peer_addr().expect("connected"), peer);
            peers.push(peer);
        }
        assert_eq!(peers, addrs_of(&clients));
    });
}

/// 1 it is polled; 2 the future, or the whole of it, goes before the client connects, or after
/// that; 3 the connection comes by the next call.
#[test]
fn ac12_an_incoming_that_goes_takes_none_along() {
    everywhere(|| async {
        let (listener, addr) = listening();
        for gone in Gone::BOTH {
            for early in [false, true] {
                let mut incoming = listener.incoming();
                let client = {
                    let next = start(incoming.next()).await;
                    let connect = || client(addr);
                    let before = (!early).then(connect);
                    gone.leave(next);
                    before.unwrap_or_else(connect)
                };
                gone.leave(incoming);
                let (_stream, peer) = listener.accept().await.expect("it is there");
                assert_eq!(peer, addr_of(&client));
            }
        }
        let mut incoming = listener.incoming();
        drop(start(incoming.next()).await);
        let client = client(addr);
        assert_eq!(incoming.next().await.expect("it is there").1, addr_of(&client));
    });
}
