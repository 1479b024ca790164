//! TM4: timers that are dropped, forgotten, left over.

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use tamam::time::sleep;
use tamam::yield_now;

use crate::common::{Random, poll_once};
use crate::{HOUR, MS, common, each, registered, run};

/// TM4. Dropped: unlinked at once. A hundred thousand of them leave no memory behind.
#[test]
fn tm4_dropped_timers_are_unlinked_at_once() {
    common::alone("abandoned::tm4_dropped_timers_are_unlinked_at_once", || {
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
    common::alone("abandoned::tm4_forgotten_timers_go_with_the_runtime", || {
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
