//! Loops over futures that are ready at once (G9), for the tables of them.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;

use tamam::{Runtime, yield_now};

use crate::common::{Watchdog, with_both};

/// So many answers are there at once.
pub const ROUNDS: usize = 1000;

thread_local! {
    /// How often another task was polled since the loop began.
    static POLLS: Cell<usize> = const { Cell::new(0) };
}

/// A line of a table: its name, how many rounds its loop has, and the loop.
pub type Line = (&'static str, usize, Pin<Box<dyn Future<Output = ()>>>);

/// The loop begins: what was polled while it was prepared does not count.
pub fn begin() {
    POLLS.set(0);
}

/// A line of a table: a name, what the loop needs, and the future of one round.
macro_rules! line {
    ($name:literal, $setup:expr, |$state:ident| $call:expr) => {
        (
            $name,
            $crate::ready_at_once::looped::ROUNDS,
            Box::pin(async {
                #[allow(unused_mut, reason = "some calls need it")]
                let mut $state = $setup;
                $crate::ready_at_once::looped::begin();
                for _ in 0..$crate::ready_at_once::looped::ROUNDS {
                    let _ = $call.await;
                }
            }),
        )
    };
}
pub(crate) use line;

/// Runs each line of a table, on both engines: another task has its turn at least every 128 rounds.
pub fn assert_others_run(lines: fn() -> Vec<Line>) {
    let _watchdog = Watchdog::start();
    let names: Vec<_> = lines().into_iter().map(|(name, ..)| name).collect();
    for (number, name) in names.into_iter().enumerate() {
        eprintln!("-- {name}");
        with_both(Runtime::builder(), || async {
            let (_, rounds, ready) = lines().swap_remove(number);
            let others = tamam::spawn(async {
                loop {
                    POLLS.set(POLLS.get() + 1);
                    yield_now().await;
                }
            });
            ready.await;
            let polls = POLLS.get();
            assert!(polls >= rounds / 128, "{name}: others had {polls} polls");
            others.abort();
        });
    }
}
