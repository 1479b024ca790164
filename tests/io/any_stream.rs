//! ST6: streams whose kind is known at run time.

use std::future::Future;
use std::io::ErrorKind;
use std::net::TcpStream as StdStream;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tamam::Runtime;
use tamam::io::{AnyStream, Transmit, duplex, read_to_end};
use tamam::tls::rustls::version::TLS13;

use crate::common::{Gone, assert_same, both, build, everywhere, pair, pattern, poll_once, reset};
use crate::keys::{tcp_pair, tls_over};
use crate::{any, frames, unix_pair};

#[test]
fn st6_every_stream_can_be_any_stream() {
    everywhere(|| async {
        let pairs = [
            any(tcp_pair().await),
            any(unix_pair()),
            any(duplex(100)),
            any(tls_over(&TLS13, tcp_pair().await).await),
            any(tls_over(&TLS13, unix_pair()).await),
            any(tls_over(&TLS13, duplex(100)).await),
            any(tls_over(&TLS13, any(unix_pair())).await),
        ];
        let names = [
            "Tcp(",
            "Unix(",
            "Memory(",
            "TlsOverTcp(",
            "TlsOverUnix(",
            "TlsOverMemory(",
            "TlsOverAny(",
        ];
        for (number, ((a, b), name)) in pairs.into_iter().zip(names).enumerate() {
            let text = format!("{a:?}");
            assert!(text.starts_with("AnyStream::") && text.contains(name), "{text}");
            frames::survive(number as u64, 20_000, a, b).await;
        }
    });
}

/// As deep as one likes, made in a loop.
#[test]
fn st6_tunnels_are_as_deep_as_one_likes() {
    everywhere(|| async {
        let (mut a, mut b) = any(unix_pair());
        for _ in 0..5 {
            (a, b) = any(tls_over(&TLS13, (a, b)).await);
        }
        let big = pattern(200_000);
        let sent = big.clone();
        let sending = tamam::spawn(async move {
            let mut dropped = Box::pin(a.send_all(sent));
            let _ = poll_once(&mut dropped).await; // the kernel may have room for all of it
            drop(dropped);
            a.shutdown().await.expect("the peer is there");
            a
        });
        assert_same(&read_to_end(&b, big.len()).await.expect("a clean end"), &big);
        let a = sending.await.expect("no panic");
        drop(b);
        drop(a);
    });
}

/// RX11, TX8, RX4 and TX3, of a TCP stream.
#[test]
fn st6_it_has_the_errors_and_the_promises_of_what_it_was_made_of() {
    everywhere(|| async {
        let (stream, peer): (_, StdStream) = pair().await;
        let stream = AnyStream::from(stream);
        for gone in Gone::BOTH {
            let mut receiving = Box::pin(stream.recv());
            assert!(poll_once(&mut receiving).await.is_pending());
            gone.leave(receiving);
        }
        stream.send_all("unread").await.expect("room");
        reset(peer);
        let error = stream.recv().await.expect_err("reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let late = stream.send_all(String::from("late")).await.expect_err("reset");
        assert!(
            matches!(late.error().kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{}",
            late.error()
        );
        assert_eq!(late.into_parts().1, "late");
    });
}

/// The user's wish to abort reaches the stream below.
#[test]
fn st6_an_abort_is_passed_on() {
    everywhere(|| async {
        for (a, b) in [any(tcp_pair().await), any(duplex(9))] {
            a.abort_on_drop();
            drop(a);
            let error = b.recv().await.expect_err("reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

/// G8, RX19: away from home it says so and gives buffers back; at home it goes on.
#[test]
fn st6_it_is_at_home_where_its_stream_is() {
    for (name, builder) in both(&Runtime::builder()) {
        eprintln!("-- {name}");
        let runtime = build(builder);
        let pairs = runtime.block_on(async {
            [any(tcp_pair().await), any(tls_over(&TLS13, any(duplex(100_000))).await)]
        });
        for (a, b) in &pairs {
            let cx = &mut Context::from_waker(Waker::noop());
            let mut sending = pin!(a.send_all(String::from("away")));
            let Poll::Ready(Err(error)) = sending.as_mut().poll(cx) else {
                panic!("{a:?}: it is away from home");
            };
            assert!(error.error().to_string().contains("outside its runtime"), "{error}");
            assert_eq!(error.into_parts().1, "away");
            runtime.block_on(async {
                a.send_all("at home").await.expect("room");
                let came = b.read_exact(Vec::with_capacity(7), 7).await;
                assert_eq!(came.expect("nothing of the other came"), b"at home");
            });
        }
    }
}
