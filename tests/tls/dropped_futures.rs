//! TL13 to TL17: futures that are dropped or forgotten, and streams.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tamam::Runtime;
use tamam::time::timeout;
use tamam::tls::rustls::version::{TLS12, TLS13};

use crate::common::everywhere;
use crate::frames;
use crate::keys::{narrow_tcp_pair, tcp_pair};
use crate::{common, pair_over, receive_all};

/// [`frames::survive`] over TCP, with the versions by turns.
async fn frames_survive(seed: u64, total: usize, narrow: bool) {
    let version = if seed % 2 == 0 { &TLS13 } else { &TLS12 };
    let tcp = if narrow { narrow_tcp_pair().await } else { tcp_pair().await };
    let (sender, receiver) = pair_over(version, tcp).await;
    frames::survive(seed, total, sender, receiver).await;
}

#[test]
fn tl13_dropped_futures_lose_nothing_and_send_nothing_twice() {
    let seed = Cell::new(0);
    everywhere(|| {
        seed.set(seed.get() + 1);
        frames_survive(seed.get(), 100_000, false)
    });
    common::with_both(Runtime::builder(), || async {
        for seed in 0..6 {
            frames_survive(seed, 300_000, true).await;
        }
    });
    common::with_both(Runtime::builder(), || frames_survive(77, 10 << 20, false));
}

#[test]
fn tl14_a_send_that_is_dropped_midway_goes_on_by_itself() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let big = common::pattern(2 << 20);
        {
            let mut sending = pin!(client.send_all(big.clone()));
            assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
            // One that has not had its turn leaves nothing behind.
            let mut never = pin!(client.send_all("never"));
            assert!(timeout(Duration::from_millis(1), never.as_mut()).await.is_err());
        }
        let received = server.read_exact(Vec::with_capacity(big.len()), big.len()).await;
        assert!(received.expect("all of it") == big);
        client.send_all("next").await.expect("sent");
        let next = server.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
        assert_eq!(next, b"next");
    });
}

#[test]
fn tl15_a_send_that_is_forgotten_goes_on_with_the_next() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let client = Rc::new(client);
        let big = common::pattern(1 << 20);
        // Leaked with the stream's count that it holds, hence the short way to end it below.
        let mut sending = Box::pin({
            let (client, big) = (client.clone(), big.clone());
            async move { client.send_all(big).await.map(drop) }
        });
        assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
        let other = client.clone();
        let next = tamam::spawn(async move { other.send_all("next").await.map(drop) });
        let reading = Rc::new(RefCell::new(sending)); // neither polled nor dropped
        let received = server.read_exact(Vec::with_capacity(big.len()), big.len()).await;
        assert!(received.expect("all of it") == big);
        let received = server.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
        assert_eq!(received, b"next");
        next.await.expect("no panic").expect("sent");
        drop(reading);
    });
}

#[test]
fn tl16_the_end_follows_what_is_queued_whoever_waits() {
    everywhere(|| async {
        for way in 0..3 {
            let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
            let big = common::pattern(1 << 20);
            let sent = big.clone();
            let (read, write) = client.into_split();
            let started = timeout(Duration::from_millis(5), write.send_all(sent)).await;
            assert!(started.is_err(), "nobody reads yet");
            match way {
                0 => drop(write),
                1 => {
                    let ended = timeout(Duration::from_millis(1), write.shutdown()).await;
                    assert!(ended.is_err(), "nobody reads yet");
                    let late = write.send_all("late").await.expect_err("after the end");
                    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
                    write.forget();
                }
                _ => {
                    let whole = read.reunite(write).expect("of one stream");
                    let receiving = tamam::spawn(async move { receive_all(&server).await });
                    whole.shutdown().await.expect("the peer reads");
                    let received = receiving.await.expect("no panic").expect("a clean end");
                    assert!(received == big);
                    continue;
                }
            }
            assert!(receive_all(&server).await.expect("a clean end") == big);
            server.send_all("still there").await.expect("sent");
            let answer = read.read_exact(Vec::with_capacity(11), 11).await.expect("sent");
            assert_eq!(answer, b"still there");
        }
    });
}

#[test]
fn tl17_a_dropped_stream_leaves_nothing_behind() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let big = common::pattern(1 << 20);
        assert!(timeout(Duration::from_millis(5), client.send_all(big)).await.is_err());
        drop(client);
        let error = receive_all(&server).await.expect_err("cut off");
        assert!(
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
            "{error}"
        );
    });
}
