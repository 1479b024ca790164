//! Bytes that no honest peer sends: each is an error, none is passed on.

use std::sync::Arc;

use rustls::Error;
use rustls::version::{TLS12, TLS13};

use super::super::failure::TlsFailure;
use super::super::protocol::Protocol;
use super::{Pair, Peer, Random, client_config, server_config};

#[test]
fn a_changed_bit_gives_no_wrong_byte() {
    let configs = [&TLS12, &TLS13]
        .map(|version| (Arc::new(client_config(version)), Arc::new(server_config(version))));
    let mut failed = 0;
    for seed in 0..1500 {
        let random = &mut Random::new(seed);
        let (client, server) = configs[random.below(2)].clone();
        let mut pair = Pair::new(client, server);
        // Somewhere in the handshake, or behind it.
        let mut until = random.below(4_500);
        let to_client = random.below(2) == 0;
        let mut written = false;
        for _ in 0..2000 {
            let Pair { client, server } = &mut pair;
            client.transmit(server);
            server.transmit(client);
            for end in [&mut *client, &mut *server] {
                if !end.protocol.is_handshaking() && end.protocol.failure().is_none() && !written {
                    end.write(&random.bytes(2000));
                }
            }
            written |= !client.protocol.is_handshaking() && !server.protocol.is_handshaking();
            client.transmit(server);
            server.transmit(client);
            let target = if to_client { &mut *client } else { &mut *server };
            if until < target.wire.len() {
                target.wire[until] ^= 1 << random.below(8);
                until = usize::MAX;
            }
            for (end, is_target) in [(&mut *client, to_client), (&mut *server, !to_client)] {
                let len = end.wire.len().min(1 + random.below(1000));
                end.arrive(len);
                if is_target && until != usize::MAX {
                    until = until.saturating_sub(len);
                }
            }
            let is_quiet = |end: &Peer| end.wire.is_empty() && !end.protocol.has_out();
            if is_quiet(client) && is_quiet(server) {
                break;
            }
        }
        assert!(pair.client.sent.starts_with(&pair.server.received), "seed {seed}");
        assert!(pair.server.sent.starts_with(&pair.client.received), "seed {seed}");
        pair.client.protocol.eof();
        pair.server.protocol.eof();
        let clean =
            pair.client.sent == pair.server.received && pair.server.sent == pair.client.received;
        let told = |end: &Peer| matches!(end.protocol.failure(), Some(TlsFailure::Tls { .. }));
        if told(&pair.client) || told(&pair.server) {
            failed += 1;
        } else if until == usize::MAX && !clean {
            // A length was changed: the rest was waited for until the end.
            assert!(matches!(pair.client.failure(), TlsFailure::Truncated { .. }));
        }
    }
    assert!(failed > 500, "most changes are noticed at once: {failed}");
}

#[test]
fn garbage_is_an_error_and_the_peer_is_told() {
    let server = Arc::new(server_config(&TLS13));
    let mut alerts = 0;
    for seed in 0..2000 {
        let random = &mut Random::new(seed);
        let mut end = Peer::new(Protocol::server(server.clone()).expect("a valid config"));
        let len = 1 + random.below(3000);
        end.wire = random.bytes(len);
        if random.below(2) == 0 {
            // Something like a record of the handshake.
            let header = [22, 3, 1, 0, random.below(256) as u8, 1, 0, 0, random.below(256) as u8];
            end.wire.splice(0..0, header);
        }
        while !end.wire.is_empty() {
            end.arrive(end.wire.len().min(1 + random.below(500)));
        }
        end.protocol.eof();
        assert!(end.received.is_empty());
        match end.failure() {
            TlsFailure::Tls { in_handshake, .. } => {
                assert!(in_handshake);
                alerts += usize::from(end.protocol.has_out());
            }
            TlsFailure::Truncated { in_handshake } => assert!(in_handshake),
        }
        // A failure stays, whatever comes.
        end.wire = random.bytes(100);
        end.protocol.take_out();
        end.arrive_all();
        assert!(!end.protocol.has_out() && end.received.is_empty());
    }
    assert!(alerts > 1500, "{alerts}");
    let text = {
        let mut end = Peer::new(Protocol::server(server).expect("a valid config"));
        end.wire = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        end.arrive_all();
        end.failure().to_io().to_string()
    };
    assert!(text.starts_with("TLS handshake failed: "), "{text}");
}

#[test]
fn a_record_that_is_too_long_is_refused() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.write(b"fine");
        pair.exchange_until_quiet();
        pair.server.wire = vec![23, 3, 3, 0xff, 0xff];
        pair.server.wire.extend([0; 70_000]);
        for _ in 0..70 {
            pair.server.arrive(1000);
        }
        let TlsFailure::Tls { cause, in_handshake: false } = pair.server.failure() else {
            panic!("{:?}", pair.server.failure());
        };
        assert!(!matches!(cause, Error::General(_)), "{cause:?}");
        assert_eq!((&pair.server.received[..], pair.server.protocol.held()), (&b"fine"[..], 0));
        // The peer hears of it.
        pair.exchange_until_quiet();
        assert!(matches!(
            pair.client.failure(),
            TlsFailure::Tls { cause: Error::AlertReceived(_), .. }
        ));
    }
}

#[test]
fn a_handshake_message_that_never_ends_is_refused() {
    let mut end = Peer::new(Protocol::server(Arc::new(server_config(&TLS13))).expect("a config"));
    // A ClientHello that announces 16 MiB, in records of 16 KiB.
    for number in 0..1000 {
        let mut record = vec![22, 3, 1, 0x40, 0];
        if number == 0 {
            record.extend([1, 0xff, 0xff, 0xff]);
        }
        record.resize(5 + 0x4000, 0);
        end.wire.append(&mut record);
        end.arrive_all();
        assert!(end.protocol.held() < 200_000, "what is kept is bounded");
        if end.protocol.failure().is_some() {
            return;
        }
    }
    panic!("16 MiB were taken");
}

#[test]
fn garbage_after_our_end_is_an_error_too() {
    if cfg!(debug_assertions) {
        return println!(
            "skipped: rustls 0.23 asserts here that it sends one alert, in debug builds"
        );
    }
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.server.protocol.close();
        pair.server.protocol.take_out();
        pair.server.wire = vec![23, 3, 3, 0, 40];
        pair.server.wire.extend([0; 40]);
        pair.server.arrive_all();
        assert!(matches!(pair.server.failure(), TlsFailure::Tls { .. }));
    }
}
