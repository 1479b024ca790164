//! Bytes of an honest peer: every one arrives, up to the end, however the wire cuts.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};

use super::super::failure::TlsFailure;
use super::super::protocol::Protocol;
use super::{Pair, Random, client_config, name, server_config};

#[test]
fn every_byte_arrives_however_the_wire_cuts() {
    // Shared, so that later handshakes resume earlier ones.
    let configs = [&TLS12, &TLS13]
        .map(|version| (Arc::new(client_config(version)), Arc::new(server_config(version))));
    let small = [&TLS12, &TLS13].map(|version| {
        let (mut client, mut server) = (client_config(version), server_config(version));
        client.max_fragment_size = Some(32);
        server.max_fragment_size = Some(64);
        (Arc::new(client), Arc::new(server))
    });
    let resumed = RefCell::new([0; 2]);
    for seed in 0..800 {
        let random = &mut Random::new(seed);
        let version = random.below(2);
        let configs = if random.below(6) == 0 { &small } else { &configs };
        let (client, server) = configs[version].clone();
        let mut pair = Pair::new(client, server);
        let most = [1, 3, 100, 5000, 40_000][random.below(5)];
        pair.settle_in_pieces(random, most);
        assert!(!pair.client.protocol.is_handshaking(), "seed {seed}");
        resumed.borrow_mut()[version] += usize::from(pair.client.protocol.info().is_resumed());
        for _ in 0..random.below(12) {
            let (from, to) = match random.below(2) {
                0 => (&mut pair.client, &mut pair.server),
                _ => (&mut pair.server, &mut pair.client),
            };
            match random.below(8) {
                0 if version == 1 => assert!(from.protocol.refresh_keys(), "seed {seed}"),
                1 if most > 3 => from.write(&random.some(60_000)),
                2 => from.write(&[]),
                _ => from.write(&random.some(200)),
            }
            from.transmit(to);
            let len = to.wire.len().min(random.below(most + 1));
            to.arrive(len);
        }
        pair.settle_in_pieces(random, most);
        pair.assert_all_arrived(seed);
        // Each end once, in either order; the other goes on until it says so too.
        let (first, second) = match random.below(2) {
            0 => (&mut pair.client, &mut pair.server),
            _ => (&mut pair.server, &mut pair.client),
        };
        first.protocol.close();
        first.protocol.close();
        assert!(!first.protocol.write(b"late"), "nothing is sent after the end");
        second.write(&random.bytes(300));
        pair.settle_in_pieces(random, most);
        let (first, second) = match pair.client.protocol.peer_has_closed() {
            true => (&mut pair.server, &mut pair.client),
            false => (&mut pair.client, &mut pair.server),
        };
        assert!(second.protocol.peer_has_closed(), "seed {seed}");
        second.write(&random.bytes(300));
        second.protocol.close();
        assert!(!first.protocol.peer_has_closed());
        pair.settle_in_pieces(random, most);
        pair.client.protocol.eof();
        pair.server.protocol.eof();
        assert!(pair.client.protocol.peer_has_closed() && pair.server.protocol.peer_has_closed());
        pair.assert_all_arrived(seed);
    }
    let resumed = resumed.into_inner();
    assert!(resumed.iter().all(|count| *count > 100), "both versions resume: {resumed:?}");
}

#[test]
fn whole_records_are_decrypted_where_they_are() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.write(b"one");
        pair.client.write(b"two");
        pair.client.write(&[7; 100]);
        let mut bytes = pair.client.protocol.take_out();
        let cut = bytes.len() - 20;
        let mut rest = bytes.split_off(cut);
        let range = pair.server.protocol.feed(&mut bytes);
        assert_eq!(&bytes[range], b"onetwo");
        assert!(pair.server.protocol.take_plain().is_empty());
        assert!(pair.server.protocol.held() > 0, "a part of a record waits for the rest");
        // The rest, and a whole record behind it.
        pair.client.write(b"three");
        rest.append(&mut pair.client.protocol.take_out());
        let range = pair.server.protocol.feed(&mut rest);
        assert_eq!(pair.server.protocol.take_plain(), [7; 100]);
        assert_eq!(&rest[range], b"three");
        assert_eq!(pair.server.protocol.held(), 0);
    }
}

#[test]
fn an_end_without_a_word_is_a_truncation() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.write(b"half of it");
        pair.exchange_until_quiet();
        pair.server.protocol.eof();
        assert_eq!(pair.server.received, b"half of it");
        let error = pair.server.failure().to_io();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("close_notify"), "{error}");
        // What is sent may still arrive.

        // In the middle of a record.
        pair.server.write(&[1; 1000]);
        pair.server.transmit(&mut pair.client);
        pair.client.arrive(500);
        pair.client.protocol.eof();
        assert!(matches!(pair.client.failure(), TlsFailure::Truncated { in_handshake: false }));
        assert!(pair.client.received.is_empty());
    }
    let mut client = Protocol::client(Arc::new(client_config(&TLS13)), name()).expect("a config");
    client.eof();
    assert!(matches!(client.failure(), Some(TlsFailure::Truncated { in_handshake: true })));
}

#[test]
fn what_comes_after_the_end_is_not_looked_at() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.write(b"last");
        pair.client.protocol.close();
        pair.client.transmit(&mut pair.server);
        pair.server.wire.extend(b"garbage behind the end");
        pair.server.arrive_all();
        pair.server.wire.extend([0; 1000]);
        pair.server.arrive_all();
        pair.server.protocol.eof();
        assert!(pair.server.protocol.peer_has_closed() && pair.server.protocol.failure().is_none());
        assert_eq!((&pair.server.received[..], pair.server.protocol.held()), (&b"last"[..], 0));
        // The other direction is open.
        pair.server.write(b"answer");
        pair.exchange_until_quiet();
        assert_eq!(pair.client.received, b"answer");
    }
}

#[test]
fn new_keys_are_answered_with_the_next_write() {
    let mut pair = Pair::connected(&TLS13);
    for round in 0..10u8 {
        assert!(pair.client.protocol.refresh_keys());
        assert!(pair.client.protocol.has_out(), "the request goes out by itself");
        pair.client.write(&[round; 10]);
        pair.exchange_until_quiet();
        let before = pair.server.sent.len();
        pair.server.write(&[round; 10]);
        let answer = pair.server.protocol.take_out();
        // Two records: the answer to the request, then the bytes.
        let first = 5 + usize::from(u16::from_be_bytes([answer[3], answer[4]]));
        assert!(answer.len() > first, "round {round}");
        pair.client.wire.extend(answer);
        pair.exchange_until_quiet();
        assert_eq!(pair.server.sent.len(), before + 10);
    }
    pair.assert_all_arrived(0);
}
