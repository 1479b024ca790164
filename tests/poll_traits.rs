//! The third door (SEMANTICS TX15): the traits of futures-io and tokio on the streams themselves. They
//! share bytes, order and errors with `recv` and `send`; nothing is lost between the doors.

mod common;

use std::io::{ErrorKind, IoSlice, Write};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use common::{PATIENCE, Random, arriving, assert_same, pattern, read_some, reset};
use futures_util::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future::poll_fn,
};
use tamam::net::{TcpListener, TcpStream};
use tamam::time::timeout;

/// More than the kernel holds between the two ends of [`common::narrow_pair`].
const STALLING: usize = 1 << 20;
/// What a stream takes over while something is under way.
const WRITTEN_MAX: usize = 64 * 1024;

/// TX15. 1 the peer writes a counter; 2 one task takes it by all doors in turn, each for a while,
/// some futures dropped; 3 the bytes are whole and in order.
#[test]
fn tx15_all_doors_give_one_stream() {
    common::everywhere(|| async {
        let bytes = pattern(200_000);
        let (mut stream, mut peer) = common::pair().await;
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || {
            for piece in sent.chunks(3001) {
                peer.write_all(piece).expect("the stream reads");
            }
        });
        let (mut got, mut random) = (Vec::new(), Random(15));
        while got.len() < bytes.len() {
            let room = 1 + random.below(2000) as usize;
            match random.below(6) {
                0 => got.extend_from_slice(&stream.recv().await.expect("bytes").expect("no end")),
                1 => {
                    let (len, part) = stream.read(Vec::with_capacity(room)).await.expect("bytes");
                    assert!(len > 0 && len <= room);
                    got.extend_from_slice(&part);
                }
                2 => {
                    let mut buf = vec![0; room];
                    let len = AsyncReadExt::read(&mut stream, &mut buf).await.expect("bytes");
                    assert!(len > 0);
                    got.extend_from_slice(&buf[..len]);
                }
                3 => {
                    let mut buf = vec![0; room];
                    let len = tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await;
                    got.extend_from_slice(&buf[..len.expect("bytes")]);
                }
                4 => {
                    let lent = AsyncBufReadExt::fill_buf(&mut stream).await.expect("bytes");
                    let len = room.min(lent.len());
                    got.extend_from_slice(&lent[..len]);
                    AsyncBufReadExt::consume_unpin(&mut stream, len);
                }
                // Perhaps nothing; what came stays the stream's.
                _ => {
                    let wanted = Vec::with_capacity(room);
                    let brief = Duration::from_micros(random.below(300));
                    if let Ok(part) = timeout(brief, stream.read_exact(wanted, room)).await {
                        match part {
                            Ok(part) => got.extend_from_slice(&part),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                                got.extend_from_slice(&error.into_parts().1);
                            }
                        }
                    }
                }
            }
        }
        writer.join().expect("it wrote all");
        assert_same(&got, &bytes);
        let mut end = [0];
        assert_eq!(AsyncReadExt::read(&mut stream, &mut end).await.expect("the end"), 0);
        assert_eq!(AsyncBufReadExt::fill_buf(&mut stream).await.expect("the end"), b"");
        assert!(stream.recv().await.expect("the end").is_none());
    });
}

/// TX15. 1 bytes come; 2 `fill_buf` lends them where they are: asked twice, the place is the same;
/// 3 what is not consumed is there for the next, whoever asks.
#[test]
fn tx15_fill_buf_copies_nothing() {
    common::everywhere(|| async {
        let (mut stream, mut peer) = common::pair().await;
        peer.write_all(b"0123456789").expect("open");
        let mut got = Vec::new();
        while got.len() < 4 {
            let first = stream.fill_buf().await.expect("bytes").as_ptr();
            let again = stream.fill_buf().await.expect("bytes");
            assert_eq!((first, again.is_empty()), (again.as_ptr(), false));
            got.push(again[0]);
            stream.consume_unpin(1);
        }
        while got.len() < 10 {
            got.extend_from_slice(&stream.recv().await.expect("bytes").expect("no end"));
        }
        assert_eq!(got, b"0123456789");
    });
}

/// TX15. 1 the peer stalls; 2 writes are taken until the stream's one buffer is full, then they wait,
/// and so does a flush; 3 the peer reads: all that was taken arrives, in order.
#[test]
fn tx15_a_full_buffer_waits() {
    common::everywhere(|| async {
        let (mut stream, peer) = common::narrow_pair().await;
        let bytes = pattern(2 * STALLING);
        let mut taken = 0;
        loop {
            let next = &bytes[taken..taken + 10_000];
            let write = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_write(cx, next))).await;
            match write {
                Poll::Ready(len) => taken += len.expect("the peer is there"),
                Poll::Pending => break,
            }
            assert!(taken < STALLING, "it never waits");
            common::turn().await;
        }
        assert!(taken >= WRITTEN_MAX, "{taken} bytes were taken");
        let flush = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_flush(cx))).await;
        assert!(flush.is_pending());
        let (peer, first) = read_some(peer, taken).await;
        assert_same(&first, &bytes[..taken]);
        stream.flush().await.expect("all is out");
        // Who waited for room is woken by it.
        let reading = common::read_to_end(peer);
        stream.write_all(&bytes[taken..]).await.expect("the peer reads");
        AsyncWriteExt::close(&mut stream).await.expect("open");
        let rest = common::join(reading).await.expect("no reset");
        assert_same(&rest, &bytes[taken..]);
    });
}

/// TX15, TX4. 1 the peer stalls; 2 writes, and sends that are dropped before their turn, by turns:
/// what is taken is bounded all the same.
#[test]
fn tx15_sends_between_writes_make_no_room() {
    common::with_both(tamam::Runtime::builder(), || async {
        let (mut stream, _peer) = common::narrow_pair().await;
        drop(common::start(stream.send_all(pattern(STALLING))).await);
        let mut taken = 0;
        for _ in 0..50 {
            let write =
                poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_write(cx, &[1; 50_000])));
            if let Poll::Ready(len) = write.await {
                taken += len.expect("the peer is there");
            }
            drop(common::start(stream.send_all("nothing")).await);
        }
        assert_eq!(taken, WRITTEN_MAX);
    });
}

/// TX15, CX5. 1 the peer stalls, bytes wait, and somebody for the end; 2 the runtime is dropped;
/// 3 nobody is told that all is out.
#[test]
fn tx15_what_ends_with_the_runtime_is_not_flushed() {
    for (name, builder) in common::both(&tamam::Runtime::builder()) {
        eprintln!("-- {name}");
        let (home, other) = (common::build(builder.clone()), common::build(builder));
        let (mut written, _peer) = home.block_on(common::narrow_pair());
        let (sent, _other_peer) = home.block_on(common::narrow_pair());
        let mut end = Box::pin(sent.shutdown());
        home.block_on(async {
            drop(common::start(written.send_all(pattern(STALLING))).await);
            written.write_all(b"waits").await.expect("room");
            drop(common::start(sent.send_all(pattern(STALLING))).await);
            assert!(common::poll_once(&mut end).await.is_pending(), "bytes wait");
        });
        drop(home);
        other.block_on(async {
            for _ in 0..2 {
                let error = written.flush().await.expect_err("they never went out");
                assert_eq!(error.kind(), ErrorKind::Other, "{error}");
            }
            let error = AsyncWriteExt::close(&mut written).await.expect_err("they never went out");
            assert_eq!(error.kind(), ErrorKind::Other, "{error}");
            let error = end.as_mut().await.expect_err("they never went out");
            assert_eq!(error.kind(), ErrorKind::Other, "{error}");
            sent.shutdown().await.expect_err("they never went out");
        });
    }
}

/// TX15. Writes and sends of one stream go out in the order of the calls, while it stalls too.
#[test]
fn tx15_writes_and_sends_keep_their_order() {
    common::everywhere(|| async {
        let (mut stream, peer) = common::narrow_pair().await;
        drop(common::start(stream.send_all(pattern(STALLING))).await);
        stream.write_all(b"one ").await.expect("room");
        stream.write_all(b"two ").await.expect("room");
        let three = common::start(stream.send_all("three ")).await;
        // A future that is dropped before its turn never happened; the others move up.
        drop(common::start(stream.send_all("nothing ")).await);
        drop(three);
        let four = [IoSlice::new(b"fo"), IoSlice::new(b"ur")];
        assert_eq!(stream.write_vectored(&four).await.expect("room"), 4);
        let reading = common::read_to_end(peer);
        AsyncWriteExt::close(&mut stream).await.expect("open");
        let all = common::join(reading).await.expect("no reset");
        assert_same(&all, &[&pattern(STALLING)[..], b"one two four"].concat());
    });
}

/// TX15, CL5. 1 bytes are written and not flushed; 2 the stream is dropped; 3 they arrive, then the end.
#[test]
fn tx15_what_was_written_survives_the_drop() {
    common::everywhere(|| async {
        let (mut stream, peer) = common::pair().await;
        stream.write_all(b"last ").await.expect("room");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"words").await.expect("room");
        drop(stream);
        assert_eq!(arriving(peer).await, b"last words");
    });
}

/// TX15. 1 the peer is gone; 2 a write is taken; 3 the failure shows at a next call, flush or write,
/// and stays.
#[test]
fn tx15_a_failure_shows_at_the_next_call() {
    common::everywhere(|| async {
        let (mut stream, peer) = common::pair().await;
        reset(peer);
        let failed = timeout(*PATIENCE, async {
            loop {
                if let Err(error) = stream.write_all(b"anyone?").await {
                    return error;
                }
                if let Err(error) = stream.flush().await {
                    return error;
                }
            }
        });
        let error = failed.await.expect("it shows");
        assert!(
            matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
            "{error}"
        );
        assert_eq!(stream.flush().await.expect_err("sticky").kind(), error.kind());
        assert_eq!(stream.write(b"x").await.expect_err("sticky").kind(), error.kind());
        let end = stream.recv().await.expect_err("no clean end");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    });
}

/// TX15, TX10. `close` waits for what was written, then ends sending: nothing can be written after
/// it, receiving goes on.
#[test]
fn tx15_close_ends_sending() {
    common::everywhere(|| async {
        let (mut stream, peer) = common::narrow_pair().await;
        let bytes = pattern(300_000);
        let mut answering = peer.try_clone().expect("a descriptor");
        let reading = common::read_to_end(peer);
        stream.write_all(&bytes).await.expect("the peer reads");
        AsyncWriteExt::close(&mut stream).await.expect("open");
        AsyncWriteExt::close(&mut stream).await.expect("closed is closed");
        assert_eq!(stream.write(b"x").await.expect_err("closed").kind(), ErrorKind::BrokenPipe);
        assert_same(&common::join(reading).await.expect("no reset"), &bytes);
        answering.write_all(b"answer").expect("the other direction is open");
        drop(answering);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("no reset");
        assert_eq!(answer, "answer");
    });
}

/// TX15. The last one that polls a direction is woken; a future that waits beside it is too.
#[test]
fn tx15_the_last_poller_and_every_future_are_woken() {
    common::everywhere(|| async {
        let (stream, mut peer) = common::pair().await;
        let stream = std::rc::Rc::new(std::cell::RefCell::new(stream));
        let polling = stream.clone();
        let poller = tamam::spawn(poll_fn(move |cx| {
            let mut buf = [0; 1];
            let mut stream = polling.borrow_mut();
            Pin::new(&mut *stream).poll_read(cx, &mut buf).map_ok(|len| buf[..len].to_vec())
        }));
        common::turn().await;
        peer.write_all(b"ab").expect("open");
        let first = timeout(*PATIENCE, poller).await.expect("woken").expect("no panic");
        assert_eq!(first.expect("bytes"), b"a");
        let stream = std::rc::Rc::into_inner(stream).expect("the poller is over").into_inner();
        let rest = stream.recv().await.expect("bytes").expect("no end");
        assert_eq!(&rest[..], b"b");
    });
}

/// TX15. The halves have the traits of their direction; tokio's copy runs between them.
#[test]
fn tx15_halves_have_their_part() {
    common::everywhere(|| async {
        let bytes = pattern(500_000);
        let (stream, mut peer) = common::pair().await;
        let (mut reader, mut writer) = stream.into_split();
        let echo = tamam::spawn(async move {
            let copied = tokio::io::copy_buf(&mut reader, &mut writer).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut writer).await?;
            std::io::Result::Ok(copied)
        });
        let reading = common::read_to_end(peer.try_clone().expect("a descriptor"));
        let sent = bytes.clone();
        let sending = std::thread::spawn(move || {
            peer.write_all(&sent).expect("it is read");
            peer.shutdown(std::net::Shutdown::Write).expect("open");
        });
        common::join(sending).await;
        assert_same(&common::join(reading).await.expect("no reset"), &bytes);
        assert_eq!(echo.await.expect("no panic").expect("no error"), 500_000);
    });
}

/// A proxy in one line: tokio's `copy_bidirectional` between two streams.
#[test]
fn a_proxy_copies_both_ways() {
    common::everywhere(|| async {
        let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
        let front = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (behind, before) =
            (backend.local_addr().expect("bound"), front.local_addr().expect("bound"));
        let server = tamam::spawn(async move {
            let (stream, _) = backend.accept().await?;
            let (mut reader, mut writer) = stream.into_split();
            futures_util::io::copy_buf(&mut reader, &mut writer).await?;
            writer.close().await
        });
        let proxy = tamam::spawn(async move {
            let (mut client, _) = front.accept().await?;
            let mut server = TcpStream::connect(behind).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
        let client = TcpStream::connect(before).await.expect("the proxy listens");
        let bytes = pattern(100_000);
        let (sent, got) = futures_util::join!(
            async {
                client.send_all(bytes.clone()).await.expect("it is read");
                client.shutdown().await
            },
            client.read_exact(Vec::with_capacity(100_000), 100_000),
        );
        sent.expect("open");
        assert_same(&got.expect("all comes back"), &bytes);
        assert!(client.recv().await.expect("no reset").is_none());
        assert_eq!(proxy.await.expect("no panic").expect("no error"), (100_000, 100_000));
        server.await.expect("no panic").expect("no error");
    });
}

/// Lines, by `AsyncBufRead`: pieces of one line come in several receives.
#[test]
fn lines_cross_the_borders_of_receives() {
    common::everywhere(|| async {
        let (mut stream, mut peer) = common::pair().await;
        let writer = std::thread::spawn(move || {
            for number in 0..500 {
                writeln!(peer, "line {number} {}", "x".repeat(number)).expect("it is read");
            }
        });
        let mut line = String::new();
        for number in 0..500 {
            line.clear();
            stream.read_line(&mut line).await.expect("bytes");
            assert_eq!(line, format!("line {number} {}\n", "x".repeat(number)));
        }
        writer.join().expect("it wrote all");
        assert_eq!(stream.read_line(&mut line).await.expect("the end"), 0);
    });
}

/// TX15. Streams in memory and of any kind have the traits too. The writer is pushed back, and a flush
/// waits.
#[test]
fn tx15_memory_and_any_stream() {
    use futures_util::AsyncWriteExt as _;
    use tamam::io::{AnyStream, duplex};
    common::everywhere(|| async {
        let all = common::pattern(300_000);
        let ((one, other), (unix, unix_peer)) =
            (duplex(1000), tamam::net::UnixStream::pair().expect("descriptors are left"));
        let pairs: [(AnyStream, AnyStream); 2] =
            [(one.into(), other.into()), (unix.into(), unix_peer.into())];
        for (mut stream, mut peer) in pairs {
            let sent = all.clone();
            let mut writing = common::start(async {
                stream.write_all(&sent).await?;
                stream.flush().await?;
                stream.close().await
            })
            .await;
            common::turn().await;
            assert!(common::poll_once(&mut writing).await.is_pending(), "nobody reads");
            let mut came = Vec::new();
            let reading = tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut came);
            let (written, read) = futures_util::join!(writing, reading);
            written.expect("it is read");
            assert_eq!(read.expect("an end"), 300_000);
            common::assert_same(&came, &all);
        }

        let (mut one, mut other) = duplex(10);
        tokio::io::AsyncWriteExt::write_all(&mut one, b"a line\n").await.expect("room");
        let mut line = String::new();
        assert_eq!(
            tokio::io::AsyncBufReadExt::read_line(&mut other, &mut line).await.expect("text"),
            7
        );
        drop(other);
        let failed = tokio::io::AsyncWriteExt::write_all(&mut one, b"lost").await.unwrap_err();
        assert_eq!(failed.kind(), std::io::ErrorKind::BrokenPipe);
    });
}

/// TX15. Unix sockets, their halves and pipes have the traits too, of both crates.
#[test]
fn tx15_unix_sockets_and_pipes() {
    use futures_util::AsyncWriteExt as _;
    common::everywhere(|| async {
        let all = common::pattern(300_000);
        let (client, server) = tamam::net::UnixStream::pair().expect("descriptors are left");
        let (read, mut write) = client.into_split();
        let (sender, receiver) = tamam::pipe::pipe().expect("descriptors are left");
        let echo = tamam::spawn(async move {
            let (mut server, mut sender) = (server, sender);
            tokio::io::copy(&mut server, &mut sender).await
        });
        let sent = all.clone();
        let writing = tamam::spawn(async move {
            write.write_all(&sent).await?;
            write.close().await
        });
        let mut came = Vec::new();
        let mut receiver = receiver;
        futures_util::AsyncReadExt::read_to_end(&mut receiver, &mut came).await.expect("a pipe");
        common::assert_same(&came, &all);
        writing.await.expect("no panic").expect("it is read");
        assert_eq!(echo.await.expect("no panic").expect("no failure"), 300_000);
        assert!(read.recv().await.expect("no reset").is_none(), "the server has gone");
    });
}
