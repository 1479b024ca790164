//! TLS under abuse: crowds that say nothing, garbage, records of all sizes, bytes one at a time, and
//! futures that are dropped at random. Nothing is left behind, nobody else notices, nothing spins.

mod common;
#[path = "common/keys.rs"]
mod keys;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{PATIENCE, Random, alone, everywhere, with_both};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use keys::{NAME, client_config, narrow_tcp_pair, server_config, tcp_pair, tls_over};
use tamam::Runtime;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{sleep, timeout};
use tamam::tls::rustls::SupportedProtocolVersion;
use tamam::tls::rustls::version::{TLS12, TLS13};
use tamam::tls::{TlsAcceptor, TlsConnector, TlsReadHalf, TlsStream, TlsWriteHalf};

/// A part of a second in which nothing happens must cost next to no turns: what waits, waits.
async fn nothing_spins() {
    // Others of this process may keep the machine busy, but not this runtime.
    let quiet = |turns: u64| turns < 100;
    for _ in 0..20 {
        let before = tamam::metrics().turns;
        sleep(Duration::from_millis(100)).await;
        if quiet(tamam::metrics().turns - before) {
            return;
        }
    }
    panic!("the runtime turns with nothing to do");
}

/// Waits until the tasks are as many as they were.
async fn tasks_are(number: usize) {
    let until = Instant::now() + *PATIENCE / 2;
    while tamam::metrics().tasks != number {
        assert!(Instant::now() < until, "{} tasks, not {number}", tamam::metrics().tasks);
        sleep(Duration::from_millis(1)).await;
    }
}

// ---- crowds -------------------------------------------------------------------------------------

/// 500 clients that say nothing, or up to five bytes of a hello, and one that means it.
#[test]
fn a_silent_crowd_holds_up_nobody() {
    alone("a_silent_crowd_holds_up_nobody", || {
        const CROWD: usize = 500;
        if !common::can_open(2 * CROWD as u64 + 100) {
            return;
        }
        with_both(Runtime::builder(), || async {
            // With no timeout at all, so that the crowd stays for the whole of the test; then with one.
            for patience in [None, Some(Duration::from_millis(50))] {
                let tasks = tamam::metrics().tasks;
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports");
                let addr = listener.local_addr().expect("bound");
                let stuck =
                    TlsAcceptor::from(server_config(&TLS13, false)).handshake_timeout(patience);
                let fair = TlsAcceptor::from(server_config(&TLS13, false));
                let (accepted, ends) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
                let (count, told) = (accepted.clone(), ends.clone());
                let accepting = tamam::spawn(async move {
                    loop {
                        let (tcp, _) = listener.accept().await.expect("a client");
                        count.set(count.get() + 1);
                        // The one that means it comes last, and has time even on a busy machine.
                        let acceptor = if count.get() > CROWD { &fair } else { &stuck }.clone();
                        let told = told.clone();
                        tamam::spawn(async move {
                            match acceptor.accept(tcp).await {
                                Ok(stream) => {
                                    let chunk = stream.recv().await.expect("a word").expect("one");
                                    stream.send_all(chunk).await.expect("it reads");
                                    stream.shutdown().await.expect("it is there");
                                }
                                Err(error) => told.borrow_mut().push(error.kind()),
                            }
                        });
                    }
                });
                let mut crowd = Vec::new();
                for number in 0..CROWD {
                    let tcp = TcpStream::connect(addr).await.expect("it listens");
                    tcp.send_all([22, 3, 1, 2, 0][..number % 6].to_vec()).await.expect("sent");
                    crowd.push(tcp);
                }
                while accepted.get() < CROWD {
                    sleep(Duration::from_millis(1)).await;
                }
                let tcp = TcpStream::connect(addr).await.expect("it listens");
                let connector = TlsConnector::from(client_config(&TLS13, false));
                let start = Instant::now();
                let stream = connector.connect(NAME, tcp).await.expect("past the crowd");
                stream.send_all("hello").await.expect("sent");
                let answer = stream.read_exact(Vec::with_capacity(5), 5).await.expect("an echo");
                assert_eq!(answer, b"hello");
                assert!(stream.recv().await.expect("no failure").is_none());
                println!(
                    "served in {:?}, {} of the crowd gone",
                    start.elapsed(),
                    ends.borrow().len()
                );
                if patience.is_none() {
                    assert!(ends.borrow().is_empty(), "all others are still in their handshakes");
                    nothing_spins().await;
                    drop(crowd);
                } else {
                    while ends.borrow().len() < CROWD {
                        sleep(Duration::from_millis(5)).await;
                    }
                    // Each of them is let go of: an end without a word.
                    for tcp in crowd {
                        assert!(matches!(tcp.recv().await, Ok(None) | Err(_)));
                    }
                }
                drop(stream);
                tasks_are(tasks + 1).await;
                let expected = match patience {
                    None => ErrorKind::UnexpectedEof,
                    Some(_) => ErrorKind::TimedOut,
                };
                assert_eq!(ends.borrow().len(), CROWD);
                assert!(
                    ends.borrow().iter().all(|kind| *kind == expected),
                    "{:?}",
                    ends.borrow()[0]
                );
                accepting.abort();
                tasks_are(tasks).await;
            }
        });
    });
}

// ---- garbage ------------------------------------------------------------------------------------

/// What no client and no server says first, and what it is called.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random(7);
    let mut bytes = |len: usize| (0..len).map(|_| random.below(256) as u8).collect::<Vec<_>>();
    let record =
        |kind: u8, len: u16, body: &[u8]| [&[kind, 3, 3][..], &len.to_be_bytes(), body].concat();
    let mut noise = bytes(100_000);
    noise[0] = 0x80; // no kind of record that there is
    vec![
        ("noise", noise),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("the longest record there could be, its head alone", record(22, 0xFFFF, &[])),
        ("a record of one byte too many, its head alone", record(22, (1 << 14) + 2049, &[])),
        ("application data before the handshake", record(23, 20, &bytes(20))),
        ("an empty record of a handshake", record(22, 0, &[])),
        ("a handshake message of 16 MiB", record(22, 8, &[1, 0xFF, 0xFF, 0xFF, 3, 3, 0, 0])),
        ("a message of a kind that is none", record(22, 8, &[77, 0, 0, 4, 0, 0, 0, 0])),
        ("a hello that is all noise", {
            let body = bytes(300);
            let head = [1, 0, 1, 44]; // a hello, on either side, of 300 bytes
            record(22, 304, &[&head[..], &body].concat())
        }),
        ("a failure", record(21, 2, &[2, 40])),
        ("an alert that is none", record(21, 2, &[9, 250])),
        ("an alert that is too long", record(21, 40, &[1; 40])),
        ("a change of ciphers, too early", record(20, 1, &[1])),
    ]
}

/// Neither side waits for more once it is clear, and whoever speaks nonsense is told with an alert.
#[test]
fn nonsense_is_refused_at_once() {
    alone("nonsense_is_refused_at_once", || {
        everywhere(|| async {
            for (name, bytes) in nonsense() {
                for is_server in [true, false] {
                    let (ours, theirs) = tcp_pair().await;
                    let length = bytes.len();
                    let sent = bytes.clone();
                    let speaking = tamam::spawn(async move {
                        // It may be refused before it is all sent.
                        let _ = theirs.send_all(sent).await;
                        let mut answer = Vec::new();
                        // Until it has an answer or the end: it never ends by itself.
                        while let Ok(Some(chunk)) = theirs.recv().await {
                            answer.extend_from_slice(&chunk);
                        }
                        answer
                    });
                    let handshake = async {
                        match is_server {
                            true => {
                                let acceptor = TlsAcceptor::from(server_config(&TLS13, false));
                                acceptor.handshake_timeout(Some(MOMENT)).accept(ours).await
                            }
                            false => {
                                let connector = TlsConnector::from(client_config(&TLS13, false));
                                connector.handshake_timeout(Some(MOMENT)).connect(NAME, ours).await
                            }
                        }
                    };
                    let error = handshake.await.expect_err(name);
                    // These alone may be the beginning of something.
                    let is_patient =
                        ["an empty record of a handshake", "a change of ciphers, too early"];
                    let answer = speaking.await.expect("no panic");
                    if error.kind() == ErrorKind::TimedOut {
                        assert!(is_patient.contains(&name), "{name}, server {is_server}: {error}");
                        continue;
                    }
                    assert_eq!(error.kind(), ErrorKind::InvalidData, "{name}: {error}");
                    // Alerts are not answered, and of the size of a message rustls tells nobody. A
                    // reset, when there was more to read, may take the alert with it.
                    let is_told = answer.windows(3).any(|head| head == [21, 3, 3]);
                    let is_silent = bytes[0] == 21 || name == "a handshake message of 16 MiB";
                    let context = format!("{name}, server {is_server}: {answer:?}, {error}");
                    assert!(is_told || is_silent || length > 1000, "{context}");
                }
            }
        });
    });
}

/// How long one waits for what must happen at once.
const MOMENT: Duration = Duration::from_millis(300);

/// The same in a connection that is under way, past TLS, and with a record cut in two.
#[test]
fn nonsense_ends_a_connection_and_nothing_else() {
    alone("nonsense_ends_a_connection_and_nothing_else", || {
        with_both(Runtime::builder(), || async {
            for version in [&TLS12, &TLS13] {
                let bystanders = tls_over(version, tcp_pair().await).await;
                for bytes in [
                    vec![23, 3, 3, 0xFF, 0xFF],
                    vec![23, 3, 3, 0x48, 0x01],
                    [&[23, 3, 3, 0, 100][..], &[0; 100]].concat(),
                    [&[23, 3, 3, 0, 1][..], &[0]].concat(),
                    [&[22, 3, 3, 0, 4][..], &[0; 4]].concat(),
                    vec![99, 1, 1, 0, 1, 0],
                    vec![21, 3, 3, 0, 2, 1, 0], // a goodbye that anybody could have written
                ] {
                    let (client, server) = tls_over(version, tcp_pair().await).await;
                    client.send_all("before").await.expect("sent");
                    client.tcp().send_all(bytes.clone()).await.expect("sent");
                    let before = server.read_exact(Vec::with_capacity(6), 6).await;
                    assert_eq!(before.expect("it came before"), b"before");
                    let error = timeout(*PATIENCE / 2, server.recv()).await.expect("at once");
                    let error = error.map(|chunk| chunk.map(|chunk| chunk.len()));
                    assert_eq!(
                        error.as_ref().map_err(std::io::Error::kind),
                        Err(ErrorKind::InvalidData),
                        "{bytes:?}: {error:?}"
                    );
                    assert!(server.send_all("after").await.is_err(), "{bytes:?}");
                    assert!(server.shutdown().await.is_err());
                    // The alert is the last word.
                    let told = client.recv().await.map(|chunk| chunk.map(|chunk| chunk.len()));
                    assert_eq!(
                        told.as_ref().map_err(std::io::Error::kind),
                        Err(ErrorKind::InvalidData),
                        "{bytes:?}: {told:?}"
                    );
                    nothing_spins().await;
                }
                let (client, server) = bystanders;
                client.send_all("still here").await.expect("sent");
                let word = server.read_exact(Vec::with_capacity(10), 10).await.expect("sent");
                assert_eq!(word, b"still here");
            }
        });
    });
}

// ---- one byte at a time -------------------------------------------------------------------------

/// Passes on what comes, a byte at a time, until the end.
async fn relay(from: Rc<TcpStream>, to: Rc<TcpStream>) {
    while let Ok(Some(chunk)) = from.recv().await {
        for byte in chunk.iter() {
            if to.send_all(vec![*byte]).await.is_err() {
                return;
            }
            tamam::yield_now().await;
        }
    }
    let _ = to.shutdown().await;
}

#[test]
fn bytes_come_one_at_a_time() {
    alone("bytes_come_one_at_a_time", || {
        everywhere(|| async {
            let tasks = tamam::metrics().tasks;
            for version in [&TLS12, &TLS13] {
                let ((client, near), (far, server)) = (tcp_pair().await, tcp_pair().await);
                for tcp in [&near, &far] {
                    tcp.set_nodelay(true).expect("TCP");
                }
                let (near, far) = (Rc::new(near), Rc::new(far));
                tamam::spawn(relay(near.clone(), far.clone()));
                tamam::spawn(relay(far, near));
                let (client, server) = tls_over(version, (client, server)).await;
                let bytes = common::pattern(2000);
                let both = [client, server].map(|stream| {
                    let bytes = bytes.clone();
                    tamam::spawn(async move {
                        let (read, write) = stream.into_split();
                        let sent = bytes.clone();
                        let sending = tamam::spawn(async move {
                            for piece in sent.chunks(700) {
                                write.send_all(piece.to_vec()).await.expect("it reads");
                            }
                        });
                        let mut received = Vec::new();
                        while let Some(chunk) = read.recv().await.expect("a clean end") {
                            received.extend_from_slice(&chunk);
                        }
                        assert!(received == bytes);
                        sending.await.expect("no panic");
                    })
                });
                for side in both {
                    side.await.expect("no panic");
                }
            }
            tasks_are(tasks).await;
        });
    });
}

// ---- cancellation -------------------------------------------------------------------------------

/// How many bytes, and a number that another order, a loss or a repetition would change (FNV-1a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum(u64, u64);

impl Sum {
    const EMPTY: Sum = Sum(0, 0xCBF2_9CE4_8422_2325);

    fn add(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
        // Eight at a time would depend on how the bytes came; this does not.
        self.1 = bytes
            .iter()
            .fold(self.1, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3));
    }
}

/// Gives a future a random time, mostly a short one; then it is dropped.
async fn for_a_moment<F: Future>(random: &mut Random, future: F) -> Option<F::Output> {
    let time = match random.below(4) {
        0 => Duration::ZERO,
        1 => Duration::from_micros(random.below(100)),
        2 => Duration::from_micros(random.below(2000)),
        _ => Duration::from_secs(3600),
    };
    timeout(time, future).await.ok()
}

/// Sends `total` bytes. Writes that are dropped have taken nothing; sends are given up and taken up
/// again; those of a length of which nobody hears are waited for.
async fn send_cancelled(mut write: TlsWriteHalf, seed: u64, total: u64) -> Sum {
    let (mut random, mut sum) = (Random(seed), Sum::EMPTY);
    let source: Vec<u8> = (0..300_000).map(|_| random.below(256) as u8).collect();
    while sum.0 < total {
        let len = match random.below(4) {
            0 => random.below(200_000),
            1 => random.below(20_000),
            _ => random.below(2000),
        };
        let at = random.below(100_000) as usize;
        let bytes = &source[at..at + 1 + len as usize];
        if random.below(2) == 0 {
            let written = for_a_moment(&mut random, write.write(bytes)).await;
            if let Some(written) = written {
                sum.add(&bytes[..written.expect("the peer reads")]);
            }
        } else {
            let mut sending = pin!(write.send_all(bytes.to_vec()));
            while for_a_moment(&mut random, sending.as_mut()).await.is_none() {}
            sum.add(bytes);
        }
    }
    if for_a_moment(&mut random, write.shutdown()).await.is_none() {
        write.shutdown().await.expect("the peer reads");
    }
    sum
}

/// Receives until the end, in every way there is, most of them dropped midway.
async fn receive_cancelled(mut read: TlsReadHalf, seed: u64) -> Sum {
    let (mut random, mut sum) = (Random(seed), Sum::EMPTY);
    let mut buf = vec![0; 70_000];
    loop {
        let len = 1 + random.below(70_000) as usize;
        let is_end = match random.below(4) {
            0 => for_a_moment(&mut random, read.recv()).await.map(|chunk| {
                let chunk = chunk.expect("a clean end");
                chunk.inspect(|chunk| sum.add(chunk)).is_none()
            }),
            1 => {
                let reading = read.read(Vec::with_capacity(len));
                for_a_moment(&mut random, reading).await.map(|result| {
                    let (len, bytes) = result.expect("a clean end");
                    sum.add(&bytes);
                    len == 0
                })
            }
            2 => {
                let reading = read.read_exact(Vec::with_capacity(len), len);
                for_a_moment(&mut random, reading).await.map(|result| match result {
                    Ok(bytes) => {
                        sum.add(&bytes);
                        false
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                        sum.add(error.buf());
                        true
                    }
                })
            }
            _ => {
                let reading = AsyncReadExt::read(&mut read, &mut buf[..len]);
                let len = for_a_moment(&mut random, reading).await;
                len.map(|len| {
                    let len = len.expect("a clean end");
                    sum.add(&buf[..len]);
                    len == 0
                })
            }
        };
        if is_end == Some(true) {
            return sum;
        }
    }
}

/// Both directions at once, each with its own seeds.
async fn cancelled_both_ways(
    version: &'static SupportedProtocolVersion,
    tcp: (TcpStream, TcpStream),
    seed: u64,
    total: u64,
) {
    let (client, server) = tls_over(version, tcp).await;
    let tasks = |stream: TlsStream, seed: u64| {
        let (read, write) = stream.into_split();
        let sending = tamam::spawn(send_cancelled(write, seed, total));
        (sending, tamam::spawn(receive_cancelled(read, seed + 1)))
    };
    let (client, server) = (tasks(client, seed), tasks(server, seed + 2));
    let sent = [client.0.await.expect("no panic"), server.0.await.expect("no panic")];
    let received = [server.1.await.expect("no panic"), client.1.await.expect("no panic")];
    assert_eq!(sent, received, "seed {seed}");
}

/// So many mebibytes in each direction under random cancellation: `TAMAM_TEST_MIB`, such as 100.
#[test]
fn bytes_survive_random_cancellation() {
    alone("bytes_survive_random_cancellation", || {
        let mib = std::env::var("TAMAM_TEST_MIB").map_or(6, |text| text.parse().expect("a number"));
        with_both(Runtime::builder(), || async move {
            let tasks = tamam::metrics().tasks;
            for version in [&TLS12, &TLS13] {
                let start = Instant::now();
                cancelled_both_ways(version, tcp_pair().await, 100, mib << 20).await;
                cancelled_both_ways(version, narrow_tcp_pair().await, 200, (mib << 20) / 4).await;
                println!("{:?}: {mib} MiB in {:?}", version.version, start.elapsed());
            }
            tasks_are(tasks).await;
        });
        let seed = Cell::new(1000);
        everywhere(|| {
            seed.set(seed.get() + 10);
            let seed = seed.get();
            async move { cancelled_both_ways(&TLS13, tcp_pair().await, seed, 100_000).await }
        });
    });
}

/// A send that nobody takes, and receives that nobody feeds, wait without a turn of the runtime; and
/// when the peer goes on, so do both.
#[test]
fn what_waits_does_not_spin() {
    alone("what_waits_does_not_spin", || {
        with_both(Runtime::builder(), || async {
            for version in [&TLS12, &TLS13] {
                let (client, server) = tls_over(version, narrow_tcp_pair().await).await;
                let big = common::pattern(1 << 20);
                let (read, write) = client.into_split();
                let sent = big.clone();
                let sending =
                    tamam::spawn(async move { write.send_all(sent).await.map(|_| write) });
                let receiving = tamam::spawn(async move { read.recv().await.map(|_| read) });
                sleep(Duration::from_millis(20)).await;
                nothing_spins().await;
                assert!(!sending.is_finished() && !receiving.is_finished());
                let received = server.read_exact(Vec::with_capacity(big.len()), big.len()).await;
                assert!(received.expect("all of it") == big);
                let write = sending.await.expect("no panic").expect("the peer reads");
                server.send_all("a word").await.expect("sent");
                let read = receiving.await.expect("no panic").expect("a word");
                // One end is said; the other side waits for nothing and goes on sending.
                drop(write);
                assert!(server.recv().await.expect("a clean end").is_none());
                nothing_spins().await;
                server.send_all("another").await.expect("sent");
                let word = read.read_exact(Vec::with_capacity(7), 7).await.expect("sent");
                assert_eq!(word, b"another");
            }
        });
    });
}
