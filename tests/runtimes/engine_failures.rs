//! CX12: the kernel fails the engine for good.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use tamam::net::TcpStream;
use tamam::time::sleep;
use tamam::{Backend, Runtime};

use crate::common::broken::{descriptors_of, not_registered, replace};
use crate::common::{both, build, child, has_feature, narrow_pair, pair, ring_only, start, turn};
use crate::{common, full_backlog, listening, vec_of, words, works};

/// A thread that wakes a future of another: the way of `std::task::Waker` alone.
async fn woken_by_a_thread() {
    let state = Arc::new(Mutex::new((false, None::<Waker>)));
    let thread = thread::spawn({
        let state = state.clone();
        move || {
            thread::sleep(Duration::from_millis(20));
            let mut state = state.lock().expect("not poisoned");
            state.0 = true;
            state.1.take().expect("it waits").wake();
        }
    });
    poll_fn(|cx| {
        let mut state = state.lock().expect("not poisoned");
        state.1 = Some(cx.waker().clone());
        if state.0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    thread.join().expect("no panic");
}

/// An error of an engine that failed: names what it said, and which it was.
#[track_caller]
fn assert_broken(what: &str, error: &io::Error, (engine, errno): (Backend, i32)) {
    let cause = io::Error::from_raw_os_error(errno).to_string();
    let text = error.to_string();
    assert!(text.contains(&cause), "{what}: {text}, not {cause}");
    let engine = if engine == Backend::Ring { "io_uring" } else { "epoll" };
    assert!(text.contains(engine), "{what}: {text}: not a word about {engine}");
}

/// 1 every kind of future waits; 2 `break_engine` sees to it that an enter fails with `errno`; 3
/// every waiter hears of it; 4 tasks, timers, wakes from other threads and the teardown go on.
fn engine_fails(runtime: Runtime, errno: i32, break_engine: impl FnOnce()) {
    let _watchdog = common::Watchdog::start();
    let errno = (runtime.backend(), errno);
    runtime.block_on(async {
        let (idle, _idle_peer) = pair().await;
        let (stream, _peer) = pair().await;
        let (reading, _reading_peer) = pair().await;
        let (stalled, _stalled_peer) = narrow_pair().await;
        let (full, _clients) = full_backlog();
        let (listener, _) = listening();
        let (stream, listener) = (Rc::new(stream), Rc::new(listener));
        let recv = tamam::spawn({
            let stream = stream.clone();
            async move { stream.recv().await.map(drop) }
        });
        let accept = tamam::spawn({
            let listener = listener.clone();
            async move { listener.accept().await.map(drop) }
        });
        let full_addr = full.local_addr().expect("bound");
        let connect = tamam::spawn(async move { TcpStream::connect(full_addr).await.map(drop) });
        // Their buffers are the kernel's: they cannot be given back, and a panic says so.
        let read = tamam::spawn(async move { drop(reading.read(vec_of(100_000)).await) });
        let send = tamam::spawn(async move { drop(stalled.send_all(vec![7; 8 << 20]).await) });
        let ticks = Rc::new(Cell::new(0));
        let ticking = tamam::spawn({
            let ticks = ticks.clone();
            async move {
                loop {
                    sleep(Duration::from_millis(1)).await;
                    ticks.set(ticks.get() + 1);
                }
            }
        });
        turn().await;
        break_engine();
        for (what, task) in [("recv", recv), ("accept", accept), ("connect", connect)] {
            let error = task.await.expect("no panic").expect_err("the engine has failed");
            println!("{what}: {error}");
            assert_broken(what, &error, errno);
        }
        for task in [read, send] {
            let panic = task.await.expect_err("the buffer is lost").into_panic();
            assert!(words(&*panic).contains("failed with this buffer"));
        }
        let before = ticks.get();
        while ticks.get() < before + 10 {
            sleep(Duration::from_millis(3)).await;
        }
        ticking.abort();
        woken_by_a_thread().await;
        assert_eq!(tamam::spawn(async { 7 }).await.expect("no panic"), 7);
        assert_broken("recv", &stream.recv().await.map(drop).unwrap_err(), errno);
        assert_broken("recv on another", &idle.recv().await.map(drop).unwrap_err(), errno);
        let (error, buf) = idle.send_all("back").await.unwrap_err().into_parts();
        assert_broken("send", &error, errno);
        assert_eq!(buf, "back");
        let (error, buf) = idle.read(vec_of(10)).await.unwrap_err().into_parts();
        assert_broken("read", &error, errno);
        assert_eq!(buf.capacity(), 10);
        assert_broken("accept", &listener.accept().await.map(drop).unwrap_err(), errno);
        let connect = TcpStream::connect(full_addr).await.map(drop).unwrap_err();
        assert_broken("connect", &connect, errno);
    });
    assert_eq!(runtime.metrics().ops, 0);
    drop(runtime);
}

/// Errors after which a ring is of no use, as strace names them.
const FATAL_TO_RINGS: [(&str, i32); 8] = [
    ("EBADF", libc::EBADF),
    ("ENXIO", libc::ENXIO),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("EEXIST", libc::EEXIST),
    ("EFAULT", libc::EFAULT),
    ("EBADR", libc::EBADR),
    // A filter that lets set-up pass.
    ("EPERM", libc::EPERM),
    ("ENOSYS", libc::ENOSYS),
];

/// The same for a set of epoll. (EPERM and ENOSYS say that there is no epoll_pwait2(2).)
const FATAL_TO_EPOLL: [(&str, i32); 3] =
    [("EBADF", libc::EBADF), ("EFAULT", libc::EFAULT), ("EINVAL", libc::EINVAL)];

#[test]
fn cx12_an_enter_that_fails_for_good() {
    const NAME: &str = "engine_failures::cx12_an_enter_that_fails_for_good";
    for (engine, builder) in both(&Runtime::builder()) {
        let (call, errors) = match engine {
            "ring" => ("io_uring_enter", &FATAL_TO_RINGS[..]),
            _ if has_feature(&build(builder.clone()), "exact waits") => {
                ("epoll_pwait2", &FATAL_TO_EPOLL[..])
            }
            _ => ("epoll_wait", &FATAL_TO_EPOLL[..]),
        };
        for (error, errno) in errors {
            let name = format!("{engine} {error}");
            match child::part(NAME) {
                // The fiftieth enter fails; the ticks get there.
                Some(part) if part == name => return engine_fails(build(builder), *errno, || ()),
                Some(_) => continue,
                None => {}
            }
            // Once, or from then on.
            for when in ["50", "50+1"] {
                let injection = format!("{call}:error={error}:when={when}");
                let Some(launcher) = child::strace(&[&injection]) else { return };
                child::play(NAME, &name, &launcher);
            }
        }
    }
}

/// Code that knows nothing of the ring replaces its descriptor. A registered ring does not notice;
/// a thread has room for sixteen of those.
#[test]
fn cx12_the_rings_descriptor_is_replaced() {
    const NAME: &str = "engine_failures::cx12_the_rings_descriptor_is_replaced";
    let Some(ring) = ring_only(Runtime::builder()) else { return };
    match child::part(NAME).as_deref() {
        Some("registered") => {
            let runtime = build(ring.clone());
            if !has_feature(&runtime, "registered ring") {
                return println!("skipped: no registered rings");
            }
            runtime.block_on(works());
            replace(descriptors_of(Backend::Ring)[0]);
            runtime.block_on(works());
            drop(runtime);
            build(ring).block_on(works());
        }
        Some("not registered") => {
            let (runtime, fd, _registered) = not_registered(ring);
            engine_fails(runtime, libc::EOPNOTSUPP, || replace(fd));
        }
        _ => {
            child::play(NAME, "registered", &[]);
            child::play(NAME, "not registered", &[]);
        }
    }
}

/// The same done to epoll's set.
#[test]
fn cx12_the_sets_descriptor_is_replaced() {
    const NAME: &str = "engine_failures::cx12_the_sets_descriptor_is_replaced";
    if child::part(NAME).is_none() {
        child::play(NAME, "replaced", &[]);
        return;
    }
    let runtime = build(Runtime::builder().backend(Backend::Epoll));
    engine_fails(runtime, libc::EINVAL, || replace(descriptors_of(Backend::Epoll)[0]));
}

/// A runtime, the descriptor of its engine, and the errno that its enters give when that means
/// something else. For a process of its own.
pub fn breakable(engine: &str) -> (Runtime, i32, Vec<Runtime>, i32) {
    if engine == "ring" {
        let (runtime, fd, registered) = not_registered(Runtime::builder().backend(Backend::Ring));
        return (runtime, fd, registered, libc::EOPNOTSUPP);
    }
    let runtime = build(Runtime::builder().backend(Backend::Epoll));
    (runtime, descriptors_of(Backend::Epoll)[0], Vec::new(), libc::EINVAL)
}

/// The only waiter there is, and no timer that would end the sleep: the failure does.
#[test]
fn cx12_a_lone_waiter_hears_of_it() {
    const NAME: &str = "engine_failures::cx12_a_lone_waiter_hears_of_it";
    let Some(part) = child::part(NAME) else {
        for (engine, _) in both(&Runtime::builder()) {
            for what in ["recv", "accept", "connect"] {
                child::play(NAME, &format!("{engine} {what}"), &[]);
            }
        }
        return;
    };
    let (engine, part) = part.split_once(' ').expect("an engine, and what waits");
    let _watchdog = common::Watchdog::start();
    let (runtime, fd, _registered, errno) = breakable(engine);
    let error = runtime.block_on(async {
        let (stream, _peer) = pair().await;
        let (listener, _) = listening();
        let (full, _clients) = full_backlog();
        let full = full.local_addr().expect("bound");
        turn().await;
        let waiting = async {
            match part {
                "recv" => stream.recv().await.map(drop),
                "accept" => listener.accept().await.map(drop),
                _ => TcpStream::connect(full).await.map(drop),
            }
        };
        let mut waiting = start(waiting).await;
        replace(fd);
        (&mut waiting).await.expect_err("the engine has failed")
    });
    assert_broken(part, &error, (runtime.backend(), errno));
}
