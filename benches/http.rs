//! What does a request cost with hyper in between?
//!
//! hyper's http1 server answers "hello" on 1 and 50 connections that stay open, on tamam with io_uring
//! and with epoll, and on tokio's current-thread runtime through hyper-util's adapter. The same hyper,
//! the same service; only what is below differs. The client compares every byte.
//!
//! ```text
//! cargo bench -p tamam-benches --bench http             criterion: time per request
//! PAIRED=10 cargo bench -p tamam-benches --bench http   interleaved: ratios, and CPU time per request
//! ```

mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use criterion::{Criterion, Throughput};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use support::client::Client;
use support::paired::{self, Contender, Window};
use support::servers::{self, Server};
use tamam::Backend;

/// Title and connections.
const ROWS: [(&str, usize); 2] = [("http/hello/1", 1), ("http/hello/50", 50)];
const QUESTION: &[u8] = b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n";

type Spawn = fn() -> Server;

const SERVERS: [(&str, Spawn); 3] = [
    ("tamam_ring", || servers::tamam(Backend::Ring, 4000, on_tamam)),
    ("tamam_epoll", || servers::tamam(Backend::Epoll, 4000, on_tamam)),
    ("tokio", || servers::tokio(on_tokio)),
];

fn main() {
    support::run(support::Side::Driver, bench, compare);
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
}

/// Without a date, so that every answer is the same.
fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.auto_date_header(false);
    builder
}

async fn on_tamam(stream: tamam::net::TcpStream) -> hyper::Result<()> {
    builder().serve_connection(stream, service_fn(hello)).await
}

async fn on_tokio(stream: tokio::net::TcpStream) -> hyper::Result<()> {
    builder().serve_connection(TokioIo::new(stream), service_fn(hello)).await
}

fn bench(criterion: &mut Criterion) {
    for (title, connections) in ROWS {
        let mut group = criterion.benchmark_group(title);
        group.throughput(Throughput::Elements(1));
        for (name, spawn) in SERVERS {
            let mut hello = None;
            group.bench_function(name, |bencher| {
                let hello = hello.get_or_insert_with(|| Hello::new(spawn, connections));
                bencher.iter_custom(|requests| hello.client.exchange(requests));
            });
        }
        group.finish();
    }
}

fn compare(rounds: usize) {
    for (title, connections) in ROWS.into_iter().filter(|row| paired::is_selected(row.0)) {
        let again = ("tokio again", SERVERS[2].1);
        let mut contenders: Vec<Contender> = SERVERS
            .into_iter()
            .chain([again])
            .map(|(name, spawn)| {
                let mut hello = Hello::new(spawn, connections);
                Contender::new(name, move |requests| hello.window(requests))
            })
            .collect();
        paired::compare(title, "tokio", 1, rounds, &mut contenders);
    }
}

/// A server and its client. The client is first: it closes before the server is stopped.
struct Hello {
    client: Client,
    server: Server,
}

impl Hello {
    fn new(spawn: Spawn, connections: usize) -> Self {
        let server = spawn();
        let answer = ask_once(server.addr.tcp()).expect("the server answers");
        let mut client = Client::asking(&server.addr, connections, QUESTION, &answer)
            .expect("a loopback connection");
        client.exchange(2 * connections as u64);
        Hello { client, server }
    }

    fn window(&mut self, requests: u64) -> Window {
        let before = self.server.cpu();
        let elapsed = self.client.exchange(requests);
        Window { elapsed, cpu: Some(self.server.cpu() - before) }
    }
}

/// What the server answers, headers and all.
fn ask_once(addr: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(QUESTION)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let mut piece = [0; 4096];
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            len => answer.extend_from_slice(&piece[..len]),
        }
    }
    Ok(answer)
}
