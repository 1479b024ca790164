//! The echo servers under test. Each runs on its own thread, pinned to the tested core, and ends when
//! dropped. They share the listener's settings and nothing else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tamam::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::client::{set_option, sockaddr};
use super::{Side, pin, tokio_runtime};

#[path = "../raw_epoll/mod.rs"]
mod raw_epoll;
#[path = "../raw_ring/mod.rs"]
pub mod raw_ring;

/// Starts a server for messages of the given length.
pub type Spawn = fn(usize) -> Server;

/// Name and start of every server, the one under test first.
pub const ALL: [(&str, Spawn); 5] = [
    ("tamam_ring", spawn_tamam_ring),
    ("tamam_epoll", spawn_tamam_epoll),
    ("tokio", spawn_tokio),
    ("raw_ring", spawn_raw_ring),
    ("raw_epoll", spawn_raw_epoll),
];

fn spawn_tamam_ring(message_len: usize) -> Server {
    spawn_tamam(Backend::Ring, message_len)
}

fn spawn_tamam_epoll(message_len: usize) -> Server {
    spawn_tamam(Backend::Epoll, message_len)
}

fn spawn_tamam(backend: Backend, message_len: usize) -> Server {
    tamam(backend, message_len, tamam_echo)
}

/// tamam with receive buffers that hold a message, as the others have them, and room: under epoll a
/// receive that leaves room needs no second look. Else as it comes. `serve` is a task for each
/// connection.
pub fn tamam<F>(
    backend: Backend,
    message_len: usize,
    serve: impl Fn(tamam::net::TcpStream) -> F + Send + 'static,
) -> Server
where
    F: Future<Output: 'static> + 'static,
{
    let (stop, stopped) = oneshot::channel();
    let serve = move |listener: TcpListener| {
        let runtime = tamam::Runtime::builder()
            .backend(backend)
            .buffer_size((message_len + 64).max(4096))
            .buffer_count(if message_len > 4096 { 128 } else { 256 })
            .build()?;
        runtime.block_on(async move {
            let listener = tamam::net::TcpListener::from_std(listener)?;
            tamam::spawn(async move {
                loop {
                    let (stream, _peer) = listener.accept().await.expect("descriptors are left");
                    tamam::spawn(serve(stream));
                }
            });
            let _ = stopped.await;
            Ok(())
        })
    };
    Server::start(serve, Box::new(move || stop.send(()).expect("the server waits for it")))
}

async fn tamam_echo(stream: tamam::net::TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.send_all(chunk).await?;
    }
    Ok(())
}

/// tokio's current-thread runtime, a task and a fitting buffer per connection.
fn spawn_tokio(message_len: usize) -> Server {
    tokio(move |stream| tokio_echo(stream, message_len))
}

/// tokio's current-thread runtime with a task for each connection.
pub fn tokio<F>(serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> Server
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let (stop, stopped) = oneshot::channel();
    let serve = move |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        tokio_runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(async move {
                loop {
                    let (stream, _peer) = listener.accept().await.expect("descriptors are left");
                    tokio::spawn(serve(stream));
                }
            });
            let _ = stopped.await;
            Ok(())
        })
    };
    Server::start(serve, Box::new(move || stop.send(()).expect("the server waits for it")))
}

async fn tokio_echo(mut stream: tokio::net::TcpStream, message_len: usize) -> io::Result<()> {
    let mut buffer = vec![0; message_len];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            received => stream.write_all(&buffer[..received]).await?,
        }
    }
}

/// What `begin` spawns on tamam, without a listener. Else as it comes.
pub fn on_tamam(backend: Backend, begin: impl FnOnce() + Send + 'static) -> Server {
    let (stop, stopped) = oneshot::channel();
    let serve = move |_listener: TcpListener| {
        let runtime = tamam::Runtime::builder().backend(backend).build()?;
        runtime.block_on(async move {
            begin();
            let _ = stopped.await;
            Ok(())
        })
    };
    Server::start(serve, Box::new(move || stop.send(()).expect("the server waits for it")))
}

/// What `begin` spawns on tokio's current-thread runtime, without a listener.
pub fn on_tokio(begin: impl FnOnce() + Send + 'static) -> Server {
    let (stop, stopped) = oneshot::channel();
    let serve = move |_listener: TcpListener| {
        tokio_runtime().block_on(async move {
            begin();
            let _ = stopped.await;
            Ok(())
        })
    };
    Server::start(serve, Box::new(move || stop.send(()).expect("the server waits for it")))
}

/// The loop written by hand on a ring, with buffers that fit the message.
pub fn spawn_raw_ring(message_len: usize) -> Server {
    spawn_raw(raw_ring::serve, message_len)
}

/// The loop written by hand on epoll, with a buffer that fits the message, and room.
fn spawn_raw_epoll(message_len: usize) -> Server {
    spawn_raw(raw_epoll::serve, message_len + 64)
}

/// A loop on a listener until an eventfd is written to, with buffers of this size.
type Loop = fn(&TcpListener, BorrowedFd<'_>, usize) -> io::Result<()>;

fn spawn_raw(run: Loop, buffer_len: usize) -> Server {
    on_eventfd_with(move |listener, stop| run(listener, stop, buffer_len))
}

/// What serves without a listener, until an eventfd is written to.
pub fn on_eventfd(run: impl FnOnce(BorrowedFd<'_>) -> io::Result<()> + Send + 'static) -> Server {
    on_eventfd_with(move |_listener, stop| run(stop))
}

fn on_eventfd_with(
    run: impl FnOnce(&TcpListener, BorrowedFd<'_>) -> io::Result<()> + Send + 'static,
) -> Server {
    // SAFETY: no memory is passed.
    let eventfd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(eventfd >= 0, "an eventfd: {}", io::Error::last_os_error());
    // SAFETY: just opened, and nobody else owns it.
    let eventfd = Arc::new(unsafe { OwnedFd::from_raw_fd(eventfd) });
    let stop = Arc::clone(&eventfd);
    let serve = move |listener: TcpListener| run(&listener, eventfd.as_fd());
    Server::start(
        serve,
        Box::new(move || {
            let one = 1u64;
            // SAFETY: eight bytes are read from `one`.
            unsafe { libc::write(stop.as_raw_fd(), (&raw const one).cast(), 8) };
        }),
    )
}

/// A running server; dropping it stops its thread.
pub struct Server {
    pub addr: SocketAddr,
    identity: Identity,
    stop: Option<Box<dyn FnOnce() + Send>>,
    thread: Option<JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

/// What the server's thread tells about itself, for its CPU time to be read from outside.
struct Identity {
    tid: i32,
    clock: libc::clockid_t,
}

impl Server {
    fn start<F>(serve: F, stop: Box<dyn FnOnce() + Send>) -> Self
    where
        F: FnOnce(TcpListener) -> io::Result<()> + Send + 'static,
    {
        let listener = listen().expect("a loopback listener");
        let addr = listener.local_addr().expect("a listener has an address");
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _end = end; // dropped last, also by a panic
            pin(Side::Tested);
            tell.send(Identity::of_this_thread()).expect("the starter waits");
            serve(listener).expect("the server runs until it is stopped");
        });
        let identity = told.recv().expect("the thread says who it is before it serves");
        Server { addr, identity, stop: Some(stop), thread: Some(thread), ended }
    }

    /// CPU time so far, of the server's thread and of the kernel's workers for its ring.
    pub fn cpu(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is writable; a clock of a thread that has ended is an error, not a fault.
        let status = unsafe { libc::clock_gettime(self.identity.clock, &mut time) };
        assert_eq!(status, 0, "the server's thread is alive until it is dropped");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32) + self.ring_workers()
    }

    /// The kernel runs what a ring cannot do inline on threads of this name, in our process.
    fn ring_workers(&self) -> Duration {
        let name = format!("iou-wrk-{}", self.identity.tid);
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
        let spent_ns = tasks.filter_map(Result::ok).filter_map(|task| {
            let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            match comm.trim_end() == name {
                true => stat.split(' ').next()?.parse::<u64>().ok(),
                false => None,
            }
        });
        Duration::from_nanos(spent_ns.sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) else { return };
        stop();
        if let Err(mpsc::RecvTimeoutError::Timeout) =
            self.ended.recv_timeout(Duration::from_secs(10))
        {
            eprintln!("a server did not stop within 10 s; its thread is left behind");
            return;
        }
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("a server's thread panicked");
        }
    }
}

impl Identity {
    fn of_this_thread() -> Self {
        let mut clock = 0;
        // SAFETY: no memory is passed, and the calling thread exists.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: `clock` is writable and the thread is the calling one.
        let status = unsafe { libc::pthread_getcpuclockid(this, &mut clock) };
        assert_eq!(status, 0, "a running thread has a CPU clock");
        // SAFETY: no memory is passed.
        let tid = unsafe { libc::gettid() };
        Identity { tid, clock }
    }
}

/// A listener on a free loopback port, with room for every connection of a bench at once.
/// TCP_NODELAY is set here because Linux copies it to the accepted sockets.
fn listen() -> io::Result<TcpListener> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else owns it.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    let addr = sockaddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    // SAFETY: `addr` is a sockaddr_in of the length given.
    let bound = unsafe { libc::bind(fd, (&raw const addr).cast(), size_of_val(&addr) as u32) };
    // SAFETY: no memory is passed.
    if bound != 0 || unsafe { libc::listen(fd, 4096) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(listener)
}
