//! AC4, AC5: clients that reset before they were accepted, and those whom nobody accepted.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdStream;

use tamam::Runtime;
use tamam::net::TcpListener;

use crate::common::{Gone, alone, both, everywhere};
use crate::{
    accept, addr_of, arriving, client, clients, common, is_connection_reset, listening, park,
    until_parked,
};

/// The client writes and resets, before or after the accept completes in the kernel.
#[test]
fn ac4_a_client_that_reset_has_an_address_and_last_bytes() {
    everywhere(|| async {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let listener = match TcpListener::bind(loopback) {
                Ok(listener) => listener,
                Err(error) => {
                    println!("skipped: {loopback}: {error}");
                    continue;
                }
            };
            let addr = listener.local_addr().expect("bound");
            for is_parked in [false, true] {
                let mut client = match is_parked {
                    true => park(&listener, addr, Gone::Dropped, 1).await.remove(0),
                    false => client(addr),
                };
                let expected = addr_of(&client);
                client.write_all(b"last bytes").expect("connected");
                common::reset(client);
                let (stream, peer) = accept(&listener).await;
                assert_eq!(peer, expected);
                assert_eq!(stream.peer_addr().expect("it was connected"), expected);
                let mut bytes = Vec::new();
                let error = loop {
                    match stream.recv().await {
                        Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                        Ok(None) => panic!("a reset is no end"),
                        Err(error) => break error,
                    }
                };
                assert_eq!(bytes, b"last bytes");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
    });
}

/// Three connections are parked (under epoll one of them) and three wait in the backlog: the
/// listener goes, and all six are reset; those too that the accept in flight brings while it is
/// ended.
#[test]
fn ac5_connections_that_nobody_took_are_reset() {
    alone("unserved::ac5_connections_that_nobody_took_are_reset", || {
        everywhere(|| async {
            for gone in Gone::BOTH {
                let (listener, addr) = listening();
                let mut all = park(&listener, addr, gone, 3).await;
                all.extend(clients(addr, 3));
                all[0].write_all(b"unread").expect("connected");
                drop(listener);
                for (number, client) in all.iter_mut().enumerate() {
                    assert!(is_connection_reset(client), "client {number}, {gone:?}");
                }
                let refused = StdStream::connect(addr).expect_err("nobody listens");
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            }
        });
    });
}

/// With the accept never armed, and with it stopped because too much is parked.
#[test]
fn ac5_whether_or_not_the_accept_is_armed() {
    everywhere(|| async {
        let (listener, addr) = listening();
        let mut unarmed = clients(addr, 3);
        drop(listener);
        let (listener, addr) = listening();
        let mut stopped = arriving(&listener, addr, Gone::Dropped, 100).await;
        until_parked(&listener, 64).await;
        stopped.extend(clients(addr, 10));
        drop(listener);
        for client in unarmed.iter_mut().chain(&mut stopped) {
            assert!(is_connection_reset(client));
        }
    });
}

/// A runtime that is dropped with the listener in a task resets them too.
#[test]
fn ac5_in_the_teardown() {
    alone("unserved::ac5_in_the_teardown", || {
        for (name, builder) in both(&Runtime::builder()) {
            let runtime = common::build(builder);
            let mut all = runtime.block_on(async {
                let (listener, addr) = listening();
                let all = park(&listener, addr, Gone::Forgotten, 4).await;
                let (first, _) = accept(&listener).await;
                tamam::spawn(async move {
                    std::future::pending::<()>().await;
                    drop((first, listener));
                });
                all
            });
            drop(runtime);
            let end = all[0].read(&mut [0; 16]);
            assert_eq!(end.expect("an end: this one was served"), 0, "{name}");
            for client in &mut all[1..] {
                assert!(is_connection_reset(client), "{name}");
            }
        }
    });
}
