//! G9: every public future of TLS, in a loop in which it is ready at once. The loop lets others run.

use tamam::tls::rustls::version::TLS13;
use tamam::tls::{TlsConnector, TlsStream};
use tokio::io::AsyncWriteExt;

#[path = "../common/ready_at_once.rs"]
pub mod looped;

use looped::{Line, assert_others_run, line};

use crate::keys::tcp_pair;
use crate::{client_config, pair};

/// As many as there are descriptors for, under the usual limit of 1024.
const CONNECTS: usize = 400;

/// Each answer of these needs a connection of its own.
#[expect(dead_code, reason = "a list for the reader, and for `tidy`")]
const WAIT: [&str; 3] = ["TlsAcceptor::accept", "StartHandshake::into_stream", "TlsStream::close"];

/// Its peer has ended, and it has shut down.
async fn ended() -> TlsStream {
    let (stream, peer) = pair(&TLS13).await;
    stream.shutdown().await.expect("connected");
    peer.shutdown().await.expect("connected");
    assert!(stream.recv().await.expect("no reset").is_none());
    stream
}

/// What came was not TLS.
async fn failed() -> TlsStream {
    let (failed, stranger) = pair(&TLS13).await;
    stranger.tcp().send_all("no record").await.expect("sent");
    failed.recv().await.expect_err("no TLS");
    failed
}

fn lines() -> Vec<Line> {
    vec![
        line!("TlsStream::recv", ended().await, |stream| stream.recv()),
        line!("TlsStream::recv", failed().await, |stream| stream.recv()),
        line!("TlsStream::read", ended().await, |stream| stream.read(Vec::new())),
        line!("TlsStream::read_exact", ended().await, |stream| stream.read_exact(Vec::new(), 0)),
        line!("TlsStream::peek", ended().await, |stream| stream.peek(Vec::new())),
        line!("TlsStream::send", ended().await, |stream| stream.send("late")),
        line!("TlsStream::send", ended().await, |stream| stream.send("")),
        line!("TlsStream::send_all", ended().await, |stream| stream.send_all("late")),
        line!("TlsStream::sendv", ended().await, |stream| stream.sendv(vec!["late"])),
        line!("TlsStream::shutdown", ended().await, |stream| stream.shutdown()),
        line!("TlsStream::shutdown", failed().await, |stream| async {
            TlsStream::shutdown(&stream).await
        }),
        line!("TlsReadHalf::recv", ended().await.into_split().0, |half| half.recv()),
        line!("TlsReadHalf::read", ended().await.into_split().0, |half| half.read(Vec::new())),
        line!("TlsReadHalf::peek", ended().await.into_split().0, |half| half.peek(Vec::new())),
        line!("TlsReadHalf::read_exact", ended().await.into_split().0, |half| half
            .read_exact(Vec::new(), 0)),
        line!("TlsWriteHalf::send", ended().await.into_split().1, |half| half.send("late")),
        line!("TlsWriteHalf::send_all", ended().await.into_split().1, |half| half.send_all("late")),
        line!("TlsWriteHalf::sendv", ended().await.into_split().1, |half| half.sendv(vec!["late"])),
        line!("TlsWriteHalf::shutdown", ended().await.into_split().1, |half| half.shutdown()),
        line!("poll_write", ended().await, |stream| stream.write(b"late")),
        line!("poll_flush", ended().await, |stream| stream.flush()),
        (
            "TlsConnector::connect",
            CONNECTS,
            Box::pin(async {
                let connector = TlsConnector::from(client_config(&TLS13));
                let mut streams = Vec::new();
                for _ in 0..CONNECTS {
                    streams.push(tcp_pair().await);
                }
                for (client, _server) in streams {
                    connector.connect("no name?", client).await.expect_err("it is none");
                }
            }),
        ),
    ]
}

#[test]
fn g9_every_future_of_tls_that_is_ready_at_once_lets_others_run() {
    assert_others_run(lines);
}
