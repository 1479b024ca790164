//! ST1: TLS over other streams than TCP.

use std::cell::Cell;
use std::io::ErrorKind;
use std::time::Duration;

use tamam::Runtime;
use tamam::io::{Duplex, read_to_end};
use tamam::time::timeout;
use tamam::tls::rustls::SupportedProtocolVersion;
use tamam::tls::rustls::version::{TLS12, TLS13};
use tamam::tls::{LazyConfigAcceptor, TlsConnector, TlsStream};

use crate::common::{assert_same, everywhere, pattern, with_both};
use crate::keys::{NAME, client_config, narrow_tcp_pair, server_config, tcp_pair, tls_over};
use crate::{frames, unix_pair};

const MS: Duration = Duration::from_millis(1);

fn version(number: u64) -> &'static SupportedProtocolVersion {
    if number % 2 == 0 { &TLS13 } else { &TLS12 }
}

/// What TLS promises, over whatever is below.
async fn promises<S: Duplex>((client, server): (TlsStream<S>, TlsStream<S>)) {
    // Both ways at once, more than is taken ahead.
    let big = pattern(700_000);
    let sent = big.clone();
    let echo = tamam::spawn(async move {
        let copied = tamam::io::copy(&server, &server).await.expect("no failure");
        server.shutdown().await.expect("the peer is there");
        (server, copied)
    });
    let (read, write) = client.into_split();
    let sending = tamam::spawn(async move {
        write.send_all(sent).await.expect("the peer echoes");
        write.sendv(vec!["one ", "two"]).await.expect("the peer echoes");
        write.shutdown().await.expect("the peer is there");
        let late = write.send_all("late").await.expect_err("after the end");
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
        write
    });
    let back = read.read_exact(Vec::with_capacity(big.len()), big.len()).await;
    assert_same(&back.expect("all of it"), &big);
    let rest = read_to_end(&read, 100).await.expect("a clean end");
    assert_eq!(rest, b"one two");
    let write = sending.await.expect("no panic");
    let (server, copied) = echo.await.expect("no panic");
    assert_eq!(copied, big.len() as u64 + 7);
    let client = read.reunite(write).expect("of one stream");
    assert!(client.recv().await.expect("no failure").is_none());
    assert!(server.recv().await.expect("no failure").is_none());
}

#[test]
fn st1_tls_over_unix_sockets_and_over_tls() {
    everywhere(|| async {
        for number in 0..2 {
            let version = version(number);
            promises(tls_over(version, unix_pair()).await).await;
            promises(tls_over(version, tls_over(&TLS13, tcp_pair().await).await).await).await;
            promises(tls_over(version, tls_over(&TLS12, unix_pair()).await).await).await;
        }
    });
    with_both(Runtime::builder(), || async {
        let two = tls_over(&TLS12, tls_over(&TLS13, narrow_tcp_pair().await).await).await;
        promises(tls_over(&TLS13, two).await).await; // three of them
    });
}

/// TL13 over other streams.
#[test]
fn st1_dropped_futures_lose_nothing_and_send_nothing_twice() {
    let seed = Cell::new(0);
    everywhere(|| {
        seed.set(seed.get() + 1);
        let seed = seed.get();
        async move {
            let (a, b) = tls_over(version(seed), unix_pair()).await;
            frames::survive(seed, 60_000, a, b).await;
            let (a, b) = tls_over(version(seed), tls_over(&TLS13, unix_pair()).await).await;
            frames::survive(seed + 100, 60_000, a, b).await;
        }
    });
    with_both(Runtime::builder(), || async {
        for seed in 0..4 {
            let (a, b) =
                tls_over(version(seed), tls_over(&TLS13, narrow_tcp_pair().await).await).await;
            frames::survive(seed, 300_000, a, b).await;
        }
    });
}

/// TL4 and TL17: the layer below ends without a word of the one above.
#[test]
fn st1_a_truncation_is_no_end() {
    everywhere(|| async {
        let (client, server) = tls_over(&TLS13, unix_pair()).await;
        client.send_all("what came").await.expect("room");
        drop(client);
        let came = server.read_exact(Vec::with_capacity(9), 9).await.expect("it came before");
        assert_eq!(came, b"what came");
        for _ in 0..2 {
            let error = server.recv().await.expect_err("cut off");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }

        // The outer TLS ends in order, the inner one does not.
        let (client, server) = tls_over(&TLS13, tls_over(&TLS13, unix_pair()).await).await;
        client.get_ref().shutdown().await.expect("the peer is there");
        let error = server.recv().await.expect_err("cut off");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(server.get_ref().recv().await.expect("the outer end is clean").is_none());
    });
}

/// TL6: a failure of the outer TLS is one of the inner TLS, in both directions.
#[test]
fn st1_failures_below_are_passed_on() {
    everywhere(|| async {
        let (client, server) = tls_over(&TLS13, tls_over(&TLS13, unix_pair()).await).await;
        let waiting = tamam::spawn(async move {
            let error = server.recv().await.expect_err("no TLS");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            let error = server.send_all("late").await.expect_err("it has failed");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        });
        client.get_ref().get_ref().send_all("no record at all").await.expect("room");
        waiting.await.expect("no panic");
    });
}

/// TL14: the rest of a dropped send goes out through all layers, and a dropped shutdown follows it.
#[test]
fn st1_what_was_begun_goes_on_in_the_background() {
    everywhere(|| async {
        let below = tls_over(&TLS13, narrow_tcp_pair().await).await;
        let (client, server) = tls_over(&TLS13, below).await;
        let big = pattern(1 << 20);
        assert!(timeout(5 * MS, client.send_all(big.clone())).await.is_err(), "nobody reads");
        assert!(timeout(MS, client.send_all("never")).await.is_err(), "it has not had its turn");
        assert!(timeout(MS, client.shutdown()).await.is_err(), "nobody reads");
        let received = read_to_end(&server, 2 << 20).await.expect("a clean end");
        assert_same(&received, &big);
    });
}

/// TL16, TL22: dropped halves end in order, and the socket waits for the peer.
#[test]
fn st1_a_dropped_half_ends_in_order() {
    everywhere(|| async {
        let (client, server) = tls_over(&TLS13, tls_over(&TLS13, unix_pair()).await).await;
        let (read, write) = client.into_split();
        write.send_all("the last words").await.expect("room");
        drop(write);
        drop(read);
        let received = read_to_end(&server, 100).await.expect("a clean end");
        assert_eq!(received, b"the last words");
        server.shutdown().await.expect("the socket waits");
    });
}

#[test]
fn st1_a_config_is_chosen_over_every_stream() {
    everywhere(|| async {
        let (client, server) = unix_pair();
        let connector = TlsConnector::from(client_config(&TLS13, false));
        let client = tamam::spawn(async move { connector.connect(NAME, client).await });
        let start = LazyConfigAcceptor::new(server).await.expect("a client that speaks TLS");
        assert_eq!(start.client_hello().server_name(), Some(NAME));
        assert!(start.get_ref().peer_cred().is_ok());
        let server = start.into_stream(server_config(&TLS13, false).into()).await.expect("taken");
        let client = client.await.expect("no panic").expect("the server is trusted");
        client.send_all("hello").await.expect("room");
        assert_eq!(server.read_exact(Vec::with_capacity(5), 5).await.expect("it came"), b"hello");
        assert!(format!("{client:?}").contains("UnixStream"), "{client:?}");
    });
}
