//! Each engine once: for tests that build their runtimes themselves.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::cell::Cell;

use tamam::Runtime;

use crate::common::{both, build};

/// Runs a test once for each engine. What the test is given makes its runtimes.
pub fn engine(test: impl Fn(&dyn Fn() -> Runtime)) {
    for (name, builder) in both(&Runtime::builder()) {
        eprintln!("-- {name}");
        test(&|| build(builder.clone()));
    }
}

/// As [`engine`], for tests of several runtimes: the last times one has a ring and the next epoll,
/// or the other way round.
pub fn mixed(test: impl Fn(&dyn Fn() -> Runtime)) {
    engine(&test);
    let [(first, a), (second, b)] = &both(&Runtime::builder())[..] else { return };
    for (names, builders) in [((first, second), [a, b]), ((second, first), [b, a])] {
        eprintln!("-- {} and {} by turns", names.0, names.1);
        let made = Cell::new(0);
        test(&|| build(builders[made.replace(made.get() + 1) % 2].clone()));
    }
}
