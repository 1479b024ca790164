//! What errors say, and what constructors and setters do with the least and the largest values
//! (SEMANTICS, section Errors).

mod common;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tamam::io::{CallError, Readiness, errno};
use tamam::net::{TcpKeepalive, TcpListener, TcpSocket, TcpStream, lookup_host};
use tamam::time::{interval, interval_at, sleep, sleep_until, timeout, timeout_at};
use tamam::{Builder, Runtime};

use common::{everywhere, shortage::take_all_descriptors};

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// What a call was, what it was asked, and its errno.
fn told(error: &io::Error) -> (String, String, Option<i32>) {
    let failed = CallError::of(error).unwrap_or_else(|| panic!("no call is named: {error}"));
    let text = error.to_string();
    assert!(text.starts_with(failed.call()) && text.contains(failed.subject()), "{text}");
    assert_eq!(error.kind(), failed.cause().kind(), "{text}");
    (failed.call().to_owned(), failed.subject().to_owned(), errno(error))
}

fn is(error: &io::Error, call: &str, subject: &str, errno: i32) {
    assert_eq!(told(error), (call.to_owned(), subject.to_owned(), Some(errno)), "{error}");
}

#[test]
fn er1_errors_name_the_call_and_what_it_was_asked() {
    everywhere(async || {
        let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let local = taken.local_addr().expect("bound");
        let local = local.to_string();
        let error = TcpListener::bind(&*local).expect_err("it is taken");
        is(&error, "bind", &local, libc::EADDRINUSE);
        let foreign = addr("192.0.2.1:0"); // TEST-NET-1: no machine's own
        let error = TcpSocket::new_v4().expect("a socket").bind(foreign).expect_err("not ours");
        is(&error, "bind", "192.0.2.1:0", libc::EADDRNOTAVAIL);
        drop(taken);

        let refused = TcpStream::connect(&*local).await.expect_err("nobody listens");
        is(&refused, "connect", &local, libc::ECONNREFUSED);
        let socket = TcpSocket::new_v4().expect("a socket");
        let error = socket.connect(addr(&local)).await.expect_err("nobody listens");
        is(&error, "connect", &local, libc::ECONNREFUSED);

        let lost = TcpStream::connect("[fe80::1]:80").await.expect_err("which interface?");
        let (call, subject, number) = told(&lost);
        assert_eq!((&*call, &*subject), ("connect", "[fe80::1]:80"));
        if number == Some(libc::EINVAL) {
            assert!(lost.to_string().contains("%eth0"), "{lost}");
        }

        let port = addr(&local).port();
        let error = TcpStream::connect(("localhost", port)).await.expect_err("nobody listens");
        is(&error, "connect", &format!("localhost:{port}"), libc::ECONNREFUSED);
        let list = [addr(&local), addr(&local)];
        let error = TcpStream::connect_staggered(list, Duration::ZERO).await.expect_err("as well");
        is(&error, "connect", "", libc::ECONNREFUSED);

        let error = lookup_host("a..b:80").await.expect_err("no name");
        assert_eq!(told(&error), ("resolve".into(), "a..b".into(), None));

        let socket = TcpSocket::new_v4().expect("a socket").only_v6(true);
        let error = socket.listen(addr("127.0.0.1:0")).expect_err("not for IPv4");
        is(&error, "setsockopt", "IPV6_V6ONLY 1", libc::ENOPROTOOPT);

        let stream = {
            let (stream, peer) = common::pair().await;
            common::reset(peer);
            stream
        };
        let reset = stream.recv().await.expect_err("the peer has reset");
        assert_eq!(reset.raw_os_error(), Some(libc::ECONNRESET), "data calls: as it is");
    });
}

#[test]
fn er2_a_lack_of_descriptors_names_the_limit() {
    common::alone("er2_a_lack_of_descriptors_names_the_limit", || {
        everywhere(async || {
            let taken = take_all_descriptors();
            let errors = [
                TcpListener::bind("127.0.0.1:0").expect_err("no descriptor"),
                TcpSocket::new_v6().map(drop).expect_err("no descriptor"),
                TcpStream::connect("127.0.0.1:1").await.expect_err("no descriptor"),
                Readiness::new(io::stderr()).map(drop).expect_err("no descriptor"),
            ];
            for error in errors {
                let text = error.to_string();
                assert_eq!(errno(&error), Some(libc::EMFILE), "{text}");
                assert!(text.contains("64 descriptors (RLIMIT_NOFILE)"), "{text}");
            }
            drop(taken);
        });
    });
}

#[test]
fn er3_a_chain_says_each_thing_once() {
    fn check(error: &(dyn Error + 'static)) {
        let text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            assert!(!text.contains(&source.to_string()), "{source} is said twice: {text}");
            next = source.source();
        }
    }
    everywhere(async || {
        check(&TcpListener::bind("localhost:0").expect_err("a name"));
        check(&TcpListener::bind("192.0.2.1:0").expect_err("not ours"));
        check(&TcpStream::connect("127.0.0.1:1").await.expect_err("nobody listens"));
        check(&TcpStream::connect("localhost:1").await.expect_err("nobody listens"));
        check(&lookup_host("a..b:1").await.expect_err("no name"));
        let (stream, _peer) = common::pair().await;
        check(&stream.read(Vec::new()).await.expect_err("no room"));
        let sending = stream.send_all(vec![0; 64 << 20]);
        check(&timeout(Duration::ZERO, sending).await.expect_err("nobody reads"));
        check(&stream.into_std().expect_err("bytes are on their way out"));
        check(&tamam::spawn(async { panic!("as asked") }).await.expect_err("it panics"));
        check(&tamam::spawn_blocking(|| panic!("as asked")).await.expect_err("it panics"));
    });
    check(&Runtime::builder().buffer_size(0).build().expect_err("zero"));
}

// ---- ER4 ----------------------------------------------------------------------------------------

/// Builds a runtime and makes one round trip. `Err`: what the builder says.
fn build(builder: Builder) -> Result<(), io::Error> {
    let runtime = builder.build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (server, _) = listener.accept().await?;
        client.send_all("x").await?;
        let chunk = server.recv().await?.expect("one byte");
        assert_eq!(*chunk, b"x"[..]);
        Ok(())
    })
}

/// A setter of the builder, and the word that its refusal says; `None`: every value works.
type Setting<'a> = (&'a str, &'a dyn Fn(Builder) -> Builder, Option<&'a str>);

#[test]
fn er4_builders_with_extreme_sizes() {
    let settings: [Setting; 14] = [
        ("entries 0", &|b| b.entries(0), Some("entries")),
        ("entries MAX", &|b| b.entries(u32::MAX), None),
        ("completion_entries 0", &|b| b.completion_entries(0), Some("entries")),
        ("completion_entries MAX", &|b| b.completion_entries(u32::MAX), None),
        ("buffer_size 0", &|b| b.buffer_size(0), Some("buffer_size")),
        ("buffer_size 1", &|b| b.buffer_size(1), None),
        ("buffer_size MAX", &|b| b.buffer_size(usize::MAX), Some("buffer_size")),
        ("buffer_count 0", &|b| b.buffer_count(0), Some("buffer_count")),
        ("buffer_count 1", &|b| b.buffer_count(1), None),
        ("buffer_count MAX", &|b| b.buffer_count(u32::MAX), Some("buffer_count")),
        ("stream_credit 0", &|b| b.stream_credit(0), Some("stream_credit")),
        ("stream_credit MAX", &|b| b.stream_credit(usize::MAX), None),
        ("budget 0", &|b| b.budget(0), Some("budget")),
        ("budget MAX", &|b| b.budget(u32::MAX), None),
    ];
    for (engine, builder) in common::both(&Runtime::builder()) {
        for (name, set, refusal) in &settings {
            match (build(set(builder.clone())), refusal) {
                (Ok(()), None) => {}
                (Err(error), Some(word)) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
                    assert!(error.to_string().contains(word), "{engine}, {name}: {error}");
                }
                (Ok(()), Some(_)) => panic!("{engine}: {name} is accepted"),
                (Err(error), None) => panic!("{engine}: {name} is refused: {error}"),
            }
        }
    }
}

#[test]
fn er4_sockets_with_extreme_options() {
    everywhere(async || {
        for large in [0, 1, u32::MAX] {
            let listener = TcpSocket::new_v4()
                .expect("a socket")
                .recv_buffer_size(large)
                .send_buffer_size(large)
                .backlog(large)
                .listen(addr("127.0.0.1:0"))
                .unwrap_or_else(|error| panic!("{large}: {error}"));
            let client = TcpStream::connect(listener.local_addr().expect("bound")).await;
            drop(client.unwrap_or_else(|error| panic!("{large}: {error}")));
        }
        let (stream, _peer) = common::pair().await;
        let times =
            [None, Some(Duration::ZERO), Some(Duration::from_nanos(1)), Some(Duration::MAX)];
        for (time, probes) in times.into_iter().zip([None, Some(0), Some(1), Some(u32::MAX)]) {
            let keepalive = TcpKeepalive { idle: time, interval: time, probes };
            let settings = [
                (keepalive.idle, TcpKeepalive { idle: time, ..TcpKeepalive::default() }),
                (keepalive.interval, TcpKeepalive { interval: time, ..TcpKeepalive::default() }),
            ];
            for (time, keepalive) in settings {
                // The kernel takes 1 to 32767 seconds.
                let fits = time.is_none_or(|time| !time.is_zero() && time < Duration::MAX);
                let set = stream.set_keepalive(keepalive);
                assert_eq!(set.is_ok(), fits, "{keepalive:?}: {set:?}");
                if let Err(error) = set {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                    assert!(told(&error).1.starts_with("TCP_KEEP"), "{error}");
                }
            }
            let set = stream.set_keepalive(TcpKeepalive { probes, ..TcpKeepalive::default() });
            assert_eq!(set.is_ok(), probes.is_none_or(|probes| probes == 1), "{probes:?}: {set:?}");
        }
        let list: [SocketAddr; 0] = [];
        for error in [
            TcpStream::connect(list).await.expect_err("no address"),
            TcpStream::connect_staggered(list, Duration::MAX).await.expect_err("no address"),
            TcpListener::bind(list).expect_err("no address"),
            lookup_host(&list[..]).await.expect_err("no address"),
            TcpStream::connect("").await.expect_err("no address"),
            TcpStream::connect(("", 0)).await.expect_err("no host"),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let there = [listener.local_addr().expect("bound")];
        drop(TcpStream::connect_staggered(there, Duration::MAX).await.expect("it listens"));
    });
}

#[test]
fn er4_transfers_with_extreme_lengths() {
    use std::io::Write;
    everywhere(async || {
        let (stream, mut peer) = common::pair().await;
        peer.write_all(b"abc").expect("room");
        assert!(stream.read_exact(Vec::new(), 0).await.expect("nothing to wait for").is_empty());
        let short = stream.read_exact(Vec::with_capacity(3), usize::MAX).await;
        let (error, buf) = short.expect_err("more than any buffer").into_parts();
        assert_eq!((error.kind(), buf.len()), (io::ErrorKind::InvalidInput, 0), "{error}");
        assert_eq!(stream.send(Vec::new()).await.expect("nothing").0, 0);
        assert_eq!(stream.sendv(Vec::<Vec<u8>>::new()).await.expect("nothing").0, 0);
        assert_eq!(stream.sendv(vec![Vec::<u8>::new(); 2000]).await.expect("nothing").0, 0);
        assert_eq!(stream.sendv(vec!["y"; 5000]).await.expect("more than IOV_MAX").0, 5000);
        let mut chunk = stream.recv().await.expect("no error").expect("three bytes");
        assert!(chunk.split_to(0).is_empty() && chunk.split_off(chunk.len()).is_empty());
        chunk.truncate(usize::MAX);
        assert!(!chunk.is_empty());
        for at in [chunk.len() + 1, usize::MAX] {
            let split = std::panic::AssertUnwindSafe(|| chunk.split_to(at));
            assert!(std::panic::catch_unwind(split).is_err(), "documented");
        }
        chunk.truncate(0);
        assert!(chunk.is_empty());
    });
}

#[test]
fn er4_timers_with_extreme_times() {
    everywhere(async || {
        let now = Instant::now();
        let (short, long) = (Duration::from_millis(1), Duration::MAX);
        sleep(Duration::ZERO).await;
        sleep_until(now).await;
        timeout(short, sleep(long)).await.expect_err("later");
        let mut slow = sleep(Duration::ZERO);
        slow.reset(slow.deadline() + Duration::from_secs(1 << 60));
        timeout(short, &mut slow).await.expect_err("later");
        slow.reset(now);
        slow.await;
        let mut ticks = interval(long);
        ticks.tick().await;
        timeout(short, ticks.tick()).await.expect_err("later");
        let mut ticks = interval_at(now, Duration::from_nanos(1));
        let first = ticks.tick().await;
        assert!(ticks.tick().await > first);
        timeout(long, async {}).await.expect("at once");
        timeout_at(now, async {}).await.expect("the value wins");
        timeout(short, timeout(long, sleep(long))).await.expect_err("the outer one is over");
    });
}
