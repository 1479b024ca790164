//! TL1 to TL6: what each call does, and what ends it.

use std::io::{BufRead, ErrorKind};
use std::time::Duration;

use futures_util::AsyncWriteExt;
use tamam::Runtime;
use tamam::buf::Chunk;
use tamam::time::sleep;
use tamam::tls::TlsConnector;
use tamam::tls::rustls;
use tamam::tls::rustls::version::{TLS12, TLS13};

use crate::common::everywhere;
use crate::keys::NAME;
use crate::{cause, client_config, common, pair, receive_all};

#[test]
fn tl1_an_echo_in_both_versions() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            assert_eq!(client.info().version(), server.info().version());
            assert_eq!(client.info().server_name(), Some(NAME));
            assert_eq!(server.info().server_name(), Some(NAME));
            assert_eq!(client.peer_addr().ok(), server.local_addr().ok());
            let echo = tamam::spawn(async move {
                while let Some(chunk) = server.recv().await? {
                    server.send_all(chunk).await?;
                }
                server.shutdown().await
            });
            // In every way there is.
            client.send_all("one").await.expect("sent");
            let answer = client.read_exact(Vec::with_capacity(3), 3).await.expect("three bytes");
            assert_eq!(answer, b"one");
            let (sent, _) = client.send("two").await.expect("sent");
            let chunk = client.recv().await.expect("no failure").expect("no end");
            assert_eq!((sent, &chunk[..]), (3, &b"two"[..]));
            drop(chunk);
            let (sent, bufs) = client.sendv(vec!["th", "", "ree"]).await.expect("sent");
            assert_eq!((sent, bufs.len()), (5, 3));
            let (len, buf) = client.read(Vec::with_capacity(2)).await.expect("two bytes");
            assert_eq!((len, &buf[..]), (2, &b"th"[..]));
            let (len, buf) = client.read(buf).await.map_or_else(
                |error| (0, error.into_parts().1), // no room left: it comes back
                |(len, buf)| (len, buf),
            );
            assert_eq!((len, &buf[..]), (0, &b"th"[..]));
            let (len, seen) = client.peek(Vec::with_capacity(2)).await.expect("the rest");
            assert_eq!((len, &seen[..]), (2, &b"re"[..]));
            let (len, buf) = client.read(Vec::with_capacity(100)).await.expect("the rest");
            assert_eq!((len, &buf[..]), (3, &b"ree"[..]));
            assert_eq!(client.send_all(Vec::new()).await.expect("nothing to do"), b"");
            client.shutdown().await.expect("the server lives");
            assert!(client.recv().await.expect("no failure").is_none());
            assert_eq!(client.read(Vec::with_capacity(1)).await.expect("the end").0, 0);
            let error = client.send_all("late").await.expect_err("after the end");
            assert_eq!((error.kind(), *error.buf()), (ErrorKind::BrokenPipe, "late"));
            client.shutdown().await.expect("twice is once");
            echo.await.expect("no panic").expect("no failure");
        }
    });
}

#[test]
fn tl2_a_message_is_decrypted_in_the_memory_it_came_in() {
    common::with_both(Runtime::builder(), || async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            let message = common::pattern(2000);
            client.send_all(message.clone()).await.expect("sent");
            let chunk = server.recv().await.expect("no failure").expect("no end");
            assert!(chunk.is_pooled() && chunk[..] == message[..]);
        }
    });
}

#[test]
fn tl3_one_direction_ends_and_the_other_goes_on() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            client.send_all("the question").await.expect("sent");
            client.shutdown().await.expect("the server lives");
            assert_eq!(receive_all(&server).await.expect("a clean end"), b"the question");
            assert!(server.recv().await.expect("the end stays").is_none());
            let answer = common::pattern(100_000);
            let sent = answer.clone();
            let sending = tamam::spawn(async move {
                server.send_all(sent).await.expect("sent");
                server.shutdown().await
            });
            assert!(receive_all(&client).await.expect("a clean end") == answer);
            sending.await.expect("no panic").expect("the client lives");
        }
    });
}

#[test]
fn tl4_an_end_without_a_word_is_an_error_that_stays() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            server.send_all("half of it").await.expect("sent");
            drop(server);
            let mut received = Vec::new();
            let error = loop {
                match client.recv().await {
                    Ok(chunk) => received.extend_from_slice(&chunk.expect("no clean end")),
                    Err(error) => break error,
                }
            };
            assert_eq!(received, b"half of it");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            assert!(error.to_string().contains("close_notify"), "{error}");
            let again = client.recv().await.expect_err("it stays");
            assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
            let again = client.read(Vec::with_capacity(9)).await.expect_err("it stays");
            assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
            let again = client.read_exact(Vec::with_capacity(9), 9).await.expect_err("it stays");
            assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
        }
    });
}

#[test]
fn tl5_a_clean_end_is_too_early_for_read_exact() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        server.send_all("four").await.expect("sent");
        server.shutdown().await.expect("the client lives");
        let error = client.read_exact(Vec::with_capacity(9), 9).await.expect_err("four of nine");
        assert_eq!((error.kind(), &error.buf()[..]), (ErrorKind::UnexpectedEof, &b"four"[..]));
        let error = client.read_exact(Vec::with_capacity(1), 9).await.expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn tl6_a_changed_record_is_an_error_that_stays_and_the_peer_hears_of_it() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        client.send_all("fine").await.expect("sent");
        assert_eq!(&server.read_exact(Vec::with_capacity(4), 4).await.expect("fine"), b"fine");
        // By hand, past TLS.
        let mut record = vec![23, 3, 3, 0, 40];
        record.extend([7; 40]);
        client.tcp().send_all(record).await.expect("sent");
        for _ in 0..2 {
            let error = server.recv().await.expect_err("not ours");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert_eq!(cause(&error), &rustls::Error::DecryptError);
        }
        let error = server.send_all("late").await.expect_err("it has failed");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let error = client.recv().await.expect_err("an alert");
        assert!(matches!(cause(&error), rustls::Error::AlertReceived(_)), "{error}");
    });
}

#[test]
fn a_stream_says_what_it_is() {
    common::with_both(Runtime::builder(), || async {
        let (client, server) = pair(&TLS13).await;
        let text = format!("{client:?} {:?}", TlsConnector::from(client_config(&TLS12)));
        assert!(text.contains("TLSv1_3") && text.contains("127.0.0.1"), "{text}");
        let (read, write) = server.into_split();
        assert!(format!("{read:?} {write:?}").contains("TlsWriteHalf"));
        let other = client.into_split();
        let error = read.reunite(other.1).expect_err("of two streams");
        assert!(error.to_string().contains("not of the same stream"));
    });
}

#[test]
fn lines_are_read_through_a_chunk() {
    // A chunk of plaintext is a chunk like any other: it splits, and can be sent again.
    common::with_both(Runtime::builder(), || async {
        let (client, server) = pair(&TLS13).await;
        client.send_all("head body").await.expect("sent");
        let mut head: Chunk = server.recv().await.expect("no failure").expect("no end");
        let body = head.split_off(5);
        server.send_all(body).await.expect("sent");
        drop(head);
        let answer = client.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
        assert_eq!(answer.lines().next().expect("a line").expect("text"), "body");
    });
}

/// G9. Loops over calls that are ready at once, by the traits or not, let others run.
#[test]
fn g9_ready_calls_of_tls_let_others_run() {
    common::with_both(Runtime::builder(), || async {
        let (mut idle, _peer) = pair(&TLS13).await;
        let (mut closed, _other_peer) = pair(&TLS13).await;
        closed.shutdown().await.expect("open");
        let (failed, stranger) = pair(&TLS13).await;
        stranger.tcp().send_all("no record").await.expect("sent");
        failed.recv().await.expect_err("no TLS");
        for what in ["flush", "write", "shutdown"] {
            eprintln!("-- {what}");
            let others = tamam::spawn(sleep(Duration::from_millis(5)));
            while !others.is_finished() {
                match what {
                    "flush" => idle.flush().await.expect("nothing waits"),
                    "write" => drop(closed.write(b"x").await.expect_err("it has ended")),
                    _ => drop(failed.shutdown().await.expect_err("it has failed")),
                }
            }
        }
    });
}
