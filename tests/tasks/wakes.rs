//! TK7, TK8, TK9: wakes at any time, from anywhere.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tamam::time::sleep;
use tamam::{JoinHandle, Runtime, yield_now};

use crate::{Trace, answer, common, each, rounds, run};

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// TK7. However often a task is woken in its poll, by whatever kind of wake, it is polled once
/// more, behind those who were ready.
#[test]
fn tk7_wakes_during_the_poll_are_one_more_poll() {
    type WakeUp = fn(&Waker);
    let wakes: [(&str, WakeUp); 4] = [
        ("one", |waker| waker.wake_by_ref()),
        ("several", |waker| {
            waker.wake_by_ref();
            Waker::wake(waker.clone());
            waker.wake_by_ref();
        }),
        ("from another thread", |waker| {
            let waker = waker.clone();
            thread::spawn(move || waker.wake()).join().expect("it does not panic");
        }),
        ("several from several threads", |waker| {
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| (0..3).for_each(|_| waker.wake_by_ref()));
                }
            });
        }),
    ];
    for (name, wake) in wakes {
        eprintln!("-- {name}");
        run(|| async {
            let trace = Trace::default();
            let spawn = |name: &'static str, wake: WakeUp| {
                let trace = trace.clone();
                let mut first = true;
                tamam::spawn(poll_fn(move |cx| {
                    trace.note(name);
                    if mem::take(&mut first) {
                        wake(cx.waker());
                        trace.note("woken");
                    }
                    Poll::<()>::Pending
                }))
            };
            let tasks = [spawn("A", wake), spawn("B", |_| {}), spawn("C", |_| {})];
            rounds().await;
            assert_eq!(trace.take(), ["A", "woken", "B", "woken", "C", "woken", "A"]);
            tasks.iter().for_each(JoinHandle::abort);
        });
    }
}

/// TK7. Several wakes between two polls are one poll too, whether they come from home, from
/// elsewhere, or from both before the next turn.
#[test]
fn tk7_wakes_between_polls_are_one_poll() {
    run(|| async {
        let polls = Rc::new(Cell::new(0));
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let task: JoinHandle<()> = tamam::spawn({
            let (polls, waker) = (polls.clone(), waker.clone());
            poll_fn(move |cx| {
                polls.set(polls.get() + 1);
                waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            })
        });
        rounds().await;
        let waker = waker.take().expect("it was polled");
        for _ in 0..5 {
            waker.wake_by_ref();
        }
        rounds().await;
        assert_eq!(polls.get(), 2);
        let elsewhere = waker.clone();
        let thread = thread::spawn(move || (0..5).for_each(|_| elsewhere.wake_by_ref()));
        thread.join().expect("it does not panic");
        rounds().await;
        assert_eq!(polls.get(), 3);
        task.abort();
    });
}

/// Dies on the thread it was made on, and is counted.
struct Homebound {
    home: ThreadId,
    deaths: Arc<AtomicUsize>,
}

impl Drop for Homebound {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.home, "futures and outputs die at home");
        self.deaths.fetch_add(1, Ordering::SeqCst);
    }
}

/// TK8. 1 tasks that will finish, panic, be aborted, or be waiting when their runtime goes; 2 four
/// threads hold wakers of them all and use them without pause; 3 the tasks end, the handles go,
/// the runtime goes, in the midst of it; 4 the threads go on, then drop their wakers. Futures and
/// outputs died at home, once; no memory is left, none was touched after its end.
#[test]
fn tk8_wakers_in_threads_outlive_everything() {
    common::alone("wakes::tk8_wakers_in_threads_outlive_everything", || {
        each::engine(|runtime| {
            let mut held = Vec::new();
            for round in 0..60 {
                let _watchdog = common::Watchdog::start();
                let deaths = Arc::new(AtomicUsize::new(0));
                let made = wakers_outlive_everything(runtime(), round, &deaths);
                assert_eq!(deaths.load(Ordering::SeqCst), made, "each future and output dies once");
                drop(deaths);
                held.push(common::quarantine::live());
            }
            // What std keeps for threads varies by a little; a leak of task memory adds up.
            let (early, late) = (held[10], held[59]);
            assert!(late - early < 50 * 64, "the heap grew from {early} to {late} bytes");
        });
    });
}

fn wakers_outlive_everything(runtime: Runtime, round: u64, deaths: &Arc<AtomicUsize>) -> usize {
    const TASKS: usize = 16;
    let mut random = common::Random(round + 1);
    let homebound = || Homebound { home: thread::current().id(), deaths: deaths.clone() };
    let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let handles: Vec<JoinHandle<Homebound>> = (0..TASKS)
        .map(|kind| {
            let (wakers, future, output) = (wakers.clone(), homebound(), homebound());
            let mut output = Some(output);
            let mut polls = random.below(50);
            runtime.spawn(poll_fn(move |cx| {
                let _ = &future;
                wakers.lock().expect("not poisoned").push(cx.waker().clone());
                polls = polls.saturating_sub(1);
                match (polls, kind % 4) {
                    (0, 0) => Poll::Ready(output.take().expect("ready once")),
                    (0, 1) => std::panic::resume_unwind(Box::new("quietly")),
                    _ => Poll::Pending,
                }
            }))
        })
        .collect();
    runtime.block_on(yield_now());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (wakers, stop) = (wakers.clone(), stop.clone());
            thread::spawn(move || {
                let mut mine = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    mine.extend(wakers.lock().expect("not poisoned").drain(..));
                    mine.iter().for_each(Waker::wake_by_ref);
                    if mine.len() > 64 {
                        mine.drain(..32).for_each(Waker::wake);
                    }
                }
                // The runtime is gone, the handles too.
                for waker in mine {
                    waker.wake_by_ref();
                    Waker::wake(waker.clone());
                }
            })
        })
        .collect();
    for handle in handles.iter().skip(2).step_by(4) {
        runtime.block_on(async {
            sleep(Duration::from_micros(200)).await;
            handle.abort();
        });
    }
    runtime.block_on(sleep(Duration::from_millis(1)));
    if round % 2 == 0 {
        drop(handles);
        drop(runtime);
    } else {
        drop(runtime);
        assert!(handles.iter().all(JoinHandle::is_finished));
        drop(handles);
    }
    stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    2 * TASKS
}

/// TK8. No wake from a thread is lost, however it meets the runtime: going to sleep, asleep,
/// waking up. 1 the task waits for a number; 2 a thread stores it, then wakes; 3 the task answers,
/// the thread stores the next.
#[test]
fn tk8_no_wake_of_a_thread_is_lost() {
    const NUMBERS: usize = 20_000;
    for (name, builder) in common::engines() {
        eprintln!("-- {name}");
        common::with(builder, || async {
            let number = Arc::new(AtomicUsize::new(0));
            let (waker_out, waker_in) = mpsc::channel::<Waker>();
            let (answer_out, answer_in) = mpsc::channel::<usize>();
            let thread = {
                let number = number.clone();
                thread::spawn(move || {
                    let waker = waker_in.recv().expect("the task sends its waker");
                    for next in 1..=NUMBERS {
                        number.store(next, Ordering::SeqCst);
                        waker.wake_by_ref();
                        let answer = answer_in.recv().expect("the task answers");
                        assert_eq!(answer, next);
                    }
                })
            };
            let mut seen = 0;
            poll_fn(move |cx| {
                if seen == 0 {
                    let _ = waker_out.send(cx.waker().clone());
                }
                let now = number.load(Ordering::SeqCst);
                if now > seen {
                    seen = now;
                    answer_out.send(now).expect("the thread listens");
                }
                if seen == NUMBERS { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            common::join(thread).await;
        });
    }
}

/// TK8. A wake at home while the runtime does not turn; wakes of a main future that is over.
#[test]
fn tk8_wakes_between_two_block_ons() {
    each::engine(|runtime| {
        let _watchdog = common::Watchdog::start();
        let runtime = runtime();
        let steps = Rc::new(Cell::new(0));
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let watch = || {
            let (steps, waker) = (steps.clone(), waker.clone());
            poll_fn(move |cx| {
                steps.set(steps.get() + 1);
                waker.replace(Some(cx.waker().clone()));
                if steps.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
            })
        };
        let task = runtime.spawn(watch());
        runtime.block_on(rounds());
        assert_eq!(steps.get(), 1);
        waker.take().expect("it was polled").wake();
        runtime.block_on(task).expect("it was woken");

        steps.set(1);
        runtime.block_on(watch()); // ready at once
        let stale = waker.take().expect("it was polled");
        stale.wake_by_ref();
        let polls = runtime.metrics().polls;
        runtime.block_on(async {
            stale.wake_by_ref();
            yield_now().await;
        });
        assert_eq!(runtime.metrics().polls, polls + 2, "only the new main future is polled");
        drop(runtime);
        stale.wake();
    });
}

/// TK8, H32. A waker of others that uses the runtime while it is woken: it spawns, aborts, drops a
/// timer and a stream with a receive in flight, and wakes others. It is called where it may.
#[test]
fn tk8_waker_that_uses_the_runtime() {
    thread_local! {
        static DO: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }
    struct Does;
    impl Wake for Does {
        fn wake(self: Arc<Self>) {
            if let Some(act) = DO.take() {
                act();
            }
        }
    }
    /// Makes `event` happen to something that was polled with a waker like `Does`.
    type Event = fn(&mut Context<'_>) -> Box<dyn FnOnce()>;
    let events: [(&str, Event); 3] = [
        ("a timer", |cx| {
            let mut timer = Box::pin(sleep(Duration::MAX));
            assert!(timer.as_mut().poll(cx).is_pending());
            timer.reset(Instant::now());
            Box::new(|| drop(timer))
        }),
        ("the end of a task", |cx| {
            let mut task = tamam::spawn(yield_now());
            assert!(Pin::new(&mut task).poll(cx).is_pending());
            Box::new(|| drop(task))
        }),
        ("an abort", |cx| {
            let mut task = tamam::spawn(pending::<()>());
            assert!(Pin::new(&mut task).poll(cx).is_pending());
            task.abort();
            Box::new(|| drop(task))
        }),
    ];
    for (name, event) in events {
        eprintln!("-- {name}");
        common::everywhere(|| async {
            let (stream, peer) = common::pair().await;
            let stream = Rc::new(stream);
            let receives = tamam::spawn({
                let stream = stream.clone();
                async move { stream.recv().await.map(drop) }
            });
            let mut timer = Box::pin(sleep(Duration::from_secs(3600)));
            assert!(common::poll_once(&mut timer).await.is_pending());
            rounds().await;
            let spawned = Rc::new(RefCell::new(None));
            let slot = spawned.clone();
            DO.set(Some(Box::new(move || {
                receives.abort();
                drop((timer, stream));
                slot.replace(Some(tamam::spawn(async move { drop((receives.await, peer)) })));
            })));
            let keep = event(&mut Context::from_waker(&Waker::from(Arc::new(Does))));
            while spawned.borrow().is_none() {
                rounds().await;
            }
            keep();
            let spawned = spawned.take().expect("just seen");
            spawned.await.expect("it runs as any other");
        });
    }
}

/// TK9. A waker is not for signal handlers; a write to a descriptor that a task reads is. 1 a task
/// waits in `recv`; 2 a signal interrupts the thread's sleep, its handler writes to the other end;
/// 3 the task reads it. A hundred times.
#[test]
fn tk9_handler_writes_to_what_a_task_reads() {
    static PEER: AtomicI32 = AtomicI32::new(-1);

    extern "C" fn handler(_: libc::c_int) {
        let byte = [b'!'];
        // SAFETY: write(2) may be called in a handler; the byte is readable.
        let written = unsafe { libc::write(PEER.load(Ordering::Relaxed), byte.as_ptr().cast(), 1) };
        assert_eq!(written, 1);
    }

    common::alone("wakes::tk9_handler_writes_to_what_a_task_reads", || {
        // SAFETY: zero is a valid value of the struct: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler calls nothing that a handler must not call.
        let done = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
        assert_eq!(done, 0);
        run(|| async {
            let (stream, peer) = common::pair().await;
            PEER.store(std::os::fd::AsRawFd::as_raw_fd(&peer), Ordering::Relaxed);
            // SAFETY: no condition; it names the calling thread.
            let me = unsafe { libc::pthread_self() };
            let (read_out, read_in) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                for _ in 0..100 {
                    // SAFETY: that thread lives until it has joined this one.
                    assert_eq!(unsafe { libc::pthread_kill(me, libc::SIGUSR1) }, 0);
                    read_in.recv().expect("the task goes on");
                }
            });
            for _ in 0..100 {
                let chunk = stream.recv().await.expect("no error").expect("no end");
                assert_eq!(&chunk[..], b"!");
                read_out.send(()).expect("the thread goes on");
            }
            common::join(thread).await;
            drop(peer);
        });
    });
}

/// The counting waker is woken by what it waits for: the tools themselves are checked where a
/// foreign waker stands in for a task's.
#[test]
fn tk8_foreign_waker_is_woken_once_by_an_end() {
    run(|| async {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut task = tamam::spawn(yield_now());
        for _ in 0..3 {
            assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        rounds().await;
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(answer(task).is_ok());
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1, "no waker is kept");
    });
}

/// TK8. What was kept is the waker of a task that has ended: its future, of 16 KiB, is freed.
#[test]
fn tk8_a_waker_keeps_no_future() {
    const COUNT: usize = 100;

    async fn large(wakers: Rc<RefCell<Vec<Waker>>>) {
        let mut bytes = [0_u8; 16 << 10];
        poll_fn(|cx| {
            wakers.borrow_mut().push(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        yield_now().await;
        bytes[0] += 1;
        std::hint::black_box(&bytes);
    }

    common::alone("wakes::tk8_a_waker_keeps_no_future", || {
        let wakers = Rc::new(RefCell::new(Vec::with_capacity(COUNT)));
        let before = common::quarantine::live();
        tamam::run(async {
            for _ in 0..COUNT {
                tamam::spawn(large(wakers.clone())).await.expect("no panic");
            }
        });
        let kept = (common::quarantine::live() - before) / COUNT as isize;
        assert!(kept < 1024, "{kept} bytes for each waker");
    });
}
