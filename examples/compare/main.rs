//! Both engines on this machine, side by side: the same echo server and the same tasks, on io_uring
//! and on epoll.
//!
//!     cargo run --release --example compare
//!     cargo run --release --example compare -- --seconds 60 --connections 1,50,500 --size 64 --json
//!
//! It takes about ten seconds, shows its progress, and prints a table.
//!
//! Each row drives both engines in turn, in short windows forwards and backwards (A B B A …), so
//! that a drift of the machine affects both alike. Before that, a server is compared with a twin of its
//! own under the same load: the difference between those two is noise, and judges this row. Where there is
//! too much of it the row says so, and gets no verdict.
//!
//! Each engine has a server thread with a runtime of its own (`server.rs`). The client
//! (`client.rs`) is one thread with plain sockets and epoll, and uses neither engine. Each of its
//! connections has one request in flight, and every byte that comes back is compared with what was
//! sent. If there are two CPUs, the servers get one and the client the other, where it never
//! sleeps: a server would have to pay for waking it.
//!
//! Read `compare` below, then `measure.rs`, then `server.rs` and `client.rs`.

mod client;
mod machine;
mod measure;
mod options;
mod report;
mod server;
mod statistics;
mod usage;

use std::io;
use std::process::ExitCode;

use tamam::Backend;

use machine::{choose_cpus, descriptors, descriptors_needed, pin};
use measure::{Load, Measured, Row, Work};
use options::{Options, USAGE, parse};
use report::{Progress, Report};
use server::Server;
use statistics::Interval;

/// The share of the time that is spent on measuring the noise.
const NOISE_SHARE: f64 = 0.4;

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
    let share = if refused.is_none() { NOISE_SHARE } else { 0.0 };
    let (noise_time, row_time) =
        (time.mul_f64(share) / works.len() as u32, time.mul_f64(1.0 - share) / works.len() as u32);
    let measured_twice = if refused.is_none() { 2 } else { 1 };
    let mut progress = Progress::new(works.len() * measured_twice);

    // A ring server against its twin: all that differs is noise. They are two servers, not one
    // measured twice, because the place of a server's memory is part of the noise.
    let twin = if refused.is_none() { Some(start(Backend::Ring)?) } else { None };
    let all: Vec<&Server> = servers.iter().collect();
    let mut rows = Vec::new();
    for work in works {
        let load = Load { work, size, spins };
        let mut noise = None;
        if let Some(twin) = &twin {
            let title = format!("{work}, ring against ring");
            let sides = load.measure(&[&servers[0], twin], noise_time, &title, &mut progress)?;
            report.verified += verified(&sides);
            noise = Some(Interval::of(&sides[0], &sides[1]));
        }
        let sides = load.measure(&all, row_time, &work.to_string(), &mut progress)?;
        report.verified += verified(&sides);
        rows.push(Row { work, sides, noise });
    }
    progress.end();
    report.table(&rows);
    for count in left_out {
        report.left_out(count);
    }
    report.foot();
    servers.into_iter().chain(twin).try_for_each(Server::stop)
}

fn verified(sides: &[Measured]) -> u64 {
    sides.iter().map(|side| side.verified).sum()
}
