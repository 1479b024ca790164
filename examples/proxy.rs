//! A TCP proxy on several threads: a runtime on each, and the kernel spreads the connections.
//!
//!     cargo run --release --example proxy -- --to 127.0.0.1:7000 --port 7001 --threads 2
//!
//! The two directions of a connection are two futures over the same two streams, without a split. The
//! end of one direction is passed on, and the other goes on; a reset is passed on as a reset. Where
//! nothing moves for ten minutes (`--quiet-ms`), both sides are reset. Prints `READY` and its address
//! once it listens. Ctrl-C or SIGTERM ends it, and what it carries.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tamam::buf::{BufError, IoBuf};
use tamam::io::{Receive, Side, Transmit, copy_both};
use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::time::{sleep_until, timeout};
use tamam::{Chunk, Runtime};

const USAGE: &str = "usage: proxy --to HOST:PORT [--port P] [--threads N] [--quiet-ms MS]";

/// How long a connection to the other side may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

struct Options {
    to: String,
    port: u16,
    threads: usize,
    quiet: Duration,
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
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let quiet = Duration::from_secs(600);
    let mut options = Options { to: String::new(), port: 7001, threads: 1, quiet };
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--to" => options.to = value()?,
            "--port" => options.port = value()?.parse().map_err(|_| "--port: no port")?,
            "--threads" => {
                options.threads = value()?.parse().map_err(|_| "--threads: no number")?
            }
            "--quiet-ms" => {
                let number = value()?.parse().map_err(|_| "--quiet-ms: no number")?;
                options.quiet = Duration::from_millis(number);
            }
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    match (options.to.is_empty(), options.threads) {
        (true, _) => Err("--to is missing: where do connections go?".into()),
        (_, 0) => Err("--threads 0: who is to do it?".into()),
        _ => Ok(options),
    }
}

fn start(Options { to, mut port, threads, quiet }: Options) -> io::Result<()> {
    let (mut running, mut all_listen) = (Vec::new(), true);
    while all_listen && running.len() < threads {
        let (to, (ready, listens)) = (to.clone(), mpsc::channel());
        let thread =
            thread::spawn(move || Runtime::new()?.block_on(serve(to.into(), port, quiet, ready)));
        running.push(thread);
        match listens.recv() {
            Ok(chosen) => port = chosen,  // the first one chooses, if it is 0
            Err(_) => all_listen = false, // it ends, and says why below
        }
    }
    if all_listen {
        println!("READY 127.0.0.1:{port}");
        io::stdout().flush()?;
    }
    // Starting with the last one: if one could not start, the others serve for ever.
    running.into_iter().rev().try_for_each(|thread| thread.join().expect("it does not panic"))
}

async fn serve(
    to: Rc<str>,
    port: u16,
    quiet: Duration,
    ready: mpsc::Sender<u16>,
) -> io::Result<()> {
    let listener = TcpSocket::new_v4()?
        .reuse_addr(true)
        .reuse_port(true)
        .nodelay(true) // accepted connections inherit it
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let stopped = tamam::signal::shutdown(); // from here on
    ready.send(listener.local_addr()?.port()).expect("the main thread waits for it");
    drop(ready);
    tokio::select! {
        never = accept(&listener, &to, quiet) => match never {},
        stopped = stopped => stopped.map(drop),
    }
}

async fn accept(listener: &TcpListener, to: &Rc<str>, quiet: Duration) -> std::convert::Infallible {
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                let to = to.clone();
                tamam::spawn(async move {
                    if let Err(error) = carry(&client, &to, quiet).await {
                        eprintln!("{peer} to {to}: {error}");
                        let _ = client.set_zero_linger(); // it hears of it by a reset
                    }
                });
            }
            // Out of descriptors, say: the listener pauses by itself, clients wait.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

/// Until both directions have ended, or one has failed, or nothing moves any more.
async fn carry(client: &TcpStream, to: &str, quiet: Duration) -> io::Result<()> {
    let connected = timeout(CONNECT_MAX, TcpStream::connect(to)).await;
    let server =
        connected.map_err(|_| io::Error::other(format!("no connection in {CONNECT_MAX:?}")))??;
    server.set_nodelay(true)?;
    let moved = Cell::new(Instant::now());
    let (near, far) = (Watched(client, &moved), Watched(&server, &moved));
    let carried = tokio::select! {
        copied = copy_both(&near, &far) => match copied.failed {
            None => Ok(()),
            Some((Side::A, error)) => Err(named("the client", error)),
            Some((Side::B, error)) => Err(named("the server", error)),
        },
        () = silence(&moved, quiet) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing moves for {quiet:?}")))
        }
    };
    if carried.is_err() {
        let _ = server.set_zero_linger(); // it may be gone
    }
    carried
}

fn named(peer: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{peer}: {error}"))
}

/// A stream that notes when something has moved.
struct Watched<'a>(&'a TcpStream, &'a Cell<Instant>);

impl Receive for Watched<'_> {
    async fn recv(&self) -> io::Result<Option<Chunk>> {
        let chunk = self.0.recv().await?;
        self.1.set(Instant::now());
        Ok(chunk)
    }

    fn unread(&self, chunk: Chunk) {
        self.0.unread(chunk);
    }
}

impl Transmit for Watched<'_> {
    async fn send_all<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        let buf = self.0.send_all(buf).await?;
        self.1.set(Instant::now());
        Ok(buf)
    }

    async fn shutdown(&self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

/// Until nothing has moved for so long.
async fn silence(moved: &Cell<Instant>, quiet: Duration) {
    while moved.get().elapsed() < quiet {
        sleep_until(moved.get() + quiet).await;
    }
}
