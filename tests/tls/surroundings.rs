//! TL21, SY2: a stream outlives its runtime, its process forks, what it calls panics.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tamam::time::timeout;
use tamam::tls::rustls::NamedGroup;
use tamam::tls::rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use tamam::tls::rustls::pki_types::ServerName;
use tamam::tls::rustls::version::TLS13;
use tamam::tls::{TlsAcceptor, TlsConnector};
use tamam::{Backend, Runtime};

use crate::common::broken::{descriptors_of, not_registered, replace};
use crate::common::{PATIENCE, child, everywhere};
use crate::keys::{NAME, narrow_tcp_pair, tcp_pair};
use crate::{client_config, common, handshakes, pair, pair_over, server_config};

#[test]
fn tl21_a_stream_outlives_its_runtime() {
    let _watchdog = common::Watchdog::start();
    for (name, builder) in common::engines() {
        eprintln!("-- {name}");
        let (home, other) = (common::build(builder.clone()), common::build(builder));
        let (receiver, sender) = home.block_on(async {
            let (sender, receiver) = pair_over(&TLS13, narrow_tcp_pair().await).await;
            sender.send_all("parked").await.expect("sent");
            let half = receiver.read_exact(Vec::with_capacity(3), 3).await.expect("half of it");
            assert_eq!(half, b"par");
            (receiver, sender)
        });
        // A send midway, which is then polled elsewhere: its buffer comes back at once.
        let big = common::pattern(1 << 20);
        let mut sending = Box::pin(sender.send_all(big.clone()));
        home.block_on(async {
            assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
        });
        let mut received = other.block_on(async {
            let error = sending.await.expect_err("not at home");
            assert!(error.kind() == ErrorKind::Other && *error.buf() == big);
            // What has come is served anywhere.
            let mut received = Vec::new();
            let error = loop {
                match receiver.recv().await {
                    Ok(chunk) => received.extend_from_slice(&chunk.expect("no end")),
                    Err(error) => break error,
                }
            };
            assert_eq!((&received[..3], error.kind()), (&b"ked"[..], ErrorKind::Other));
            let error = receiver.send_all("x").await.expect_err("not at home");
            assert_eq!((error.kind(), *error.buf()), (ErrorKind::Other, "x"));
            assert_eq!(
                receiver.shutdown().await.expect_err("not at home").kind(),
                ErrorKind::Other
            );
            received
        });
        // At home again, the next send takes the rest of it along.
        home.block_on(async {
            let next = pin!(sender.send_all("next"));
            let all = 3 + big.len() + 4;
            let missing = all - received.len();
            let reading = receiver.read_exact(Vec::with_capacity(missing), missing);
            let (sent, rest) = futures_util::join!(next, reading);
            sent.expect("the peer reads");
            received.extend(rest.expect("all of it"));
            assert!(received == [b"ked", &big[..], b"next"].concat());
        });
        drop(home);
        other.block_on(async {
            let error = receiver.recv().await.expect_err("the runtime is gone");
            assert_eq!(error.kind(), ErrorKind::Other);
            let error = receiver.send_all("x").await.expect_err("the runtime is gone");
            assert_eq!((error.kind(), *error.buf()), (ErrorKind::Other, "x"));
            receiver.shutdown().await.expect_err("the runtime is gone");
        });
        let (_read, write) = sender.into_split();
        drop(write);
        drop(receiver);
    }
}

/// Keeps no session, and panics when it is to keep one.
#[derive(Debug)]
struct Panics;

impl ClientSessionStore for Panics {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        panic!("on purpose");
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

#[test]
fn a_panic_in_what_tls_calls_ends_the_connection_and_nothing_else() {
    everywhere(|| async {
        let mut config = client_config(&TLS13);
        config.resumption = Resumption::store(Arc::new(Panics));
        let acceptor = TlsAcceptor::from(server_config(&TLS13));
        let (client, server) =
            handshakes(&TlsConnector::from(config), &acceptor, tcp_pair().await).await;
        let client = Rc::new(client.expect("trusted"));
        let receiving = client.clone();
        // The server's tickets come behind its handshake.
        let task = tamam::spawn(async move { receiving.recv().await.map(drop) });
        assert!(task.await.expect_err("the store panics").is_panic());
        for _ in 0..2 {
            let error = client.recv().await.expect_err("it is at an end");
            assert_eq!(error.kind(), ErrorKind::Other);
            assert!(error.to_string().contains("panic"), "{error}");
        }
        let error = client.send_all("x").await.expect_err("it is at an end");
        assert_eq!((error.kind(), *error.buf()), (ErrorKind::Other, "x"));
        let error = timeout(*PATIENCE, client.shutdown()).await.expect("it waits for nobody");
        error.expect_err("it cannot be said");
        drop(client);
        server.expect("anybody may connect").recv().await.expect_err("cut off");
    });
}

/// SY2. 1 the process forks in the midst of a turn; 2 the child drops its copies of both halves of
/// either end; 3 that panics nowhere, and the parent's go on.
#[test]
fn sy2_halves_dropped_in_a_forked_child_say_nothing() {
    common::alone("surroundings::sy2_halves_dropped_in_a_forked_child_say_nothing", || {
        common::with_both(Runtime::builder(), || async {
            let (client, server) = pair(&TLS13).await;
            let (client, server) = (client.into_split(), server.into_split());
            // SAFETY: this is the only thread that matters here; the child leaves by `_exit`.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork works");
            if pid == 0 {
                let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let ((client_read, client_write), (server_read, server_write)) =
                        (client, server);
                    drop((client_write, client_read));
                    drop((server_read, server_write));
                }));
                // SAFETY: ends the child, and nothing else.
                unsafe { libc::_exit(dropped.is_err().into()) };
            }
            let mut status = 0;
            // SAFETY: `status` is writable.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0, "the child has panicked");
            client.1.send_all("goes on").await.expect("the peer reads");
            let received = server.0.read_exact(Vec::with_capacity(7), 7).await;
            assert_eq!(received.expect("sent"), b"goes on");
        });
    });
}

/// SY2. 1 a handshake can end with what was received; 2 the process forks; 3 the child polls it, and its
/// parent's engine is not entered; 4 in the parent it ends.
#[test]
fn sy2_a_handshake_polled_in_a_forked_child_does_not_enter() {
    common::alone("surroundings::sy2_a_handshake_polled_in_a_forked_child_does_not_enter", || {
        common::with_both(Runtime::builder(), || async {
            let (client, server) = tcp_pair().await;
            let connector = TlsConnector::from(client_config(&TLS13));
            let mut connect = common::start(connector.connect(NAME, client)).await;
            let acceptor = TlsAcceptor::from(server_config(&TLS13));
            let accept = tamam::spawn(async move { acceptor.accept(server).await });
            common::settle().await; // the server's flight is unread
            let enters = tamam::metrics().enters;
            // SAFETY: this is the only thread that matters here; the child leaves by `_exit`.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork works");
            if pid == 0 {
                let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let cx = &mut Context::from_waker(Waker::noop());
                    let _ = connect.as_mut().poll(cx); // what was received is served
                    assert_eq!(tamam::metrics().enters, enters);
                }));
                // SAFETY: ends the child, and nothing else.
                unsafe { libc::_exit(polled.is_err().into()) };
            }
            let mut status = 0;
            // SAFETY: `status` is writable.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0, "the child has panicked");
            let client = connect.await.expect("the server is trusted");
            let server = accept.await.expect("no panic").expect("anybody may connect");
            client.send_all("goes on").await.expect("the peer reads");
            let received = server.read_exact(Vec::with_capacity(7), 7).await;
            assert_eq!(received.expect("sent"), b"goes on");
        });
    });
}

/// The ciphertext is the kernel's and cannot be freed, but the caller's buffer was never handed over.
#[test]
fn tl21_a_failed_engine_gives_the_buffer_back() {
    const NAME: &str = "surroundings::tl21_a_failed_engine_gives_the_buffer_back";
    let Some(part) = child::part(NAME) else {
        for (engine, _) in common::both(&Runtime::builder()) {
            child::play(NAME, engine, &[]);
        }
        return;
    };
    let _watchdog = common::Watchdog::start();
    let (runtime, fd, _registered) = if part == "ring" {
        not_registered(Runtime::builder().backend(Backend::Ring))
    } else {
        let runtime = common::build(Runtime::builder().backend(Backend::Epoll));
        (runtime, descriptors_of(Backend::Epoll)[0], Vec::new())
    };
    runtime.block_on(async {
        let (sender, _receiver) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        // One batch: all of it is encrypted at once, and TCP has the rest of it in flight.
        let text = common::pattern(60_000);
        let mut sending = pin!(sender.send_all(text.clone()));
        assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
        replace(fd);
        let (error, buf) = sending.await.expect_err("the engine has failed").into_parts();
        assert!(error.to_string().contains(if part == "ring" { "io_uring" } else { "epoll" }));
        assert_eq!(buf, text);
    });
}
