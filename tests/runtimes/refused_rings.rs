//! CX14: the kernel refuses the ring, or a part of it.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tamam::time::sleep;
use tamam::{Backend, Builder, Runtime, SetupError};

use crate::common::{alone, both, build, child, has_feature, ring_only};
use crate::{alone_in, busy, each, play_with, setup_error, works};

#[test]
fn cx14_many_rings_at_once() {
    alone("refused_rings::cx14_many_rings_at_once", || {
        for (name, builder) in both(&Runtime::builder()) {
            eprintln!("-- {name}");
            // Not epoll where a ring finds no memory: that it says so is looked at here.
            let engine = if name == "ring" { Backend::Ring } else { Backend::Epoll };
            many_at_once(builder.backend(engine));
        }
    });
}

fn many_at_once(builder: Builder) {
    const THREADS: usize = 64;
    let gate = Arc::new(std::sync::Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (gate, builder) = (gate.clone(), builder.clone());
            thread::spawn(move || {
                gate.wait();
                let built: Vec<_> = (0..8).map(|_| builder.clone().build()).collect();
                let mut working = 0;
                for runtime in &built {
                    match runtime {
                        Ok(runtime) => {
                            runtime.block_on(works());
                            working += 1;
                        }
                        Err(error) => match setup_error(error) {
                            SetupError::LockedMemory { .. } | SetupError::Descriptors { .. } => {}
                            other => panic!("no limit: {other}"),
                        },
                    }
                }
                working
            })
        })
        .collect();
    let working = threads.into_iter().map(|thread| thread.join().expect("no panic"));
    let working: usize = working.sum();
    println!("{working} of {} runtimes", THREADS * 8);
    assert!(working >= THREADS, "most of them should work");
}

/// More than a thread can register, and then one after the other, for whom memory must come back.
#[test]
fn cx14_many_rings_on_one_thread() {
    alone("refused_rings::cx14_many_rings_on_one_thread", || {
        each::engine(|runtime| {
            let runtimes: Vec<_> = (0..40).map(|_| runtime()).collect();
            for runtime in &runtimes {
                runtime.block_on(works());
            }
            drop(runtimes);
            for _ in 0..200 {
                runtime().block_on(works());
            }
        });
    });
}

/// What strace injects, and what the error of `Runtime::new` says then. (EMFILE and EIO have no
/// kind of their own.)
const REFUSALS: [(&str, Option<ErrorKind>, &str); 8] = [
    ("io_uring_setup:error=EPERM", Some(ErrorKind::PermissionDenied), "seccomp"),
    ("io_uring_setup:error=EACCES", Some(ErrorKind::PermissionDenied), "seccomp"),
    ("io_uring_setup:error=ENOSYS", Some(ErrorKind::PermissionDenied), "seccomp"),
    ("io_uring_setup:error=EINVAL", Some(ErrorKind::Unsupported), "too old"),
    ("io_uring_setup:error=ENOMEM", Some(ErrorKind::OutOfMemory), "RLIMIT_MEMLOCK"),
    ("io_uring_setup:error=EMFILE", None, "RLIMIT_NOFILE"),
    ("io_uring_setup:error=EIO", None, "io_uring_setup failed"),
    ("io_uring_register:error=EPERM", Some(ErrorKind::PermissionDenied), "register"),
];

/// Who asked for the ring hears why there is none; who left the choice has epoll, and can ask.
#[test]
fn cx14_a_refused_ring_says_why() {
    const NAME: &str = "refused_rings::cx14_a_refused_ring_says_why";
    if let Some(part) = child::part(NAME) {
        let (_, kind, word) = REFUSALS.iter().find(|row| row.0 == part).expect("a part");
        return alone_in(|| {
            let error = Runtime::builder().backend(Backend::Ring).build();
            let error = error.expect_err("it is refused");
            println!("{error}");
            let refused = setup_error(&error);
            assert!(kind.is_none_or(|kind| error.kind() == kind), "{:?}", error.kind());
            assert!(error.to_string().contains(word), "{error}");
            let runtime = Runtime::new().expect("epoll is there");
            assert_eq!(runtime.backend(), Backend::Epoll);
            assert_eq!(runtime.ring_refused(), Some(refused));
            runtime.block_on(busy());
            drop(runtime);
            tamam::run(works());
            let epoll = build(Runtime::builder().backend(Backend::Epoll));
            assert_eq!(epoll.ring_refused(), None, "nobody asked for a ring");
        });
    }
    // Where the kernel is too old, that is the reason, whatever a call says.
    if let Err(error) = Runtime::builder().backend(Backend::Ring).build() {
        if matches!(setup_error(&error), SetupError::OldKernel { .. }) {
            return println!("skipped: {error}");
        }
    }
    for (injection, ..) in REFUSALS {
        let Some(launcher) = child::strace(&[injection]) else { return };
        play_with(NAME, injection, &launcher, None, None);
    }
}

/// Refusals that set-up has an answer to.
#[test]
fn cx14_a_ring_with_less() {
    const NAME: &str = "refused_rings::cx14_a_ring_with_less";
    const PARTS: [(&str, Option<&str>); 7] = [
        // A kernel without IORING_SETUP_NO_SQARRAY.
        ("io_uring_setup:error=EINVAL:when=1", Some("no sqarray")),
        // A kernel that registers no rings.
        ("io_uring_register:error=EINVAL:when=1", Some("registered ring")),
        // Memory that comes back, and memory for half as many completions only.
        ("io_uring_setup:error=ENOMEM:when=1..3", None),
        ("io_uring_setup:error=ENOMEM:when=1..5", None),
        // While set-up tries the kernel's receive.
        ("io_uring_enter:error=EINTR:when=2..5", None),
        ("io_uring_enter:error=ENOMEM:when=2", None),
        ("io_uring_enter:error=EBUSY:when=3", None),
    ];
    if let Some(part) = child::part(NAME) {
        let (_, missing) = PARTS.iter().find(|row| row.0 == part).expect("a part");
        return alone_in(|| {
            let runtime = build(Runtime::builder().backend(Backend::Ring));
            if let Some(missing) = missing {
                assert!(!has_feature(&runtime, missing), "{}", runtime.capabilities());
            }
            runtime.block_on(busy());
        });
    }
    if ring_only(Runtime::builder()).is_none() {
        return;
    }
    for (injection, _) in PARTS {
        let Some(launcher) = child::strace(&[injection]) else { return };
        play_with(NAME, injection, &launcher, None, None);
    }
}

fn set_limit(resource: libc::__rlimit_resource_t, limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `limit` is a valid limit.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0, "anyone may lower their limits");
}

/// A user who may lock no memory at all: the ring works, or says which limit is in the way; epoll
/// takes its place where it may.
#[test]
fn cx14_no_locked_memory() {
    const NAME: &str = "refused_rings::cx14_no_locked_memory";
    if child::part(NAME).is_none() {
        if ring_only(Runtime::builder()).is_some() {
            play_with(NAME, "unprivileged", &[], None, None);
        }
        return;
    }
    set_limit(libc::RLIMIT_MEMLOCK, 0);
    // SAFETY: takes no pointers. As root the limit does not count; others keep their id.
    let is_root = unsafe { libc::geteuid() == 0 };
    // SAFETY: as above.
    assert!(!is_root || unsafe { libc::setuid(65534) } == 0, "root may become nobody");
    for _ in 0..3 {
        let refused = match Runtime::builder().backend(Backend::Ring).build() {
            Ok(runtime) => {
                runtime.block_on(works());
                None
            }
            Err(error) => {
                println!("{error}");
                assert!(error.to_string().contains("RLIMIT_MEMLOCK is 0 bytes"), "{error}");
                Some(setup_error(&error).clone())
            }
        };
        let limit = Some(SetupError::LockedMemory { limit: 0 });
        assert!(refused.is_none() || refused == limit, "{refused:?}");
        let any = build(Runtime::builder());
        assert_eq!(any.ring_refused(), refused.as_ref());
        any.block_on(works());
    }
}

/// With none, one, two … descriptors left: an error that names the limit, and keeps none of them;
/// until there are enough.
#[test]
fn cx14_no_descriptors_for_the_ring() {
    alone("refused_rings::cx14_no_descriptors_for_the_ring", || {
        each::engine(|runtime| drop(runtime())); // what a process makes once is there from now on
        set_limit(libc::RLIMIT_NOFILE, 64);
        for (name, builder) in both(&Runtime::builder()) {
            let mut files = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                files.push(file);
            }
            let mut failures = 0;
            loop {
                match builder.clone().build() {
                    Ok(runtime) => {
                        runtime.block_on(async { sleep(Duration::from_millis(1)).await });
                        break;
                    }
                    Err(error) => {
                        assert_eq!(
                            setup_error(&error),
                            &SetupError::Descriptors { errno: libc::EMFILE }
                        );
                        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
                        failures += 1;
                    }
                }
                drop(files.pop().expect("a runtime needs a few descriptors"));
            }
            println!("{name}: a runtime has {failures} descriptors");
            assert!((1..8).contains(&failures));
            // Each failure gave back what it had.
            let mut opened = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                opened.push(file);
            }
            assert_eq!(opened.len(), failures);
        }
    });
}
