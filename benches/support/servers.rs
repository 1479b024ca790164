//! The echo servers under test. Each runs on its own thread, pinned to the tested core, and ends when
//! dropped. They share the listener's settings and nothing else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tamam::Backend;
use tamam::io::{Receive, Transmit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::client::{set_option, sockaddr};
use super::{Side, pin, tokio_runtime};

#[path = "../raw_epoll/mod.rs"]
mod raw_epoll;
#[path = "../raw_ring/mod.rs"]
pub mod raw_ring;

/// Starts a server of this family for messages of the given length.
pub type Spawn = fn(Family, usize) -> Server;

/// The sockets that a server has.
#[derive(Clone, Copy)]
pub enum Family {
    Tcp,
    Unix,
}

/// Where a server listens.
#[derive(Clone)]
pub enum Addr {
    Tcp(SocketAddr),
    Unix(UnixAddr),
    /// It has what it serves already.
    Nowhere,
}

impl Addr {
    /// The address of a TCP server.
    pub fn tcp(&self) -> SocketAddr {
        let Addr::Tcp(addr) = self else { panic!("the server is none of TCP") };
        *addr
    }
}

/// Name and start of every server, the one under test first.
pub const ALL: [(&str, Spawn); 5] = [
    ("tamam_ring", |family, message_len| spawn_tamam(Backend::Ring, family, message_len)),
    ("tamam_epoll", |family, message_len| spawn_tamam(Backend::Epoll, family, message_len)),
    ("tokio", spawn_tokio),
    ("raw_ring", spawn_raw_ring),
    ("raw_epoll", spawn_raw_epoll),
];

/// Accepts on `$listener` for ever, with a task for each connection: the same text for either runtime and
/// either family, which share no trait for it.
macro_rules! accept_all {
    ($runtime:ident, $listener:expr, $serve:expr) => {{
        let (listener, serve) = ($listener.expect("a listener"), $serve);
        $runtime::spawn(async move {
            loop {
                let (stream, _peer) = listener.accept().await.expect("descriptors are left");
                $runtime::spawn(serve(stream));
            }
        });
    }};
}

fn spawn_tamam(backend: Backend, family: Family, message_len: usize) -> Server {
    match family {
        Family::Tcp => tamam(backend, message_len, tamam_echo),
        Family::Unix => {
            let (listener, addr) = listen_unix();
            tamam_at(addr, fitting(backend, message_len), move || {
                let listener = tamam::net::UnixListener::from_std(listener);
                accept_all!(tamam, listener, |stream: tamam::net::UnixStream| tamam_echo(stream));
            })
        }
    }
}

/// tamam on TCP. `serve` is a task for each connection.
pub fn tamam<F>(
    backend: Backend,
    message_len: usize,
    serve: impl Fn(tamam::net::TcpStream) -> F + Send + 'static,
) -> Server
where
    F: Future<Output: 'static> + 'static,
{
    let (listener, addr) = listen();
    tamam_at(addr, fitting(backend, message_len), move || {
        accept_all!(tamam, tamam::net::TcpListener::from_std(listener), serve);
    })
}

/// tamam with receive buffers that hold a message, as the others have them, and room: under epoll a
/// receive that leaves room needs no second look. Else as it comes.
fn fitting(backend: Backend, message_len: usize) -> tamam::Builder {
    tamam::Runtime::builder()
        .backend(backend)
        .buffer_size((message_len + 64).max(4096))
        .buffer_count(if message_len > 4096 { 128 } else { 256 })
}

async fn tamam_echo(stream: impl Receive + Transmit) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.send_all(chunk).await?;
    }
    Ok(())
}

/// tokio's current-thread runtime, a task and a fitting buffer per connection.
fn spawn_tokio(family: Family, message_len: usize) -> Server {
    match family {
        Family::Tcp => tokio(move |stream| tokio_echo(stream, message_len)),
        Family::Unix => {
            let (listener, addr) = listen_unix();
            listener.set_nonblocking(true).expect("a socket");
            tokio_at(addr, move || {
                let serve = move |stream: tokio::net::UnixStream| tokio_echo(stream, message_len);
                accept_all!(tokio, tokio::net::UnixListener::from_std(listener), serve);
            })
        }
    }
}

/// tokio's current-thread runtime on TCP with a task for each connection.
pub fn tokio<F>(serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> Server
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let (listener, addr) = listen();
    listener.set_nonblocking(true).expect("a socket");
    tokio_at(addr, move || {
        accept_all!(tokio, tokio::net::TcpListener::from_std(listener), serve);
    })
}

async fn tokio_echo(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    message_len: usize,
) -> io::Result<()> {
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
    tamam_at(Addr::Nowhere, tamam::Runtime::builder().backend(backend), begin)
}

fn tamam_at(addr: Addr, builder: tamam::Builder, begin: impl FnOnce() + Send + 'static) -> Server {
    until_told(addr, move |stopped| {
        builder.build()?.block_on(async move {
            begin();
            let _ = stopped.await;
        });
        Ok(())
    })
}

/// What `begin` spawns on tokio's current-thread runtime, without a listener.
pub fn on_tokio(begin: impl FnOnce() + Send + 'static) -> Server {
    tokio_at(Addr::Nowhere, begin)
}

fn tokio_at(addr: Addr, begin: impl FnOnce() + Send + 'static) -> Server {
    until_told(addr, move |stopped| {
        tokio_runtime().block_on(async move {
            begin();
            let _ = stopped.await;
        });
        Ok(())
    })
}

fn until_told(
    addr: Addr,
    serve: impl FnOnce(oneshot::Receiver<()>) -> io::Result<()> + Send + 'static,
) -> Server {
    let (stop, stopped) = oneshot::channel();
    let stop = Box::new(move || stop.send(()).expect("the server waits for it"));
    Server::start(addr, move || serve(stopped), stop)
}

/// The loop written by hand on a ring, with buffers that fit the message.
pub fn spawn_raw_ring(family: Family, message_len: usize) -> Server {
    spawn_raw(raw_ring::serve, family, message_len)
}

/// The loop written by hand on epoll, with a buffer that fits the message, and room.
fn spawn_raw_epoll(family: Family, message_len: usize) -> Server {
    spawn_raw(raw_epoll::serve, family, message_len + 64)
}

/// A loop on a listener until an eventfd is written to, with buffers of this size.
type Loop = fn(BorrowedFd<'_>, BorrowedFd<'_>, usize) -> io::Result<()>;

fn spawn_raw(run: Loop, family: Family, buffer_len: usize) -> Server {
    let (listener, addr): (OwnedFd, Addr) = match family {
        Family::Tcp => {
            let (listener, addr) = listen();
            listener.set_nonblocking(true).expect("a socket");
            (listener.into(), addr)
        }
        Family::Unix => {
            let (listener, addr) = listen_unix();
            listener.set_nonblocking(true).expect("a socket");
            (listener.into(), addr)
        }
    };
    on_eventfd_at(addr, move |stop| run(listener.as_fd(), stop, buffer_len))
}

/// What serves without a listener, until an eventfd is written to.
pub fn on_eventfd(run: impl FnOnce(BorrowedFd<'_>) -> io::Result<()> + Send + 'static) -> Server {
    on_eventfd_at(Addr::Nowhere, run)
}

fn on_eventfd_at(
    addr: Addr,
    run: impl FnOnce(BorrowedFd<'_>) -> io::Result<()> + Send + 'static,
) -> Server {
    // SAFETY: no memory is passed.
    let eventfd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(eventfd >= 0, "an eventfd: {}", io::Error::last_os_error());
    // SAFETY: just opened, and nobody else owns it.
    let eventfd = Arc::new(unsafe { OwnedFd::from_raw_fd(eventfd) });
    let stop = Arc::clone(&eventfd);
    Server::start(
        addr,
        move || run(eventfd.as_fd()),
        Box::new(move || {
            let one = 1u64;
            // SAFETY: eight bytes are read from `one`.
            unsafe { libc::write(stop.as_raw_fd(), (&raw const one).cast(), 8) };
        }),
    )
}

/// What ends by itself, before the server is dropped.
pub fn on_thread(run: impl FnOnce() -> io::Result<()> + Send + 'static) -> Server {
    Server::start(Addr::Nowhere, run, Box::new(|| ()))
}

/// A running server; dropping it stops its thread.
pub struct Server {
    pub addr: Addr,
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
    fn start<F>(addr: Addr, serve: F, stop: Box<dyn FnOnce() + Send>) -> Self
    where
        F: FnOnce() -> io::Result<()> + Send + 'static,
    {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _end = end; // dropped last, also by a panic
            pin(Side::Tested);
            tell.send(Identity::of_this_thread()).expect("the starter waits");
            serve().expect("the server runs until it is stopped");
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
fn listen() -> (TcpListener, Addr) {
    let listener = listen_tcp().expect("a loopback listener");
    let addr = listener.local_addr().expect("a listener has an address");
    (listener, Addr::Tcp(addr))
}

/// TCP_NODELAY is set here because Linux copies it to the accepted sockets.
fn listen_tcp() -> io::Result<TcpListener> {
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

/// A Unix listener. std asks for as many connections in line as the system allows.
fn listen_unix() -> (UnixListener, Addr) {
    let addr = unix_addr();
    let listener = UnixListener::bind_addr(&addr).expect("a name that is free");
    (listener, Addr::Unix(addr))
}

/// A name that no other socket has: abstract, so no file is left behind.
pub fn unix_addr() -> UnixAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    UnixAddr::from_abstract_name(format!("tamam-benches-{process}-{number}")).expect("short")
}
