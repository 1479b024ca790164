//! What does a short connection cost?
//!
//! Connect, one request of 64 B, close; 32 of them under way: tamam on io_uring and on epoll, tokio's
//! current-thread runtime (epoll), and two loops written by hand, on a ring and on epoll (`raw_ring`,
//! `raw_epoll`: the ceilings). The client is a thread with plain sockets on another core; it compares
//! every byte.
//!
//! ```text
//! cargo bench -p tamam-benches --bench accept             criterion: time per connection
//! PAIRED=10 cargo bench -p tamam-benches --bench accept   interleaved: ratios, and CPU time per connection
//! ```
//!
//! Connecting costs more than accepting, so the time per connection is the client's; the CPU time of
//! the server's thread, printed by the paired run, is what tells servers apart.

mod support;

use criterion::{Criterion, SamplingMode, Throughput};
use support::client::Dialer;
use support::paired::{self, Contender, Window};
use support::servers::{self, Family, Server, Spawn};

const TITLE: &str = "accept/64B/32";
const MESSAGE_LEN: usize = 64;

fn main() {
    support::run(support::Side::Driver, bench, compare);
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(TITLE);
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat);
    for (name, spawn) in servers::ALL {
        let mut short = None;
        group.bench_function(name, |bencher| {
            // Made here: criterion calls this for the servers that were selected only.
            let short = short.get_or_insert_with(|| Short::new(spawn));
            bencher.iter_custom(|connections| short.dialer.exchange(connections));
        });
    }
    group.finish();
}

fn compare(rounds: usize) {
    let again = ("raw_ring again", servers::spawn_raw_ring as Spawn);
    let mut contenders: Vec<Contender> = servers::ALL
        .into_iter()
        .chain([again])
        .map(|(name, spawn)| {
            let mut short = Short::new(spawn);
            Contender::new(name, move |connections| short.window(connections))
        })
        .collect();
    paired::compare(TITLE, "raw_ring", 1, rounds, &mut contenders);
}

/// A server and its client.
struct Short {
    dialer: Dialer,
    server: Server,
}

impl Short {
    fn new(spawn: Spawn) -> Self {
        let server = spawn(Family::Tcp, MESSAGE_LEN);
        Short { dialer: Dialer::new(server.addr.tcp(), MESSAGE_LEN), server }
    }

    fn window(&mut self, connections: u64) -> Window {
        let before = self.server.cpu();
        let elapsed = self.dialer.exchange(connections);
        Window { elapsed, cpu: Some(self.server.cpu() - before) }
    }
}
