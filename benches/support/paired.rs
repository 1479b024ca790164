//! Interleaved comparison. Criterion measures one function after the other, and machines drift
//! meanwhile by more than the differences of interest; ratios of neighbouring windows do not.
//!
//! With `PAIRED=ROUNDS` in the environment a bench calls [`compare`] instead of criterion. A round
//! runs every contender in a short window, then again in reverse order (A B C C B A), so that a drift
//! which is linear over the round cancels; the next round starts one contender later. Each contender's
//! two windows give one figure per round, and its ratio to the base's figure of the same round is one
//! sample. Printed: the median figure, the median ratio, and the range of all ratios. The base also
//! runs a second time as a contender of its own ("again"): its range is the noise floor, and a
//! ratio within that range is no difference.

use std::time::{Duration, Instant};

/// Length of one window: some thousand operations, and much shorter than the drift.
const WINDOW: Duration = Duration::from_millis(100);

/// What one window took.
pub struct Window {
    pub elapsed: Duration,
    /// CPU time of the side under test, where that is a thread of its own.
    pub cpu: Option<Duration>,
}

impl From<Duration> for Window {
    fn from(elapsed: Duration) -> Self {
        Window { elapsed, cpu: None }
    }
}

/// One side of a comparison: runs so many iterations, says what they took.
pub struct Contender<'a> {
    name: String,
    run: Box<dyn FnMut(u64) -> Window + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new<W: Into<Window>>(
        name: impl Into<String>,
        mut run: impl FnMut(u64) -> W + 'a,
    ) -> Self {
        Contender { name: name.into(), run: Box::new(move |iterations| run(iterations).into()) }
    }
}

/// How many rounds were asked for, or `None` when criterion is to run.
pub fn rounds() -> Option<usize> {
    let rounds = std::env::var("PAIRED").ok()?;
    Some(rounds.parse().expect("PAIRED is a number of rounds, such as PAIRED=10"))
}

/// Whether `title` was asked for: the first plain argument is part of a title, as with criterion.
pub fn is_selected(title: &str) -> bool {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    filter.is_none_or(|filter| title.contains(&filter))
}

/// Runs the contenders `rounds` times and prints a table of figures per operation, one iteration being
/// `operations` of them. Ratios are against the contender called `base`.
pub fn compare(
    title: &str,
    base: &str,
    operations: u64,
    rounds: usize,
    contenders: &mut [Contender<'_>],
) {
    let base = contenders
        .iter()
        .position(|contender| contender.name == base)
        .expect("the base is one of the contenders");
    let iterations: Vec<u64> = contenders.iter_mut().map(calibrate).collect();
    let mut samples: Vec<Vec<Figure>> = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..rounds.max(1) {
        let count = contenders.len();
        let order: Vec<usize> = (0..count).map(|at| (at + round) % count).collect();
        let mut totals = vec![Figure::default(); count];
        for &at in order.iter().chain(order.iter().rev()) {
            let window = (contenders[at].run)(iterations[at]);
            totals[at].add(&window, 2 * iterations[at] * operations);
        }
        for (samples, total) in samples.iter_mut().zip(totals) {
            samples.push(total);
        }
    }
    print(title, contenders, &samples, base);
}

/// How many iterations fill a window. By the clock on the wall: what `run` reports may be less.
fn calibrate(contender: &mut Contender<'_>) -> u64 {
    let mut iterations = 1;
    loop {
        let start = Instant::now();
        (contender.run)(iterations);
        let elapsed = start.elapsed();
        if elapsed > WINDOW / 4 {
            let scale = WINDOW.as_secs_f64() / elapsed.as_secs_f64();
            return ((iterations as f64 * scale) as u64).max(1);
        }
        iterations *= 2;
    }
}

/// Nanoseconds per operation.
#[derive(Clone, Copy, Default)]
struct Figure {
    elapsed: f64,
    cpu: Option<f64>,
}

impl Figure {
    fn add(&mut self, window: &Window, operations: u64) {
        let per_operation = |time: Duration| time.as_nanos() as f64 / operations as f64;
        self.elapsed += per_operation(window.elapsed);
        if let Some(cpu) = window.cpu {
            *self.cpu.get_or_insert(0.0) += per_operation(cpu);
        }
    }
}

fn print(title: &str, contenders: &[Contender<'_>], samples: &[Vec<Figure>], base: usize) {
    let base_name = &contenders[base].name;
    let with_cpu = samples.iter().flatten().all(|figure| figure.cpu.is_some());
    let header = ["ns/op".to_owned(), format!("/{base_name}"), "min-max".to_owned()];
    let mut rows = vec![Vec::from([title.to_owned()])];
    rows[0].extend(header.iter().cloned());
    if with_cpu {
        rows[0].extend([format!("cpu {}", header[0]), header[1].clone(), header[2].clone()]);
    }
    for (contender, own) in contenders.iter().zip(samples) {
        let mut row = vec![contender.name.clone()];
        row.extend(cells(own, &samples[base], |figure| figure.elapsed));
        if with_cpu {
            let cpu = |figure: &Figure| figure.cpu.expect("every figure has its CPU time");
            row.extend(cells(own, &samples[base], cpu));
        }
        rows.push(row);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    println!();
    for row in &rows {
        print!("{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            print!("  {cell:>width$}");
        }
        println!();
    }
}

fn cells(own: &[Figure], base: &[Figure], value: impl Fn(&Figure) -> f64) -> [String; 3] {
    let ratios = own.iter().zip(base).map(|(own, base)| value(own) / value(base)).collect();
    let (ratio, least, most) = median_and_range(ratios);
    let (figure, ..) = median_and_range(own.iter().map(value).collect());
    [format!("{figure:.1}"), format!("{ratio:.3}"), format!("{least:.3}-{most:.3}")]
}

fn median_and_range(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    };
    (median, values[0], values[values.len() - 1])
}
