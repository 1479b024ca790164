//! Measuring: the rows of the table, and the windows in which a server is driven.
//!
//! What the figures mean is in `statistics.rs`.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::report::Progress;
use crate::server::{Command, Server, TASKS};
use crate::statistics::{Interval, Latencies};
use crate::usage::Usage;

/// The length of a window, if the time allows: enough for a thousand requests. Windows of twice the
/// length would leave half as many pairs, and a confidence interval of few pairs is wide.
const WINDOW: Duration = Duration::from_millis(50);

/// How many windows a row has: enough for a confidence interval; and if there is time for more than
/// the most, the windows become longer.
const WINDOWS: std::ops::RangeInclusive<u32> = 12..=400;

/// What a row measures.
#[derive(Clone, Copy)]
pub enum Work {
    /// This many connections, each with one request in flight.
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

/// What a row of the table has measured.
pub struct Row {
    pub work: Work,
    /// Of each engine.
    pub sides: Vec<Measured>,
    /// How far a server differs from its twin under this load.
    pub noise: Option<Interval>,
}

/// The load of a row, to be measured.
pub struct Load {
    pub work: Work,
    pub size: usize,
    /// Whether the client never sleeps.
    pub spins: bool,
}

/// One window of one server.
pub struct Window {
    pub elapsed: Duration,
    /// Requests that were answered, or tasks that ended.
    pub done: u64,
    pub used: Usage,
}

impl Window {
    pub fn cpu_ns(&self) -> f64 {
        self.used.cpu_ns as f64 / self.done as f64
    }

    pub fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }
}

/// All windows of one server in a row.
pub struct Measured {
    pub windows: Vec<Window>,
    pub latencies: Latencies,
    pub verified: u64,
}

impl Load {
    /// Drives one server, or two in turn, for `time`. Returns what it measured, in the order of
    /// `servers`.
    pub fn measure(
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
            // Warm up: every connection is accepted and has echoed once, caches are filled, and the
            // windows of TCP are open.
            drive(server, &mut client, WINDOW / 2, &mut Latencies::new())?;
            clients.push(client);
        }
        // A multiple of four: whole groups of A B B A.
        let left = end.saturating_duration_since(Instant::now()).max(time / 2);
        let fitting = (left.as_nanos() / WINDOW.as_nanos()) as u32;
        let count = fitting.clamp(*WINDOWS.start(), *WINDOWS.end()) / 4 * 4;
        let length = left / count;
        let mut sides: Vec<Measured> = servers
            .iter()
            .map(|_| Measured { windows: Vec::new(), latencies: Latencies::new(), verified: 0 })
            .collect();
        for number in 0..count {
            // On a busy machine windows take longer than planned: stop when the time is over.
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

/// Runs one window: the echo if there is a client, else the tasks.
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
