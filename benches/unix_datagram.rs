//! What does a datagram of a Unix socket cost?
//!
//! An echo of 64 B at 1 and at 50 pairs of sockets, of 16 KiB at 50, each with one datagram under way; and
//! of 64 B by one socket that 10 clients with paths share (as many as the kernel keeps in line). tamam on
//! io_uring and on epoll, tokio's current-thread runtime, and plain recvfrom(2) and sendto(2) behind
//! epoll_wait(2) (the floor). The client is a thread with plain sockets on another core; it compares every
//! byte.
//!
//! ```text
//! cargo bench -p tamam-benches --bench unix_datagram                       criterion: time per datagram
//! PAIRED=10 cargo bench -p tamam-benches --bench unix_datagram             interleaved: ratios, and CPU time
//! PAIRED=10 cargo bench -p tamam-benches --bench unix_datagram -- 64B/50   one row of it
//! ```
//!
//! The CPU time of the server's thread, printed by the paired run, is what tells servers apart.

mod support;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use support::client::{Poller, exchange};
use support::paired::{self, Contender, Window};
use support::servers::{self, Server};
use tamam::Backend;

/// What a server answers.
#[derive(Clone, Copy)]
enum Peers {
    /// One at each of so many sockets.
    Pairs(usize),
    /// So many at one socket, by their paths.
    Shared(usize),
}

const ROWS: [(&str, usize, Peers); 4] = [
    ("unix_datagram/64B/1", 64, Peers::Pairs(1)),
    ("unix_datagram/64B/50", 64, Peers::Pairs(50)),
    ("unix_datagram/16KiB/50", 16 * 1024, Peers::Pairs(50)),
    ("unix_datagram/64B/shared", 64, Peers::Shared(10)),
];

/// Longer than any datagram.
const BUFFER_LEN: usize = 1 << 15;

/// Serves these sockets.
type Spawn = fn(Peers, Vec<UnixDatagram>) -> Server;

const ALL: [(&str, Spawn); 5] = [
    ("plain", plain),
    ("tamam_ring", |peers, sockets| tamam(Backend::Ring, peers, sockets)),
    ("tamam_epoll", |peers, sockets| tamam(Backend::Epoll, peers, sockets)),
    ("tokio", tokio),
    ("plain again", plain),
];

fn main() {
    support::run(support::Side::Driver, bench, compare);
}

fn bench(criterion: &mut Criterion) {
    for (title, datagram_len, peers) in ROWS {
        let mut group = criterion.benchmark_group(title);
        group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
        for (name, spawn) in ALL {
            let mut load = None;
            group.bench_function(name, |bencher| {
                // Made here: criterion calls this for the servers that were selected only.
                let load = load.get_or_insert_with(|| Load::new(spawn, datagram_len, peers));
                bencher.iter_custom(|datagrams| load.window(datagrams).elapsed);
            });
        }
        group.finish();
    }
}

fn compare(rounds: usize) {
    for (title, datagram_len, peers) in ROWS.into_iter().filter(|row| paired::is_selected(row.0)) {
        let contenders = ALL.into_iter().map(|(name, spawn)| {
            let mut load = Load::new(spawn, datagram_len, peers);
            Contender::new(name, move |datagrams| load.window(datagrams))
        });
        paired::compare(title, "plain", 1, rounds, &mut contenders.collect::<Vec<_>>());
    }
}

/// A server and its clients. The clients are first: they are gone before the server is stopped.
struct Load {
    clients: Vec<File>,
    datagram_len: usize,
    server: Server,
    /// Of the paths; removed last.
    _folder: Folder,
}

impl Load {
    fn new(spawn: Spawn, datagram_len: usize, peers: Peers) -> Load {
        let folder = Folder::new();
        let (clients, sockets): (Vec<UnixDatagram>, Vec<UnixDatagram>) = match peers {
            Peers::Pairs(count) => {
                (0..count).map(|_| UnixDatagram::pair().expect("descriptors are left")).unzip()
            }
            Peers::Shared(count) => {
                let server = folder.bind("server");
                let client = |number: usize| {
                    let client = folder.bind(&number.to_string());
                    client.connect(folder.0.join("server")).expect("it is bound");
                    client
                };
                ((0..count).map(client).collect(), vec![server])
            }
        };
        let as_file = |client: UnixDatagram| {
            client.set_read_timeout(Some(Duration::from_secs(10))).expect("not zero");
            File::from(OwnedFd::from(client))
        };
        let clients: Vec<File> = clients.into_iter().map(as_file).collect();
        let mut load =
            Load { server: spawn(peers, sockets), datagram_len, clients, _folder: folder };
        load.window(2 * load.clients.len() as u64);
        load
    }

    fn window(&mut self, datagrams: u64) -> Window {
        let before = self.server.cpu();
        let start = Instant::now();
        exchange(&self.clients, self.datagram_len, datagrams);
        Window { elapsed: start.elapsed(), cpu: Some(self.server.cpu() - before) }
    }
}

/// A folder for paths of sockets, which goes with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tamam-benches-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder for temporary files");
        Folder(path)
    }

    fn bind(&self, name: &str) -> UnixDatagram {
        UnixDatagram::bind(self.0.join(name)).expect("a name that is free")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tamam(backend: Backend, peers: Peers, sockets: Vec<UnixDatagram>) -> Server {
    servers::on_tamam(backend, move || {
        for socket in sockets {
            tamam::spawn(async move {
                let socket = tamam::net::UnixDatagram::from_std(socket)?;
                loop {
                    let datagram = socket.recv().await?;
                    match peers {
                        Peers::Pairs(_) => drop(socket.send(datagram.chunk).await?),
                        Peers::Shared(_) => {
                            drop(socket.send_to_addr(datagram.chunk, &datagram.from).await?);
                        }
                    }
                }
                #[expect(unreachable_code, reason = "the type of the result")]
                io::Result::Ok(())
            });
        }
    })
}

fn tokio(peers: Peers, sockets: Vec<UnixDatagram>) -> Server {
    servers::on_tokio(move || {
        for socket in sockets {
            tokio::spawn(async move {
                socket.set_nonblocking(true)?;
                let socket = tokio::net::UnixDatagram::from_std(socket)?;
                let mut buffer = vec![0; BUFFER_LEN];
                loop {
                    match peers {
                        Peers::Pairs(_) => {
                            let len = socket.recv(&mut buffer).await?;
                            socket.send(&buffer[..len]).await?;
                        }
                        Peers::Shared(_) => {
                            let (len, from) = socket.recv_from(&mut buffer).await?;
                            let path = from.as_pathname().expect("every client has one");
                            socket.send_to(&buffer[..len], path).await?;
                        }
                    }
                }
                #[expect(unreachable_code, reason = "the type of the result")]
                io::Result::Ok(())
            });
        }
    })
}

/// Receives and sends until `stop` is readable: a datagram of each socket that has one, of a shared socket
/// all there are.
fn plain(peers: Peers, sockets: Vec<UnixDatagram>) -> Server {
    servers::on_eventfd(move |stop| {
        let mut poller = Poller::new()?;
        poller.add(&stop, libc::EPOLLIN, sockets.len())?;
        for (index, socket) in sockets.iter().enumerate() {
            socket.set_nonblocking(true)?;
            poller.add(socket, libc::EPOLLIN, index)?;
        }
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            for event in poller.sleep() {
                let Some(socket) = sockets.get(event.u64 as usize) else { return Ok(()) };
                match peers {
                    Peers::Pairs(_) => {
                        let len = socket.recv(&mut buffer)?;
                        socket.send(&buffer[..len])?;
                    }
                    Peers::Shared(_) => answer_all(socket, &mut buffer)?,
                }
            }
        }
    })
}

fn answer_all(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        match socket.recv_from(buffer) {
            Ok((len, from)) => drop(socket.send_to_addr(&buffer[..len], &from)?),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
