//! TK10, TK11, G1, G9: in which order tasks are polled, and that nobody starves.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tamam::time::sleep;
use tamam::{JoinHandle, Runtime, yield_now};

use crate::{Trace, answer, block_on_by_parking, common, each, is_cancelled, run, tokio};

/// Never waits, never ends.
async fn spin() {
    loop {
        yield_now().await;
    }
}

/// TK10. With any number of tasks that are always ready, one and ten thousand, and any budget: a
/// turn polls no more tasks than its budget, and timers, receives and wakes of threads, which the
/// turn serves, come through.
#[test]
fn tk10_io_and_timers_are_served_beside_spinners() {
    for (spinners, budget) in [(1, 128), (1, 1), (200, 7), (10_000, 128)] {
        for (name, builder) in common::engines() {
            eprintln!("-- {spinners} spinners, a budget of {budget}, {name}");
            common::with(builder.budget(budget), || async {
                let tasks: Vec<_> = (0..spinners).map(|_| tamam::spawn(spin())).collect();
                let before = tamam::metrics();
                let slept = tamam::spawn(async {
                    for _ in 0..3 {
                        sleep(Duration::from_micros(100)).await;
                    }
                });
                let (stream, mut peer) = common::pair().await;
                let echo = tamam::spawn(async move {
                    for _ in 0..3 {
                        let chunk = stream.recv().await.expect("no error").expect("no end");
                        stream.send_all(chunk).await.expect("the peer reads");
                    }
                });
                let client = thread::spawn(move || {
                    for byte in 0..3 {
                        peer.write_all(&[byte]).expect("the stream is open");
                        let mut answer = [9];
                        std::io::Read::read_exact(&mut peer, &mut answer).expect("an answer");
                        assert_eq!(answer, [byte]);
                    }
                });
                slept.await.expect("no panic");
                echo.await.expect("no panic");
                common::join(client).await; // the main future is polled and sleeps
                let after = tamam::metrics();
                let (polls, turns) = (after.polls - before.polls, after.turns - before.turns);
                assert!(polls <= (turns + 1) * u64::from(budget), "{polls} polls in {turns} turns");
                tasks.iter().for_each(JoinHandle::abort);
                for task in tasks {
                    assert!(is_cancelled(task.await));
                }
            });
        }
    }
}

/// TK10. How late a timer is, in polls: due, it is noticed within a budget of polls, and its task
/// goes behind those who are ready.
#[test]
fn tk10_timer_comes_within_a_round() {
    const BUDGET: u64 = 128;
    for spinners in [1_u64, 1000, 10_000] {
        run(|| async {
            let deadline = Instant::now() + Duration::from_millis(30);
            // How many polls there were when the first spinner saw that the timer is due.
            let due = Rc::new(Cell::new(None::<u64>));
            let tasks: Vec<_> = (0..spinners)
                .map(|_| {
                    let due = due.clone();
                    tamam::spawn(async move {
                        loop {
                            if due.get().is_none() && Instant::now() >= deadline {
                                due.set(Some(tamam::metrics().polls));
                            }
                            yield_now().await;
                        }
                    })
                })
                .collect();
            tamam::time::sleep_until(deadline).await;
            let late = due.get().map_or(0, |due| tamam::metrics().polls - due);
            assert!(late <= spinners + 2 * BUDGET, "{late} polls late among {spinners}");
            tasks.iter().for_each(JoinHandle::abort);
        });
    }
}

/// TK10. The main future is one of the polled: it waits for one round of the others, not more and
/// not less, whatever the budget.
#[test]
fn tk10_main_future_is_one_of_the_polled() {
    const SPINNERS: u64 = 300;
    for budget in [1, 2, 128, 1000] {
        common::with_both(Runtime::builder().budget(budget), || async {
            let tasks: Vec<_> = (0..SPINNERS).map(|_| tamam::spawn(spin())).collect();
            for _ in 0..20 {
                let before = tamam::metrics().polls;
                yield_now().await;
                assert_eq!(tamam::metrics().polls - before, SPINNERS + 1);
            }
            tasks.iter().for_each(JoinHandle::abort);
        });
    }
}

/// TK10. A main future that spins alone does not starve its timers and tasks, and the thread is
/// not put to sleep under it.
#[test]
fn tk10_main_future_that_spins() {
    run(|| async {
        let task = tamam::spawn(async {
            for _ in 0..3 {
                sleep(Duration::from_micros(500)).await;
            }
        });
        while !task.is_finished() {
            yield_now().await;
        }
    });
}

/// TK11. Every task that was ready before runs first, and those only: what becomes ready later
/// goes behind.
#[test]
fn tk11_yield_goes_to_the_back() {
    for budget in [1, 3, 128] {
        common::with_both(Runtime::builder().budget(budget), || async {
            let trace = Trace::default();
            for name in ["A", "B", "C"] {
                let trace = trace.clone();
                tamam::spawn(async move {
                    trace.note(format!("{name}1"));
                    if name == "B" {
                        let trace = trace.clone();
                        tamam::spawn(async move { trace.note("D1") });
                    }
                    yield_now().await;
                    trace.note(format!("{name}2"));
                });
            }
            trace.note("main1");
            yield_now().await;
            trace.note("main2");
            yield_now().await;
            trace.note("main3");
            assert_eq!(
                trace.take(),
                ["main1", "A1", "B1", "C1", "main2", "A2", "D1", "B2", "C2", "main3"]
            );
        });
    }
}

/// TK11. It needs no runtime: under another executor it yields as well.
#[test]
fn tk11_yield_under_tokio() {
    let trace = Trace::default();
    tokio::task::LocalSet::new().block_on(&tokio(), async {
        let other = trace.clone();
        tokio::task::spawn_local(async move { other.note("task") });
        trace.note("before");
        yield_now().await;
        yield_now().await;
        trace.note("after");
    });
    assert_eq!(trace.take(), ["before", "task", "after"]);
}

/// G1. `spawn` polls nothing by itself; a task dropped before its first poll never happened.
#[test]
fn g1_spawn_polls_nothing() {
    each::engine(|runtime| {
        let trace = Trace::default();
        let runtime = runtime();
        let spawn = |name: &'static str| {
            let (trace, guard) = (trace.clone(), trace.guard(name));
            async move {
                let _guard = guard;
                trace.note("polled");
            }
        };
        runtime.block_on(async {
            let task = tamam::spawn(spawn("aborted"));
            trace.note("spawned");
            task.abort();
            assert!(is_cancelled(task.await));
        });
        assert_eq!(trace.take(), ["spawned", "drop aborted"]);
        let task = runtime.spawn(spawn("left"));
        drop(runtime);
        assert!(is_cancelled(answer(task)));
        assert_eq!(trace.take(), ["drop left"]);
    });
}

/// G9. A task that receives from a flooding peer pauses after 128 chunks at most, and what is
/// parked (by the ring) or still in the socket (under epoll) stays.
#[test]
fn g9_receiving_loop_lets_others_run() {
    const LEN: usize = 1000;
    let builder = Runtime::builder().buffer_size(1).buffer_count(2048);
    common::with_both(builder, || async {
        let (stream, mut peer) = common::pair().await;
        peer.write_all(&common::pattern(LEN)).expect("the stream is open");
        if common::on_epoll() {
            assert_eq!(common::unread(&stream), LEN);
        } else {
            assert!(common::poll_once(&mut Box::pin(stream.recv())).await.is_pending());
            // More than two budgets of them shall be parked, if the receive stays for so many.
            while tamam::metrics().buffers_lent <= 256 && tamam::metrics().ops > 0 {
                yield_now().await;
            }
        }
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
        let mut bytes = Vec::new();
        let mut at_once = 0;
        let mut seen = (polls.get(), 0);
        while bytes.len() < LEN {
            bytes.extend_from_slice(&stream.recv().await.expect("no error").expect("no end"));
            seen = if seen.0 == polls.get() { (seen.0, seen.1 + 1) } else { (polls.get(), 1) };
            at_once = at_once.max(seen.1);
        }
        assert!(at_once <= 128, "{at_once} chunks in one poll");
        assert_eq!(bytes, common::pattern(LEN));
        other.abort();
    });
}

/// G9. The budget is one of a task's poll. Outside of any, under a foreign executor, what is ready
/// is ready, however often: nobody is there to give a new budget.
#[test]
fn g9_outside_a_poll_nothing_is_spent() {
    each::engine(|runtime| {
        let _watchdog = common::Watchdog::start();
        let runtime = runtime();
        runtime.block_on(async {
            for _ in 0..128 {
                sleep(Duration::ZERO).await; // the last poll of the turn spends all it has
            }
        });
        let _guard = runtime.enter();
        let mut polls = 0;
        let mut sleeps = Box::pin(async {
            for _ in 0..1000 {
                sleep(Duration::ZERO).await;
            }
        });
        let ended = block_on_by_parking(poll_fn(|cx| {
            polls += 1;
            match sleeps.as_mut().poll(cx) {
                Poll::Pending if polls > 10_000 => Poll::Ready(false),
                poll => poll.map(|()| true),
            }
        }));
        assert!(ended, "still waiting after {polls} polls for what is ready");
    });
}
