//! A server: a thread with a runtime on one engine, which echoes, and runs tasks when told to.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tamam::net::{TcpListener, TcpSocket};
use tamam::{Backend, Metrics, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::machine::pin;
use crate::usage::Usage;

/// How many tasks are alive at a time in the row of tasks.
pub const TASKS: usize = 1000;
/// How long each of them sleeps.
const NAP: Duration = Duration::from_millis(1);

/// A thread with a runtime of its own, which echoes and carries out commands.
pub struct Server {
    pub name: &'static str,
    pub addr: SocketAddr,
    tid: i32,
    commands: UnboundedSender<Command>,
    thread: thread::JoinHandle<Metrics>,
}

pub enum Command {
    Usage(mpsc::Sender<Usage>),
    /// Run tasks for this long. The answer is how long it took, and how late each task woke.
    Tasks(Duration, mpsc::Sender<(Duration, Vec<Duration>)>),
}

impl Server {
    pub fn start(backend: Backend, size: usize, cpu: Option<usize>) -> io::Result<Server> {
        let (commands, told) = unbounded_channel();
        let (tell, ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let begun = cpu.map_or(Ok(()), pin).and_then(|()| {
                let runtime = Runtime::builder()
                    .backend(backend)
                    .buffer_size(size.clamp(4096, 65536))
                    .build()?;
                let listener = {
                    let _guard = runtime.enter();
                    TcpSocket::new_v4()?
                        .nodelay(true) // accepted connections inherit it
                        .backlog(4096)
                        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?
                };
                let addr = listener.local_addr()?;
                // SAFETY: gettid(2) takes no pointers.
                Ok((runtime, listener, addr, unsafe { libc::gettid() }))
            });
            let (runtime, listener) = match begun {
                Ok((runtime, listener, addr, tid)) => {
                    tell.send(Ok((addr, tid))).expect("the starter waits");
                    (runtime, listener)
                }
                Err(error) => {
                    tell.send(Err(error)).expect("the starter waits");
                    return Metrics::default();
                }
            };
            runtime.block_on(serve(listener, told));
            runtime.metrics()
        });
        let name = if backend == Backend::Ring { "ring" } else { "epoll" };
        let (addr, tid) =
            ready.recv().map_err(|_| io::Error::other("a server's thread ended"))??;
        Ok(Server { name, addr, tid, commands, thread })
    }

    /// Sends the server's thread a command, and waits for the answer.
    pub fn ask<T>(&self, command: impl FnOnce(mpsc::Sender<T>) -> Command) -> io::Result<T> {
        let (reply, answer) = mpsc::channel();
        let gone = || io::Error::other(format!("the server on {} ended", self.name));
        self.commands.send(command(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())
    }

    /// CPU time of the kernel's worker threads for this server's ring. The kernel runs on them what
    /// it cannot do at once. They are threads of this process, and bear the id of the thread that
    /// set the ring up in their name.
    pub fn ring_workers_ns(&self) -> u64 {
        let name = format!("iou-wrk-{}", self.tid);
        let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return 0 };
        let spent = threads.filter_map(Result::ok).filter_map(|thread| {
            let comm = std::fs::read_to_string(thread.path().join("comm")).ok()?;
            if comm.trim_end() != name {
                return None;
            }
            let times = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            times.split(' ').next()?.parse::<u64>().ok()
        });
        spent.sum()
    }

    pub fn stop(self) -> io::Result<()> {
        drop(self.commands); // its main future ends
        let metrics = self.thread.join();
        let metrics = metrics.map_err(|_| io::Error::other("a server's thread panicked"))?;
        match metrics.stray_completions {
            0 => Ok(()),
            _ => Err(io::Error::other(format!("{}: completions that nobody asked for", self.name))),
        }
    }
}

async fn serve(listener: TcpListener, mut commands: UnboundedReceiver<Command>) {
    tamam::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _peer)) => drop(tamam::spawn(echo(stream))),
                Err(error) => eprintln!("accept: {error}"),
            }
        }
    });
    while let Some(command) = commands.recv().await {
        // The client waits for the answer, so the receiver is still there.
        match command {
            Command::Usage(reply) => {
                let usage = Usage::of_this_thread(tamam::metrics());
                reply.send(usage).expect("somebody waits");
            }
            Command::Tasks(length, reply) => {
                reply.send(tasks(length).await).expect("somebody waits");
            }
        }
    }
}

async fn echo(stream: tamam::net::TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.send_all(chunk).await?;
    }
    Ok(())
}

/// Spawns [`TASKS`] tasks and awaits them all, again and again.
async fn tasks(length: Duration) -> (Duration, Vec<Duration>) {
    let start = Instant::now();
    let mut late = Vec::new();
    let mut tasks = Vec::with_capacity(TASKS);
    while late.is_empty() || start.elapsed() < length {
        tasks.extend((0..TASKS).map(|_| {
            tamam::spawn(async {
                let begun = Instant::now();
                tamam::time::sleep(NAP).await;
                let late = begun.elapsed().checked_sub(NAP).expect("no timer fires early");
                tamam::yield_now().await;
                late
            })
        }));
        for task in tasks.drain(..) {
            late.push(task.await.expect("no task panics"));
        }
    }
    (start.elapsed(), late)
}
