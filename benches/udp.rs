//! What does a datagram cost?
//!
//! An echo of 64 B and of 1200 B at 50 sockets, each with one datagram under way; the same by one
//! socket that 50 clients share; and a flood of datagrams of 1200 B one way, sent by the kernel's
//! division, received one by one and merged (UDP_GRO). tamam on io_uring and on epoll, tokio's
//! current-thread runtime, and a loop written by hand on a ring (`raw_ring/udp.rs`: the ceiling). The
//! client is a thread with plain sockets on another core; it compares every byte of an echo.
//!
//! ```text
//! cargo bench -p tamam-benches --bench udp                       criterion: time per datagram
//! PAIRED=10 cargo bench -p tamam-benches --bench udp             interleaved: ratios, and CPU time
//! PAIRED=10 cargo bench -p tamam-benches --bench udp -- 64B/50   one row of it
//! ```
//!
//! The CPU time of the server's thread, printed by the paired run, is what tells servers apart.

mod support;

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use support::client::exchange;
use support::paired::{self, Contender, Window};
use support::servers::raw_ring::udp::{self as raw, Work};
use support::servers::{self, Server};
use tamam::Backend;

/// What a server does with datagrams.
#[derive(Clone, Copy)]
struct Task {
    sockets: usize,
    datagram_len: usize,
    flood: Option<Merged>,
}

/// Whether the kernel may merge the datagrams of a flood.
#[derive(Clone, Copy, PartialEq)]
enum Merged {
    No,
    Yes,
}

const CLIENTS: usize = 50;

const ROWS: [(&str, Task); 5] = [
    ("udp/64B/50", Task { sockets: CLIENTS, datagram_len: 64, flood: None }),
    ("udp/1200B/50", Task { sockets: CLIENTS, datagram_len: 1200, flood: None }),
    ("udp/64B/shared", Task { sockets: 1, datagram_len: 64, flood: None }),
    ("udp/flood", Task { sockets: 1, datagram_len: 1200, flood: Some(Merged::No) }),
    ("udp/flood/gro", Task { sockets: 1, datagram_len: 1200, flood: Some(Merged::Yes) }),
];

/// Serves these sockets; a sink counts.
type Spawn = fn(Task, Vec<UdpSocket>, Arc<AtomicU64>) -> Server;

const ALL: [(&str, Spawn); 5] = [
    ("raw_ring", raw_ring),
    ("tamam_ring", |task, sockets, count| tamam(Backend::Ring, task, sockets, count)),
    ("tamam_epoll", |task, sockets, count| tamam(Backend::Epoll, task, sockets, count)),
    ("tokio", tokio),
    ("raw_ring again", raw_ring),
];

fn main() {
    support::run(support::Side::Driver, bench, compare);
}

fn bench(criterion: &mut Criterion) {
    for (title, task) in ROWS {
        let mut group = criterion.benchmark_group(title);
        group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
        for (name, spawn) in ALL {
            let mut load = None;
            group.bench_function(name, |bencher| {
                // Made here: criterion calls this for the servers that were selected only.
                let load = load.get_or_insert_with(|| Load::new(spawn, task));
                bencher.iter_custom(|datagrams| load.window(datagrams).elapsed);
            });
        }
        group.finish();
    }
}

fn compare(rounds: usize) {
    for (title, task) in ROWS.into_iter().filter(|row| paired::is_selected(row.0)) {
        let contenders = ALL.into_iter().map(|(name, spawn)| {
            let mut load = Load::new(spawn, task);
            Contender::new(name, move |datagrams| load.window(datagrams))
        });
        paired::compare(title, "raw_ring", 1, rounds, &mut contenders.collect::<Vec<_>>());
    }
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let bytes: libc::c_int = 4 << 20;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    socket
}

fn set_option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    let (fd, len) = (socket.as_raw_fd(), size_of_val(&value) as u32);
    // SAFETY: `value` is an option value of the length given.
    let done = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    assert_eq!(done, 0, "the option can be set: {}", io::Error::last_os_error());
}

/// A server and what drives it. The clients are first: they are gone before the server is stopped.
struct Load {
    clients: Vec<File>,
    received: Arc<AtomicU64>,
    task: Task,
    server: Server,
}

impl Load {
    fn new(spawn: Spawn, task: Task) -> Load {
        let sockets: Vec<UdpSocket> = (0..task.sockets).map(|_| bound()).collect();
        if task.flood == Some(Merged::Yes) {
            sockets.iter().for_each(|socket| set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1));
        }
        let addrs: Vec<SocketAddr> =
            sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        let received = Arc::new(AtomicU64::new(0));
        let server = spawn(task, sockets, received.clone());
        let clients = (0..if task.flood.is_some() { 1 } else { CLIENTS }).map(|client| {
            let socket = bound();
            socket.connect(addrs[client % addrs.len()]).expect("a route");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("not zero");
            if task.flood.is_some() {
                let len = task.datagram_len as libc::c_int;
                set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, len);
            }
            File::from(OwnedFd::from(socket))
        });
        let mut load = Load { clients: clients.collect(), received, task, server };
        load.window(2 * CLIENTS as u64);
        load
    }

    fn window(&mut self, datagrams: u64) -> Window {
        let before = self.server.cpu();
        let start = Instant::now();
        match self.task.flood {
            None => exchange(&self.clients, self.task.datagram_len, datagrams),
            Some(_) => self.flood(datagrams),
        }
        Window { elapsed: start.elapsed(), cpu: Some(self.server.cpu() - before) }
    }

    /// Forty datagrams in one send, as long as the server has received what the last ones were.
    fn flood(&self, datagrams: u64) {
        const AT_ONCE: u64 = 40;
        const UNDER_WAY: u64 = 10 * AT_ONCE;
        let bytes = vec![7; AT_ONCE as usize * self.task.datagram_len];
        let begin = self.received.load(Ordering::Relaxed);
        let mut sent = 0;
        while sent < datagrams {
            let count = AT_ONCE.min(datagrams - sent);
            let len = count as usize * self.task.datagram_len;
            assert_eq!((&self.clients[0]).write(&bytes[..len]).expect("room"), len);
            sent += count;
            let arrived = || self.received.load(Ordering::Relaxed) - begin;
            while arrived() + UNDER_WAY < sent || (sent == datagrams && arrived() < sent) {
                std::hint::spin_loop();
            }
        }
    }
}

fn tamam(backend: Backend, task: Task, sockets: Vec<UdpSocket>, count: Arc<AtomicU64>) -> Server {
    servers::on_tamam(backend, move || {
        for socket in sockets {
            let count = count.clone();
            tamam::spawn(async move {
                let socket = tamam::net::UdpSocket::from_std(socket)?;
                if task.flood.is_some() {
                    loop {
                        let datagrams = socket.recv().await?.segments().count();
                        count.fetch_add(datagrams as u64, Ordering::Relaxed);
                    }
                }
                loop {
                    let datagram = socket.recv().await?;
                    socket.send_to(datagram.chunk, datagram.from).await.map_err(io::Error::from)?;
                }
                #[expect(unreachable_code, reason = "the type of the result")]
                io::Result::Ok(())
            });
        }
    })
}

fn tokio(task: Task, sockets: Vec<UdpSocket>, count: Arc<AtomicU64>) -> Server {
    servers::on_tokio(move || {
        for socket in sockets {
            let count = count.clone();
            tokio::spawn(async move {
                socket.set_nonblocking(true)?;
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                let mut buffer = vec![0; 1 << 16];
                loop {
                    let (len, from) = socket.recv_from(&mut buffer).await?;
                    if task.flood.is_some() {
                        let datagrams = len.div_ceil(task.datagram_len) as u64;
                        count.fetch_add(datagrams, Ordering::Relaxed);
                    } else {
                        socket.send_to(&buffer[..len], from).await?;
                    }
                }
                #[expect(unreachable_code, reason = "the type of the result")]
                io::Result::Ok(())
            });
        }
    })
}

fn raw_ring(task: Task, sockets: Vec<UdpSocket>, count: Arc<AtomicU64>) -> Server {
    let len = if task.flood == Some(Merged::Yes) { 1 << 16 } else { task.datagram_len };
    servers::on_eventfd(move |stop| {
        let work = match task.flood {
            None => Work::Echo,
            Some(_) => Work::Sink(&count, task.datagram_len),
        };
        raw::serve(&sockets, stop, len, &work)
    })
}
