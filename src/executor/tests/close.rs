//! What `close` drops, in which order, and what it refuses.

use core::future::{pending, poll_fn};
use core::task::{Poll, Waker};
use std::cell::RefCell;
use std::rc::Rc;

use super::super::{AbortHandle, JoinHandle, TaskExecutor};
use super::{Noted, Trace, answer, executor, run_until_idle};

#[test]
fn cx10_close_drops_in_spawn_order() {
    let (executor, trace) = (executor(), Trace::default());
    let mut wakers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let noted = Noted(trace.clone(), name);
        let handle = executor.spawn(async move {
            let _noted = noted;
            if name == "b" {
                return;
            }
            pending::<()>().await
        });
        run_until_idle(&executor);
        wakers.push(handle);
    }
    wakers[3].abort(); // queued first, dropped last
    trace.borrow_mut().clear();
    executor.close();
    assert_eq!(*trace.borrow(), ["drop a", "drop c", "drop d"]);
    executor.close();
    assert!(executor.is_idle());
    assert_eq!(executor.tasks(), 0);
}

#[test]
fn cx11_a_drop_in_close_spawns_wakes_and_aborts() {
    struct Busy(Rc<TaskExecutor>, Rc<RefCell<Vec<AbortHandle>>>, Rc<RefCell<Vec<Waker>>>, Trace);
    impl Drop for Busy {
        fn drop(&mut self) {
            let noted = Noted(self.3.clone(), "spawned");
            let mut handle: JoinHandle<()> = self.0.spawn(async move {
                let _noted = noted;
                unreachable!("never polled")
            });
            assert!(answer(&mut handle).unwrap_err().is_cancelled());
            self.1.borrow().iter().for_each(AbortHandle::abort);
            self.2.borrow().iter().for_each(Waker::wake_by_ref);
            self.3.borrow_mut().push("busy".to_string());
        }
    }
    let (executor, trace) = (Rc::new(executor()), Trace::default());
    let _entered = executor.enter();
    let (aborts, wakers) = (Rc::default(), Rc::default());
    for _ in 0..2 {
        let busy = Busy(executor.clone(), Rc::clone(&aborts), Rc::clone(&wakers), trace.clone());
        let noted = Noted(trace.clone(), "idle");
        let (wakers, aborts) = (wakers.clone(), aborts.clone());
        drop(executor.spawn(async move {
            let _busy = busy;
            pending::<()>().await
        }));
        let handle = executor.spawn(async move {
            let _noted = noted;
            poll_fn(|cx| {
                wakers.borrow_mut().push(cx.waker().clone());
                Poll::<()>::Pending
            })
            .await
        });
        aborts.borrow_mut().push(handle.abort_handle());
    }
    run_until_idle(&executor);
    executor.close();
    let once = ["drop spawned", "busy", "drop idle"];
    assert_eq!(*trace.borrow(), [once, once].concat());
    assert!(executor.is_idle());
}
