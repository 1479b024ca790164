//! RX rows over TLS: what a read holds that waits for more is the stream's, in its place (TL13).

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use tamam::Runtime;
use tamam::tls::TlsStream;
use tamam::tls::rustls::version::{TLS12, TLS13};

use crate::common::{Gone, everywhere, poll_once, start, with_both};
use crate::pair;

/// Sends one record, and lets the other end have it.
async fn send(from: &TlsStream, text: &'static str) {
    from.tcp().set_nodelay(true).expect("a socket");
    from.send_all(text).await.expect("connected");
    for _ in 0..3 {
        crate::common::turn().await;
    }
}

async fn text(stream: &TlsStream) -> String {
    let chunk = stream.recv().await.expect("connected").expect("not the end");
    String::from_utf8(chunk.to_vec()).expect("text was sent")
}

/// 1 `read_exact(8)` has `1111`; 2 another task receives: it gets these, since they are first; 3 the
/// first goes on with what follows them.
#[test]
fn tl19_another_receiver_takes_what_is_first_in_line() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            let mut reading = start(server.read_exact(Vec::with_capacity(8), 8)).await;
            send(&client, "1111").await;
            assert!(poll_once(&mut reading).await.is_pending(), "four are wanted still");
            send(&client, "2222").await;
            assert_eq!(text(&server).await, "1111");
            send(&client, "3333").await;
            assert_eq!(reading.await.expect("connected"), b"22223333");
        }
    });
}

/// The same, and the future that held them goes: what it had keeps its place.
#[test]
fn tl13_what_a_read_exact_held_keeps_its_place() {
    everywhere(|| async {
        for gone in Gone::BOTH {
            let (client, server) = pair(&TLS13).await;
            let mut reading = start(server.read_exact(Vec::with_capacity(12), 12)).await;
            send(&client, "1111").await;
            assert!(poll_once(&mut reading).await.is_pending());
            send(&client, "2222").await;
            assert!(poll_once(&mut reading).await.is_pending());
            gone.leave(reading);
            send(&client, "3333").await;
            let mut all = String::new();
            while all.len() < 12 {
                all += &text(&server).await;
            }
            assert_eq!(all, "111122223333");
        }
    });
}

/// A waiting `recv` is not left alone with bytes that a dropped `read_exact` had.
#[test]
fn tl13_a_waiting_receiver_gets_what_a_dropped_one_had() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        let mut exact = start(server.read_exact(Vec::with_capacity(8), 8)).await;
        send(&client, "1111").await;
        assert!(poll_once(&mut exact).await.is_pending());
        // Polled now, it finds what the first holds, which is the stream's.
        let mut waiting: Pin<Box<dyn Future<Output = String>>> = Box::pin(text(&server));
        let got = poll_once(&mut waiting).await;
        drop(exact);
        let got = match got {
            Poll::Ready(got) => got,
            Poll::Pending => waiting.await,
        };
        assert_eq!(got, "1111");
    });
}

/// `read` fills from several pieces, and takes what another holds.
#[test]
fn tl13_reads_of_all_kinds_share_one_line() {
    with_both(Runtime::builder(), || async {
        let (client, server) = pair(&TLS13).await;
        let mut exact = start(server.read_exact(Vec::with_capacity(100), 100)).await;
        for word in ["one ", "two ", "three"] {
            send(&client, word).await;
            assert!(poll_once(&mut exact).await.is_pending());
        }
        let (len, buf) = server.read(Vec::with_capacity(6)).await.expect("connected");
        assert_eq!((len, &buf[..]), (6, &b"one tw"[..]));
        drop(exact);
        let rest = server.read_exact(Vec::with_capacity(7), 7).await.expect("connected");
        assert_eq!(rest, b"o three");
    });
}
