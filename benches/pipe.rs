//! What does it cost to move bytes through a pipe?
//!
//! Bytes go one way. The side under test receives what a thread writes with write(2), or sends what a
//! thread reads with read(2), in pieces of 64 KiB (all that a pipe holds) or of 4 KiB: tamam on io_uring
//! and on epoll, tokio's current-thread runtime, and a thread with plain read(2) and write(2) (the base).
//! tamam receives twice: by `recv`, into memory of its choice, and by `read`, into one buffer of ours, as
//! the others do. Both ends look at the bytes: at all of the first, and at every 4099th later.
//!
//! ```text
//! cargo bench -p tamam-benches --bench pipe                    criterion: time per 64 KiB
//! PAIRED=10 cargo bench -p tamam-benches --bench pipe          interleaved: ratios, and CPU time per 64 KiB
//! PAIRED=10 cargo bench -p tamam-benches --bench pipe -- send  some rows of it
//! ```
//!
//! The CPU time of the tested thread, printed by the paired run, is what tells them apart. The two threads
//! share a core. On two, each spins on the lock of the pipe while the other copies, a third of its time and
//! more, and the slightest delay decides how long: that would be all there is to see.

mod support;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use support::paired::{self, Contender, Window};
use support::servers::{self, Server};
use tamam::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What is counted, whatever the pieces are.
const UNIT: usize = 1 << 16;

/// What the side under test does.
#[derive(Clone, Copy, PartialEq)]
enum Task {
    Receive,
    Send,
}

/// Title, task, size of a piece.
const ROWS: [(&str, Task, usize); 4] = [
    ("pipe/receive/64KiB", Task::Receive, UNIT),
    ("pipe/receive/4KiB", Task::Receive, 4096),
    ("pipe/send/64KiB", Task::Send, UNIT),
    ("pipe/send/4KiB", Task::Send, 4096),
];

/// Does this at its end of a pipe, until the other end is closed.
type Spawn = fn(Task, usize, OwnedFd, Tally) -> Server;

const ALL: [(&str, Spawn); 7] = [
    ("plain", plain),
    ("tamam_ring", |task, len, end, tally| tamam(Backend::Ring, task, len, end, tally)),
    ("tamam_epoll", |task, len, end, tally| tamam(Backend::Epoll, task, len, end, tally)),
    ("tamam_ring read", |_, len, end, tally| tamam_read(Backend::Ring, len, end, tally)),
    ("tamam_epoll read", |_, len, end, tally| tamam_read(Backend::Epoll, len, end, tally)),
    ("tokio", tokio),
    ("plain again", plain),
];

/// Those that do this.
fn contenders(task: Task) -> impl Iterator<Item = (&'static str, Spawn)> {
    ALL.into_iter().filter(move |(name, _)| task == Task::Receive || !name.ends_with(" read"))
}

fn main() {
    support::run(support::Side::Tested, bench, compare);
}

fn bench(criterion: &mut Criterion) {
    for (title, task, piece_len) in ROWS {
        let mut group = criterion.benchmark_group(title);
        group.throughput(Throughput::Bytes(UNIT as u64)).sampling_mode(SamplingMode::Flat);
        for (name, spawn) in contenders(task) {
            let mut load = None;
            group.bench_function(name, |bencher| {
                // Made here: criterion calls this for the sides that were selected only.
                let load = load.get_or_insert_with(|| Load::new(spawn, task, piece_len));
                bencher.iter_custom(|units| load.window(units).elapsed);
            });
        }
        group.finish();
    }
}

fn compare(rounds: usize) {
    for (title, task, piece_len) in ROWS.into_iter().filter(|row| paired::is_selected(row.0)) {
        let contenders = contenders(task).map(|(name, spawn)| {
            let mut load = Load::new(spawn, task, piece_len);
            Contender::new(name, move |units| load.window(units))
        });
        paired::compare(title, "plain", 1, rounds, &mut contenders.collect::<Vec<_>>());
    }
}

/// The byte at a place of the stream. It repeats after a unit.
fn byte_at(place: usize) -> u8 {
    let place = place % UNIT;
    (place * 131 + (place >> 8) * 17) as u8
}

fn unit() -> Vec<u8> {
    (0..UNIT).map(byte_at).collect()
}

/// Looks at the bytes that have come, and counts them.
struct Tally {
    place: usize,
    received: Arc<AtomicU64>,
}

impl Tally {
    /// Of so many bytes it looks at each.
    const WHOLE: usize = 16 * UNIT;

    fn new() -> Tally {
        Tally { place: 0, received: Arc::default() }
    }

    #[inline]
    fn take(&mut self, bytes: &[u8]) {
        let step = if self.place < Self::WHOLE { 1 } else { 4099 };
        for (at, byte) in bytes.iter().enumerate().step_by(step) {
            assert_eq!(*byte, byte_at(self.place + at), "byte {} has changed", self.place + at);
        }
        self.place += bytes.len();
        self.received.store(self.place as u64, Ordering::Release);
    }
}

/// Both sides of a pipe. The plain end is first: it is closed before the other side is stopped.
struct Load {
    end: File,
    task: Task,
    /// What has gone through the plain end.
    tally: Tally,
    bytes: Vec<u8>,
    piece_len: usize,
    /// What has come at the side under test.
    received: Arc<AtomicU64>,
    server: Server,
}

impl Load {
    fn new(spawn: Spawn, task: Task, piece_len: usize) -> Load {
        let (read, write) = pipe();
        let (tested, end) = match task {
            Task::Receive => (read, write),
            Task::Send => (write, read),
        };
        let (theirs, tally) = (Tally::new(), Tally::new());
        let received = theirs.received.clone();
        let server = spawn(task, piece_len, tested, theirs);
        let bytes = unit();
        let mut load = Load { end: end.into(), task, tally, bytes, piece_len, received, server };
        load.window((Tally::WHOLE / UNIT) as u64); // those bytes are all looked at
        load
    }

    fn window(&mut self, units: u64) -> Window {
        let before = self.server.cpu();
        let start = Instant::now();
        match self.task {
            Task::Receive => self.feed(units),
            Task::Send => self.drain(units),
        }
        Window { elapsed: start.elapsed(), cpu: Some(self.server.cpu() - before) }
    }

    fn feed(&mut self, units: u64) {
        let sent = self.received.load(Ordering::Acquire) + units * UNIT as u64;
        for _ in 0..units {
            for piece in self.bytes.chunks(self.piece_len) {
                self.end.write_all(piece).expect("the tested side receives");
            }
        }
        let start = Instant::now();
        while self.received.load(Ordering::Acquire) < sent {
            assert!(start.elapsed() < Duration::from_secs(10), "bytes are missing");
            std::thread::yield_now();
        }
    }

    fn drain(&mut self, units: u64) {
        let mut left = units as usize * UNIT;
        while left > 0 {
            let len = left.min(self.piece_len);
            let len = self.end.read(&mut self.bytes[..len]).expect("the tested side sends");
            assert!(len > 0, "the tested side sends");
            self.tally.take(&self.bytes[..len]);
            left -= len;
        }
    }
}

/// The end to read from, and the one to write to; both wait.
fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [-1; 2];
    // SAFETY: there is room for two descriptors.
    let done = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(done, 0, "descriptors are left: {}", io::Error::last_os_error());
    // SAFETY: pipe2(2) has just opened both, so nothing else owns them.
    unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) }
}

fn plain(task: Task, piece_len: usize, end: OwnedFd, mut tally: Tally) -> Server {
    servers::on_thread(move || {
        let (mut end, mut bytes) = (File::from(end), unit());
        match task {
            Task::Receive => loop {
                match end.read(&mut bytes[..piece_len])? {
                    0 => return Ok(()),
                    len => tally.take(&bytes[..len]),
                }
            },
            Task::Send => loop {
                for piece in bytes.chunks(piece_len) {
                    match end.write_all(piece) {
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                        written => written?,
                    }
                }
            },
        }
    })
}

fn tamam(backend: Backend, task: Task, piece_len: usize, end: OwnedFd, mut tally: Tally) -> Server {
    servers::on_tamam(backend, move || match task {
        Task::Receive => drop(tamam::spawn(async move {
            let receiver = tamam::pipe::Receiver::from_fd(end)?;
            while let Some(chunk) = receiver.recv().await? {
                tally.take(&chunk);
            }
            io::Result::Ok(())
        })),
        Task::Send => drop(tamam::spawn(async move {
            let sender = tamam::pipe::Sender::from_fd(end)?;
            let mut pieces: Vec<Vec<u8>> = unit().chunks(piece_len).map(<[u8]>::to_vec).collect();
            loop {
                for piece in &mut pieces {
                    *piece = sender.send_all(std::mem::take(piece)).await?;
                }
            }
            #[expect(unreachable_code, reason = "the type of the result")]
            io::Result::Ok(())
        })),
    })
}

/// As the others receive: into one buffer.
fn tamam_read(backend: Backend, piece_len: usize, end: OwnedFd, mut tally: Tally) -> Server {
    servers::on_tamam(backend, move || {
        tamam::spawn(async move {
            let receiver = tamam::pipe::Receiver::from_fd(end)?;
            let mut buffer = Vec::with_capacity(piece_len);
            loop {
                buffer.clear();
                let (len, filled) = receiver.read(buffer).await?;
                if len == 0 {
                    return io::Result::Ok(());
                }
                buffer = filled;
                tally.take(&buffer);
            }
        });
    })
}

fn tokio(task: Task, piece_len: usize, end: OwnedFd, mut tally: Tally) -> Server {
    servers::on_tokio(move || {
        tokio::spawn(async move {
            let mut bytes = unit();
            match task {
                Task::Receive => {
                    let mut receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(end)?;
                    loop {
                        match receiver.read(&mut bytes[..piece_len]).await? {
                            0 => return io::Result::Ok(()),
                            len => tally.take(&bytes[..len]),
                        }
                    }
                }
                Task::Send => {
                    let mut sender = tokio::net::unix::pipe::Sender::from_owned_fd(end)?;
                    loop {
                        for piece in bytes.chunks(piece_len) {
                            sender.write_all(piece).await?;
                        }
                    }
                }
            }
        });
    })
}
