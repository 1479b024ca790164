//! What the tests share: runtimes of every size, peers, a process of one's own, and the ledger that
//! must balance at the end.
#![allow(dead_code, reason = "each test binary uses its part of it")]

pub mod broken;
pub mod child;
pub mod example;
pub mod filter;
pub mod foreign;
pub mod peer;
pub mod quarantine;
pub mod shortage;

use std::cell::Cell;
use std::future::Future;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tamam::net::TcpStream;
use tamam::{Backend, Builder, Runtime};

/// Longer than any test takes; a test that hangs ends here, with its name. An emulated machine needs
/// longer (`ci/kernels` says how long).
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("TAMAM_TEST_PATIENCE").ok();
    let seconds = seconds.map(|text| text.parse().expect("TAMAM_TEST_PATIENCE is in seconds"));
    Duration::from_secs(seconds.unwrap_or(180))
});

/// What every test of a row runs on: both engines, the ring as older kernels have it, and sizes so
/// small that what is rare elsewhere (a full queue, an overflow, no buffer) happens all the time.
/// Where the environment forces one engine, its part.
pub fn engines() -> Vec<(&'static str, Builder)> {
    let (ring, epoll) = (Runtime::builder(), Runtime::builder().backend(Backend::Epoll));
    let small = ring.clone().entries(1).completion_entries(2);
    let mut all = Vec::new();
    if backend() == Backend::Ring {
        all.extend([
            ("ring", ring.clone()),
            ("ring of kernel 6.1", ring.clone().pretend_kernel(6, 1)),
            ("ring of one entry, two completions", small.clone()),
            ("ring with one buffer of 16 bytes", ring.buffer_size(16).buffer_count(1)),
            ("smallest ring of all", small.buffer_size(16).buffer_count(1)),
        ]);
    }
    if backend() == Backend::Epoll || std::env::var_os("TAMAM_BACKEND").is_none() {
        all.extend([
            ("epoll", epoll.clone()),
            ("epoll with one buffer of 16 bytes", epoll.buffer_size(16).buffer_count(1)),
        ]);
    }
    all
}

/// These sizes on both engines; where the environment forces one engine, on that.
pub fn both(builder: &Builder) -> Vec<(&'static str, Builder)> {
    let mut all = Vec::new();
    if backend() == Backend::Ring {
        all.push(("ring", builder.clone()));
    }
    if backend() == Backend::Epoll || std::env::var_os("TAMAM_BACKEND").is_none() {
        all.push(("epoll", builder.clone().backend(Backend::Epoll)));
    }
    all
}

/// These sizes on the ring, whatever the environment says: for what no other engine has. `None`,
/// and a word about it, where this machine refuses io_uring.
pub fn ring_only(builder: Builder) -> Option<Builder> {
    let builder = builder.backend(Backend::Ring);
    match builder.clone().build() {
        Ok(_) => Some(builder),
        Err(refused) => {
            println!("skipped: {refused}");
            None
        }
    }
}

/// As small as a runtime gets.
pub fn smallest() -> Builder {
    Runtime::builder().entries(1).completion_entries(2).buffer_size(16).buffer_count(1)
}

/// The engine of a runtime that makes no choice: of this machine, or forced by the environment.
pub fn backend() -> Backend {
    Runtime::new().expect("one of the engines works on every machine").backend()
}

thread_local! {
    static ON_EPOLL: Cell<bool> = const { Cell::new(false) };
}

/// A runtime for tests that keep it themselves; [`on_epoll`] tells its engine.
pub fn build(builder: Builder) -> Runtime {
    let runtime = builder.build().expect("this engine works on the machines that run these tests");
    ON_EPOLL.set(runtime.backend() == Backend::Epoll);
    runtime
}

/// Whether the last runtime that this thread has made, by [`build`] or what uses it, is on epoll:
/// for what may differ (SEMANTICS section 10), and for the ways to bring something about.
pub fn on_epoll() -> bool {
    ON_EPOLL.get()
}

/// Runs a test on [`both`] engines with these sizes.
pub fn with_both<F: Future<Output = ()>>(builder: Builder, test: impl Fn() -> F) {
    for (name, builder) in both(&builder) {
        eprintln!("-- {name}");
        with(builder, &test);
    }
}

/// Runs a test on each of [`engines`], each time on a runtime of its own, and lets the ledger balance.
pub fn everywhere<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for (name, builder) in engines() {
        eprintln!("-- {name}");
        with(builder, &test);
    }
}

/// Runs a test on a runtime of these sizes, watched, and checks what is left in it.
pub fn with<F: Future<Output = ()>>(builder: Builder, test: impl Fn() -> F) {
    let _watchdog = Watchdog::start();
    let runtime = build(builder);
    runtime.block_on(test());
    // Objects that the test dropped at its end are let go of in one more turn.
    runtime.block_on(tamam::yield_now());
    runtime.block_on(lingering_streams());
    let metrics = runtime.metrics();
    assert_eq!(metrics.stray_completions, 0, "a completion that nothing explains");
    assert_eq!(metrics.ops, 0, "ops in flight after the test dropped everything: {metrics:?}");
    assert_eq!(metrics.timers, 0, "timers left: {metrics:?}");
    assert_eq!(metrics.buffers_lent, 0, "buffers not given back: {metrics:?}");
}

/// Waits for TLS streams that were shut down and dropped: each has a timer of a second (TL22).
async fn lingering_streams() {
    for _ in 0..1500 {
        if tamam::metrics().timers == 0 {
            return;
        }
        tamam::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends the process when a test hangs.
pub struct Watchdog(std::sync::mpsc::Sender<()>);

impl Watchdog {
    pub fn start() -> Watchdog {
        let (alive, dropped) = std::sync::mpsc::channel::<()>();
        let name = thread::current().name().unwrap_or("test").to_owned();
        thread::spawn(move || {
            let timeout = dropped.recv_timeout(*PATIENCE);
            if timeout == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                say_to_all(&format!("\n{name} hangs: {} s\n", PATIENCE.as_secs()));
                std::process::abort();
            }
        });
        Watchdog(alive)
    }
}

/// Writes to descriptor 2 itself: what a test prints, libtest keeps to itself until the test ends.
fn say_to_all(text: &str) {
    // SAFETY: the pointer leads to as many readable bytes. A failure means that nobody reads.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// Runs a test alone in a process of its own, since the threads of libtest share descriptors,
/// allocator and limits. `name` is the path of the test, as libtest prints it.
pub fn alone(name: &str, test: impl FnOnce()) {
    const ALONE: &str = "TAMAM_TEST_ALONE";
    if std::env::var_os(ALONE).is_some_and(|alone| alone == name) {
        raise_descriptor_limit();
        let ledger = Ledger::start();
        test();
        return ledger.balance();
    }
    let output = Command::new(std::env::current_exe().expect("a test has a binary"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, name)
        .stdin(Stdio::null())
        .output()
        .expect("the test's own binary can be run");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    println!("{}{}", text[0], text[1]);
    assert!(output.status.success(), "{name} alone: {}", output.status);
    assert!(text[0].contains("1 passed"), "{name} is not the path of a test");
}

/// Lets the process have as many descriptors as it may: some tests open thousands of sockets.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is readable. A refusal leaves the limit as it was.
    let raised = known && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
    if !raised {
        eprintln!("the limit of descriptors stays as it is");
    }
}

/// What a test must leave as it found it.
pub struct Ledger {
    descriptors: Vec<String>,
}

impl Ledger {
    pub fn start() -> Ledger {
        Ledger { descriptors: descriptors() }
    }

    /// Descriptors as at the start, and no byte of freed memory written to.
    pub fn balance(self) {
        // Locked memory and descriptors of a ring are let go of by the kernel a moment later.
        let until = Instant::now() + Duration::from_secs(5);
        while descriptors().len() != self.descriptors.len() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(descriptors(), self.descriptors, "descriptors leaked");
        assert_eq!(quarantine::changed(), 0, "freed blocks were written to");
    }
}

/// The open descriptors of this process, as `number -> what`.
pub fn descriptors() -> Vec<String> {
    let mut open: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .expect("proc is mounted")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let what = std::fs::read_link(&path).ok()?; // the directory itself is closed by now
            let what = what.to_string_lossy().into_owned();
            let number = path.file_name()?.to_string_lossy().into_owned();
            (!what.contains("/fd")).then(|| format!("{number} -> {what}"))
        })
        .collect();
    open.sort();
    open
}

/// A stream of the runtime and the std socket at its other end.
pub async fn pair() -> (TcpStream, StdStream) {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
    let (peer, _) = listener.accept().expect("it is there");
    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    peer.set_nodelay(true).expect("a TCP socket");
    (stream, peer)
}

/// As [`pair`], with small kernel buffers at both ends, so that sends stall early.
pub async fn narrow_pair() -> (TcpStream, StdStream) {
    let listener = tamam::net::TcpSocket::new_v4()
        .and_then(|socket| {
            socket.recv_buffer_size(4096).listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        })
        .expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let stream = tamam::net::TcpSocket::new_v4()
        .expect("a socket")
        .send_buffer_size(4096)
        .connect(addr)
        .await
        .expect("connects");
    let (peer, _) = listener.accept().await.expect("it is there");
    let (peer, unread) = peer.into_std().expect("nothing was sent");
    assert!(unread.is_empty());
    peer.set_nonblocking(false).expect("a socket");
    peer.set_read_timeout(Some(*PATIENCE)).expect("not zero");
    (stream, peer)
}

/// Makes the peer's drop reset the connection.
pub fn reset(peer: StdStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: `linger` is a valid option value of the length given.
    let done = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&peer),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "SO_LINGER can be set");
    drop(peer);
}

/// Reads from a std peer until the end, on a thread of its own.
pub fn read_to_end(mut peer: StdStream) -> thread::JoinHandle<std::io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).map(|_| bytes)
    })
}

/// Waits for another thread without blocking the runtime.
pub async fn join<T>(thread: thread::JoinHandle<T>) -> T {
    while !thread.is_finished() {
        tamam::time::sleep(Duration::from_millis(1)).await;
    }
    thread.join().expect("the thread does not panic")
}

/// Lets the runtime turn until what was submitted had time to arrive on loopback.
pub async fn settle() {
    tamam::time::sleep(Duration::from_millis(20)).await;
}

/// Polls a future once.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx)))
        .await
}

/// `len` bytes in which each place can be told from others: a counter of 4 bytes, repeated.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (number, place) in bytes.chunks_mut(4).enumerate() {
        place.copy_from_slice(&(number as u32).to_le_bytes()[..place.len()]);
    }
    bytes
}

/// The numbers below `many` were given to these tasks: each once, and to each task in order.
pub async fn assert_dealt_out(tasks: Vec<tamam::JoinHandle<Vec<u32>>>, many: u32) {
    let mut all = Vec::new();
    for task in tasks {
        let numbers = task.await.expect("no panic");
        assert!(numbers.is_sorted(), "what one task gets is in order");
        all.extend(numbers);
    }
    all.sort();
    assert_eq!(all, (0..many).collect::<Vec<_>>());
}

/// Pseudo-random numbers from a seed (xorshift64*), so that a failure can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// How a future goes before it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Dropped,
    Forgotten,
}

impl Gone {
    pub const BOTH: [Gone; 2] = [Gone::Dropped, Gone::Forgotten];

    pub fn leave<T>(self, future: T) {
        match self {
            Gone::Dropped => drop(future),
            Gone::Forgotten => std::mem::forget(future),
        }
    }
}

/// Polls a future for the first time: what it asks for is under way then.
pub async fn start<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(poll_once(&mut future).await.is_pending(), "it was ready in its first poll");
    future
}

/// As [`start`], for what may be over in its first poll: epoll tries at once.
pub async fn begin<F: Future>(future: F) -> Begun<F> {
    let mut future = Box::pin(future);
    let poll = poll_once(&mut future).await;
    match poll {
        Poll::Ready(output) => Begun::Over(Some(output)),
        Poll::Pending => Begun::Waiting(future),
    }
}

/// A future that was polled; or, if that was all, its output.
pub enum Begun<F: Future> {
    Waiting(Pin<Box<F>>),
    Over(Option<F::Output>),
}

/// No output is ever pinned.
impl<F: Future> Unpin for Begun<F> {}

impl<F: Future> Begun<F> {
    pub fn is_over(&self) -> bool {
        matches!(self, Begun::Over(_))
    }
}

impl<F: Future> Future for Begun<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match &mut *self {
            Begun::Waiting(future) => future.as_mut().poll(cx),
            Begun::Over(output) => Poll::Ready(output.take().expect("it is taken once")),
        }
    }
}

/// Lets the runtime turn once: what was pushed is with the kernel then. (After a `yield_now` alone
/// the task may be polled again in the same turn.)
pub async fn turn() {
    let turns = tamam::metrics().turns;
    while tamam::metrics().turns == turns {
        tamam::yield_now().await;
    }
}

/// Blocks the thread, and with it the runtime, until poll(2) reports one of `events` or an error.
pub fn wait_for(socket: &impl std::os::fd::AsFd, events: i16) {
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd());
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: `poll` is one writable entry.
    let found = unsafe { libc::poll(&mut poll, 1, PATIENCE.as_millis() as libc::c_int) };
    assert_eq!(found, 1, "the event does not come");
}

/// How many bytes wait unread in the kernel.
pub fn unread(socket: &impl std::os::fd::AsFd) -> usize {
    let mut len: libc::c_int = 0;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd());
    // SAFETY: FIONREAD writes one int.
    let done = unsafe { libc::ioctl(fd, libc::FIONREAD, &mut len) };
    assert_eq!(done, 0, "FIONREAD works on sockets");
    len as usize
}

/// Compares without printing megabytes.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8]) {
    if got == expected {
        return;
    }
    let differ = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(
        (differ, got.len()),
        (None, expected.len()),
        "place of the first wrong byte, and length"
    );
}

/// What arrives until the end, while the runtime turns.
pub async fn arriving(peer: StdStream) -> Vec<u8> {
    join(read_to_end(peer)).await.expect("no reset")
}

/// Reads `len` bytes at a std peer, while the runtime turns, and gives the peer back.
pub async fn read_some(mut peer: StdStream, len: usize) -> (StdStream, Vec<u8>) {
    let thread = thread::spawn(move || {
        let mut bytes = vec![0; len];
        peer.read_exact(&mut bytes).expect("the bytes come");
        (peer, bytes)
    });
    join(thread).await
}

/// The answer of a future that must be ready when it is polled next.
pub async fn at_once<T>(future: impl Future<Output = T>) -> T {
    match poll_once(&mut Box::pin(future)).await {
        std::task::Poll::Ready(answer) => answer,
        std::task::Poll::Pending => panic!("it had to be ready in its first poll"),
    }
}

/// A listener that takes no more connections: connecting to it waits. The streams fill it.
pub fn full_listener() -> (StdListener, Vec<StdStream>) {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    // SAFETY: takes no pointers; a second listen(2) changes the backlog.
    let done = unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 0) };
    assert_eq!(done, 0, "the backlog can be changed");
    let mut filling = Vec::new();
    while let Ok(stream) = StdStream::connect_timeout(&addr, Duration::from_millis(300)) {
        filling.push(stream);
        assert!(filling.len() < 100, "a backlog of zero is soon full");
    }
    (listener, filling)
}

/// Raises the soft limit of descriptors to the hard one; false, with a word, if that is less than
/// what is wanted. For tests that are [`alone`].
pub fn can_open(wanted: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is readable.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    if limit.rlim_cur < wanted {
        println!("skipped: needs {wanted} descriptors, {} are allowed", limit.rlim_cur);
    }
    limit.rlim_cur >= wanted
}

/// Does something that completes an op in flight, and turns the runtime until that is reaped.
pub async fn completing(act: impl FnOnce()) {
    let completions = tamam::metrics().completions;
    act();
    while tamam::metrics().completions == completions {
        turn().await;
    }
}

/// Whether a kernel feature is in use.
pub fn has_feature(runtime: &Runtime, feature: &str) -> bool {
    let support = runtime.capabilities().support(feature);
    support.expect("a feature of this name") == tamam::Support::Native
}

/// A listener whose backlog is full: the next connect waits.
pub fn full_backlog() -> (tamam::net::TcpListener, Vec<std::net::TcpStream>) {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listener =
        tamam::net::TcpSocket::new_v4().and_then(|socket| socket.backlog(0).listen(addr));
    let listener = listener.expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let mut clients = Vec::new();
    while let Ok(client) = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
        clients.push(client);
    }
    (listener, clients)
}
