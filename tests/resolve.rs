//! Host names (SEMANTICS HN1 to HN6): what is looked up and what is not, and how the addresses of a
//! host are tried. Everything is on loopback, in 127.0.0.0/8, and no name server is asked.

mod common;

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::filter::{install_or_skip, step};
use common::{alone, begin, descriptors, engines, everywhere, start, turn, with};
use tamam::io::errno;
use tamam::net::{
    Resolver, Resolving, SystemResolver, TcpListener, TcpStream, ToSocketAddrs, lookup_host,
};
use tamam::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);
/// Longer than a test takes: what must not wait does not.
const HOUR: Duration = Duration::from_secs(3600);

/// Gives the same addresses for every name but one.
struct Fixed(Vec<IpAddr>);

impl Resolver for Fixed {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            sleep(MS).await; // it may use the runtime
            match host {
                "missing.test" => Err(io::Error::new(ErrorKind::NotFound, "not in the table")),
                _ => Ok(self.0.clone()),
            }
        })
    }
}

/// As [`everywhere`], on runtimes with these addresses for every name.
fn everywhere_with<F: Future<Output = ()>>(ips: &[IpAddr], test: impl Fn() -> F) {
    for (name, builder) in engines() {
        eprintln!("-- {name}");
        with(builder.resolver(Fixed(ips.to_vec())), &test);
    }
}

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// Listens at 127.0.0.`last`.
fn listen(last: u8, port: u16) -> StdListener {
    StdListener::bind((v4(last), port)).expect("all of 127.0.0.0/8 is ours")
}

fn port_of(listener: &StdListener) -> u16 {
    listener.local_addr().expect("bound").port()
}

/// Takes no more connections: connecting to it waits. The streams fill it.
fn silent(listener: &StdListener) -> Vec<StdStream> {
    // SAFETY: takes no pointers; a second listen(2) changes the backlog.
    let done = unsafe { libc::listen(listener.as_raw_fd(), 0) };
    assert_eq!(done, 0, "the backlog can be changed");
    let addr = listener.local_addr().expect("bound");
    let mut filling = Vec::new();
    while let Ok(stream) = StdStream::connect_timeout(&addr, 300 * MS) {
        filling.push(stream);
        assert!(filling.len() < 100, "a backlog of zero is soon full");
    }
    filling
}

/// How many threads look names up.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc is mounted");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "tamam-blocking").count()
}

// ---- HN1 -----------------------------------------------------------------------------------

#[test]
fn hn1_an_address_takes_no_thread() {
    alone("hn1_an_address_takes_no_thread", || {
        everywhere_with(&[], async || {
            let listener = listen(1, 0);
            let addr = listener.local_addr().expect("bound");
            let port = addr.port();
            async fn connects(addr: impl ToSocketAddrs) {
                TcpStream::connect(addr).await.expect("it listens");
            }
            connects(addr).await;
            connects(("127.0.0.1", port)).await;
            connects(("127.0.0.1".to_owned(), port)).await;
            connects(format!("127.0.0.1:{port}")).await;
            connects(([127, 0, 0, 1], port)).await;
            connects(&[addr][..]).await;
            let found = lookup_host("[::1]:7").await.expect("an address");
            assert_eq!(found, ["[::1]:7".parse().expect("the same")]);
            let found = lookup_host(("[fe80::1]", 7)).await.expect("as in a URL");
            assert_eq!(found, ["[fe80::1]:7".parse().expect("the same")]);
            assert_eq!(lookup_host([addr, addr]).await.expect("addresses"), [addr, addr]);
        });
        assert_eq!(threads(), 0);
    });
}

// ---- HN2 -----------------------------------------------------------------------------------

#[test]
fn hn2_the_system_knows_localhost() {
    everywhere(async || {
        // Whichever family the system has first for it; the other one is tried too.
        let listener = listen(1, 0);
        let port = port_of(&listener);
        let found = lookup_host(("localhost", port)).await.expect("every machine has it");
        assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == port));
        assert!(threads() >= 1);
        for _ in 0..3 {
            let stream = TcpStream::connect(("localhost", port)).await.expect("it listens");
            assert_eq!(stream.peer_addr().expect("connected").port(), port);
        }
        TcpStream::connect(format!("localhost:{port}")).await.expect("it listens");
        TcpStream::connect(("localhost".to_owned(), port)).await.expect("it listens");
        let ips = SystemResolver.resolve("localhost").await.expect("every machine has it");
        assert_eq!(ips, found.iter().map(SocketAddr::ip).collect::<Vec<_>>());
    });
}

#[test]
fn hn2_the_resolvers_order_is_kept() {
    let ips: Vec<IpAddr> = vec![v4(9), v4(3), "::1".parse().expect("an address"), v4(3)];
    everywhere_with(&ips, async || {
        let found = lookup_host("any.test:80").await.expect("in the table");
        let expected: Vec<_> = ips.iter().map(|ip| SocketAddr::new(*ip, 80)).collect();
        assert_eq!(found, expected);
    });
}

/// The number of an interface is the system's business, whoever knows the names.
#[test]
fn hn2_an_address_of_a_link() {
    everywhere_with(&[], async || {
        let found = match lookup_host("[fe80::1%lo]:7").await {
            Ok(found) => found,
            Err(error) => return println!("skipped: no IPv6, or no interface lo: {error}"),
        };
        assert_eq!(found.len(), 1);
        let SocketAddr::V6(addr) = found[0] else { panic!("{found:?}") };
        assert!(addr.scope_id() > 0 && addr.port() == 7, "{addr}");
        assert_eq!(addr.ip().to_string(), "fe80::1");
    });
}

/// Many at once, more than threads: each gets its answer.
#[test]
fn hn2_many_lookups_at_once() {
    everywhere(async || {
        let lookups: Vec<_> = (1..=100)
            .map(|port| tamam::spawn(async move { lookup_host(("localhost", port)).await }))
            .collect();
        for (number, lookup) in lookups.into_iter().enumerate() {
            let found = lookup.await.expect("no panic").expect("every machine has it");
            assert_eq!(usize::from(found[0].port()), number + 1);
        }
    });
}

// ---- HN3 -----------------------------------------------------------------------------------

#[test]
fn hn3_errors_have_the_name() {
    everywhere(async || {
        // No query can carry such a name, so no name server is asked.
        let name = "a..b";
        let error = lookup_host((name, 80)).await.expect_err("no name");
        assert!(error.to_string().contains("resolve a..b: "), "{error}");
        let error = TcpStream::connect((name, 80)).await.expect_err("no name");
        assert!(error.to_string().contains("resolve a..b: "), "{error}");
        for text in ["localhost", "localhost:", "localhost:http", "localhost:65536", ":1", "::1:1"]
        {
            let error = TcpStream::connect(text).await.expect_err("malformed");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(text), "{error}");
        }
        let error = TcpListener::bind("localhost:0").expect_err("a name would block");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("localhost"), "{error}");
    });
    everywhere_with(&[], async || {
        for (host, cause) in [("missing.test", "not in the table"), ("empty.test", "no address")] {
            let error = TcpStream::connect((host, 80)).await.expect_err("no address");
            assert_eq!(error.kind(), ErrorKind::NotFound);
            let text = error.to_string();
            assert!(text.contains(host) && text.contains(cause), "{text}");
        }
    });
}

#[test]
fn hn3_outside_a_runtime() {
    let waker = std::task::Waker::noop();
    let mut cx = std::task::Context::from_waker(waker);
    let mut connect = Box::pin(TcpStream::connect(("localhost", 80)));
    let poll = connect.as_mut().poll(&mut cx);
    let std::task::Poll::Ready(Err(error)) = poll else { panic!("it must not wait") };
    assert!(error.to_string().contains("no tamam runtime"), "{error}");
}

// ---- HN4 -----------------------------------------------------------------------------------

/// The first address refuses, the second never answers, the third is alive: it is connected to, and
/// nothing is left of the others.
#[test]
fn hn4_dead_addresses_are_passed_over() {
    alone("hn4_dead_addresses_are_passed_over", || {
        let live = listen(3, 0);
        let port = port_of(&live);
        let never = listen(2, port);
        let _filling = silent(&never);
        let ips = [v4(1), v4(2), v4(3), v4(4)];
        everywhere_with(&ips, async || {
            turn().await;
            let before = descriptors().len();
            let begun = Instant::now();
            let stream = TcpStream::connect(("any.test", port)).await.expect("one is alive");
            assert!(begun.elapsed() >= 250 * MS, "the second has a quarter of a second");
            assert_eq!(stream.peer_addr().expect("connected").ip(), v4(3));
            turn().await;
            assert_eq!(descriptors().len(), before + 1, "an attempt that lost is not closed");
            assert_eq!(tamam::metrics().ops, 0);
            // The connection is a whole one.
            let (mut peer, _) = live.accept().expect("it is there");
            io::Write::write_all(&mut peer, b"live").expect("connected");
            let bytes = stream.read_exact(Vec::with_capacity(4), 4).await.expect("connected");
            assert_eq!(bytes, b"live");
        });
    });
}

/// A failure begins the next attempt at once, whatever the delay.
#[test]
fn hn4_a_failure_does_not_wait() {
    let live = listen(7, 0);
    let port = port_of(&live);
    everywhere_with(&[v4(5), v4(6), "::1".parse().expect("an address"), v4(7)], async || {
        let stream = TcpStream::connect_staggered(("any.test", port), HOUR).await;
        assert_eq!(stream.expect("one is alive").peer_addr().expect("connected").ip(), v4(7));
        drop(live.accept());
    });
}

/// Those that began earlier go on: one of them wins when it is answered late.
#[test]
fn hn4_an_earlier_attempt_may_win() {
    everywhere(async || {
        let [first, second] = [1, 2].map(|last| listen(last, 0));
        let [_filling, _second] = [&first, &second].map(silent);
        let addrs = [&first, &second].map(|listener| listener.local_addr().expect("bound"));
        let mut connect = start(TcpStream::connect_staggered(addrs, 10 * MS)).await;
        while tamam::metrics().ops < 2 {
            assert!(timeout(5 * MS, &mut connect).await.is_err(), "nobody answers");
        }
        // Room in the first: the kernel sends its SYN again within some seconds, and is answered.
        first.set_nonblocking(true).expect("a socket");
        while first.accept().is_ok() {}
        let stream = connect.await.expect("there is room");
        assert_eq!(stream.peer_addr().expect("connected"), addrs[0]);
    });
}

/// However many addresses there are, no more than 16 sockets wait.
#[test]
fn hn4_sixteen_attempts_at_most() {
    let listener = StdListener::bind("0.0.0.0:0").expect("a port is free");
    let _filling = silent(&listener); // at every address of 127.0.0.0/8
    let port = port_of(&listener);
    let ips: Vec<IpAddr> = (1..=20).map(v4).collect();
    everywhere_with(&ips, async || {
        let connect = TcpStream::connect_staggered(("any.test", port), 10 * MS);
        let mut connect = start(connect).await;
        while tamam::metrics().ops < 16 {
            assert!(timeout(5 * MS, &mut connect).await.is_err(), "nobody answers");
        }
        assert!(timeout(50 * MS, &mut connect).await.is_err(), "nobody answers");
        assert_eq!(tamam::metrics().ops, 16);
    });
}

/// CL16 with several attempts in flight.
#[test]
fn hn4_dropped_all_attempts_end() {
    alone("hn4_dropped_all_attempts_end", || {
        let listeners = [1, 2, 3].map(|last| listen(last, 0));
        let _filling = listeners.each_ref().map(silent);
        let addrs = listeners.each_ref().map(|listener| listener.local_addr().expect("bound"));
        everywhere(async || {
            turn().await;
            let before = descriptors().len();
            // Nothing is made before the first poll.
            drop(TcpStream::connect_staggered(addrs, 10 * MS));
            let mut connect = start(TcpStream::connect_staggered(addrs, Duration::ZERO)).await;
            while tamam::metrics().ops < 3 {
                assert!(timeout(5 * MS, &mut connect).await.is_err(), "nobody answers");
            }
            assert_eq!(descriptors().len(), before + 3);
            drop(connect);
            turn().await;
            assert_eq!(descriptors().len(), before);
            assert_eq!(tamam::metrics().ops, 0);
            // Dropped while the second still waits for its turn.
            let connect = start(TcpStream::connect_staggered(addrs, Duration::MAX)).await;
            assert_eq!(descriptors().len(), before + 1);
            drop(connect);
            turn().await;
            assert_eq!(descriptors().len(), before);
        });
    });
}

/// A list is tried in its order, one after the other.
#[test]
fn hn4_a_list_is_in_order() {
    everywhere(async || {
        let [first, second] = [1, 2].map(|last| listen(last, 0));
        let addrs = [&first, &second].map(|listener| listener.local_addr().expect("bound"));
        for _ in 0..10 {
            let stream = TcpStream::connect(addrs).await.expect("both listen");
            assert_eq!(stream.peer_addr().expect("connected"), addrs[0]);
        }
    });
}

// ---- HN5 -----------------------------------------------------------------------------------

#[test]
fn hn5_all_failures_are_told() {
    alone("hn5_all_failures_are_told", all_failures_are_told);
}

fn all_failures_are_told() {
    let port = port_of(&listen(1, 0)); // closed again
    let ips = [v4(1), v4(2), "::1".parse().expect("an address"), v4(3)];
    everywhere_with(&ips, async || {
        let error = TcpStream::connect(("any.test", port)).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let text = error.to_string();
        for ip in ips {
            let addr = SocketAddr::new(ip, port).to_string();
            assert!(text.contains(&format!("{addr}: ")), "{addr} is not in {text}");
        }
        assert!(text.matches("Connection refused").count() >= 3, "{text}");
        // The families take turns, beginning with the first.
        let [first, v6, second] = ["127.0.0.1:", "[::1]:", "127.0.0.2:"].map(|ip| text.find(ip));
        assert!(first < v6 && v6 < second, "{text}");

        let list: Vec<_> = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let error = TcpStream::connect(list).await.expect_err("nobody listens");
        assert_eq!(errno(&error), Some(libc::ECONNREFUSED), "of a list: the last one's");
    });
}

// ---- HN6 -----------------------------------------------------------------------------------

/// Never answers; counts how many of its futures are there.
struct Never(Arc<AtomicUsize>);

impl Resolver for Never {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            self.0.fetch_add(1, Ordering::SeqCst);
            struct Leave<'a>(&'a AtomicUsize);
            impl Drop for Leave<'_> {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::SeqCst);
                }
            }
            let _leave = Leave(&self.0);
            std::future::pending().await
        })
    }
}

#[test]
fn hn6_dropped_a_lookup_is_over() {
    for (name, builder) in engines() {
        eprintln!("-- {name}");
        let waiting = Arc::new(AtomicUsize::new(0));
        with(builder.resolver(Never(waiting.clone())), async || {
            let connect = start(TcpStream::connect("any.test:80")).await;
            let lookup = start(lookup_host("any.test:80")).await;
            assert_eq!(waiting.load(Ordering::SeqCst), 2);
            drop((connect, lookup));
            assert_eq!(waiting.load(Ordering::SeqCst), 0);
            // The runtime turns meanwhile.
            let ticks = Rc::new(Cell::new(0));
            let told = ticks.clone();
            let ticking = tamam::spawn(async move {
                loop {
                    sleep(MS).await;
                    told.set(told.get() + 1);
                }
            });
            while ticks.get() < 3 {
                assert!(timeout(MS, lookup_host("any.test:80")).await.is_err());
            }
            ticking.abort();
            assert!(ticking.await.expect_err("it never ends").is_cancelled());
        });
    }
}

/// Of the system: the thread goes on, and tells nobody.
#[test]
fn hn6_dropped_lookups_of_the_system() {
    everywhere(async || {
        for _ in 0..100 {
            drop(begin(lookup_host("localhost:80")).await);
        }
        lookup_host("localhost:80").await.expect("the next one works");
    });
}

/// Lets this thread make no more IPv6 sockets, as where the kernel has no IPv6: EAFNOSUPPORT. False,
/// with a word, if that cannot be.
fn refuse_ipv6() -> bool {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let compare = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut steps = [
        step(load, 0, 0, 0), // the number of the call
        step(compare, libc::SYS_socket as u32, 0, 3),
        step(load, 16, 0, 0), // its first argument
        step(compare, libc::AF_INET6 as u32, 0, 1),
        step(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32, 0, 0),
        step(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    install_or_skip(&mut steps)
}

/// HN4. A machine without IPv6: the IPv4 addresses of a list are tried all the same.
#[test]
fn hn4_a_family_that_is_not_there_is_passed_over() {
    let test = || {
        if !refuse_ipv6() {
            return;
        }
        common::with_both(tamam::Runtime::builder(), || async {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
            let addr = listener.local_addr().expect("bound");
            let v6 = "[::1]:1".parse().expect("an address");
            TcpStream::connect([v6, addr]).await.expect("the second is there");
            TcpStream::connect_staggered([v6, addr], Duration::ZERO).await.expect("as well");
            let error = TcpStream::connect(v6).await.expect_err("there is no IPv6");
            assert_eq!(errno(&error), Some(libc::EAFNOSUPPORT));

            // G9: an attempt without a socket fails at once, and others have their turn all the same.
            let polls = Rc::new(Cell::new(0));
            let others = polls.clone();
            let others = tamam::spawn(async move {
                loop {
                    others.set(others.get() + 1);
                    tamam::yield_now().await;
                }
            });
            for _ in 0..1000 {
                TcpStream::connect_staggered(v6, Duration::ZERO).await.expect_err("no IPv6");
            }
            assert!(polls.get() >= 1000 / 128, "{} polls", polls.get());
            others.abort();
        });
    };
    // The filter is the thread's for ever.
    std::thread::spawn(test).join().expect("no panic");
}
