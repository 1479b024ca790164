//! CX6, CX7, CX8: runtimes inside one another, and by turns.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use crate::common::{alone, at_once};
use crate::{OUTSIDE, Objects, assert_refused, each, listening, panics, receivers, works};

#[test]
fn cx6_block_on_inside_block_on() {
    each::mixed(|runtime| {
        let (outer, other) = (Rc::new(runtime()), runtime());
        let polled = Rc::new(Cell::new(0));
        let count = || {
            let polled = polled.clone();
            async move { polled.set(polled.get() + 1) }
        };
        outer.block_on(async {
            // In `block_on`'s own future.
            for text in [
                panics(|| outer.block_on(count())),
                panics(|| other.block_on(count())),
                panics(|| tamam::run(count())),
            ] {
                assert!(text.contains("`block_on`") && text.contains("inside"), "{text}");
            }
            works().await;
            // In a task.
            let (inner, nested) = (outer.clone(), count());
            let text = tamam::spawn(async move { panics(|| inner.block_on(nested)) });
            assert!(text.await.expect("caught in the task").contains("inside"));
            works().await;
        });
        assert_eq!(polled.get(), 0, "nothing was polled");
        other.block_on(works());
    });
}

/// A foreign `block_on` in a task blocks the thread, as everywhere, and confuses nothing.
#[test]
fn cx6_a_foreign_block_on_inside() {
    each::engine(|runtime| {
        let tokio =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        runtime().block_on(async {
            tokio.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            works().await;
        });
        let runtime = runtime();
        tokio.block_on(async {
            runtime.block_on(works()); // and the other way round
            tokio::time::sleep(Duration::from_millis(1)).await;
        });
    });
}

async fn fails() {
    panic!("by intent");
}

#[test]
fn cx7_one_after_the_other_and_in_turns() {
    each::mixed(|runtime| {
        let (first, second) = (runtime(), runtime());
        for runtime in [&first, &second, &first] {
            runtime.block_on(works());
        }
        // Objects of both live at once, each used at home.
        let (mut a, mut b) = (Objects::of(&first), Objects::of(&second));
        for round in 0..10u8 {
            for (home, objects) in [(&first, &mut a), (&second, &mut b)] {
                objects.peer.write_all(&[round]).expect("connected");
                let chunk = home.block_on(objects.stream.recv()).expect("connected");
                assert_eq!(&chunk.expect("bytes")[..], [round]);
            }
        }
        a.work_at(&first);
        drop(first);
        b.work_at(&second);
    });
}

/// 1 `block_on` unwinds, in either runtime; 2 the thread has no runtime then, or the one that was
/// entered before; 3 both work.
#[test]
fn cx7_the_context_comes_back_when_block_on_unwinds() {
    each::mixed(|runtime| {
        let (first, second) = (runtime(), runtime());
        let text = panics(|| first.block_on(fails()));
        assert_eq!(text, "by intent");
        assert!(panics(|| tamam::spawn(async {})).starts_with(OUTSIDE));
        let guard = first.enter();
        panics(|| second.block_on(fails()));
        let task = tamam::spawn(works());
        drop(guard);
        assert_eq!((first.metrics().tasks, second.metrics().tasks), (1, 0), "spawned in the first");
        first.block_on(task).expect("no panic");
        second.block_on(works());
    });
}

/// Guards may be dropped in any order: what is left when all are gone is no runtime.
#[test]
fn cx7_guards_dropped_out_of_order() {
    each::mixed(|runtime| {
        let (first, second) = (runtime(), runtime());
        let guards = (first.enter(), second.enter());
        drop(guards.0);
        let task = tamam::spawn(async { 7 });
        assert_eq!(second.metrics().tasks, 1, "the second is still entered");
        drop(guards.1);
        assert!(panics(|| tamam::spawn(async {})).starts_with(OUTSIDE));
        assert_eq!(second.block_on(task).expect("no panic"), 7);
    });
}

#[test]
fn cx8_a_runtime_dropped_in_a_task_of_another() {
    alone("nested::cx8_a_runtime_dropped_in_a_task_of_another", || {
        each::mixed(|runtime| {
            let outer = runtime();
            let inner = runtime();
            let mut peers = inner.block_on(receivers(100));
            assert!(inner.metrics().ops >= 100, "the receives are in flight");
            outer.block_on(async move {
                let task = tamam::spawn(async move {
                    drop(inner);
                    // The context is this runtime's again.
                    works().await;
                    tamam::metrics().tasks
                });
                assert_eq!(task.await.expect("no panic"), 1);
                works().await;
            });
            for peer in &mut peers {
                assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
            }
            assert_eq!(outer.metrics().stray_completions, 0);
        });
    });
}

/// Built inside a task too; it cannot turn there, but take spawns.
#[test]
fn cx8_a_runtime_that_lives_and_dies_in_a_task() {
    each::mixed(|runtime| {
        runtime().block_on(async {
            let inner = runtime();
            let task = inner.spawn(works());
            let objects = {
                let _guard = inner.enter();
                listening()
            };
            assert_refused(
                &[at_once(objects.0.accept()).await.map(drop).unwrap_err()],
                "polled outside",
            );
            drop(inner);
            assert!(task.await.is_err_and(|error| error.is_cancelled()));
            works().await;
        });
    });
}
