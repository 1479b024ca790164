//! An echo server, and the shape of every server here: accept, spawn, receive, send.
//!
//!     cargo run --release --example echo -- --self-test
//!     cargo run --release --example echo -- --port 7000 --mode echo --size 4096
//!
//! `--self-test` drives the server for two seconds with clients on another thread, verifies every
//! byte, and prints requests per second, system calls per request, the engine and its kernel features.
//! Otherwise it prints `READY` once it listens, and serves until it is killed. `--mode sink`
//! receives and answers nothing. `--size` is the size of a receive buffer in bytes.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::{Runtime, Support};

const USAGE: &str = "usage: echo [--port P] [--mode echo|sink] [--size BYTES] | --self-test";

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Echo,
    Sink,
}

struct Options {
    port: u16,
    mode: Mode,
    size: usize,
    self_test: bool,
}

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
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { port: 7000, mode: Mode::Echo, size: 4096, self_test: false };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{name} {text}: no number"));
        match name.as_str() {
            "--self-test" => options.self_test = true,
            "--port" => {
                let port: usize = number(value()?)?;
                options.port = port.try_into().map_err(|_| format!("no port: {port}"))?;
            }
            "--size" => options.size = number(value()?)?,
            "--mode" => {
                options.mode = match value()?.as_str() {
                    "echo" => Mode::Echo,
                    "sink" => Mode::Sink,
                    mode => return Err(format!("no mode: {mode}")),
                }
            }
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    match (options.self_test, options.mode) {
        (true, Mode::Sink) => Err("--self-test wants answers, and a sink gives none".into()),
        _ => Ok(options),
    }
}

fn start(options: &Options) -> io::Result<()> {
    raise_descriptor_limit();
    // At most 2 MiB of buffers: more would not stay in the cache.
    let buffers = ((2 << 20) / options.size.max(1)).clamp(16, 256) as u32;
    let runtime = Runtime::builder().buffer_size(options.size).buffer_count(buffers).build()?;
    let port = if options.self_test { 0 } else { options.port };
    runtime.block_on(async {
        let listener = TcpSocket::new_v4()?
            .reuse_addr(true)
            .nodelay(true) // accepted connections inherit it
            .backlog(4096)
            .listen(SocketAddr::from(([127, 0, 0, 1], port)))?;
        if options.self_test {
            return self_test(&runtime, listener).await;
        }
        println!("READY");
        io::stdout().flush()?;
        serve(listener, options.mode).await
    })
}

async fn serve(listener: TcpListener, mode: Mode) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => drop(tamam::spawn(connection(stream, mode))),
            // Out of descriptors, say: the listener pauses by itself, clients wait.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn connection(stream: TcpStream, mode: Mode) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        if mode == Mode::Echo {
            stream.send_all(chunk).await?;
        }
    }
    Ok(())
}

/// Lets the process have as many connections as it may.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable, and readable after that.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Connections of the self-test, and the length of a message.
const CLIENTS: usize = 50;
const MESSAGE_LEN: usize = 64;
const DURATION: Duration = Duration::from_secs(2);

async fn self_test(runtime: &Runtime, listener: TcpListener) -> io::Result<()> {
    let addr = listener.local_addr()?;
    let server = tamam::spawn(serve(listener, Mode::Echo));
    let requests = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let clients = {
        let (requests, stop) = (requests.clone(), stop.clone());
        thread::spawn(move || drive(addr, &requests, &stop))
    };
    // Let everybody connect, then look at two seconds.
    tamam::time::sleep(Duration::from_millis(200)).await;
    let (start, before, first) =
        (Instant::now(), tamam::metrics(), requests.load(Ordering::Relaxed));
    tamam::time::sleep(DURATION).await;
    let (elapsed, after) = (start.elapsed(), tamam::metrics());
    let done = requests.load(Ordering::Relaxed) - first;
    stop.store(true, Ordering::Relaxed);
    while !clients.is_finished() {
        tamam::time::sleep(Duration::from_millis(5)).await;
    }
    server.abort();
    let verified = clients.join().expect("the client thread does not panic")?;
    let per_request = (after.system_calls - before.system_calls) as f64 / done.max(1) as f64;
    println!("{CLIENTS} connections, {MESSAGE_LEN} B each way, {:.1} s", elapsed.as_secs_f64());
    println!("requests/s             {:>12.0}", done as f64 / elapsed.as_secs_f64());
    println!("system calls/request   {per_request:>12.3}");
    println!(
        "completions/enter      {:>12.1}",
        (after.completions - before.completions) as f64
            / (after.enters - before.enters).max(1) as f64
    );
    println!("bytes verified         {verified:>12}");
    let capabilities = runtime.capabilities();
    let native = capabilities.features().iter().filter(|it| it.support == Support::Native);
    println!("engine                 {}", capabilities.backend());
    let native = native.map(|feature| feature.name).collect::<Vec<_>>().join(", ");
    println!("native features        {}", if native.is_empty() { "none" } else { &native });
    if done == 0 || after.stray_completions > 0 {
        return Err(io::Error::other("the server answered nothing, or something unasked"));
    }
    Ok(())
}

/// Many connections from one thread with plain sockets: sends to all, then reads from all, until
/// told to stop. How many bytes came back right.
fn drive(addr: SocketAddr, requests: &AtomicU64, stop: &AtomicBool) -> io::Result<u64> {
    let mut streams = (0..CLIENTS)
        .map(|_| {
            let stream = std::net::TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(stream)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let mut verified = 0;
    let mut round = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let message = |client: usize| -> [u8; MESSAGE_LEN] {
            std::array::from_fn(|at| (at as u64 * 7 + client as u64 * 31 + round * 131) as u8)
        };
        for (client, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&message(client))?;
        }
        for (client, stream) in streams.iter_mut().enumerate() {
            let mut answer = [0; MESSAGE_LEN];
            stream.read_exact(&mut answer)?;
            if answer != message(client) {
                return Err(io::Error::other(format!(
                    "client {client}, round {round}: wrong bytes"
                )));
            }
            verified += MESSAGE_LEN as u64;
            requests.fetch_add(1, Ordering::Relaxed);
        }
        round += 1;
    }
    Ok(verified)
}
