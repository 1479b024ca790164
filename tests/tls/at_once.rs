//! TL18 to TL20: several calls at once.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;

use tamam::Runtime;
use tamam::tls::rustls::SupportedProtocolVersion;
use tamam::tls::rustls::version::{TLS12, TLS13};

use crate::common::everywhere;
use crate::{common, pair};

/// Both ends send so many bytes, and receive them meanwhile.
async fn both_directions(version: &'static SupportedProtocolVersion, len: usize) {
    let (client, server) = pair(version).await;
    let bytes = common::pattern(len);
    let tasks: Vec<_> = [client, server]
        .into_iter()
        .map(|stream| {
            let (read, write) = stream.into_split();
            let (sent, expected) = (bytes.clone(), bytes.clone());
            let sending = tamam::spawn(async move {
                for piece in sent.chunks(50_000) {
                    write.send_all(piece.to_vec()).await.expect("the peer reads");
                }
            });
            tamam::spawn(async move {
                let mut all = Vec::new();
                while let Some(chunk) = read.recv().await.expect("no failure") {
                    all.extend_from_slice(&chunk);
                }
                assert!(all == expected, "each byte, in order");
                sending.await.expect("no panic");
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

#[test]
fn tl18_both_directions_at_once_do_not_wait_for_each_other() {
    everywhere(|| async {
        both_directions(&TLS12, 200_000).await;
        both_directions(&TLS13, 200_000).await;
    });
    // More than the kernel holds.
    common::with_both(Runtime::builder(), || both_directions(&TLS13, 12 << 20));
}

#[test]
fn tl19_senders_do_not_interleave_and_receivers_share() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        const LEN: usize = 100_000;
        let (client, server) = (Rc::new(client), Rc::new(server));
        let senders: Vec<_> = (0..3u8)
            .map(|number| {
                let client = client.clone();
                tamam::spawn(async move {
                    for _ in 0..3 {
                        client.send_all(vec![number; LEN]).await.expect("the peer reads");
                    }
                })
            })
            .collect();
        let received = Rc::new(RefCell::new(Vec::new()));
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let (server, received) = (server.clone(), received.clone());
                tamam::spawn(async move {
                    while let Some(chunk) = server.recv().await.expect("no failure") {
                        received.borrow_mut().extend_from_slice(&chunk);
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.expect("no panic");
        }
        client.shutdown().await.expect("the peer reads");
        for receiver in receivers {
            receiver.await.expect("the end is for all");
        }
        let received = received.borrow();
        assert_eq!(received.len(), 9 * LEN);
        for whole in received.chunks(LEN) {
            assert!(whole.iter().all(|byte| *byte == whole[0]), "a buffer is torn");
        }
    });
}

#[test]
fn tl20_keys_change_under_way() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        let (client, server) = (Rc::new(client), Rc::new(server));
        for stream in [&client, &server] {
            stream.tcp().set_nodelay(true).expect("a TCP socket");
        }
        let expected = common::pattern(50_000);
        let (sent, sender) = (expected.clone(), client.clone());
        let sending = tamam::spawn(async move {
            for piece in sent.chunks(1000) {
                sender.refresh_keys().expect("nothing keeps it from sending");
                sender.send_all(piece.to_vec()).await.expect("the peer reads");
            }
        });
        let mut received = Vec::new();
        while received.len() < expected.len() {
            server.refresh_keys().expect("nothing keeps it from sending");
            let chunk = server.recv().await.expect("no failure").expect("no end");
            server.send_all(vec![7; 100]).await.expect("the peer reads");
            client.read_exact(Vec::with_capacity(100), 100).await.expect("the answer");
            received.extend_from_slice(&chunk);
        }
        assert!(received == expected);
        sending.await.expect("no panic");
        let (old, _server) = pair(&TLS12).await;
        assert_eq!(old.refresh_keys().expect_err("it has none").kind(), ErrorKind::Unsupported);
        old.send_all("fine").await.expect("that was no failure");
    });
}
