//! An echo server for datagrams, and the shape of one: receive, send back, look at what was lost.
//!
//!     cargo run --release --example udp_echo -- --self-test
//!     cargo run --release --example udp_echo -- --port 7000 --gro
//!
//! `--self-test` drives the server for two seconds with clients on another thread, verifies every
//! datagram, and prints datagrams per second, system calls for each, and how many were thrown away.
//! Otherwise it prints `READY` and its port once it is bound, and serves until Ctrl-C or SIGTERM;
//! then it says how many datagrams it has echoed. `--gro` lets the kernel merge datagrams, and sends
//! as many back in one send.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tamam::net::{Datagram, Envelope, UdpSocket};

const USAGE: &str = "usage: udp_echo [--port P] [--gro] | --self-test";

struct Options {
    port: u16,
    gro: bool,
    self_test: bool,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match tamam::run(start(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("udp_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { port: 7000, gro: false, self_test: false };
    while let Some(name) = args.next() {
        match name.as_str() {
            "--self-test" => options.self_test = true,
            "--gro" => options.gro = true,
            "--port" => {
                let value = args.next().ok_or("--port needs a value")?;
                options.port = value.parse().map_err(|_| format!("--port {value}: no port"))?;
            }
            _ => return Err(format!("unknown argument: {name}")),
        }
    }
    Ok(options)
}

async fn start(options: &Options) -> io::Result<()> {
    let port = if options.self_test { 0 } else { options.port };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    socket.set_packet_info(true)?;
    if options.gro {
        socket.set_gro(true)?;
    }
    let addr = socket.local_addr()?;
    let echoed = Rc::new(Cell::new(0));
    if options.self_test {
        tamam::spawn(serve(socket, echoed.clone()));
        return self_test(addr, &echoed).await;
    }
    let server = tamam::spawn(serve(socket, echoed.clone()));
    println!("READY {}", addr.port());
    io::stdout().flush()?;
    tamam::signal::shutdown().await?;
    server.abort();
    println!("{} datagrams echoed", echoed.get());
    Ok(())
}

/// Sends each datagram back, from the address that it was sent to.
async fn serve(socket: UdpSocket, echoed: Rc<Cell<u64>>) {
    loop {
        let result = match socket.recv().await {
            Ok(datagram) => echo(&socket, datagram).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(count) => echoed.set(echoed.get() + count),
            // A client that has gone, say: an error is that of one datagram.
            Err(error) => eprintln!("udp_echo: {error}"),
        }
    }
}

/// Gives how many datagrams went back: several, if the kernel has merged them.
async fn echo(socket: &UdpSocket, datagram: Datagram) -> io::Result<u64> {
    let count = datagram.segments().count();
    let envelope = Envelope {
        to: Some(datagram.from),
        from: datagram.to,
        ecn: datagram.ecn,
        segment_size: (count > 1).then_some(datagram.segment_size),
    };
    // The bytes go out from where the kernel has put them.
    socket.send_msg(datagram.chunk, envelope).await.map_err(io::Error::from)?;
    Ok(count as u64)
}

/// Clients of the self-test, and the length of a datagram.
const CLIENTS: usize = 50;
const DATAGRAM_LEN: usize = 64;
const DURATION: Duration = Duration::from_secs(2);

async fn self_test(addr: SocketAddr, echoed: &Cell<u64>) -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let clients = {
        let stop = stop.clone();
        thread::spawn(move || drive(addr, &stop))
    };
    let before = tamam::metrics();
    tamam::time::sleep(DURATION).await;
    let (after, done) = (tamam::metrics(), echoed.get());
    stop.store(true, Ordering::Relaxed);
    while !clients.is_finished() {
        tamam::time::sleep(Duration::from_millis(5)).await;
    }
    let (verified, lost) = clients.join().expect("the client thread does not panic")?;
    let calls = (after.system_calls - before.system_calls) as f64 / done.max(1) as f64;
    println!("{CLIENTS} clients, {DATAGRAM_LEN} B each way, {:.1} s", DURATION.as_secs_f64());
    println!("datagrams/s            {:>12.0}", done as f64 / DURATION.as_secs_f64());
    println!("system calls/datagram  {calls:>12.3}");
    println!("datagrams verified     {verified:>12}");
    println!("datagrams lost         {lost:>12}");
    if verified == 0 || after.stray_completions > 0 {
        return Err(io::Error::other("the server answered nothing, or something unasked"));
    }
    Ok(())
}

/// Many clients from one thread with plain sockets: each sends, then each receives, until told to
/// stop. How many datagrams came back right, and how many did not come.
fn drive(addr: SocketAddr, stop: &AtomicBool) -> io::Result<(u64, u64)> {
    let mut sockets = Vec::new();
    for _ in 0..CLIENTS {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(addr)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        sockets.push(socket);
    }
    let (mut verified, mut lost, mut round) = (0, 0, 0u64);
    while !stop.load(Ordering::Relaxed) {
        let message = |client: usize| -> [u8; DATAGRAM_LEN] {
            std::array::from_fn(|at| (at as u64 * 7 + client as u64 * 31 + round * 131) as u8)
        };
        for (client, socket) in sockets.iter().enumerate() {
            socket.send(&message(client))?;
        }
        for (client, socket) in sockets.iter().enumerate() {
            let mut answer = [0; DATAGRAM_LEN + 1];
            match socket.recv(&mut answer) {
                Ok(len) if answer[..len] == message(client) => verified += 1,
                Ok(_) => {
                    let text = format!("client {client}, round {round}: wrong bytes");
                    return Err(io::Error::other(text));
                }
                // UDP promises nothing: a datagram may be thrown away.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => lost += 1,
                Err(error) => return Err(error),
            }
        }
        round += 1;
    }
    Ok((verified, lost))
}
