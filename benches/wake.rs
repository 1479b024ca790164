//! How long after another thread's `wake` does a task run?
//!
//! - `wake/busy`: the runtime is kept running by a task that yields for ever;
//! - `wake/parked`: the runtime sleeps in the kernel (each wake comes 50 us after the last answer).
//!
//! The figure is the way there and back: from the call of `wake` until the waking thread, which spins,
//! sees the task's answer in an atomic. Against tokio's current-thread runtime. The two threads have a
//! core each; on a machine with one core the figures mean little.
//!
//! ```text
//! cargo bench -p tamam-benches --bench wake             criterion: time per wake
//! PAIRED=10 cargo bench -p tamam-benches --bench wake   interleaved: time per wake, ratios
//! ```

mod support;

use criterion::Criterion;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::paired::{self, Contender};
use tamam::Backend;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Busy,
    Parked,
}

const ROWS: [(&str, State); 2] = [("wake/busy", State::Busy), ("wake/parked", State::Parked)];

fn main() {
    support::run(support::Side::Driver, bench, compare);
}

fn bench(criterion: &mut Criterion) {
    for (title, state) in ROWS {
        let mut group = criterion.benchmark_group(title);
        for (name, host) in HOSTS {
            let mut sleeper = None;
            group.bench_function(name, |bencher| {
                let sleeper = sleeper.get_or_insert_with(|| Sleeper::start(host, state));
                bencher.iter_custom(|wakes| sleeper.wake(wakes));
            });
        }
        group.finish();
    }
}

fn compare(rounds: usize) {
    for (title, state) in ROWS.into_iter().filter(|row| paired::is_selected(row.0)) {
        // Started anew for each window: a runtime that is kept busy would take the core of the others.
        let window = |host: Host| move |wakes| Sleeper::start(host, state).wake(wakes);
        let again = ("tokio again", on_tokio as Host);
        let mut contenders: Vec<Contender> = HOSTS
            .into_iter()
            .chain([again])
            .map(|(name, host)| Contender::new(name, window(host)))
            .collect();
        paired::compare(title, "tokio", 1, rounds, &mut contenders);
    }
}

/// A runtime on its own thread, with a task that answers every wake.
struct Sleeper {
    shared: Arc<Shared>,
    waker: Waker,
    state: State,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    asked: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// Runs a runtime on the calling thread until `Shared::stop`.
type Host = fn(Arc<Shared>, mpsc::Sender<Waker>, State);

const HOSTS: [(&str, Host); 3] =
    [("tamam_ring", on_tamam_ring), ("tamam_epoll", on_tamam_epoll), ("tokio", on_tokio)];

fn on_tamam_ring(shared: Arc<Shared>, tell: mpsc::Sender<Waker>, state: State) {
    on_tamam(Backend::Ring, shared, tell, state);
}

fn on_tamam_epoll(shared: Arc<Shared>, tell: mpsc::Sender<Waker>, state: State) {
    on_tamam(Backend::Epoll, shared, tell, state);
}

fn on_tamam(backend: Backend, shared: Arc<Shared>, tell: mpsc::Sender<Waker>, state: State) {
    let runtime = tamam::Runtime::builder().backend(backend).build().expect("this engine works");
    runtime.block_on(async move {
        if state == State::Busy {
            let shared = Arc::clone(&shared);
            tamam::spawn(async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    tamam::yield_now().await;
                }
            });
        }
        tamam::spawn(answer(shared, tell)).await.expect("the task ends");
    });
}

fn on_tokio(shared: Arc<Shared>, tell: mpsc::Sender<Waker>, state: State) {
    support::tokio_runtime().block_on(async move {
        if state == State::Busy {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
            });
        }
        tokio::spawn(answer(shared, tell)).await.expect("the task ends");
    });
}

/// Hands out its waker, then answers each question when it is polled.
async fn answer(shared: Arc<Shared>, tell: mpsc::Sender<Waker>) {
    let mut told = false;
    poll_fn(|cx| {
        if !told {
            tell.send(cx.waker().clone()).expect("the starter waits");
            told = true;
        }
        shared.answered.store(shared.asked.load(Ordering::Acquire), Ordering::Release);
        match shared.stop.load(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await
}

impl Sleeper {
    fn start(host: Host, state: State) -> Self {
        let shared = Arc::new(Shared::default());
        let (tell, told) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            support::pin(support::Side::Tested);
            host(theirs, tell, state);
        });
        let waker = told.recv().expect("the task hands out its waker");
        Sleeper { shared, waker, state, thread: Some(thread) }
    }

    fn wake(&mut self, wakes: u64) -> Duration {
        let mut total = Duration::ZERO;
        for _ in 0..wakes {
            if self.state == State::Parked {
                spin_until(|| false, Duration::from_micros(50));
            }
            let start = Instant::now();
            let asked = self.shared.asked.fetch_add(1, Ordering::Release) + 1;
            self.waker.wake_by_ref();
            let answered = || self.shared.answered.load(Ordering::Acquire) == asked;
            assert!(spin_until(answered, Duration::from_secs(5)), "a wake was lost");
            total += start.elapsed();
        }
        total
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.waker.wake_by_ref();
        let ended = self.thread.take().expect("joined once").join();
        if ended.is_err() && !std::thread::panicking() {
            panic!("the runtime's thread panicked");
        }
    }
}

/// Spins until `done`, at most so long; says whether it was done.
fn spin_until(done: impl Fn() -> bool, patience: Duration) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > patience {
            return false;
        }
        match support::two_cores() {
            true => std::hint::spin_loop(),
            false => std::thread::yield_now(),
        }
    }
    true
}
