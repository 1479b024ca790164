//! Time (SEMANTICS section 9): nothing is early, nothing is lost, nothing is left behind.
//!
//! No test asks how late something is, only that it is not early: a loaded machine is slow. Where
//! a consumer has to be late it blocks the thread, so that it is late for certain.

mod common;
#[path = "common/each.rs"]
mod each;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::io::{Read, Write};
use std::mem;
use std::net::TcpListener as StdListener;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Random, child, poll_once};
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{
    Elapsed, Interval, MissedTickBehavior, Sleep, interval, interval_at, sleep, sleep_until,
    timeout, timeout_at,
};
use tamam::{Backend, JoinHandle, Runtime, yield_now};

const MS: Duration = Duration::from_millis(1);
/// In nanoseconds this passes what 64 bits hold, by some years.
const CENTURIES: Duration = Duration::from_secs(600 * 365 * 86_400);
/// And this is some years short of it.
const ALMOST_CENTURIES: Duration = Duration::from_secs(580 * 365 * 86_400);

/// Runs a test on each engine, on a runtime with the default sizes.
fn run<F: Future<Output = ()>>(test: impl Fn() -> F) {
    common::with_both(Runtime::builder(), test);
}

/// How many timers the runtime of this thread has.
fn registered() -> usize {
    tamam::metrics().timers
}

const HOUR: Duration = Duration::from_secs(3600);

/// Repeats an attempt that has to be prepared before a deadline, with more and more time for it,
/// until it says that it was.
async fn in_time<F: Future<Output = bool>>(attempt: impl Fn(Instant) -> F) {
    let mut span = 20 * MS;
    while !attempt(Instant::now() + span).await {
        span *= 2;
    }
}

/// Counts the polls of a future that never ends.
fn counting(polls: &Cell<u32>) -> impl Future<Output = ()> {
    poll_fn(|_| {
        polls.set(polls.get() + 1);
        Poll::Pending
    })
}

// ---- TM1: never early ----------------------------------------------------------------------

/// TM1. Hundreds of sleeps of random lengths at once, some of them moved, some dropped, some with a
/// limit of their own: none is ready before its deadline, all are in the end.
#[test]
fn tm1_never_early() {
    for seed in 1..=8 {
        eprintln!("-- seed {seed}");
        run(|| async move {
            let mut random = Random(seed * 0x9e37_79b9);
            let mut tasks = Vec::new();
            for _ in 0..400 {
                // All magnitudes: from a nanosecond to 33 ms, and now and then the past.
                let magnitude = random.below(26);
                let span = Duration::from_nanos(random.below(1 << magnitude));
                let now = Instant::now();
                let deadline = match random.below(10) {
                    0 => now.checked_sub(span).unwrap_or(now),
                    _ => now + span,
                };
                let moved = random.below(4) == 0;
                let later = Duration::from_micros(random.below(5000));
                let limited = random.below(4) == 0;
                tasks.push(tamam::spawn(async move {
                    let mut sleep = sleep_until(deadline);
                    assert_eq!(sleep.deadline(), deadline);
                    let mut due = deadline;
                    if moved && poll_once(&mut sleep).await.is_pending() {
                        due = Instant::now() + later; // earlier than before, or later
                        sleep.reset(due);
                    }
                    if limited {
                        let limit = due + later;
                        timeout_at(limit, &mut sleep).await.unwrap_or_else(|Elapsed { .. }| {
                            assert!(Instant::now() >= limit, "a limit passed early");
                        });
                    }
                    sleep.await;
                    assert!(Instant::now() >= due, "early by {:?}", due - Instant::now());
                }));
                match random.below(20) {
                    0 => sleep(Duration::from_micros(random.below(300))).await,
                    1 => tasks.swap_remove(random.below(tasks.len() as u64) as usize).abort(),
                    _ => {}
                }
            }
            for task in tasks {
                task.await.expect("no sleep is early");
            }
            yield_now().await; // those that were aborted
            assert_eq!(registered(), 0);
        });
    }
}

/// TM1. Below 5.11, or behind a filter that knows no epoll_pwait2(2), epoll sleeps in whole
/// milliseconds: nothing is early for that, and the thread does not spin through the last one.
#[test]
fn tm1_never_early_in_whole_milliseconds() {
    const NAME: &str = "tm1_never_early_in_whole_milliseconds";
    if child::part(NAME).is_some() {
        let epoll = Runtime::builder().backend(Backend::Epoll);
        return common::with(epoll, || async {
            let before = tamam::metrics().enters;
            for us in [1, 300, 999, 1000, 1001, 2500, 20_000] {
                let start = Instant::now();
                sleep(Duration::from_micros(us)).await;
                assert!(start.elapsed() >= Duration::from_micros(us), "{us} us");
            }
            let enters = tamam::metrics().enters - before;
            assert!(enters < 50, "{enters} system calls: it did not sleep");
        });
    }
    for error in ["ENOSYS", "EPERM"] {
        let injection = format!("epoll_pwait2:error={error}");
        let Some(launcher) = child::strace(&[&injection]) else { return };
        child::play(NAME, error, &launcher);
    }
}

/// TM1. What is due is ready in the first poll, and again in the next ones.
#[test]
fn tm1_past_and_zero_are_ready_at_once() {
    run(|| async {
        let now = Instant::now();
        let long_ago = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        for mut past in [sleep(Duration::ZERO), sleep_until(now), sleep_until(long_ago)] {
            assert!(past.is_elapsed());
            for _ in 0..3 {
                assert!(poll_once(&mut past).await.is_ready());
            }
        }
        assert_eq!(registered(), 0);
    });
}

/// TM1. The value comes first, whatever the limit; a future that waits is polled once.
#[test]
fn tm1_timeout_of_zero() {
    run(|| async {
        let past = Instant::now();
        assert_eq!(timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        assert_eq!(timeout_at(past, std::future::ready(8)).await, Ok(8));
        assert_eq!(timeout(Duration::ZERO, sleep(Duration::ZERO)).await, Ok(()));

        let polls = Cell::new(0);
        let mut first = pin!(timeout(Duration::ZERO, counting(&polls)));
        let polled = poll_once(&mut first).await;
        assert!(matches!(polled, Poll::Ready(Err(Elapsed { .. }))), "within the first poll");
        assert_eq!(polls.get(), 1);
        assert!(timeout_at(past, counting(&polls)).await.is_err());
        assert_eq!(polls.get(), 2);
        assert_eq!(registered(), 0);
    });
}

/// TM1, RX17. Value and deadline are there at the same poll: the value wins.
#[test]
fn tm1_value_wins() {
    run(|| async {
        in_time(|deadline| async move {
            let mut limited = pin!(timeout_at(deadline, sleep_until(deadline)));
            let waited = poll_once(&mut limited).await.is_pending();
            if waited {
                thread::sleep(deadline.saturating_duration_since(Instant::now()));
                assert_eq!(limited.await, Ok(()));
            }
            waited
        })
        .await;
    });
}

// ---- G1, G9 --------------------------------------------------------------------------------

/// G1. Made and dropped, nothing happened: no timer, no poll of what is inside.
#[test]
fn g1_nothing_happens_before_the_first_poll() {
    run(|| async {
        let polls = Cell::new(0);
        let mut ticks = interval(MS);
        let futures = (
            sleep(MS),
            sleep_until(Instant::now() + MS),
            timeout(MS, counting(&polls)),
            timeout_at(Instant::now() + MS, counting(&polls)),
            ticks.tick(),
        );
        assert_eq!(registered(), 0);
        drop(futures);
        assert_eq!((registered(), polls.get()), (0, 0));
        let first = ticks.tick().await;
        assert_eq!(ticks.tick().await, first + MS, "a tick that was not polled took none");
    });
}

/// G9. Futures that are ready at once, in a loop that never waits: after 128 of them at most,
/// every other task has its turn. The loops lose nothing by it.
#[test]
fn g9_loops_of_ready_futures_let_others_run() {
    const READY: usize = 2000;
    type Loop = fn() -> Pin<Box<dyn Future<Output = ()>>>;
    let loops: [(&str, Loop); 4] = [
        ("sleep", || {
            Box::pin(async {
                for _ in 0..READY {
                    sleep(Duration::ZERO).await;
                }
            })
        }),
        ("timeout of zero around sleep", || {
            Box::pin(async {
                for _ in 0..READY {
                    assert_eq!(timeout(Duration::ZERO, sleep(Duration::ZERO)).await, Ok(()));
                }
            })
        }),
        ("timeout around sleep", || {
            Box::pin(async {
                for _ in 0..READY {
                    assert_eq!(timeout(Duration::MAX, sleep(Duration::ZERO)).await, Ok(()));
                }
            })
        }),
        ("interval in a burst", || {
            Box::pin(async {
                let start = Instant::now();
                let mut ticks = interval_at(start, Duration::from_nanos(1));
                thread::sleep(MS); // a million ticks are due
                for tick in 0..READY {
                    assert_eq!(ticks.tick().await, start + Duration::from_nanos(tick as u64));
                }
            })
        }),
    ];
    for (name, ready) in loops {
        eprintln!("-- {name}");
        run(|| async {
            let polls = Rc::new(Cell::new(0));
            let other = tamam::spawn({
                let polls = polls.clone();
                async move {
                    loop {
                        polls.set(polls.get() + 1);
                        yield_now().await;
                    }
                }
            });
            ready().await;
            assert!(polls.get() >= READY / 128, "others had {} polls", polls.get());
            other.abort();
        });
    }
}

/// G9. An endless loop of ready futures, as a task, starves nobody: timers and I/O go on, and it
/// can be aborted and timed out.
#[test]
fn g9_endless_loop_starves_nobody() {
    common::everywhere(|| async {
        let endless = || async {
            loop {
                sleep(Duration::ZERO).await;
            }
        };
        let task = tamam::spawn(endless());
        let (stream, mut peer) = common::pair().await;
        peer.write_all(b"here").expect("the stream is open");
        let mut bytes = Vec::new();
        while bytes.len() < 4 {
            bytes.extend_from_slice(&stream.recv().await.expect("no error").expect("no end"));
        }
        sleep(2 * MS).await;
        let limited: Result<(), Elapsed> = timeout(2 * MS, endless()).await;
        assert!(limited.is_err());
        task.abort();
        assert!(task.await.is_err_and(|error| error.is_cancelled()));
    });
}

// ---- TM2: for ever -------------------------------------------------------------------------

type Never = (&'static str, Pin<Box<dyn Future<Output = ()>>>);

/// Every way to say "never".
fn never() -> Vec<Never> {
    async fn second_tick(mut ticks: Interval) {
        ticks.tick().await;
        ticks.tick().await;
    }
    async fn first_tick_after_reset(mut ticks: Interval) {
        ticks.reset();
        ticks.tick().await;
    }
    fn late(behavior: MissedTickBehavior) -> Interval {
        let mut ticks = interval(Duration::MAX);
        ticks.set_missed_tick_behavior(behavior);
        ticks
    }
    async fn limit<F: Future>(limited: F) {
        limited.await;
    }
    fn reset(mut sleep: Sleep, to: Instant) -> Sleep {
        sleep.reset(to);
        sleep
    }
    let now = Instant::now();
    let far = now + CENTURIES;
    let almost = now + ALMOST_CENTURIES;
    // The last moment that can be told, or close to it.
    let last = sleep(Duration::MAX).deadline();
    vec![
        ("sleep(MAX)", Box::pin(sleep(Duration::MAX))),
        ("sleep of i64::MAX s", Box::pin(sleep(Duration::from_secs(i64::MAX as u64)))),
        ("sleep of centuries", Box::pin(sleep(CENTURIES))),
        ("sleep of almost that", Box::pin(sleep(ALMOST_CENTURIES))),
        ("sleep of u64::MAX ns", Box::pin(sleep(Duration::from_nanos(u64::MAX)))),
        ("sleep of u64::MAX - 1 ns", Box::pin(sleep(Duration::from_nanos(u64::MAX - 1)))),
        ("sleep_until(far)", Box::pin(sleep_until(far))),
        ("sleep_until(last)", Box::pin(sleep_until(last))),
        ("reset to far", Box::pin(reset(sleep(MS), far))),
        ("reset to last", Box::pin(reset(sleep(MS), last))),
        ("timeout(MAX)", Box::pin(limit(timeout(Duration::MAX, pending::<()>())))),
        ("timeout_at(last)", Box::pin(limit(timeout_at(last, pending::<()>())))),
        ("timeout_at(almost)", Box::pin(limit(timeout_at(almost, pending::<()>())))),
        ("interval(MAX)", Box::pin(second_tick(interval(Duration::MAX)))),
        ("interval(centuries)", Box::pin(second_tick(interval(CENTURIES)))),
        ("interval_at(last)", Box::pin(second_tick(interval_at(last, MS)))),
        ("interval(MAX), Delay", Box::pin(second_tick(late(MissedTickBehavior::Delay)))),
        ("interval(MAX), Skip", Box::pin(second_tick(late(MissedTickBehavior::Skip)))),
        ("interval(MAX), reset", Box::pin(first_tick_after_reset(interval(Duration::MAX)))),
    ]
}

/// TM2. Nothing overflows, nothing fires, and the thread sleeps: not a turn is taken for it.
#[test]
fn tm2_never_is_never() {
    for number in 0..never().len() {
        run(|| {
            let (name, mut never) = never().into_iter().nth(number).expect("so many there are");
            eprintln!("-- {name}");
            async move {
                assert!(poll_once(&mut never).await.is_pending());
                // Wake-ups come from a thread, so that no timer but this one is there.
                let (waker_out, waker_in) = std::sync::mpsc::channel::<Waker>();
                let thread = thread::spawn(move || {
                    let waker = waker_in.recv().expect("the task sends its waker");
                    thread::sleep(20 * MS);
                    waker.wake();
                });
                let before = tamam::metrics();
                let mut first = true;
                poll_fn(|cx| {
                    assert!(never.as_mut().poll(cx).is_pending(), "it fired");
                    if !mem::take(&mut first) {
                        return Poll::Ready(());
                    }
                    waker_out.send(cx.waker().clone()).expect("the thread listens");
                    Poll::Pending
                })
                .await;
                let after = tamam::metrics();
                // Three are enough. A ring that this thread has closed, of the run before this,
                // still interrupts it (EINTR) a few times while the kernel takes it down.
                assert!(after.turns - before.turns < 50, "the thread did not sleep");
                assert_eq!(after.timers, 1);
                assert!(poll_once(&mut never).await.is_pending());
                thread.join().expect("it does not panic");
            }
        });
    }
}

/// TM2. Far deadlines do not hide near ones, and can be brought near.
#[test]
fn tm2_far_deadlines_beside_near_ones() {
    run(|| async {
        let mut far = never();
        for (name, future) in &mut far {
            assert!(poll_once(future).await.is_pending(), "{name}");
        }
        let before = Instant::now();
        sleep(2 * MS).await;
        assert!(before.elapsed() >= 2 * MS);

        let mut moved = sleep(Duration::MAX);
        assert!(poll_once(&mut moved).await.is_pending());
        let deadline = Instant::now() + 2 * MS;
        moved.reset(deadline);
        moved.await;
        assert!(Instant::now() >= deadline);
        drop(far);
        assert_eq!(registered(), 0);
    });
}

// ---- TM3: whose timer ----------------------------------------------------------------------

/// TM3. 1 made before there is any runtime; 2 polled in one runtime; 3 polled in another: it leaves
/// the first one's timers; 4 and back; 5 the first runtime goes, it fires in the other.
#[test]
fn tm3_sleep_goes_where_it_is_polled() {
    each::mixed(|runtime| {
        let _watchdog = common::Watchdog::start();
        let mut timer = sleep(HOUR);
        let deadline = timer.deadline();
        let (first, second) = (runtime(), runtime());
        for _ in 0..3 {
            assert!(first.block_on(poll_once(&mut timer)).is_pending());
            assert_eq!((first.metrics().timers, second.metrics().timers), (1, 0));
            assert!(second.block_on(poll_once(&mut timer)).is_pending());
            assert_eq!((first.metrics().timers, second.metrics().timers), (0, 1));
        }
        assert!(first.block_on(poll_once(&mut timer)).is_pending());
        assert_eq!(timer.deadline(), deadline);
        drop(first);
        let deadline = Instant::now() + 5 * MS;
        timer.reset(deadline);
        second.block_on(&mut timer);
        assert!(Instant::now() >= deadline);
        assert_eq!(second.metrics().timers, 0);
    });
}

/// TM3. The deadline is fixed when the future is made, whatever it is, and not at its first poll.
#[test]
fn tm3_deadline_is_fixed_at_creation() {
    each::engine(|runtime| {
        let mut slept = sleep(5 * MS);
        let mut limited = Box::pin(timeout(5 * MS, pending::<()>()));
        let mut ticks = interval(5 * MS);
        let start = Instant::now();
        thread::sleep(10 * MS);
        runtime().block_on(async {
            assert!(poll_once(&mut slept).await.is_ready());
            assert!(matches!(poll_once(&mut limited).await, Poll::Ready(Err(_))));
            let first = poll_once(&mut Box::pin(ticks.tick())).await;
            assert!(matches!(first, Poll::Ready(due) if due <= start));
            let second = poll_once(&mut Box::pin(ticks.tick())).await;
            assert!(matches!(second, Poll::Ready(due) if due <= start + 5 * MS));
        });
    });
}

/// TM3. Timeouts and intervals move from runtime to runtime as sleeps do; also after a reset from
/// outside of both.
#[test]
fn tm3_timeouts_and_intervals_move_too() {
    each::mixed(|runtime| {
        let _watchdog = common::Watchdog::start();
        let (first, second) = (runtime(), runtime());
        let mut limited = Box::pin(timeout(HOUR, pending::<()>()));
        let mut ticks = interval_at(Instant::now() + HOUR, MS);
        let mut never = sleep(Duration::MAX);
        first.block_on(async {
            assert!(poll_once(&mut limited).await.is_pending());
            assert!(poll_once(&mut Box::pin(ticks.tick())).await.is_pending());
            assert!(poll_once(&mut never).await.is_pending());
            assert_eq!(registered(), 3);
        });
        let deadline = Instant::now() + 2 * MS;
        never.reset(deadline); // in the timers of the first
        ticks.reset();
        second.block_on(async {
            never.await;
            assert!(Instant::now() >= deadline);
            ticks.tick().await;
            assert!(poll_once(&mut limited).await.is_pending());
            assert_eq!(registered(), 1);
        });
        assert_eq!(first.metrics().timers, 0);
        drop(limited);
        assert_eq!(second.metrics().timers, 0);
    });
}

// ---- TM4: dropped, forgotten, left over ----------------------------------------------------

/// TM4. Dropped: unlinked at once. A hundred thousand of them leave no memory behind.
#[test]
fn tm4_dropped_timers_are_unlinked_at_once() {
    common::alone("tm4_dropped_timers_are_unlinked_at_once", || {
        run(|| async {
            let storm = || async {
                let mut random = Random(7);
                for _ in 0..100_000 {
                    let mut timer =
                        sleep(Duration::from_nanos(random.below(1 << 45) + 1_000_000_000));
                    assert!(poll_once(&mut timer).await.is_pending());
                    timer.reset(Instant::now() + Duration::from_secs(random.below(1 << 30) + 1));
                    assert_eq!(registered(), 1);
                    drop(timer);
                    assert_eq!(registered(), 0);
                }
            };
            storm().await;
            let before = common::quarantine::live();
            storm().await;
            let grown = common::quarantine::live() - before;
            assert!(grown <= 0, "{grown} bytes more after 100 000 dropped timers");
        });
    });
}

/// TM4. Many at once, dropped in any order: each drop takes one away, the others fire.
#[test]
fn tm4_dropped_in_any_order() {
    run(|| async {
        const TIMERS: usize = 1000;
        let mut random = Random(11);
        let mut timers: Vec<_> = (0..TIMERS)
            .map(|_| sleep(HOUR + Duration::from_nanos(random.below(1 << 50))))
            .collect();
        for timer in &mut timers {
            assert!(poll_once(timer).await.is_pending());
        }
        for left in (TIMERS / 2..TIMERS).rev() {
            drop(timers.swap_remove(random.below(timers.len() as u64) as usize));
            assert_eq!(registered(), left);
        }
        for timer in &mut timers {
            timer.reset(Instant::now() + Duration::from_micros(random.below(10_000)));
        }
        assert_eq!(registered(), TIMERS / 2, "moved, not doubled");
        for timer in timers {
            let deadline = timer.deadline();
            timer.await;
            assert!(Instant::now() >= deadline);
        }
    });
}

/// TM4. Forgotten, it fires once, and that is all: one wake, which means nothing if the task has
/// ended.
#[test]
fn tm4_forgotten_timer_fires_once_into_nothing() {
    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    run(|| async {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut timer = Box::pin(sleep(HOUR));
        assert!(timer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        timer.reset(Instant::now() + MS);
        mem::forget(timer);
        while registered() > 0 {
            yield_now().await;
        }
        sleep(5 * MS).await;
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1, "nobody keeps the waker");

        let forgets = tamam::spawn(async {
            let mut timer = Box::pin(sleep(HOUR));
            assert!(poll_once(&mut timer).await.is_pending());
            timer.reset(Instant::now() + MS);
            mem::forget(timer);
        });
        forgets.await.expect("no panic");
        assert_eq!(registered(), 1);
        let before = tamam::metrics().polls;
        let mut yields = 0;
        while registered() > 0 {
            yield_now().await;
            yields += 1;
        }
        assert_eq!(tamam::metrics().polls - before, yields, "nothing but this is polled");
    });
}

/// TM4. Forgotten before it fires, the runtime goes: its timers and their wakers go with it, and
/// with them the memory of the task.
#[test]
fn tm4_forgotten_timers_go_with_the_runtime() {
    common::alone("tm4_forgotten_timers_go_with_the_runtime", || {
        each::engine(|runtime| {
            /// Kept by the future of a forgotten `Sleep`: nothing of the runtime.
            const FORGOTTEN: isize = 256;
            let round = || {
                let runtime = runtime();
                runtime.block_on(async {
                    for _ in 0..100 {
                        tamam::spawn(async {
                            let mut timer = Box::pin(sleep(Duration::MAX));
                            assert!(poll_once(&mut timer).await.is_pending());
                            mem::forget(timer);
                        })
                        .await
                        .expect("no panic");
                    }
                    assert_eq!(registered(), 100);
                });
            };
            round();
            let before = common::quarantine::live();
            round();
            let grown = common::quarantine::live() - before;
            assert!(grown <= 100 * FORGOTTEN, "{grown} bytes left by 100 forgotten sleeps");
        });
    });
}

/// TM4. After the runtime is gone: a drop does nothing, a reset moves the deadline, a poll outside
/// panics and says why, and one in another runtime waits there.
#[test]
fn tm4_after_the_runtime_is_gone() {
    each::mixed(|runtime| {
        let _watchdog = common::Watchdog::start();
        let mut timers = [HOUR; 3].map(sleep);
        let mut waits = sleep(20 * MS);
        runtime().block_on(async {
            for timer in &mut timers {
                assert!(poll_once(timer).await.is_pending());
            }
            let _ = poll_once(&mut waits).await;
        });
        let [dropped, mut moved, mut polled] = timers;
        drop(dropped);
        let later = Instant::now() + 25 * MS;
        moved.reset(later);
        let cx = &mut Context::from_waker(Waker::noop());
        let outside = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut polled).poll(cx)));
        let payload = outside.expect_err("there is no runtime");
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        assert!(text.is_some_and(|text| text.starts_with("no tamam runtime on this thread")));
        let next = runtime();
        next.block_on(async {
            let deadline = waits.deadline();
            waits.await;
            assert!(Instant::now() >= deadline);
            moved.await;
            assert!(Instant::now() >= later);
            assert!(poll_once(&mut polled).await.is_pending());
            assert_eq!(registered(), 1);
        });
        drop(next);
        drop(polled);
    });
}

// ---- TM5: intervals ------------------------------------------------------------------------

const PERIOD: Duration = Duration::from_millis(10);

/// An interval whose consumer came too late: the first tick was due `late` ago.
fn late_consumer(behavior: Option<MissedTickBehavior>, late: Duration) -> (Interval, Instant) {
    let start = Instant::now();
    let mut ticks = interval_at(start, PERIOD);
    assert_eq!(ticks.period(), PERIOD);
    assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Burst, "unless it is set");
    if let Some(behavior) = behavior {
        ticks.set_missed_tick_behavior(behavior);
        assert_eq!(ticks.missed_tick_behavior(), behavior);
    }
    thread::sleep(late);
    (ticks, start)
}

/// TM5. The first tick comes at once, the others a period apart, and none is early.
#[test]
fn tm5_first_tick_at_once() {
    run(|| async {
        let before = Instant::now();
        let mut ticks = interval(2 * MS);
        let first = match poll_once(&mut Box::pin(ticks.tick())).await {
            Poll::Ready(first) => first,
            Poll::Pending => panic!("the first tick is there at once"),
        };
        assert!(first >= before && first <= Instant::now());
        for number in 1..5 {
            let due = ticks.tick().await;
            assert_eq!(due, first + number * 2 * MS);
            assert!(Instant::now() >= due);
        }
    });
}

/// TM5. Burst, and that is the default: every missed tick is made up for, at once and in order;
/// then it goes on as planned.
#[test]
fn tm5_burst() {
    run(|| async {
        let (mut ticks, start) = late_consumer(None, 5 * PERIOD);
        for number in 0..=5 {
            let tick = poll_once(&mut Box::pin(ticks.tick())).await;
            assert_eq!(tick, Poll::Ready(start + number * PERIOD), "tick {number}");
        }
        for number in 6..9 {
            let due = ticks.tick().await;
            assert_eq!(due, start + number * PERIOD);
            assert!(Instant::now() >= due);
        }
    });
}

/// TM5. Delay: the missed tick comes late, the next ones a period after it was taken.
#[test]
fn tm5_delay() {
    run(|| async {
        let (mut ticks, start) = late_consumer(Some(MissedTickBehavior::Delay), 5 * PERIOD);
        assert_eq!(ticks.tick().await, start, "the time it was due");
        let taken = Instant::now();
        let second = ticks.tick().await;
        assert!(second >= start + 6 * PERIOD && second <= taken + PERIOD);
        assert!(Instant::now() >= second);
    });
}

/// TM5. Skip: the missed tick comes late, the next is the first one planned after that.
#[test]
fn tm5_skip() {
    run(|| async {
        for late in [PERIOD / 2, 5 * PERIOD, 5 * PERIOD + PERIOD / 2] {
            let (mut ticks, start) = late_consumer(Some(MissedTickBehavior::Skip), late);
            let before = Instant::now();
            assert_eq!(ticks.tick().await, start, "the time it was due");
            let after = Instant::now();
            let second = ticks.tick().await;
            assert_eq!((second - start).as_nanos() % PERIOD.as_nanos(), 0, "as planned");
            assert!(second > before && second <= after + PERIOD);
            let third = ticks.tick().await;
            assert_eq!((third - start).as_nanos() % PERIOD.as_nanos(), 0, "as planned");
            assert!(third > second);
        }
    });
}

/// TM5. A period of zero panics, where it is asked for.
#[test]
fn tm5_zero_period_panics() {
    let makers: [fn() -> Interval; 2] =
        [|| interval(Duration::ZERO), || interval_at(Instant::now(), Duration::ZERO)];
    for maker in makers {
        let payload = catch_unwind(maker).expect_err("a period of zero");
        let text = payload.downcast_ref::<&str>().copied();
        assert!(text.is_some_and(|text| text.contains("period")));
    }
}

/// TM5. A `tick()` that is dropped, or forgotten, takes no tick with it, polled or not: those that
/// are returned have no gap and no repetition.
#[test]
fn tm5_dropped_or_forgotten_tick_loses_none() {
    async fn give_up(ticks: &mut Interval, polled: bool, forgotten: bool) -> Option<Instant> {
        let mut tick = Box::pin(ticks.tick());
        let taken = if polled { poll_once(&mut tick).await } else { Poll::Pending };
        if forgotten {
            mem::forget(tick)
        } else {
            drop(tick)
        }
        match taken {
            Poll::Ready(due) => Some(due),
            Poll::Pending => None,
        }
    }
    run(|| async {
        for forgotten in [false, true] {
            let start = Instant::now();
            let mut ticks = interval_at(start, 2 * MS);
            let mut taken = Vec::new();
            for attempt in 0..40 {
                taken.extend(give_up(&mut ticks, attempt % 2 == 0, forgotten).await);
                if attempt % 5 == 4 {
                    taken.push(ticks.tick().await);
                    assert!(Instant::now() >= taken[taken.len() - 1]);
                }
            }
            let planned: Vec<_> = (0..taken.len() as u32).map(|n| start + n * 2 * MS).collect();
            assert_eq!(taken, planned, "forgotten: {forgotten}");
        }
    });
}

/// TM5. `reset` starts a period from now.
#[test]
fn tm5_reset() {
    run(|| async {
        let mut ticks = interval(5 * MS);
        ticks.tick().await;
        let before = Instant::now();
        ticks.reset();
        let after = Instant::now();
        let due = ticks.tick().await;
        assert!(due >= before + 5 * MS && due <= after + 5 * MS);
        assert!(Instant::now() >= due);
    });
}

// ---- TM6: a limit around everything --------------------------------------------------------

type Ends = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// A call that cannot end by itself under a limit, and what must be true afterwards.
struct Row {
    name: &'static str,
    limited: Ends,
    afterwards: Pin<Box<dyn Future<Output = ()>>>,
}

const LIMIT: Duration = Duration::from_millis(10);
const LARGE: usize = 4 << 20;

/// TM6. Whatever waits can be given a limit; the error is `TimedOut` as an `io::Error`; what the
/// call waited for is not lost.
#[test]
fn tm6_timeout_around_everything() {
    let rows: [fn(Rc<Ground>) -> Row; 8] = [
        recv_row,
        read_row,
        read_exact_row,
        accept_row,
        connect_row,
        send_row,
        shutdown_row,
        join_row,
    ];
    common::everywhere(|| async {
        for row in rows {
            let ground = Rc::new(Ground::prepare().await);
            let Row { name, limited, afterwards } = row(ground);
            eprintln!("  {name}");
            let before = Instant::now();
            let error = limited.await.expect_err(name);
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{name}: {error}");
            assert!(error.get_ref().is_some_and(|inner| inner.is::<Elapsed>()), "{name}");
            assert!(before.elapsed() >= LIMIT, "{name}: early");
            afterwards.await;
        }
    });
}

/// What the rows wait on: a connection with a peer that does nothing, and a listener nobody
/// connects to.
struct Ground {
    stream: TcpStream,
    peer: RefCell<Option<std::net::TcpStream>>,
    listener: TcpListener,
}

impl Ground {
    async fn prepare() -> Ground {
        let (stream, peer) = common::narrow_pair().await;
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        Ground { stream, peer: RefCell::new(Some(peer)), listener }
    }

    fn peer(&self) -> std::net::TcpStream {
        self.peer.take().expect("a row takes it once")
    }

    async fn receives(&self, expected: &[u8]) {
        let mut bytes = Vec::new();
        while bytes.len() < expected.len() {
            bytes.extend_from_slice(&self.stream.recv().await.expect("no error").expect("no end"));
        }
        assert_eq!(bytes, expected);
    }
}

/// RX17.
fn recv_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "recv",
        limited: Box::pin(async move {
            timeout(LIMIT, it.stream.recv()).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            ground.peer().write_all(b"later").expect("open");
            ground.receives(b"later").await;
        }),
    }
}

/// RX17, RX3.
fn read_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "read",
        limited: Box::pin(async move {
            timeout(LIMIT, it.stream.read(Vec::with_capacity(100_000))).await?.expect("it waits");
            Ok(())
        }),
        afterwards: Box::pin(async move {
            ground.peer().write_all(b"later").expect("open");
            ground.receives(b"later").await;
        }),
    }
}

/// RX17, RX7.
fn read_exact_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "read_exact",
        limited: Box::pin(async move {
            it.peer
                .borrow_mut()
                .as_mut()
                .expect("not taken yet")
                .write_all(b"half,")
                .expect("open");
            timeout(LIMIT, it.stream.read_exact(Vec::with_capacity(10), 10))
                .await?
                .expect("it waits");
            Ok(())
        }),
        afterwards: Box::pin(async move {
            ground.peer().write_all(b"whole").expect("open");
            ground.receives(b"half,whole").await;
        }),
    }
}

/// AC1.
fn accept_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "accept",
        limited: Box::pin(async move {
            timeout(LIMIT, it.listener.accept()).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            let addr = ground.listener.local_addr().expect("bound");
            let client = std::net::TcpStream::connect(addr).expect("it listens");
            let (_, peer) = ground.listener.accept().await.expect("it is there");
            assert_eq!(peer, client.local_addr().expect("connected"));
        }),
    }
}

/// CL16. The queue of the listener is full, so the kernel drops what would connect.
fn connect_row(ground: Rc<Ground>) -> Row {
    let full = StdListener::bind("127.0.0.1:0").expect("loopback has ports");
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let addr = full.local_addr().expect("bound");
    let mut waiting = Vec::new();
    while let Ok(client) = std::net::TcpStream::connect_timeout(&addr, 200 * MS) {
        waiting.push(client);
        assert!(waiting.len() < 100, "a queue of length 0 is full at some point");
    }
    Row {
        name: "connect",
        limited: Box::pin(async move {
            timeout(LIMIT, TcpStream::connect(addr)).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            // The socket is gone: what connects now are those who waited, and the listener's own.
            drop(waiting);
            let addr = ground.listener.local_addr().expect("bound");
            let connecting = TcpStream::connect(addr);
            timeout(*common::PATIENCE, connecting).await.expect("in time").expect("it listens");
            drop(full);
        }),
    }
}

/// TX13, TX3. The bytes go on.
fn send_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "send_all",
        limited: Box::pin(async move {
            timeout(LIMIT, it.stream.send_all(common::pattern(LARGE))).await?.expect("it stalls");
            Ok(())
        }),
        afterwards: Box::pin(async move {
            let mut peer = ground.peer();
            let reader = thread::spawn(move || {
                let mut bytes = vec![0; LARGE];
                peer.read_exact(&mut bytes).map(|()| (bytes, peer))
            });
            let (bytes, _peer) = common::join(reader).await.expect("all of it comes");
            assert!(bytes == common::pattern(LARGE));
        }),
    }
}

/// TX11. The end follows the bytes.
fn shutdown_row(ground: Rc<Ground>) -> Row {
    let it = ground.clone();
    Row {
        name: "shutdown",
        limited: Box::pin(async move {
            let stalled = it.stream.send_all(common::pattern(LARGE));
            assert!(poll_once(&mut Box::pin(stalled)).await.is_pending());
            timeout(LIMIT, it.stream.shutdown()).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            let reader = common::read_to_end(ground.peer());
            let bytes = common::join(reader).await.expect("all of it comes, and the end");
            assert!(bytes == common::pattern(LARGE));
        }),
    }
}

/// The task goes on, and the handle is as good as before.
fn join_row(_: Rc<Ground>) -> Row {
    let (go, went) = std::sync::mpsc::channel();
    let task = Rc::new(RefCell::new(tamam::spawn(async move {
        while went.try_recv() != Ok(()) {
            sleep(MS).await;
        }
        "output"
    })));
    let waits = task.clone();
    let ask = move || {
        let waits = waits.clone();
        poll_fn(move |cx| Pin::new(&mut *waits.borrow_mut()).poll(cx))
    };
    let first = ask();
    Row {
        name: "join",
        limited: Box::pin(async move {
            timeout(LIMIT, first).await??;
            Ok(())
        }),
        afterwards: Box::pin(async move {
            assert!(!task.borrow().is_finished());
            go.send(()).expect("the task waits");
            assert_eq!(ask().await.expect("no panic"), "output");
        }),
    }
}

// ---- TM7: order and clock ------------------------------------------------------------------

/// TM7. The same deadline: in the order of registration, which is that of the first polls; a reset
/// registers anew, a drop takes out, and who comes late comes last.
#[test]
fn tm7_same_deadline_fires_in_order_of_registration() {
    run(|| async {
        in_time(|deadline| async move {
            let mut random = Random(3);
            let trace = Rc::new(RefCell::new(Vec::new()));
            let (mut tasks, mut dropped) = (Vec::new(), Vec::new());
            for number in 0..200 {
                let (trace, resets) = (trace.clone(), random.below(3) == 0);
                let task = tamam::spawn(async move {
                    let mut timer =
                        if resets { sleep(Duration::MAX) } else { sleep_until(deadline) };
                    let _ = poll_once(&mut timer).await;
                    if resets {
                        timer.reset(deadline);
                    }
                    timer.await;
                    trace.borrow_mut().push(number);
                });
                match random.below(5) {
                    0 => dropped.push(task),
                    _ => tasks.push((number, task)),
                }
                match random.below(8) {
                    0 => sleep(Duration::from_micros(50)).await, // the clock goes on
                    1 | 2 => yield_now().await,
                    _ => {}
                }
            }
            yield_now().await;
            let in_time = Instant::now() < deadline;
            dropped.iter().for_each(JoinHandle::abort);
            for task in dropped {
                assert!(task.await.is_err() || !in_time);
            }
            let mut expected = Vec::new();
            for (number, task) in tasks {
                task.await.expect("no panic");
                expected.push(number);
            }
            assert!(!in_time || *trace.borrow() == expected, "{:?}", trace.borrow());
            in_time
        })
        .await;
    });
}

/// TM7. Different deadlines that have all passed when the runtime looks: in the order of the
/// deadlines, however they were registered.
#[test]
fn tm7_due_together_in_order_of_deadlines() {
    run(|| async {
        in_time(|first| async move {
            let mut random = Random(5);
            let trace = Rc::new(RefCell::new(Vec::new()));
            let mut numbers: Vec<u32> = (0..100).collect();
            let mut tasks = Vec::new();
            while !numbers.is_empty() {
                let number = numbers.swap_remove(random.below(numbers.len() as u64) as usize);
                let trace = trace.clone();
                tasks.push(tamam::spawn(async move {
                    sleep_until(first + number * Duration::from_micros(50)).await;
                    trace.borrow_mut().push(number);
                }));
            }
            yield_now().await;
            let in_time = Instant::now() < first;
            let last = first + 100 * Duration::from_micros(50);
            thread::sleep(last.saturating_duration_since(Instant::now()));
            for task in tasks {
                task.await.expect("no panic");
            }
            assert!(!in_time || trace.borrow().is_sorted(), "{:?}", trace.borrow());
            in_time
        })
        .await;
    });
}

/// TM7. The clock is CLOCK_MONOTONIC: of a suspended machine it counts nothing. Seen from here: a
/// sleep is not over before that clock has moved as far.
#[test]
fn tm7_clock_is_monotonic() {
    fn monotonic() -> Duration {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is writable.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) }, 0);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }
    run(|| async {
        for us in [1, 100, 3000] {
            let before = monotonic();
            sleep(Duration::from_micros(us)).await;
            assert!(monotonic() - before >= Duration::from_micros(us));
        }
    });
}

/// TM7, TM1. In a time namespace the process's monotonic clock is not the kernel's own: a wait
/// that hands the kernel a point in time would last as long as the two differ.
#[test]
fn tm7_time_namespace_changes_nothing() {
    const INSIDE: &str = "TAMAM_TEST_TIME_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return run(|| async {
            let (before, enters) = (Instant::now(), tamam::metrics().enters);
            sleep(20 * MS).await;
            assert!(timeout(20 * MS, pending::<()>()).await.is_err());
            assert!(before.elapsed() >= 40 * MS);
            assert!(before.elapsed() < Duration::from_secs(50), "far too long for 40 ms");
            let enters = tamam::metrics().enters - enters;
            assert!(enters < 50, "{enters} system calls: it did not sleep");
        });
    }
    let unshare = |offset: &str| {
        let mut command = Command::new("unshare");
        // A child: under Linux 6.1 the process that made one is not in it itself, and gets no threads.
        command.args(["--fork", "--time", "--monotonic", offset]);
        command
    };
    if !unshare("100").arg("true").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: needs unshare(1), time namespaces (5.6) and the right to make one");
        return;
    }
    // Uptime bounds how far back the clock may be set.
    for offset in ["100", "-30"] {
        if !unshare(offset).arg("true").output().is_ok_and(|output| output.status.success()) {
            continue;
        }
        let output = unshare(offset)
            .arg(std::env::current_exe().expect("a test has a binary"))
            .args(["tm7_time_namespace_changes_nothing", "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .expect("just tried");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "offset {offset}: {text}");
    }
}
