//! What does a request cost over TLS?
//!
//! TLS 1.3 with rustls and ring on both sides, one ECDSA certificate: an echo of 1 KiB on 50
//! connections that stay open; a stream of MiBs to and from the server; handshakes, full and
//! resumed. On tamam with io_uring and with epoll, and on tokio's current-thread runtime with
//! tokio-rustls. The client is a thread with plain sockets and rustls; it compares every byte.
//!
//! ```text
//! cargo bench -p tamam-benches --bench tls                     criterion: time
//! PAIRED=10 cargo bench -p tamam-benches --bench tls           interleaved: ratios, and CPU time of the server
//! PAIRED=10 cargo bench -p tamam-benches --bench tls -- echo   one row of it
//! ```

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use support::paired::{self, Contender, Window};
use support::servers::{self, Server};
use support::tls_client::{TlsClient, handshake};
use tamam::Backend;
use tamam::tls::rustls::client::Resumption;
use tamam::tls::rustls::{ClientConfig, RootCertStore, ServerConfig, StreamOwned};
use tamam::tls::{self, TlsAcceptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MESSAGE_LEN: usize = 1024;
const CONNECTIONS: usize = 50;
const MIB: usize = 1 << 20;

/// What the server does with a connection once the handshake is over; the first byte says.
const ECHO: u8 = b'e';
const SINK: u8 = b's';
const SOURCE: u8 = b'q';

type Config = Arc<ServerConfig>;
type Spawn = fn(Config) -> Server;

const SERVERS: [(&str, Spawn); 3] = [
    ("tamam_ring", |config| on_tamam(Backend::Ring, config)),
    ("tamam_epoll", |config| on_tamam(Backend::Epoll, config)),
    ("tokio", on_tokio),
];

/// Title, what one iteration is, and how a client makes so many of them.
const ROWS: [(&str, Throughput, MakeLoad); 5] = [
    ("tls/echo/1KiB/50", Throughput::Elements(1), echo),
    ("tls/receive/1MiB", Throughput::Bytes(MIB as u64), upload),
    ("tls/send/1MiB", Throughput::Bytes(MIB as u64), download),
    ("tls/handshake/full", Throughput::Elements(1), full_handshakes),
    ("tls/handshake/resumed", Throughput::Elements(1), resumed_handshakes),
];

/// Makes so many iterations and says how long they took.
type Load = Box<dyn FnMut(u64) -> Duration>;
type MakeLoad = fn(SocketAddr, &Configs) -> Load;

fn main() {
    support::run(support::Side::Driver, bench, compare);
}

fn bench(criterion: &mut Criterion) {
    let configs = Configs::new();
    for (title, throughput, load) in ROWS {
        let mut group = criterion.benchmark_group(title);
        group.throughput(throughput);
        for (name, spawn) in SERVERS {
            let mut row = None;
            group.bench_function(name, |bencher| {
                let row = row.get_or_insert_with(|| Row::new(spawn, load, &configs));
                bencher.iter_custom(|iterations| (row.load)(iterations));
            });
        }
        group.finish();
    }
}

fn compare(rounds: usize) {
    let configs = Configs::new();
    for (title, _, load) in ROWS.into_iter().filter(|row| paired::is_selected(row.0)) {
        let again = ("tokio again", SERVERS[2].1);
        let mut contenders: Vec<Contender> = SERVERS
            .into_iter()
            .chain([again])
            .map(|(name, spawn)| {
                let mut row = Row::new(spawn, load, &configs);
                Contender::new(name, move |iterations| row.window(iterations))
            })
            .collect();
        paired::compare(title, "tokio", 1, rounds, &mut contenders);
    }
}

/// A server and its client. The client is first: it closes before the server is stopped.
struct Row {
    load: Load,
    server: Server,
}

impl Row {
    fn new(spawn: Spawn, load: MakeLoad, configs: &Configs) -> Self {
        let server = spawn(configs.server.clone());
        Row { load: load(server.addr.tcp(), configs), server }
    }

    fn window(&mut self, iterations: u64) -> Window {
        let before = self.server.cpu();
        let elapsed = (self.load)(iterations);
        Window { elapsed, cpu: Some(self.server.cpu() - before) }
    }
}

/// One certificate, and both sides' configs around it.
struct Configs {
    server: Config,
    client: Arc<ClientConfig>,
    /// Remembers no session.
    forgetful: Arc<ClientConfig>,
}

impl Configs {
    fn new() -> Self {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
        let key =
            tls::rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let server = tls::server_config(vec![signed.cert.der().clone()], key.into()).expect("fits");
        let mut roots = RootCertStore::empty();
        roots.add(signed.cert.der().clone()).expect("a certificate");
        let client = tls::client_config(roots).expect("versions");
        let mut forgetful = client.clone();
        forgetful.resumption = Resumption::disabled();
        Configs {
            server: Arc::new(server),
            client: Arc::new(client),
            forgetful: Arc::new(forgetful),
        }
    }
}

// ---- clients ------------------------------------------------------------------------------------

fn echo(addr: SocketAddr, configs: &Configs) -> Load {
    // The first message is the order and its echo; the server answers it as all others.
    let mut client = TlsClient::connect(addr, &configs.client, CONNECTIONS, MESSAGE_LEN)
        .expect("loopback connections");
    client.exchange(2 * CONNECTIONS as u64);
    Box::new(move |requests| client.exchange(requests))
}

fn stream(
    addr: SocketAddr,
    configs: &Configs,
    order: u8,
) -> StreamOwned<tls::rustls::ClientConnection, TcpStream> {
    let (tcp, tls) = handshake(addr, &configs.client).expect("a handshake");
    let mut stream = StreamOwned::new(tls, tcp);
    stream.write_all(&[order]).expect("the server takes an order");
    stream
}

/// MiBs to the server, which says a byte for each.
fn upload(addr: SocketAddr, configs: &Configs) -> Load {
    let mut stream = stream(addr, configs, SINK);
    let mib: Vec<u8> = (0..MIB).map(|at| (at * 131) as u8).collect();
    Box::new(move |iterations| {
        let start = Instant::now();
        for _ in 0..iterations {
            stream.write_all(&mib).expect("the server reads");
            stream.flush().expect("the server reads");
            let mut said = [0];
            stream.read_exact(&mut said).expect("the server says so");
        }
        start.elapsed()
    })
}

/// MiBs from the server, each asked for with a byte.
fn download(addr: SocketAddr, configs: &Configs) -> Load {
    let mut stream = stream(addr, configs, SOURCE);
    let mut mib = vec![0; MIB];
    Box::new(move |iterations| {
        let start = Instant::now();
        for _ in 0..iterations {
            stream.write_all(&[SOURCE]).expect("the server reads");
            stream.read_exact(&mut mib).expect("the server writes");
            assert!(mib.iter().step_by(4099).all(|byte| *byte == b'x'), "bytes came changed");
        }
        start.elapsed()
    })
}

fn full_handshakes(addr: SocketAddr, configs: &Configs) -> Load {
    handshakes(addr, configs.forgetful.clone())
}

fn resumed_handshakes(addr: SocketAddr, configs: &Configs) -> Load {
    handshakes(addr, configs.client.clone())
}

/// Connect, handshake, one byte there and back, close.
fn handshakes(addr: SocketAddr, config: Arc<ClientConfig>) -> Load {
    Box::new(move |iterations| {
        let start = Instant::now();
        for _ in 0..iterations {
            let (tcp, tls) = handshake(addr, &config).expect("a handshake");
            let mut stream = StreamOwned::new(tls, tcp);
            stream.write_all(&[ECHO]).expect("the server reads");
            let mut echo = [0];
            stream.read_exact(&mut echo).expect("the server echoes");
            assert_eq!(echo[0], ECHO);
            stream.conn.send_close_notify();
            stream.flush().expect("the server reads");
        }
        start.elapsed()
    })
}

// ---- servers ------------------------------------------------------------------------------------

fn on_tamam(backend: Backend, config: Config) -> Server {
    let acceptor = TlsAcceptor::from(config);
    servers::tamam(backend, 4000, move |tcp| serve_on_tamam(tcp, acceptor.clone()))
}

async fn serve_on_tamam(tcp: tamam::net::TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    let stream = acceptor.accept(tcp).await?;
    let Some(first) = stream.recv().await? else { return Ok(()) };
    match first[0] {
        SINK => {
            let mut left = MIB;
            while let Some(chunk) = stream.recv().await? {
                left = match left.checked_sub(chunk.len()) {
                    None | Some(0) => {
                        stream.send_all("!").await?;
                        MIB
                    }
                    Some(left) => left,
                };
            }
        }
        SOURCE => {
            let mut mib = vec![b'x'; MIB];
            while stream.recv().await?.is_some() {
                mib = stream.send_all(mib).await?;
            }
        }
        _ => {
            stream.send_all(first).await?;
            while let Some(chunk) = stream.recv().await? {
                stream.send_all(chunk).await?;
            }
        }
    }
    Ok(())
}

fn on_tokio(config: Config) -> Server {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    servers::tokio(move |tcp| serve_on_tokio(tcp, acceptor.clone()))
}

async fn serve_on_tokio(
    tcp: tokio::net::TcpStream,
    acceptor: tokio_rustls::TlsAcceptor,
) -> io::Result<()> {
    let mut stream = acceptor.accept(tcp).await?;
    let mut buffer = vec![0; 16 * 1024];
    let first = stream.read(&mut buffer).await?;
    if first == 0 {
        return Ok(());
    }
    match buffer[0] {
        SINK => {
            let mut left = MIB;
            loop {
                let len = stream.read(&mut buffer).await?;
                if len == 0 {
                    return Ok(());
                }
                left = match left.checked_sub(len) {
                    None | Some(0) => {
                        stream.write_all(b"!").await?;
                        stream.flush().await?;
                        MIB
                    }
                    Some(left) => left,
                };
            }
        }
        SOURCE => {
            let mib = vec![b'x'; MIB];
            while stream.read(&mut buffer).await? > 0 {
                stream.write_all(&mib).await?;
                stream.flush().await?;
            }
        }
        _ => {
            let mut len = first;
            while len > 0 {
                stream.write_all(&buffer[..len]).await?;
                stream.flush().await?;
                len = stream.read(&mut buffer).await?;
            }
        }
    }
    Ok(())
}
