//! Benches of one thread without a server: a table of rows, each run on both runtimes, and on both of
//! tamam's engines.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use tamam::Backend;

use super::Side;
use super::paired::{self, Contender};

/// Runs a number of iterations and says how long they took.
pub type Run = Box<dyn FnMut(u64) -> Duration>;

pub struct Row {
    pub title: &'static str,
    /// How many of what is measured an iteration does.
    pub operations: u64,
    pub tamam_ring: Run,
    pub tamam_epoll: Run,
    pub tokio: Run,
    /// The base against itself: the noise floor.
    pub tokio_again: Run,
}

/// A workload on a runtime of its own.
pub fn tamam_run<F>(backend: Backend, workload: fn(u64) -> F) -> Run
where
    F: Future<Output = Duration> + 'static,
{
    let runtime = tamam::Runtime::builder().backend(backend).build().expect("this engine works");
    Box::new(move |iterations| runtime.block_on(workload(iterations)))
}

/// The same on the baseline.
pub fn tokio_run<F>(workload: fn(u64) -> F) -> Run
where
    F: Future<Output = Duration> + 'static,
{
    let runtime = super::tokio_runtime();
    Box::new(move |iterations| runtime.block_on(workload(iterations)))
}

/// The `main` of such a bench.
pub fn run<const N: usize>(rows: fn() -> [Row; N]) {
    super::run(
        Side::Tested,
        |criterion| bench(criterion, rows()),
        |rounds| compare(rounds, rows()),
    );
}

fn bench(criterion: &mut Criterion, rows: impl IntoIterator<Item = Row>) {
    for mut row in rows {
        let mut group = criterion.benchmark_group(row.title);
        group.throughput(Throughput::Elements(row.operations));
        group.bench_function("tamam_ring", |bencher| bencher.iter_custom(&mut row.tamam_ring));
        group.bench_function("tamam_epoll", |bencher| bencher.iter_custom(&mut row.tamam_epoll));
        group.bench_function("tokio", |bencher| bencher.iter_custom(&mut row.tokio));
        group.finish();
    }
}

fn compare(rounds: usize, rows: impl IntoIterator<Item = Row>) {
    for row in rows.into_iter().filter(|row| paired::is_selected(row.title)) {
        let mut contenders = [
            Contender::new("tamam_ring", row.tamam_ring),
            Contender::new("tamam_epoll", row.tamam_epoll),
            Contender::new("tokio", row.tokio),
            Contender::new("tokio again", row.tokio_again),
        ];
        paired::compare(row.title, "tokio", row.operations, rounds, &mut contenders);
    }
}
