//! ST9: `read_to_end`, `read_until` and `Lines`, over every stream.

use std::io::ErrorKind;

use tamam::Chunk;
use tamam::io::{Lines, Receive, Transmit, read_to_end, read_until};

use crate::common::{everywhere, poll_once};
use crate::{kind, on_every_stream};

/// Limits, ends, and bytes that are given back, in one go through a text.
async fn gathers<S: Receive + Transmit + 'static>(name: &str, (a, b): (S, S)) {
    let sending = tamam::spawn(async move {
        a.send_all("key=value;one\ntwo\r\n\nlong long line\nnot ").await.expect("room");
        a.send_all(b"UTF-8 \xff\nfour\nno end").await.expect("room");
        a.shutdown().await.expect("the peer is there");
        a
    });
    assert_eq!(read_until(&b, b'=', 4).await.expect("four bytes"), b"key=", "{name}");
    for _ in 0..2 {
        // One byte more than the limit allows: it is all there again.
        assert_eq!(kind(read_until(&b, b';', 5).await), ErrorKind::FileTooLarge, "{name}");
    }
    assert_eq!(read_until(&b, b';', 6).await.expect("six bytes"), b"value;", "{name}");
    b.unread(Chunk::from(b"zero\n".to_vec()));

    let mut lines = Lines::new(&b).limit(14);
    for expected in ["zero", "one", "two", ""] {
        let line = lines.next_line().await.expect("short, and UTF-8");
        assert_eq!(line.as_deref(), Some(expected), "{name}");
    }
    assert_eq!(kind(lines.next_line().await), ErrorKind::FileTooLarge, "{name}");
    let mut lines = lines.limit(15);
    assert_eq!(lines.next_line().await.expect("it fits").as_deref(), Some("long long line"));
    assert_eq!(kind(lines.next_line().await), ErrorKind::InvalidData, "{name}");
    assert_eq!(lines.next_line().await.expect("the next one").as_deref(), Some("four"));
    let source = lines.into_inner();
    assert_eq!(kind(read_to_end(source, 5).await), ErrorKind::FileTooLarge, "{name}");
    assert_eq!(read_to_end(source, 6).await.expect("six bytes"), b"no end", "{name}");
    assert_eq!(read_to_end(source, 0).await.expect("the end stays"), b"", "{name}");
    assert_eq!(Lines::new(source).next_line().await.expect("the end stays"), None);
    drop(sending.await.expect("no panic"));
}

#[test]
fn st9_limits_ends_and_what_is_given_back() {
    everywhere(|| async { on_every_stream!(gathers) });
}

/// Each future is dropped after one poll, when a part of what it wants has come.
async fn drops<S: Receive + Transmit>(name: &str, (a, b): (S, S)) {
    for part in ["a line in", " three parts", " is one\n"] {
        a.send_all(part).await.expect("room");
        for _ in 0..3 {
            let mut lines = Lines::new(&b);
            let mut next = Box::pin(lines.next_line());
            if part.ends_with('\n') {
                drop(next);
                break;
            }
            assert!(poll_once(&mut next).await.is_pending(), "{name}");
            drop(next);
            let mut end = Box::pin(read_to_end(&b, 1000));
            assert!(poll_once(&mut end).await.is_pending(), "{name}");
            tamam::yield_now().await;
            assert!(poll_once(&mut end).await.is_pending(), "{name}");
            drop(end);
            let mut until = Box::pin(read_until(&b, b'\n', 1000));
            assert!(poll_once(&mut until).await.is_pending(), "{name}");
        }
    }
    let line = Lines::new(&b).next_line().await.expect("no failure");
    assert_eq!(line.as_deref(), Some("a line in three parts is one"), "{name}");
}

#[test]
fn st9_dropped_futures_lose_nothing() {
    everywhere(|| async {
        on_every_stream!(async |name: &str, (a, b)| {
            if !name.contains("memory") && !name.contains("any") && !name.contains("TLS over TLS") {
                drops(name, (a, b)).await; // the others have no room for a line
            }
        });
        use tamam::io::duplex;
        drops("memory with room", duplex(100)).await;
    });
}

/// A failure of the source: what came before it is the source's again.
#[test]
fn st9_a_failure_takes_nothing_with_it() {
    everywhere(|| async {
        let (a, b) = tamam::io::duplex(100);
        a.send_all("half a line").await.expect("room");
        a.abort_on_drop();
        drop(a);
        assert_eq!(kind(Lines::new(&b).next_line().await), ErrorKind::ConnectionReset);
        assert_eq!(kind(read_until(&b, b'x', 100).await), ErrorKind::ConnectionReset);
        assert_eq!(kind(read_to_end(&b, 100).await), ErrorKind::ConnectionReset);
        let half = b.read_exact(Vec::with_capacity(11), 11).await.expect("it came before");
        assert_eq!(half, b"half a line");
    });
}
