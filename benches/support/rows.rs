//! Benches of one thread without a server: a table of rows, each run on both runtimes.

use std::time::Duration;

use criterion::{Criterion, Throughput};

use super::Side;
use super::paired::{self, Contender};

/// Runs a number of iterations and says how long they took.
pub type Run = Box<dyn FnMut(u64) -> Duration>;

pub struct Row {
    pub title: &'static str,
    /// How many of what is measured an iteration does.
    pub operations: u64,
    pub tamam: Run,
    pub tokio: Run,
    /// The base against itself: the noise floor.
    pub tokio_again: Run,
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
        group.bench_function("tamam", |bencher| bencher.iter_custom(&mut row.tamam));
        group.bench_function("tokio", |bencher| bencher.iter_custom(&mut row.tokio));
        group.finish();
    }
}

fn compare(rounds: usize, rows: impl IntoIterator<Item = Row>) {
    for row in rows.into_iter().filter(|row| paired::is_selected(row.title)) {
        let mut contenders = [
            Contender::new("tamam", row.tamam),
            Contender::new("tokio", row.tokio),
            Contender::new("tokio again", row.tokio_again),
        ];
        paired::compare(row.title, "tokio", row.operations, rounds, &mut contenders);
    }
}
