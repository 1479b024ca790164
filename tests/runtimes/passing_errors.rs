//! CX13: errors in passing are invisible, and nothing spins.

use std::io::Write;
use std::time::{Duration, Instant};

use tamam::Runtime;
use tamam::time::sleep;

use crate::common::{both, child, pair, ring_only};
use crate::{alone_in, busy, common, vec_of};

/// What is injected, and on which engines the part runs.
const IN_PASSING: [(&str, &str); 8] = [
    ("ring", "io_uring_enter:error=EINTR:when=3+3"),
    ("ring", "io_uring_enter:error=EAGAIN:when=3+3"),
    ("ring", "io_uring_enter:error=EBUSY:when=3+3"),
    ("ring", "io_uring_enter:error=ENOMEM:when=3+3"),
    ("epoll", "epoll_wait:error=EINTR:when=3+3"),
    ("epoll", "epoll_pwait2:error=EINTR:when=3+3"),
    ("epoll", "recvfrom:error=EINTR:when=2+2"),
    ("epoll", "sendto,sendmsg,accept4:error=EINTR:when=2+2"),
];

#[test]
fn cx13_errors_in_passing_are_invisible() {
    const NAME: &str = "passing_errors::cx13_errors_in_passing_are_invisible";
    if let Some(part) = child::part(NAME) {
        return alone_in(|| {
            for (name, builder) in common::engines() {
                if name.split(' ').any(|word| word == part) {
                    eprintln!("-- {name}");
                    common::with(builder, busy);
                }
            }
        });
    }
    let engines = both(&Runtime::builder());
    for (engine, injection) in IN_PASSING {
        if !engines.iter().any(|(name, _)| *name == engine) {
            continue;
        }
        let Some(launcher) = child::strace(&[injection]) else { return };
        child::play(NAME, engine, &launcher);
    }
}

/// 500 enters in a row fail: after the sixteenth each is followed by a pause of a millisecond.
#[test]
fn cx13_no_spinning() {
    const NAME: &str = "passing_errors::cx13_no_spinning";
    const FAILING: u64 = 500;
    let Some(ring) = ring_only(Runtime::builder()) else { return };
    if let Some(error) = child::part(NAME) {
        return common::with(ring, || async {
            let (stream, mut peer) = pair().await;
            let start = Instant::now();
            peer.write_all(b"arrives in the end").expect("connected");
            let arrived = stream.read_exact(vec_of(18), 18).await;
            assert_eq!(arrived.expect("connected"), b"arrives in the end");
            while tamam::metrics().enters < FAILING {
                sleep(Duration::from_millis(1)).await;
            }
            let passed = start.elapsed();
            println!("{FAILING} enters in {passed:?}");
            // EINTR is no lack of anything: it may come as often as it likes.
            assert!(error == "EINTR" || passed > Duration::from_millis(FAILING - 50), "{passed:?}");
        });
    }
    for error in ["EINTR", "EAGAIN", "EBUSY", "ENOMEM"] {
        let injection = format!("io_uring_enter:error={error}:when=10..{}", 10 + FAILING);
        let Some(launcher) = child::strace(&[&injection]) else { return };
        child::play(NAME, error, &launcher);
    }
}
