//! The examples as programs, on both engines, and a hostile peer at the other end: tables of ways to
//! misbehave. Whatever the peer does, an example does not hang or spin, says in a line who it was and what
//! was wrong, and ends within a second when it is told to.

#[path = "../../../common/mod.rs"]
mod common;

mod peers;
mod ws_client;
mod http_client;
mod web_servers;
mod tcp_servers;
mod stopped;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::Watchdog;
use common::example;
use common::peer::{self, Peer};
use peers::Keys;

/// How many ways are tried at the same time, of all tables.
const WORKERS: usize = 8;
/// How soon an example ends when it is told to.
const SOON: Duration = Duration::from_secs(1);
/// What an example may compute while it deals with a peer, in ticks of a hundredth of a second. A loop
/// that spins has used it up in less than a second.
const TICKS_MAX: u64 = 50;
/// The same where the peer sends as much as it can: to read that is work.
const TICKS_MAX_IN_A_FLOOD: u64 = 300;
/// How often a way is tried: others may keep this machine busy for seconds.
const ATTEMPTS: usize = 3;

/// Tries each way on each engine, several at a time, and names those that failed. `TAMAM_TEST_WAY` narrows
/// that down to the ways with this in their name.
fn each_way<W: Sync>(
    table: &str,
    ways: &[W],
    name: fn(&W) -> &str,
    test: fn(&W, &str, &Arc<Keys>),
) {
    let _watchdog = Watchdog::start();
    let keys = Keys::new(&format!("hostile-{table}"));
    let engines = peer::engines();
    let wanted = std::env::var("TAMAM_TEST_WAY").unwrap_or_default();
    let ways: Vec<&W> = ways.iter().filter(|way| name(way).contains(&wanted)).collect();
    let all: Vec<(&W, &str)> =
        ways.iter().flat_map(|way| engines.iter().map(move |engine| (*way, *engine))).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((way, engine)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _place = Place::take();
                    let attempt = || catch_unwind(AssertUnwindSafe(|| test(way, engine, &keys)));
                    if (0..ATTEMPTS).all(|_| attempt().is_err()) {
                        let text = format!("{} ({engine})", name(way));
                        failed.lock().expect("no panic").push(text);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{table}: {} ways of {}: {failed:#?}", failed.len(), all.len());
    println!("{table}: {} ways, on {engines:?}", ways.len());
}

/// One of [`WORKERS`], so that a small machine has time for each.
struct Place;

static PLACES: (Mutex<usize>, Condvar) = (Mutex::new(WORKERS), Condvar::new());

impl Place {
    fn take() -> Place {
        let (free, changed) = &PLACES;
        let free = free.lock().expect("no panic");
        *changed.wait_while(free, |free| *free == 0).expect("no panic") -= 1;
        Place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *PLACES.0.lock().expect("no panic") += 1;
        PLACES.1.notify_one();
    }
}

/// Whether a line has one of the texts that `|` divides.
fn has_one(line: &str, texts: &str) -> bool {
    texts.split('|').any(|text| line.contains(text))
}

/// An example to be run on this engine.
fn example_on(name: &str, engine: &str) -> Command {
    let mut command = example::command(name);
    command.env("TAMAM_BACKEND", engine);
    command
}

/// Ctrl-C or SIGTERM, by turns.
fn stop_signal() -> libc::c_int {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    [libc::SIGINT, libc::SIGTERM][TURN.fetch_add(1, Ordering::Relaxed) % 2]
}

/// Tells it to end, and it does so soon. What this machine takes longer for a nap is not counted: others
/// keep it busy then.
#[track_caller]
fn ends_soon(mut peer: Peer) -> (ExitStatus, String) {
    const NAP: Duration = Duration::from_millis(5);
    let (signal, begin, mut lost) = (stop_signal(), Instant::now(), Duration::ZERO);
    peer.signal(signal);
    while !peer.has_ended() {
        let nap = Instant::now();
        thread::sleep(NAP);
        lost += nap.elapsed().saturating_sub(NAP * 2);
        let took = begin.elapsed();
        assert!(took < SOON + lost, "signal {signal}: {took:?}; it printed:\n{}", peer.text());
    }
    let (status, text) = peer.end();
    assert!(!text.contains("panicked"), "{text}");
    (status, text)
}

/// It has not computed more than it should.
#[track_caller]
fn does_not_spin(way: &str, peer: &Peer) {
    let ticks = peer.cpu_ticks();
    let is_flood = has_one(way, "reads nothing|endless|without an end|always goes on");
    let most = if is_flood { TICKS_MAX_IN_A_FLOOD } else { TICKS_MAX };
    assert!(ticks < most, "{way}: {ticks} ticks of computing; it printed:\n{}", peer.text());
}
