//! Both engines on this machine, side by side: the same echo server and the same tasks, on io_uring
//! and on epoll.
//!
//!     cargo run --release --example compare
//!     cargo run --release --example compare -- --seconds 60 --connections 1,50,500 --size 64 --json
//!
//! It takes about ten seconds, shows how far it is, and prints a table. In each row both engines are
//! driven in turn, in short windows forwards and backwards (A B B A …), so that a drift of the
//! machine meets both. First a server is compared with a twin of its own: what differs there is
//! noise, and on a machine where that is too much the table says so and judges nothing.
//!
//! Each engine has a server thread with a runtime of its own. The client is one thread with plain
//! sockets and epoll, built on neither; each connection has one request under way, and every byte
//! that comes back is compared. Where there are two CPUs, the servers have one and the client has
//! the other, which it keeps busy: a client that slept would make the server pay for waking it.
//!
//! Read `compare`, then `Row::measure`, then `Server` and `Client`.

use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::{AddAssign, Sub};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tamam::net::{TcpListener, TcpSocket};
use tamam::{Backend, Metrics, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const USAGE: &str = "usage: compare [--seconds N] [--connections A,B,…] [--size BYTES] [--json]";

/// The length of a window, where the time allows: a thousand requests and more. Twice the length
/// would leave half the pairs, and an interval of few pairs reaches to the worst of them.
const WINDOW: Duration = Duration::from_millis(50);
/// Windows of a row: at least so many that its interval exists; at most so many, then longer ones.
const WINDOWS: std::ops::RangeInclusive<u32> = 12..=400;
/// A wider interval of a server against its twin, or of a row, tells nothing.
const TOO_WIDE: f64 = 0.15;
/// The share of the time that finding the noise may take.
const NOISE_SHARE: f64 = 0.2;
/// How much CPU time must have been sampled for its parts to be told: 50 ticks, usually.
const SAMPLED_MIN: Duration = Duration::from_millis(200);
/// Tasks that are alive at a time in the row of tasks, and how long each sleeps.
const TASKS: usize = 1000;
const NAP: Duration = Duration::from_millis(1);
/// A server that makes no progress for so long has lost something.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match compare(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    time: Duration,
    connections: Vec<usize>,
    size: usize,
    json: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        time: Duration::from_secs(10),
        connections: vec![1, 50, 500],
        size: 64,
        json: false,
    };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        let number = |text: &str, most: usize| match text.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(format!("{name} {text}: a number from 1 to {most}, please")),
        };
        match name.as_str() {
            "--seconds" => {
                options.time = Duration::from_secs(number(&value()?, 3600)? as u64);
            }
            "--connections" => {
                let list = value()?;
                let counts = list.split(',').map(|count| number(count, 10_000));
                options.connections = counts.collect::<Result<_, _>>()?;
            }
            "--size" => options.size = number(&value()?, 1 << 20)?,
            "--json" => options.json = true,
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    Ok(options)
}

fn compare(options: Options) -> io::Result<()> {
    let Options { time, connections, size, json } = options;
    let cpus = choose_cpus();
    if let Some((_, client)) = cpus {
        pin(client)?;
    }
    let start = |backend| Server::start(backend, size, cpus.map(|(server, _)| server));
    let epoll = start(Backend::Epoll)?;
    let (servers, refused) = match start(Backend::Ring) {
        Ok(ring) => (vec![ring, epoll], None),
        Err(reason) => (vec![epoll], Some(reason)),
    };

    let mut report =
        Report { json, servers: servers.iter().map(|s| s.name).collect(), verified: 0 };
    report.head(size, cpus, refused.as_ref());
    let spins = cpus.is_some();
    let (connections, left_out): (Vec<usize>, Vec<usize>) =
        connections.into_iter().partition(|&count| descriptors_needed(count) <= descriptors());
    let works: Vec<Work> =
        connections.iter().map(|&count| Work::Echo(count)).chain([Work::Tasks]).collect();
    let noise_time = if refused.is_none() { time.mul_f64(NOISE_SHARE) } else { Duration::ZERO };
    let row_time = (time - noise_time) / works.len() as u32;
    let mut progress = Progress::new(works.len() + usize::from(refused.is_none()));

    // Against oneself there is nothing but noise. Another server of the same kind, and not the same
    // one twice: where its memory happens to lie is part of the noise.
    let mut noise = None;
    if refused.is_none() {
        let twin = start(Backend::Ring)?;
        let work = match connections.get(connections.len() / 2) {
            Some(&count) => Work::Echo(count),
            None => Work::Tasks,
        };
        let row = Row { work, size, spins };
        let title = format!("{work}, ring against ring");
        let sides = row.measure(&[&servers[0], &twin], noise_time, &title, &mut progress)?;
        let interval = Interval::of(&sides[0], &sides[1]);
        report.verified += verified(&sides);
        twin.stop()?;
        noise = Some((work, interval));
    }
    let floor = noise.map(|(_, interval)| interval);

    let all: Vec<&Server> = servers.iter().collect();
    let mut rows = Vec::new();
    for work in works {
        let row = Row { work, size, spins };
        let sides = row.measure(&all, row_time, &work.to_string(), &mut progress)?;
        report.verified += verified(&sides);
        rows.push((work, sides));
    }
    progress.end();
    report.noise(noise);
    report.table(&rows, floor);
    for count in left_out {
        report.left_out(count);
    }
    report.foot();
    servers.into_iter().try_for_each(Server::stop)
}

fn verified(sides: &[Measured]) -> u64 {
    sides.iter().map(|side| side.verified).sum()
}

// ---- measuring ---------------------------------------------------------------------------------

/// What both engines do in a row.
#[derive(Clone, Copy)]
enum Work {
    /// So many connections, each with one request under way.
    Echo(usize),
    /// [`TASKS`] tasks that sleep and yield, again and again.
    Tasks,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Echo(1) => f.write_str("echo, 1 connection"),
            Work::Echo(count) => write!(f, "echo, {count} connections"),
            Work::Tasks => write!(f, "{TASKS} tasks"),
        }
    }
}

struct Row {
    work: Work,
    size: usize,
    spins: bool,
}

/// What one window took.
struct Window {
    elapsed: Duration,
    /// Requests that were answered, or tasks that ended.
    done: u64,
    used: Usage,
}

impl Window {
    fn cpu_ns(&self) -> f64 {
        self.used.cpu_ns as f64 / self.done as f64
    }

    fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }
}

/// All windows of one server in a row.
struct Measured {
    windows: Vec<Window>,
    latencies: Latencies,
    verified: u64,
}

impl Row {
    /// Drives one server, or two in turn, for as long as `time`.
    fn measure(
        &self,
        servers: &[&Server],
        time: Duration,
        title: &str,
        progress: &mut Progress,
    ) -> io::Result<Vec<Measured>> {
        let end = Instant::now() + time;
        progress.row(title);
        let mut clients = Vec::new();
        for server in servers {
            let mut client = match self.work {
                Work::Echo(count) => Some(Client::connect(server, count, self.size, self.spins)?),
                Work::Tasks => None,
            };
            // Every connection is accepted and has echoed; caches and windows of TCP are warm.
            drive(server, &mut client, WINDOW / 2, &mut Latencies::new())?;
            clients.push(client);
        }
        // A multiple of four, so that A B B A is whole.
        let left = end.saturating_duration_since(Instant::now()).max(time / 2);
        let fitting = (left.as_nanos() / WINDOW.as_nanos()) as u32;
        let count = fitting.clamp(*WINDOWS.start(), *WINDOWS.end()) / 4 * 4;
        let length = left / count;
        let mut sides: Vec<Measured> = servers
            .iter()
            .map(|_| Measured { windows: Vec::new(), latencies: Latencies::new(), verified: 0 })
            .collect();
        for number in 0..count {
            // Windows take longer than they should where others have the CPU as well.
            if number % 4 == 0 && number >= *WINDOWS.start() && Instant::now() > end {
                break;
            }
            progress.window(number, count);
            let at = if servers.len() == 1 { 0 } else { [0, 1, 1, 0][number as usize % 4] };
            let side = &mut sides[at];
            let window = drive(servers[at], &mut clients[at], length, &mut side.latencies)?;
            side.windows.push(window);
        }
        for (side, client) in sides.iter_mut().zip(&clients) {
            side.verified = client.as_ref().map_or(0, |client| client.verified);
        }
        Ok(sides)
    }
}

/// One window: the echo where there is a client, else the tasks.
fn drive(
    server: &Server,
    client: &mut Option<Client>,
    length: Duration,
    latencies: &mut Latencies,
) -> io::Result<Window> {
    let workers = server.ring_workers_ns();
    let before = server.ask(Command::Usage)?;
    let (elapsed, done) = match client {
        Some(client) => client.exchange(length, latencies)?,
        None => {
            let (elapsed, late) = server.ask(|reply| Command::Tasks(length, reply))?;
            late.iter().for_each(|&late| latencies.add(late));
            (elapsed, late.len() as u64)
        }
    };
    let mut used = server.ask(Command::Usage)? - before;
    used.cpu_ns += server.ring_workers_ns().saturating_sub(workers);
    Ok(Window { elapsed, done, used })
}

/// What a server's thread has used.
#[derive(Clone, Copy, Default)]
struct Usage {
    /// Exact.
    cpu_ns: u64,
    /// These two are the kernel's split: samples taken at timer ticks, scaled to the exact sum. Only
    /// their share over many windows means anything.
    user_us: u64,
    system_us: u64,
    /// Of its thread, voluntary and not.
    switches: u64,
    /// Of its engine.
    calls: u64,
}

impl Usage {
    fn of_this_thread(metrics: Metrics) -> Usage {
        // SAFETY: a plain struct of integers, for which zero is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is writable; RUSAGE_THREAD is known since 2.6.26.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
        let mut cpu = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `cpu` is writable; this clock always exists.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut cpu) };
        let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
        Usage {
            cpu_ns: cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
            user_us: micros(usage.ru_utime),
            system_us: micros(usage.ru_stime),
            switches: (usage.ru_nvcsw + usage.ru_nivcsw) as u64,
            calls: metrics.system_calls,
        }
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns - before.cpu_ns,
            user_us: self.user_us - before.user_us,
            system_us: self.system_us - before.system_us,
            switches: self.switches - before.switches,
            calls: self.calls - before.calls,
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.cpu_ns += more.cpu_ns;
        self.user_us += more.user_us;
        self.system_us += more.system_us;
        self.switches += more.switches;
        self.calls += more.calls;
    }
}

/// How often each time was seen, to 2 %: 64 steps for each power of two.
struct Latencies {
    counts: Vec<u32>,
    total: u64,
}

impl Latencies {
    const STEPS: u32 = 64;

    fn new() -> Latencies {
        Latencies { counts: Vec::new(), total: 0 }
    }

    fn add(&mut self, time: Duration) {
        let ns = time.as_nanos() as u64;
        // What is left of the highest seven bits says the step, the shift says the power.
        let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(Self::STEPS.ilog2() + 1);
        let at = (shift * Self::STEPS) as usize + (ns >> shift) as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
    }

    /// The time that so many of a hundred did not exceed.
    fn percentile(&self, percent: u64) -> Duration {
        let mut left = (self.total * percent).div_ceil(100);
        for (at, &count) in self.counts.iter().enumerate() {
            if left <= u64::from(count) {
                let shift = (at as u32 / Self::STEPS).saturating_sub(1);
                let step = at as u64 - u64::from(shift * Self::STEPS);
                return Duration::from_nanos((step << shift) + (1 << shift) / 2);
            }
            left -= u64::from(count);
        }
        Duration::ZERO
    }
}

// ---- judging -----------------------------------------------------------------------------------

/// A ratio, and where it lies with 95 % confidence.
#[derive(Clone, Copy)]
struct Interval {
    median: f64,
    low: f64,
    high: f64,
}

impl Interval {
    /// Of CPU time for each request, from neighbouring windows of two sides.
    fn of(left: &Measured, right: &Measured) -> Interval {
        Interval::of_ratios(ratios(left, right, Window::cpu_ns))
    }

    /// The median of the ratios, and the interval of the sign test: each ratio lies above the true
    /// median or below it as a coin falls, whatever their distribution. At each end as many are left
    /// out as would all fall on one side with a chance of 2.5 % at most.
    fn of_ratios(mut ratios: Vec<f64>) -> Interval {
        ratios.sort_by(f64::total_cmp);
        let count = ratios.len();
        let mut chance = 0.5f64.powi(count as i32);
        let (mut tail, mut left_out) = (chance, 0);
        while tail <= 0.025 {
            left_out += 1;
            chance *= (count + 1 - left_out) as f64 / left_out as f64;
            tail += chance;
        }
        assert!(left_out > 0, "a row has six pairs of windows or more");
        Interval {
            median: median(&ratios),
            low: ratios[left_out - 1],
            high: ratios[count - left_out],
        }
    }

    fn width(self) -> f64 {
        self.high - self.low
    }

    /// How far from 1 it reaches.
    fn reach(self) -> f64 {
        (self.high - 1.0).max(1.0 - self.low).max(0.0)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} (95 %: {:.3} to {:.3})", self.median, self.low, self.high)
    }
}

fn ratios(left: &Measured, right: &Measured, figure: fn(&Window) -> f64) -> Vec<f64> {
    let pairs = left.windows.iter().zip(&right.windows);
    pairs.map(|(left, right)| figure(left) / figure(right)).collect()
}

/// The middle of sorted figures.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

enum Verdict {
    RingCheaper(f64),
    EpollCheaper(f64),
    NoDifference,
    TooNoisy,
}

impl Verdict {
    /// Of the CPU time of ring to epoll, given the ratio of a server to its twin.
    fn of(ratio: Interval, noise: Interval) -> Verdict {
        if noise.width() > TOO_WIDE || ratio.width() > TOO_WIDE * ratio.median {
            return Verdict::TooNoisy;
        }
        let within_noise = (ratio.median - 1.0).abs() <= noise.reach();
        if within_noise || (ratio.low <= 1.0 && ratio.high >= 1.0) {
            return Verdict::NoDifference;
        }
        match ratio.median < 1.0 {
            true => Verdict::RingCheaper(1.0 - ratio.median),
            false => Verdict::EpollCheaper(1.0 - 1.0 / ratio.median),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::RingCheaper(share) => write!(f, "ring {:.0} % cheaper", share * 100.0),
            Verdict::EpollCheaper(share) => write!(f, "epoll {:.0} % cheaper", share * 100.0),
            Verdict::NoDifference => f.write_str("no difference"),
            Verdict::TooNoisy => f.write_str("too noisy to tell"),
        }
    }
}

// ---- the servers -------------------------------------------------------------------------------

/// A thread with a runtime of its own, which echoes and does what it is told.
struct Server {
    name: &'static str,
    addr: SocketAddr,
    tid: i32,
    commands: UnboundedSender<Command>,
    thread: thread::JoinHandle<Metrics>,
}

enum Command {
    Usage(mpsc::Sender<Usage>),
    /// Run tasks for so long; says how long it was, and how late each task woke.
    Tasks(Duration, mpsc::Sender<(Duration, Vec<Duration>)>),
}

impl Server {
    fn start(backend: Backend, size: usize, cpu: Option<usize>) -> io::Result<Server> {
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
                // SAFETY: no memory is passed.
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

    /// Has something done by the server's thread, and waits for it.
    fn ask<T>(&self, command: impl FnOnce(mpsc::Sender<T>) -> Command) -> io::Result<T> {
        let (reply, answer) = mpsc::channel();
        let gone = || io::Error::other(format!("the server on {} ended", self.name));
        self.commands.send(command(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())
    }

    /// CPU time of the kernel's worker threads for this server's ring, on which it runs what it
    /// cannot do at once. They are threads of this process, named after the one that set up.
    fn ring_workers_ns(&self) -> u64 {
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

    fn stop(self) -> io::Result<()> {
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
        // Who asked waits for the answer.
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

// ---- the client --------------------------------------------------------------------------------

/// Connections to one server, driven by plain system calls.
struct Client {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    events: Vec<libc::epoll_event>,
    /// One for all: what arrives is compared at once.
    scratch: Vec<u8>,
    spins: bool,
    verified: u64,
}

impl Client {
    fn connect(server: &Server, count: usize, size: usize, spins: bool) -> io::Result<Client> {
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let stream = TcpStream::connect(server.addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            // Edge-triggered and for both directions, so that it is registered once and for all.
            let interest = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET) as u32;
            let mut event = libc::epoll_event { events: interest, u64: index as u64 };
            let (add, fd) = (libc::EPOLL_CTL_ADD, stream.as_raw_fd());
            // SAFETY: both descriptors are open and `event` is initialised.
            if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), add, fd, &mut event) } != 0 {
                return Err(io::Error::last_os_error());
            }
            connections.push(Connection::new(stream, index, size));
        }
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; 512];
        Ok(Client { epoll, connections, events, scratch: vec![0; size], spins, verified: 0 })
    }

    /// One request after the other on each connection, for so long. Ends when all are answered: how
    /// long that took, and how many they were.
    fn exchange(
        &mut self,
        length: Duration,
        latencies: &mut Latencies,
    ) -> io::Result<(Duration, u64)> {
        let start = Instant::now();
        for connection in &mut self.connections {
            connection.begin(Instant::now())?;
        }
        let (mut under_way, mut done, mut progress) = (self.connections.len(), 0, start);
        while under_way > 0 {
            let ready = self.wait()?;
            if ready == 0 && progress.elapsed() > PATIENCE {
                let text =
                    format!("no answer for {PATIENCE:?}, {under_way} requests are under way");
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            for event in &self.events[..ready] {
                let connection = &mut self.connections[event.u64 as usize];
                let Some(begun) = connection.advance(&mut self.scratch)? else { continue };
                let now = Instant::now();
                latencies.add(now - begun);
                self.verified += connection.message.len() as u64;
                done += 1;
                progress = now;
                if now - start < length {
                    connection.begin(now)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok((start.elapsed(), done))
    }

    fn wait(&mut self) -> io::Result<usize> {
        let timeout_ms = if self.spins { 0 } else { 1000 };
        let (events, len) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: `events` has room for `len` entries.
        let ready = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, len, timeout_ms) };
        match usize::try_from(ready) {
            Ok(ready) => Ok(ready),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Names its connection and its number in every block, so that no other passes for it.
    message: Vec<u8>,
    number: u32,
    sent: usize,
    received: usize,
    /// When the request under way was begun.
    begun: Option<Instant>,
}

impl Connection {
    const BLOCK: usize = 64;

    fn new(stream: TcpStream, index: usize, size: usize) -> Connection {
        let message = (0..size).map(|at| (at * 131 + (at >> 8) * 17 + index * 29) as u8).collect();
        Connection { stream, message, number: 0, sent: 0, received: 0, begun: None }
    }

    fn begin(&mut self, now: Instant) -> io::Result<()> {
        self.number += 1;
        let stamp = self.number.to_ne_bytes();
        for block in self.message.chunks_mut(Self::BLOCK) {
            let len = block.len().min(stamp.len());
            block[..len].copy_from_slice(&stamp[..len]);
        }
        (self.sent, self.received, self.begun) = (0, 0, Some(now));
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.message.len() {
            match (&self.stream).write(&self.message[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Does what can be done now. When the whole answer is there: when its request was begun.
    fn advance(&mut self, scratch: &mut [u8]) -> io::Result<Option<Instant>> {
        if self.begun.is_none() {
            return Ok(None);
        }
        self.send()?;
        while self.received < self.message.len() {
            let arrived = match (&self.stream).read(&mut scratch[self.received..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.received..self.received + len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            if arrived.end > self.sent || scratch[arrived.clone()] != self.message[arrived.clone()]
            {
                let text = format!("request {}: bytes {arrived:?} came back wrong", self.number);
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
            self.received = arrived.end;
        }
        Ok(self.begun.take())
    }
}

// ---- the machine -------------------------------------------------------------------------------

/// A CPU for the servers and one for the client, of those this process may use; not two threads of
/// one core, where that can be had.
fn choose_cpus() -> Option<(usize, usize)> {
    // SAFETY: cpu_set_t is a plain bit mask, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` has room for the size given.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return None;
    }
    // SAFETY: every index is below CPU_SETSIZE.
    let allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    let all: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(allowed).collect();
    let (&server, others) = all.split_first()?;
    let core = |cpu: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(path).ok()
    };
    let own = core(server);
    let elsewhere = others.iter().find(|&&cpu| own.is_none() || core(cpu) != own);
    Some((server, *elsewhere.or(others.first())?))
}

/// Binds the calling thread to one CPU.
fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit mask, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` came out of such a set, so it is in range.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is a valid mask of the size given.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Two servers, with both ends of each connection, and what else is open.
fn descriptors_needed(connections: usize) -> u64 {
    4 * connections as u64 + 64
}

/// How many descriptors this process may have, after asking for as many as it may ask for.
fn descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable, and readable after that.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            let most = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &most) == 0 {
                return most.rlim_cur;
            }
        }
    }
    limit.rlim_cur
}

/// Release of the kernel, and the CPU's name.
fn machine() -> (String, String) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name").or(line.strip_prefix("CPU part")))
        .map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    (read("/proc/sys/kernel/osrelease").trim().to_owned(), model.to_owned())
}

// ---- what is printed ---------------------------------------------------------------------------

/// On standard error, and on one line if that is a terminal.
struct Progress {
    terminal: bool,
    rows: usize,
    row: usize,
    title: String,
}

impl Progress {
    fn new(rows: usize) -> Progress {
        Progress { terminal: io::stderr().is_terminal(), rows, row: 0, title: String::new() }
    }

    fn row(&mut self, title: &str) {
        self.row += 1;
        self.title = format!("[{}/{}] {title}", self.row, self.rows);
        if !self.terminal {
            eprintln!("{}", self.title);
        }
    }

    fn window(&self, number: u32, count: u32) {
        if self.terminal {
            let done = (number * 20 / count) as usize;
            eprint!("\r\x1b[2K{:<48} [{:<20}]", self.title, "#".repeat(done));
        }
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

/// On standard output: a table, or lines of JSON.
struct Report {
    json: bool,
    servers: Vec<&'static str>,
    verified: u64,
}

impl Report {
    fn head(&self, size: usize, cpus: Option<(usize, usize)>, refused: Option<&io::Error>) {
        let (kernel, cpu) = machine();
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        if self.json {
            let refused = refused.map_or("null".into(), |reason| quoted(&reason.to_string()));
            println!(
                "{{\"kernel\": {}, \"cpu\": {}, \"arguments\": {}, \"size\": {size}, \
                 \"pinned\": {}, \"ring_refused\": {refused}}}",
                quoted(&kernel),
                quoted(&cpu),
                quoted(&command),
                cpus.is_some(),
            );
            return;
        }
        if let Some(reason) = refused {
            println!("No ring here: {reason}");
            println!(
                "So these are the figures of epoll alone. `cargo run --example doctor` says more.\n"
            );
        }
        match cpus {
            Some((server, client)) => {
                println!(
                    "{size} B there and back; servers on CPU {server}, client on CPU {client}."
                );
            }
            None => println!(
                "{size} B there and back; one CPU for both sides, so nothing is pinned, and \
                 latencies\ninclude the client's work."
            ),
        }
    }

    /// What a server differs from its twin.
    fn noise(&self, noise: Option<(Work, Interval)>) {
        let Some((work, Interval { median, low, high })) = noise else { return };
        let interval = Interval { median, low, high };
        if self.json {
            println!(
                "{{\"row\": \"noise\", \"work\": {}, \"cpu_ratio\": {median:.4}, \"low\": {low:.4}, \
                 \"high\": {high:.4}, \"too_noisy\": {}}}",
                quoted(&work.to_string()),
                interval.width() > TOO_WIDE,
            );
            return;
        }
        println!("Noise: {work}, ring against ring: {interval}.");
        if interval.width() > TOO_WIDE {
            println!(
                "This machine is too noisy to tell: end what else runs on it, or try --seconds 60."
            );
        } else {
            println!("So up to {:.1} % is no difference.", interval.reach() * 100.0);
        }
    }

    fn table(&self, rows: &[(Work, Vec<Measured>)], noise: Option<Interval>) {
        if !self.json {
            println!();
            let upper = ["requests", "CPU ns", "user", "system", "system", "context", "", ""];
            let lower = ["/s", "/request", "part", "part", "calls", "switches", "p50 us", "p99 us"];
            line("", "", upper);
            line("", "", lower);
        }
        for (work, sides) in rows {
            for (name, side) in self.servers.iter().zip(sides) {
                self.side(*work, name, side, name == &self.servers[0]);
            }
            if let ([ring, epoll], Some(noise)) = (sides.as_slice(), noise) {
                let mut rates = ratios(ring, epoll, Window::rate);
                rates.sort_by(f64::total_cmp);
                let cpu = Interval::of(ring, epoll);
                self.ratio(*work, median(&rates), cpu, &Verdict::of(cpu, noise));
            }
        }
    }

    fn side(&self, work: Work, name: &str, side: &Measured, first: bool) {
        let sorted = |figure: fn(&Window) -> f64| {
            let mut figures: Vec<f64> = side.windows.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures
        };
        let (rate, cpu) = (median(&sorted(Window::rate)), median(&sorted(Window::cpu_ns)));
        let done = side.windows.iter().map(|window| window.done).sum::<u64>() as f64;
        let mut used = Usage::default();
        side.windows.iter().for_each(|window| used += window.used);
        let sampled = used.user_us + used.system_us;
        let user = (sampled >= SAMPLED_MIN.as_micros() as u64)
            .then(|| cpu * used.user_us as f64 / sampled as f64);
        let (calls, switches) = (used.calls as f64 / done, used.switches as f64 / done);
        let us = |percent| side.latencies.percentile(percent).as_secs_f64() * 1e6;
        let (p50, p99) = (us(50), us(99));
        if self.json {
            let part = |ns: Option<f64>| ns.map_or("null".to_owned(), |ns| format!("{ns:.1}"));
            println!(
                "{{\"row\": {}, \"engine\": \"{name}\", \"requests_per_second\": {rate:.0}, \
                 \"cpu_ns\": {cpu:.1}, \"user_ns\": {}, \"system_ns\": {}, \
                 \"system_calls\": {calls:.4}, \"context_switches\": {switches:.4}, \
                 \"p50_us\": {p50:.1}, \"p99_us\": {p99:.1}}}",
                quoted(&work.to_string()),
                part(user),
                part(user.map(|user| cpu - user)),
            );
            return;
        }
        let work = if first { work.to_string() } else { String::new() };
        let part = |ns: Option<f64>| ns.map_or("-".to_owned(), |ns| format!("{ns:.0}"));
        let figures = [
            format!("{rate:.0}"),
            format!("{cpu:.0}"),
            part(user),
            part(user.map(|user| cpu - user)),
            format!("{calls:.3}"),
            format!("{switches:.3}"),
            brief(p50),
            brief(p99),
        ];
        line(&work, name, figures.each_ref().map(String::as_str));
    }

    fn ratio(&self, work: Work, rate: f64, cpu: Interval, verdict: &Verdict) {
        let Interval { median, low, high } = cpu;
        if self.json {
            println!(
                "{{\"row\": {}, \"rate_ratio\": {rate:.4}, \"cpu_ratio\": {median:.4}, \
                 \"low\": {low:.4}, \"high\": {high:.4}, \"verdict\": \"{verdict}\"}}",
                quoted(&work.to_string()),
            );
            return;
        }
        let interval = format!("  (95 %: {low:.3} to {high:.3})");
        println!("{:<22}{:<6}{rate:>9.3}{median:>10.3}{interval}  {verdict}\n", "", "ratio");
    }

    fn left_out(&self, connections: usize) {
        let (needed, limit) = (descriptors_needed(connections), descriptors());
        let text = format!(
            "Left out: {connections} connections take {needed} descriptors, and {limit} are \
             allowed (ulimit -n)."
        );
        match self.json {
            true => println!("{{\"left_out\": {connections}}}"),
            false => println!("{text}\n"),
        }
    }

    fn foot(&self) {
        if self.json {
            println!("{{\"bytes_verified\": {}}}", self.verified);
            return;
        }
        let (kernel, cpu) = machine();
        if self.servers.len() == 1 {
            println!(); // as behind a ratio
        }
        println!(
            "Figures are for each request; in the last row for each task, which sleeps 1 ms and \
             yields.\nCPU ns: of the server's thread, exact (CLOCK_THREAD_CPUTIME_ID). How it \
             divides is the\nkernel's estimate, sampled at timer ticks (getrusage). p50, p99: as \
             the client sees it; of\ntasks, how late their sleep ends. ratio: ring to epoll, the \
             median of neighbouring windows,\nand its interval by the sign test. The verdict is \
             about CPU ns."
        );
        println!("{} bytes came back, all verified.\n", self.verified);
        println!("kernel {kernel}, {cpu}");
        let arguments: String = std::env::args().skip(1).map(|word| format!(" {word}")).collect();
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        let separator = if arguments.is_empty() { "" } else { " --" };
        println!("cargo run{profile} --example compare{separator}{arguments}");
        if cfg!(debug_assertions) {
            println!("A debug build: its figures say nothing.");
        }
    }
}

/// A decimal where it says something.
fn brief(figure: f64) -> String {
    if figure < 10_000.0 { format!("{figure:.1}") } else { format!("{figure:.0}") }
}

/// A line of the table.
fn line(work: &str, engine: &str, figures: [&str; 8]) {
    const WIDTHS: [usize; 8] = [9, 10, 8, 8, 9, 10, 9, 9];
    let mut text = format!("{work:<22}{engine:<6}");
    for (cell, width) in figures.iter().zip(WIDTHS) {
        text += &format!("{cell:>width$}");
    }
    println!("{}", text.trim_end());
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control < ' ' => quoted += &format!("\\u{:04x}", control as u32),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}
