//! What does a request cost on connections that stay open?
//!
//! An echo of 64 B on 1, 50 and 1000 connections and of 16 KiB on 50, each connection with one message
//! under way, over TCP and over Unix sockets: tamam on io_uring and on epoll, tokio's current-thread
//! runtime (epoll), and two loops written by hand, on a ring and on epoll (`raw_ring`, `raw_epoll`: the
//! ceilings). The client is a thread with plain sockets on another core; it compares every byte.
//!
//! ```text
//! cargo bench -p tamam-benches --bench echo                       criterion: time per request
//! cargo bench -p tamam-benches --bench echo -- 64B/50/raw_ring    one of them
//! PAIRED=10 cargo bench -p tamam-benches --bench echo             interleaved: ratios, and CPU time per request
//! PAIRED=10 cargo bench -p tamam-benches --bench echo -- 64B/50   one row of it, of either family
//! PAIRED=10 cargo bench -p tamam-benches --bench echo -- unix/    all rows of Unix sockets
//! ```
//!
//! Time per request is bounded below by the client, which costs about as much as a server. The CPU
//! time of the server's thread, printed by the paired run, is what tells servers apart.

mod support;

use criterion::{Criterion, SamplingMode, Throughput};
use std::time::Duration;
use support::client::Client;
use support::paired::{self, Contender, Window};
use support::servers::{self, Family, Server, Spawn};

/// Title, family, message length, connections.
const ROWS: [(&str, Family, usize, usize); 8] = [
    ("echo/64B/1", Family::Tcp, 64, 1),
    ("echo/64B/50", Family::Tcp, 64, 50),
    ("echo/64B/1000", Family::Tcp, 64, 1000),
    ("echo/16KiB/50", Family::Tcp, 16 * 1024, 50),
    ("unix/64B/1", Family::Unix, 64, 1),
    ("unix/64B/50", Family::Unix, 64, 50),
    ("unix/64B/1000", Family::Unix, 64, 1000),
    ("unix/16KiB/50", Family::Unix, 16 * 1024, 50),
];

fn main() {
    support::run(support::Side::Driver, bench, compare);
}

fn bench(criterion: &mut Criterion) {
    for (title, family, message_len, connections) in ROWS {
        let mut group = criterion.benchmark_group(title);
        group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
        for (name, spawn) in servers::ALL {
            let mut echo = None;
            group.bench_function(name, |bencher| {
                // Made here: criterion calls this for the servers that were selected only.
                let echo = echo.get_or_insert_with(|| {
                    Echo::new(spawn(family, message_len), message_len, connections)
                });
                bencher.iter_custom(|requests| echo.client.exchange(requests));
            });
        }
        group.finish();
    }
}

fn compare(rounds: usize) {
    for (title, family, message_len, connections) in
        ROWS.into_iter().filter(|row| paired::is_selected(row.0))
    {
        let again = ("raw_ring again", servers::spawn_raw_ring as Spawn);
        let mut contenders: Vec<Contender> = servers::ALL
            .into_iter()
            .chain([again])
            .map(|(name, spawn)| {
                let mut echo = Echo::new(spawn(family, message_len), message_len, connections);
                Contender::new(name, move |requests| echo.window(requests))
            })
            .collect();
        paired::compare(title, "raw_ring", 1, rounds, &mut contenders);
    }
}

/// A server and its client. The client is first: it closes before the server is stopped.
struct Echo {
    client: Client,
    server: Server,
}

impl Echo {
    fn new(server: Server, message_len: usize, connections: usize) -> Self {
        let mut client = Client::connect(&server.addr, connections, message_len)
            .expect("a connection (RLIMIT_NOFILE must allow some thousand descriptors)");
        client.exchange(2 * connections as u64); // every connection is accepted and has echoed
        Echo { client, server }
    }

    fn window(&mut self, requests: u64) -> Window {
        let before: Duration = self.server.cpu();
        let elapsed = self.client.exchange(requests);
        Window { elapsed, cpu: Some(self.server.cpu() - before) }
    }
}
