//! What is printed: the progress, and the table or its JSON.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crate::machine::{descriptors, descriptors_needed, machine};
use crate::measure::{Measured, Row, Window, Work};
use crate::statistics::{Interval, Verdict, median, ratios};
use crate::usage::Usage;

/// The parts of the CPU time are shown if this much of it was sampled: usually 50 ticks.
const SAMPLED_MIN: Duration = Duration::from_millis(200);

/// Shows progress on standard error: on one line that it rewrites, if that is a terminal.
pub struct Progress {
    terminal: bool,
    rows: usize,
    row: usize,
    title: String,
}

impl Progress {
    pub fn new(rows: usize) -> Progress {
        Progress { terminal: io::stderr().is_terminal(), rows, row: 0, title: String::new() }
    }

    pub fn row(&mut self, title: &str) {
        self.row += 1;
        self.title = format!("[{}/{}] {title}", self.row, self.rows);
        if !self.terminal {
            eprintln!("{}", self.title);
        }
    }

    pub fn window(&self, number: u32, count: u32) {
        if self.terminal {
            let done = (number * 20 / count) as usize;
            eprint!("\r\x1b[2K{:<48} [{:<20}]", self.title, "#".repeat(done));
        }
    }

    pub fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

/// Prints to standard output: a table, or lines of JSON.
pub struct Report {
    pub json: bool,
    pub servers: Vec<&'static str>,
    pub verified: u64,
}

impl Report {
    pub fn head(&self, size: usize, cpus: Option<(usize, usize)>, refused: Option<&io::Error>) {
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

    pub fn table(&self, rows: &[Row]) {
        if !self.json {
            println!();
            let upper = ["requests", "CPU ns", "user", "system", "system", "context", "", ""];
            let lower = ["/s", "/request", "part", "part", "calls", "switches", "p50 us", "p99 us"];
            line("", "", upper);
            line("", "", lower);
        }
        for Row { work, sides, noise } in rows {
            for (name, side) in self.servers.iter().zip(sides) {
                self.side(*work, name, side, name == &self.servers[0]);
            }
            if let ([ring, epoll], Some(noise)) = (sides.as_slice(), *noise) {
                self.noise(*work, noise);
                let mut rates = ratios(ring, epoll, Window::rate);
                rates.sort_by(f64::total_cmp);
                let cpu = Interval::of(ring, epoll);
                self.ratio(*work, median(&rates), cpu, &Verdict::of(cpu, noise));
            }
        }
        if !self.json && rows.iter().any(|row| row.noise.is_some_and(Interval::is_too_wide)) {
            println!(
                "This machine is too noisy to tell all of it: end what else runs on it, or try \
                 --seconds 60.\n"
            );
        }
    }

    /// How far a server differs from its twin.
    fn noise(&self, work: Work, noise: Interval) {
        let Interval { median, low, high } = noise;
        if self.json {
            println!(
                "{{\"row\": \"noise\", \"work\": {}, \"cpu_ratio\": {median:.4}, \"low\": {low:.4}, \
                 \"high\": {high:.4}, \"too_noisy\": {}}}",
                quoted(&work.to_string()),
                noise.is_too_wide(),
            );
            return;
        }
        let text = match noise.is_too_wide() {
            true => "too much".to_owned(),
            false => format!("up to {:.1} %", noise.reach() * 100.0),
        };
        let interval = format!("  (95 %: {low:.3} to {high:.3})");
        println!("{:<22}{:<6}{:>9}{median:>10.3}{interval}  {text}", "", "noise", "");
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

    pub fn left_out(&self, connections: usize) {
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

    pub fn foot(&self) {
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
             median of neighbouring windows,\nand its interval by the sign test; noise: the same of \
             a ring and its twin, and what\nis within it is no difference. The verdict is about CPU \
             ns."
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

/// With one decimal, unless the figure is large.
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
