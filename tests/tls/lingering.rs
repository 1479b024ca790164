//! TL22, TL17: what a stream that is dropped owes its peer.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tamam::Runtime;
use tamam::time::{sleep, timeout};
use tamam::tls::rustls::version::{TLS12, TLS13};
use tamam::tls::{TlsAcceptor, TlsConnector};

use crate::common::shortage::take_all_descriptors;
use crate::common::{alone, both, build, everywhere, start, turn, with_both};
use crate::keys::{NAME, narrow_tcp_pair, tcp_pair};
use crate::{client_config, pair, pair_over, receive_all, server_config};

const LEN: usize = 200_000;

/// 1 the client sends, shuts down and goes, before the server's session tickets have come; 2 the
/// server reads slowly: it gets everything, and the end.
#[test]
fn tl22_a_client_that_shuts_down_and_goes_loses_nothing() {
    with_both(Runtime::builder(), || async {
        let connector = TlsConnector::from(client_config(&TLS13));
        for round in 0..20 {
            let (client, server) = tcp_pair().await;
            let acceptor = TlsAcceptor::from(server_config(&TLS13));
            let serving = tamam::spawn(async move {
                let stream = acceptor.accept(server).await.expect("a good client");
                sleep(Duration::from_millis(20)).await;
                receive_all(&stream).await
            });
            let stream = connector.connect(NAME, client).await.expect("a good server");
            stream.send_all(vec![7; LEN]).await.expect("connected");
            stream.shutdown().await.expect("connected");
            drop(stream);
            let received = serving.await.expect("no panic");
            assert_eq!(received.map(|bytes| bytes.len()).ok(), Some(LEN), "round {round}");
        }
    });
}

/// The halves, and `close`, which waits in the open.
#[test]
fn tl22_halves_and_close_lose_nothing() {
    with_both(Runtime::builder(), || async {
        let connector = TlsConnector::from(client_config(&TLS13));
        for round in 0..12 {
            let (client, server) = tcp_pair().await;
            let acceptor = TlsAcceptor::from(server_config(&TLS13));
            let serving = tamam::spawn(async move {
                let stream = acceptor.accept(server).await.expect("a good client");
                sleep(Duration::from_millis(10)).await;
                let received = receive_all(&stream).await;
                stream.shutdown().await.expect("connected");
                received
            });
            let stream = connector.connect(NAME, client).await.expect("a good server");
            stream.send_all(vec![7; LEN]).await.expect("connected");
            if round % 3 == 0 {
                stream.close().await.expect("the server ends too");
            } else {
                let (read, write) = stream.into_split();
                if round % 3 == 1 {
                    drop(read);
                    drop(write);
                } else {
                    drop(write);
                    drop(read);
                }
            }
            let received = serving.await.expect("no panic");
            assert_eq!(received.map(|bytes| bytes.len()).ok(), Some(LEN), "round {round}");
        }
    });
}

/// A peer that never ends costs a descriptor for a second, one that never stops for 64 KiB.
#[test]
fn tl22_the_wait_is_bounded() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        client.shutdown().await.expect("connected");
        let begin = Instant::now();
        drop(client);
        turn().await;
        assert_eq!(tamam::metrics().tasks, 1, "one that waits");
        while tamam::metrics().tasks > 0 {
            assert!(begin.elapsed() < Duration::from_secs(30), "it waits for ever");
            sleep(Duration::from_millis(20)).await;
        }
        assert!(begin.elapsed() >= Duration::from_millis(990), "it has waited");
        drop(server);

        let (client, server) = pair(&TLS13).await;
        client.shutdown().await.expect("connected");
        drop(client);
        let error = timeout(Duration::from_secs(30), async {
            loop {
                if let Err(error) = server.send_all(vec![0; 16 * 1024]).await {
                    break error;
                }
            }
        });
        let kind = error.await.expect("it ends long before").kind();
        assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind:?}");
    });
}

/// The end of the runtime does not wait.
#[test]
fn tl22_the_end_of_the_runtime_closes_at_once() {
    for (name, builder) in both(&Runtime::builder()) {
        let runtime = build(builder);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let addr = listener.local_addr().expect("bound");
        let serving = std::thread::spawn(move || other_runtime_serves(listener));
        runtime.block_on(async {
            let tcp = tamam::net::TcpStream::connect(addr).await.expect("it listens");
            let connector = TlsConnector::from(client_config(&TLS12));
            let stream = connector.connect(NAME, tcp).await.expect("a good server");
            stream.shutdown().await.expect("connected");
        });
        let begin = Instant::now();
        drop(runtime);
        assert!(begin.elapsed() < Duration::from_millis(900), "{name}");
        serving.join().expect("no panic").expect("a client came");
    }
}

/// A server in a runtime of its own that stays until its client is gone.
fn other_runtime_serves(listener: std::net::TcpListener) -> std::io::Result<()> {
    tamam::run(async {
        let listener = tamam::net::TcpListener::from_std(listener)?;
        let (tcp, _) = listener.accept().await?;
        let stream = TlsAcceptor::from(server_config(&TLS12)).accept(tcp).await?;
        while stream.recv().await?.is_some() {}
        sleep(Duration::from_millis(200)).await;
        Ok(())
    })
}

/// TL17. What `poll_write` took and nothing flushed goes out as far as the kernel takes it.
#[test]
fn tl17_written_bytes_go_out_as_far_as_the_kernel_takes_them() {
    use std::pin::Pin;
    use tokio::io::AsyncWrite;

    everywhere(|| async {
        for round in 0..6 {
            let (mut client, server) = pair(&TLS12).await;
            let mut written = 0;
            let bytes = vec![5; 50_000];
            while written < 100_000 {
                let poll = std::future::poll_fn(|cx| Pin::new(&mut client).poll_write(cx, &bytes));
                written += poll.await.expect("connected");
            }
            drop(client);
            let mut received = 0;
            let error = loop {
                match server.recv().await {
                    Ok(Some(chunk)) => received += chunk.len(),
                    Ok(None) => panic!("no close_notify was sent"),
                    Err(error) => break error,
                }
            };
            assert_eq!((received, error.kind()), (written, ErrorKind::UnexpectedEof), "{round}");
        }
    });
}

/// The peer does not read, so the kernel has no room. The drop loses at most what `poll_write` takes
/// ahead, and the batch of ciphertext in flight: 64 KiB each, on both engines.
#[test]
fn tl17_a_drop_loses_no_more_than_what_is_taken_ahead() {
    use tokio::io::AsyncWriteExt;

    everywhere(|| async {
        for narrow in [false, true] {
            let tcp = if narrow { narrow_tcp_pair().await } else { tcp_pair().await };
            let (mut client, server) = pair_over(&TLS12, tcp).await;
            let (bytes, mut written) = (vec![5; 10_000], 0);
            while let Ok(result) = timeout(Duration::from_millis(20), client.write(&bytes)).await {
                written += result.expect("connected");
            }
            drop(client);
            let mut received = 0;
            let error = loop {
                match server.recv().await {
                    Ok(Some(chunk)) => received += chunk.len(),
                    Ok(None) => panic!("no close_notify was sent"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "narrow: {narrow}");
            assert!(written - received <= 128 * 1024, "{received} of {written}, narrow: {narrow}");
        }
    });
}

/// A call that finds no descriptor left closes the socket of a stream that only waits for its peer.
#[test]
fn tl22_a_lack_of_descriptors_ends_the_wait() {
    alone("lingering::tl22_a_lack_of_descriptors_ends_the_wait", || {
        with_both(Runtime::builder(), || async {
            let (client, server) = pair(&TLS13).await;
            let listener = tamam::net::TcpListener::bind("127.0.0.1:0").expect("there are ports");
            let addr = listener.local_addr().expect("bound");
            let waiting = std::net::TcpStream::connect(addr).expect("it waits in the backlog");
            client.shutdown().await.expect("connected");
            let files = take_all_descriptors();
            drop(client);
            turn().await;
            assert_eq!(tamam::metrics().tasks, 1, "it waits for its peer");
            let begin = Instant::now();
            let accepted = loop {
                match timeout(Duration::from_secs(20), listener.accept()).await {
                    Ok(Ok((stream, _))) => break stream,
                    Ok(Err(error)) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE)),
                    Err(_) => panic!("no descriptor came free"),
                }
            };
            assert_eq!(tamam::metrics().tasks, 0, "it was closed for that");
            assert!(begin.elapsed() < Duration::from_millis(900), "it was not the second's end");
            drop((accepted, waiting, server, files));
        });
    });
}

/// 1 the server's tickets are unread, in a receive that stays armed; 2 the halves are dropped, the one
/// that receives first; 3 the server sends, and reads slowly: it gets everything.
#[test]
fn tl22_halves_that_left_ciphertext_unread_wait_all_the_same() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        client.send_all(vec![7; LEN / 2]).await.expect("connected");
        sleep(Duration::from_millis(10)).await;
        let (read, write) = client.into_split();
        drop(read);
        drop(write);
        for _ in 0..3 {
            sleep(Duration::from_millis(10)).await;
            server.send_all("x").await.expect("the client still receives");
        }
        let received = receive_all(&server).await.expect("the client has ended in order");
        assert_eq!(received.len(), LEN / 2);
    });
}

/// TL16. A sending half is dropped while its task panics: what was begun goes out whole, then the end.
#[test]
fn tl16_a_half_dropped_while_its_task_panics_ends_in_order() {
    with_both(Runtime::builder(), || async {
        let (client, server) = pair(&TLS13).await;
        let (_read, write) = client.into_split();
        let task = tamam::spawn(async move {
            drop(start(write.send_all(vec![7; 2 << 20])).await);
            let _dropped_while_unwinding = write;
            panic!("a task panics");
        });
        assert!(task.await.expect_err("it panics").is_panic());
        let received = receive_all(&server).await.expect("an end in order");
        assert_eq!(received.len(), 2 << 20);
    });
}
