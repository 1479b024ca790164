//! ST7 and ST8: `copy` and `copy_both`, over every stream.

use std::io::ErrorKind;
use std::time::Duration;

use tamam::io::{Copied, Receive, Side, Transmit, copy, copy_both, duplex, read_to_end};
use tamam::time::timeout;
use tamam::tls::rustls::version::TLS13;

use crate::common::{assert_same, everywhere, pattern, poll_once, start, turn};
use crate::keys::{tcp_pair, tls_over};
use crate::{kind, on_every_stream, unix_pair};

const MS: Duration = Duration::from_millis(1);

/// Sends all, then the end, and gives the stream back.
async fn send_and_end<S: Transmit>(stream: S, bytes: Vec<u8>) -> S {
    stream.send_all(bytes).await.expect("it is received");
    stream.shutdown().await.expect("the peer is there");
    stream
}

/// All of a stream goes to another one, which is not shut down; the count is right.
async fn copies<S: Receive + Transmit + 'static>(name: &str, (client, near): (S, S)) {
    let (far, server) = duplex(300);
    let copying = tamam::spawn(async move { (copy(&near, &far).await, near, far) });
    let big = pattern(20_000);
    let sending = tamam::spawn(send_and_end(client, big.clone()));
    let got = server.read_exact(Vec::with_capacity(big.len()), big.len()).await;
    assert_same(&got.expect("all of it"), &big);
    let (copied, near, far) = copying.await.expect("no panic");
    assert_eq!(copied.expect("no failure"), 20_000, "{name}");
    far.send_all("more").await.expect("it is open");
    assert_eq!(&server.recv().await.expect("no failure").expect("no end")[..], b"more");
    drop((sending.await.expect("no panic"), near));
}

#[test]
fn st7_copy_takes_all_and_leaves_the_other_end_open() {
    everywhere(|| async { on_every_stream!(copies) });
}

/// Dropped at any point, and called again: nothing is lost, nothing comes twice.
async fn copies_in_parts<S: Receive + Transmit + 'static>(name: &str, (client, near): (S, S)) {
    let (far, server) = duplex(100);
    let big = pattern(4_000);
    let sending = tamam::spawn(send_and_end(client, big.clone()));
    let reading = tamam::spawn(async move {
        let mut all = Vec::new();
        while let Some(chunk) = server.recv().await.expect("no failure") {
            all.extend_from_slice(&chunk);
            tamam::yield_now().await;
        }
        all
    });
    for polls in 0.. {
        let mut copying = Box::pin(copy(&near, &far));
        let mut is_over = false;
        for _ in 0..polls % 4 {
            if poll_once(&mut copying).await.is_ready() {
                is_over = true;
                break;
            }
            turn().await;
        }
        drop(copying);
        if is_over {
            break;
        }
        tamam::yield_now().await;
    }
    far.shutdown().await.expect("it is open");
    let all = reading.await.expect("no panic");
    // A chunk whose send had begun goes out, and what was not received stays with its stream.
    assert!(all == big, "{name}: {} of {} bytes", all.len(), big.len());
    drop(sending.await.expect("no panic"));
}

#[test]
fn st7_a_dropped_copy_loses_nothing() {
    everywhere(|| async { on_every_stream!(copies_in_parts) });
}

/// A chunk that cannot be sent is the source's again.
async fn gives_back<S: Receive + Transmit + 'static>(name: &str, (client, near): (S, S)) {
    let (far, server) = duplex(1);
    drop(server);
    let sending = tamam::spawn(async move { client.send_all("not lost").await.map(|_| client) });
    assert_eq!(kind(copy(&near, &far).await), ErrorKind::BrokenPipe, "{name}");
    let back = near.read_exact(Vec::with_capacity(8), 8).await.expect("it was given back");
    assert_eq!(back, b"not lost", "{name}");
    drop(sending.await.expect("no panic").expect("it was received"));
}

#[test]
fn st7_what_cannot_be_sent_is_first_in_line_again() {
    everywhere(|| async { on_every_stream!(gives_back) });
}

/// Both directions, half-closes passed on one after the other.
async fn proxies<S: Receive + Transmit + 'static>(name: &str, (client, near): (S, S)) {
    let (far, server) = duplex(64);
    let proxy = tamam::spawn(async move { copy_both(&near, &far).await });
    let answering = tamam::spawn(async move {
        let question = read_to_end(&server, 10_000).await.expect("a clean end");
        server.send_all(question.clone()).await.expect("the other direction is open");
        server.shutdown().await.expect("the peer is there");
        question.len()
    });
    let asked = pattern(9_000);
    client.send_all(asked.clone()).await.expect("room");
    client.shutdown().await.expect("the peer is there");
    assert_same(&read_to_end(&client, 10_000).await.expect("a clean end"), &asked);
    assert_eq!(answering.await.expect("no panic"), 9_000);
    let Copied { a_to_b, b_to_a, failed } = proxy.await.expect("no panic");
    assert_eq!((a_to_b, b_to_a, failed.is_none()), (9_000, 9_000, true), "{name}");
}

#[test]
fn st8_copy_both_passes_ends_on() {
    everywhere(|| async { on_every_stream!(proxies) });
}

/// The far end of a proxy fails in a way that is no end; the near one hears of it.
async fn passes_failures_on<N, F>(
    name: &str,
    (client, near): (N, N),
    (far, server): (F, F),
    [seen, shown]: [ErrorKind; 2],
) where
    N: Receive + Transmit + 'static,
    F: Receive + Transmit + 'static,
{
    let proxy = tamam::spawn(async move { copy_both(&near, &far).await });
    client.send_all("question").await.expect("room");
    assert_eq!(server.read_exact(Vec::with_capacity(8), 8).await.expect("it came"), b"question");
    server.send_all("half an ans").await.expect("room");
    let half = client.read_exact(Vec::with_capacity(11), 11).await.expect("it came before");
    assert_eq!(half, b"half an ans");
    server.abort_on_drop();
    drop(server);
    let Copied { a_to_b, b_to_a, failed } = proxy.await.expect("no panic");
    let (side, error) = failed.expect("it was no end");
    assert_eq!((a_to_b, b_to_a, side, error.kind()), (8, 11, Side::B, seen), "{name}");
    assert_eq!(kind(client.recv().await), shown, "{name}");
}

#[test]
fn st8_copy_both_passes_failures_on() {
    let (reset, cut) = (ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof);
    everywhere(|| async {
        passes_failures_on("TCP", tcp_pair().await, tcp_pair().await, [reset, reset]).await;
        passes_failures_on("memory", duplex(99), duplex(99), [reset, reset]).await;
        passes_failures_on("memory to TCP", tcp_pair().await, duplex(9), [reset, reset]).await;
        let tls = tls_over(&TLS13, unix_pair()).await;
        passes_failures_on("memory to TLS", tls, duplex(99), [reset, cut]).await;
        let tls = tls_over(&TLS13, tcp_pair().await).await;
        passes_failures_on("TLS to memory", duplex(99), tls, [cut, reset]).await;
    });
}

/// The near end fails: it is the first side that is named, and the far one hears of it.
#[test]
fn st8_the_side_that_failed_is_named() {
    everywhere(|| async {
        let ((client, near), (far, server)) = (tcp_pair().await, duplex(99));
        let proxy = tamam::spawn(async move { copy_both(&near, &far).await });
        client.send_all("begun").await.expect("room");
        let begun = server.read_exact(Vec::with_capacity(5), 5).await.expect("it came");
        assert_eq!(begun, b"begun");
        client.abort_on_drop();
        drop(client);
        let (side, error) = proxy.await.expect("no panic").failed.expect("it was no end");
        assert_eq!((side, error.kind()), (Side::A, ErrorKind::ConnectionReset));
        assert_eq!(kind(server.recv().await), ErrorKind::ConnectionReset);

        // Sending fails: the receiver of the bytes is named, and they are given back.
        let ((client, near), (far, server)) = (duplex(99), duplex(99));
        server.shutdown().await.expect("open");
        drop(server);
        client.send_all("for nobody").await.expect("room");
        let copied = copy_both(&near, &far).await;
        let (side, error) = copied.failed.expect("nobody receives");
        assert_eq!((copied.a_to_b, side, error.kind()), (0, Side::B, ErrorKind::BrokenPipe));
        let back = near.read_exact(Vec::with_capacity(10), 10).await.expect("given back");
        assert_eq!(back, b"for nobody");
        drop(near);
        assert_eq!(kind(client.recv().await), ErrorKind::ConnectionReset);
    });
}

/// Dropped midway, both streams go on with what they have.
#[test]
fn st8_a_dropped_copy_both_loses_nothing() {
    everywhere(|| async {
        let ((client, near), (far, server)) = (tcp_pair().await, duplex(4));
        let mut proxy = start(copy_both(&near, &far)).await;
        client.send_all("12345678").await.expect("room");
        server.send_all("abcd").await.expect("room");
        while poll_once(&mut Box::pin(server.recv())).await.is_pending() {
            assert!(poll_once(&mut proxy).await.is_pending());
            turn().await;
        }
        drop(proxy);
        // "1234" was taken above; the rest of a send that had begun follows by itself.
        let rest = server.read_exact(Vec::with_capacity(4), 4).await.expect("it was begun");
        assert_eq!(rest, b"5678");
        let copied = timeout(100 * MS, copy_both(&near, &far)).await;
        assert!(copied.is_err(), "nobody has ended");
        let answer = client.read_exact(Vec::with_capacity(4), 4).await.expect("it came");
        assert_eq!(answer, b"abcd");
    });
}

/// A chunk that waits behind another send when the copy is dropped is the source's again.
#[test]
fn st7_a_chunk_that_waits_its_turn_is_given_back() {
    everywhere(|| async {
        let (client, near) = unix_pair();
        let (far, server) = unix_pair();
        let mut large = start(far.send_all(pattern(4 << 20))).await;
        turn().await;
        client.send_all("precious").await.expect("connected");
        for both in [false, true] {
            let limit = Duration::from_millis(20);
            match both {
                false => drop(timeout(limit, copy(&near, &far)).await.expect_err("it waits")),
                true => drop(timeout(limit, copy_both(&near, &far)).await.expect_err("it waits")),
            }
            let chunk = near.recv().await.expect("connected").expect("no end");
            assert_eq!(&chunk[..], b"precious");
            near.unread(chunk);
        }
        assert!(poll_once(&mut large).await.is_pending());
        let all = server.read_exact(Vec::with_capacity(4 << 20), 4 << 20).await;
        assert_same(&all.expect("all of it"), &pattern(4 << 20));
        large.await.expect("it is read");
        drop(far);
        assert!(server.recv().await.expect("no reset").is_none(), "nothing came behind it");
    });
}
