//! Breaks the engine of a runtime, in a process of its own: its descriptor means something else.

use std::fs::File;
use std::os::fd::AsRawFd;

use tamam::{Backend, Builder, Runtime};

use super::{build, descriptors, has_feature};

/// The descriptors of the rings of this process, or of its sets of epoll.
pub fn descriptors_of(engine: Backend) -> Vec<i32> {
    let kind = if engine == Backend::Ring { "[io_uring]" } else { "[eventpoll]" };
    let is_ring = |line: &String| line.ends_with(kind);
    let number = |line: String| line.split(' ').next().and_then(|number| number.parse().ok());
    let open = descriptors().into_iter().filter(is_ring);
    open.map(|line| number(line).expect("`number -> what`")).collect()
}

/// Makes number `fd` mean /dev/null.
pub fn replace(fd: i32) {
    let null = File::open("/dev/null").expect("it is everywhere");
    // SAFETY: takes no pointers. The number is the engine's, which the test means to break.
    assert_eq!(unsafe { libc::dup2(null.as_raw_fd(), fd) }, fd);
}

/// A runtime that enters by its descriptor, since the thread has registered as many as it can.
pub fn not_registered(ring: Builder) -> (Runtime, i32, Vec<Runtime>) {
    let registered: Vec<_> = (0..16).map(|_| build(ring.clone())).collect();
    let before = descriptors_of(Backend::Ring);
    let runtime = build(ring);
    assert!(!has_feature(&runtime, "registered ring"), "there is no room");
    let new = descriptors_of(Backend::Ring).into_iter().find(|fd| !before.contains(fd));
    (runtime, new.expect("a new one"), registered)
}
