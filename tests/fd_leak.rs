//! Twenty thousand connections (and some thousands under epoll) lead random lives (timeouts, dropped and forgotten futures, halves,
//! conversions, resets by either side, tasks that end anywhere) and nothing is left of them:
//! descriptors, ops, timers, lent buffers and the heap are as at the start, except for what the
//! forgotten futures themselves hold, which is counted to the byte.
//!
//! `TAMAM_TEST_SEED` repeats a run; its lives are the same, what the kernel makes of them is not.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::{Gone, Random};
use tamam::net::{TcpListener, TcpStream};
use tamam::time::timeout;
use tamam::{Backend, Builder, Chunk, Runtime};

/// What collections may have grown by. One leaked word for each connection would be more.
const SLACK: isize = 64 * 1024;
/// The head of a buffer that a `read` lends to its stream (not all do).
const LENT_HEAD: usize = 80;

/// What the lives of a run share.
#[derive(Default)]
struct World {
    /// How many bytes of heap the forgotten futures hold.
    forgotten: Cell<usize>,
    /// Chunks that outlive their streams for a while.
    kept: RefCell<Vec<Chunk>>,
}

impl World {
    /// Polls a future once; if it has to wait, it goes. `holds`: how much of the heap is its own.
    async fn poll_and_leave<F: Future>(&self, future: F, holds: usize, gone: Gone) {
        let mut future = Box::pin(future);
        if common::poll_once(&mut future).await.is_pending() {
            self.leave(future, holds, gone);
        }
    }

    fn leave<F: Future>(&self, future: Pin<Box<F>>, holds: usize, gone: Gone) {
        if gone == Gone::Forgotten {
            self.forgotten.set(self.forgotten.get() + size_of_val(&*future) + holds);
        }
        gone.leave(future);
    }

    fn keep(&self, chunk: Chunk, random: &mut Random) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < 16 {
            kept.push(chunk);
        } else {
            let at = random.below(16) as usize;
            let old = std::mem::replace(&mut kept[at], chunk);
            drop(kept);
            drop(old);
        }
    }
}

/// A short pause: none, some, or so long that what waits is mostly done.
fn pause(random: &mut Random) -> Duration {
    Duration::from_micros([0, 50, 300, 2000][random.below(4) as usize])
}

fn gone(random: &mut Random) -> Gone {
    Gone::BOTH[random.below(2) as usize]
}

/// One thing that is done to a stream. What fails is of no interest: the peer resets at random.
async fn step(world: &World, stream: &TcpStream, random: &mut Random) {
    let room = 1 + random.below(20_000) as usize;
    let large = vec![7; 1 + random.below(100_000) as usize];
    let (pause, gone) = (pause(random), gone(random));
    match random.below(13) {
        0 => drop(timeout(pause, stream.recv()).await),
        1 => drop(timeout(pause, stream.read(Vec::with_capacity(room))).await),
        2 => drop(timeout(pause, stream.read_exact(Vec::with_capacity(room), room)).await),
        3 => drop(timeout(pause, stream.send_all(large)).await),
        4 => drop(timeout(pause, stream.sendv(vec![large, vec![8; room]])).await),
        5 => world.poll_and_leave(stream.recv(), 0, gone).await,
        6 => {
            let read = stream.read(Vec::with_capacity(room));
            world.poll_and_leave(read, room + LENT_HEAD, gone).await;
        }
        7 => {
            let read = stream.read_exact(Vec::with_capacity(room), room);
            world.poll_and_leave(read, room + LENT_HEAD, gone).await;
        }
        // Once polled, the buffer is the stream's.
        8 => world.poll_and_leave(stream.send_all(large), 0, gone).await,
        9 => world.poll_and_leave(stream.sendv(vec!["a", "", "b"]), 0, gone).await,
        10 => {
            if let Ok(Ok(Some(chunk))) = timeout(pause, stream.recv()).await {
                drop(timeout(pause, stream.send_all(chunk)).await);
            }
        }
        11 => {
            if let Ok(Ok(Some(chunk))) = timeout(pause, stream.recv()).await {
                world.keep(chunk, random);
            }
        }
        _ => common::turn().await,
    }
}

/// The end of a stream.
async fn end(world: &World, stream: TcpStream, random: &mut Random) {
    let (pause, gone) = (pause(random), gone(random));
    match random.below(9) {
        0 => drop(stream),
        1 => {
            world.poll_and_leave(stream.shutdown(), 0, gone).await;
            drop(stream);
        }
        2 => {
            let _ = stream.set_zero_linger();
            drop(stream);
        }
        3 => {
            let (read, write) = stream.into_split();
            world.poll_and_leave(read.recv(), 0, gone).await;
            drop(read);
            drop(timeout(pause, write.send_all(vec![9; 10_000])).await);
        }
        4 => {
            let (read, write) = stream.into_split();
            world.poll_and_leave(write.send_all(vec![9; 50_000]), 0, gone).await;
            if random.below(2) == 0 {
                drop(write)
            } else {
                write.forget()
            }
            drop(timeout(pause, read.recv()).await);
        }
        5 => {
            let (read, write) = stream.into_split();
            world.poll_and_leave(read.recv(), 0, gone).await;
            let stream = read.reunite(write).expect("halves of one stream");
            drop(timeout(pause, stream.recv()).await);
        }
        6 => match stream.into_std() {
            Ok((std, _unread)) => drop(std),
            Err(error) => drop(error.into_stream()),
        },
        7 => match stream.into_std() {
            Ok((std, _unread)) => {
                let stream = TcpStream::from_std(std).expect("inside a runtime");
                drop(timeout(pause, stream.recv()).await);
            }
            Err(error) => drop(timeout(pause, error.into_stream().send_all("x")).await),
        },
        // Until the peer ends it.
        _ => while let Ok(Some(_)) = stream.recv().await {},
    }
}

async fn life(world: Rc<World>, stream: TcpStream, mut random: Random) {
    for _ in 0..random.below(6) {
        step(&world, &stream, &mut random).await;
    }
    end(&world, stream, &mut random).await;
}

/// How much happens.
#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    /// What peers write at once at most: less where the runtime receives 16 bytes at a time.
    write_max: usize,
}

/// Makes half of the connections, up to 24 of them at a time, and does random things to them; in
/// the end all are closed.
fn peers(addr: SocketAddr, load: Load, mut random: Random) {
    let connections = load.connections / 2;
    let mut open: Vec<StdStream> = Vec::new();
    let (mut made, mut buf) = (0, vec![5; load.write_max]);
    while made < connections || !open.is_empty() {
        if made < connections && open.len() < 24 && random.below(4) == 0 {
            made += 1;
            match StdStream::connect(addr) {
                Ok(peer) => {
                    peer.set_nonblocking(true).expect("a socket");
                    open.push(peer);
                }
                // Accepted, and reset by its random life before this thread woke up.
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
            }
        }
        if open.is_empty() {
            continue;
        }
        let at = random.below(open.len() as u64) as usize;
        let len = random.below(buf.len() as u64) as usize;
        let peer = &mut open[at];
        match random.below(16) {
            0..4 => passing(peer.write(&buf[..len])),
            4..8 => passing(peer.write(&buf[..len % 100])),
            8..13 => passing(peer.read(&mut buf[..len])),
            13 => drop(peer.shutdown(Shutdown::Write)),
            14 => drop(open.swap_remove(at)),
            _ => common::reset(open.swap_remove(at)),
        }
    }
}

/// A peer's call may find the other side gone, or no room; anything else is wrong.
fn passing(result: std::io::Result<usize>) {
    use ErrorKind::{BrokenPipe, ConnectionReset, WouldBlock};
    if let Err(error) = result {
        assert!(matches!(error.kind(), BrokenPipe | ConnectionReset | WouldBlock), "{error}");
    }
}

/// Accepts the connections of a round, and lets each live; returns when all have ended.
async fn round(world: &Rc<World>, load: Load, random: &mut Random) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let clients = [0, 1].map(|_| {
        let random = Random(random.below(1 << 31) | 1);
        thread::spawn(move || peers(addr, load, random))
    });
    let mut lives = Vec::new();
    while lives.len() < load.connections {
        let mut accept = Box::pin(listener.accept());
        let (stream, _) = match common::poll_once(&mut accept).await {
            Poll::Ready(accepted) => accepted.expect("a connection"),
            Poll::Pending if random.below(8) == 0 => {
                world.leave(accept, 0, gone(random));
                continue;
            }
            Poll::Pending => match timeout(Duration::from_millis(1), accept).await {
                Ok(accepted) => accepted.expect("a connection"),
                Err(_elapsed) => continue,
            },
        };
        let life = life(world.clone(), stream, Random(random.below(1 << 31) | 1));
        let pause = pause(random);
        lives.push(match random.below(4) {
            0 => tamam::spawn(async move { timeout(pause, life).await.unwrap_or(()) }),
            _ => tamam::spawn(life),
        });
        if random.below(8) == 0 {
            lives[random.below(lives.len() as u64) as usize].abort();
        }
    }
    drop(listener);
    for life in lives {
        if let Err(error) = life.await {
            assert!(error.is_cancelled(), "{error}");
        }
    }
    for client in clients {
        common::join(client).await;
    }
    let kept = std::mem::take(&mut *world.kept.borrow_mut());
    drop(kept);
    // Those dropped last are let go of in one more turn.
    common::turn().await;
}

/// What a runtime and its process hold.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: Vec<String>,
    ops: usize,
    tasks: usize,
    timers: usize,
    buffers_lent: usize,
}

fn held(runtime: &Runtime) -> Held {
    let metrics = runtime.metrics();
    Held {
        descriptors: common::descriptors(),
        ops: metrics.ops,
        tasks: metrics.tasks,
        timers: metrics.timers,
        buffers_lent: metrics.buffers_lent,
    }
}

/// `load`: of each round.
fn lives_leave_nothing(name: &str, builder: Builder, rounds: usize, load: Load) {
    common::alone(name, || {
        if !common::can_open(500) {
            return;
        }
        let seed = match std::env::var("TAMAM_TEST_SEED") {
            Ok(seed) => seed.parse().expect("TAMAM_TEST_SEED is a number"),
            Err(_) => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                now.expect("after 1970").as_nanos() as u64 | 1
            }
        };
        println!("TAMAM_TEST_SEED={seed}");
        let mut random = Random(seed);
        let runtime = common::build(builder);
        let world = Rc::new(World::default());
        let watchdog = common::Watchdog::start();
        // A first round gives every collection its memory.
        runtime.block_on(round(&world, load, &mut random));
        drop(watchdog);
        let start = held(&runtime);
        let (heap, forgotten) = (common::quarantine::live(), world.forgotten.get());
        for number in 0..rounds {
            let _watchdog = common::Watchdog::start();
            runtime.block_on(round(&world, load, &mut random));
            assert_eq!(held(&runtime), start, "round {number}");
            let metrics = runtime.metrics();
            assert_eq!(metrics.stray_completions, 0, "a completion that nothing explains");
            // Its own: the watchdog's thread and channel are small.
            let grown = common::quarantine::live() - heap;
            let forgotten = (world.forgotten.get() - forgotten) as isize;
            println!("round {number}: {grown} bytes more, {forgotten} of them forgotten");
            assert!(
                grown - forgotten < SLACK,
                "round {number}: {grown} bytes, {forgotten} forgotten"
            );
        }
        assert_eq!((start.ops, start.tasks, start.timers, start.buffers_lent), (0, 0, 0, 0));
        println!("{:?}", runtime.metrics());
    });
}

#[test]
fn fd_leak_twenty_thousand_lives() {
    let load = Load { connections: 2_000, write_max: 60_000 };
    lives_leave_nothing("fd_leak_twenty_thousand_lives", Runtime::builder(), 10, load);
}

#[test]
fn fd_leak_lives_under_epoll() {
    let epoll = Runtime::builder().backend(Backend::Epoll);
    let load = Load { connections: 2_000, write_max: 60_000 };
    lives_leave_nothing("fd_leak_lives_under_epoll", epoll, 2, load);
}

#[test]
fn fd_leak_lives_under_epoll_with_few_buffers() {
    let few = Runtime::builder().backend(Backend::Epoll).buffer_size(16).buffer_count(2);
    let load = Load { connections: 1_000, write_max: 400 };
    lives_leave_nothing("fd_leak_lives_under_epoll_with_few_buffers", few, 2, load);
}

#[test]
fn fd_leak_lives_in_the_smallest_of_runtimes() {
    let smallest = common::smallest();
    let load = Load { connections: 1_000, write_max: 400 };
    lives_leave_nothing("fd_leak_lives_in_the_smallest_of_runtimes", smallest, 2, load);
}

#[test]
fn fd_leak_lives_with_few_buffers() {
    let few = Runtime::builder().buffer_size(512).buffer_count(8).entries(4).completion_entries(8);
    let load = Load { connections: 1_000, write_max: 20_000 };
    lives_leave_nothing("fd_leak_lives_with_few_buffers", few, 2, load);
}
