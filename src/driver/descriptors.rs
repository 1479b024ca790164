//! The descriptors of a runtime: sockets that no future has claimed yet, and shortages of
//! descriptors.
//!
//! The readiness of a descriptor is not here, but in `epoll.rs`. Read next: `stream/accept.rs`,
//! which waits in a shortage.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Context;
#[cfg(feature = "tls")]
use std::task::Poll;

use slab::Slab;

use super::{Driver, count};
use crate::deferred::Deferred;
use crate::queue::{WaiterId, Waiters};
use crate::sys::ClosableFd;

/// The unclaimed sockets of one runtime, and the futures that a shortage concerns.
#[derive(Default)]
pub(super) struct Descriptors {
    /// Sockets that no future has claimed yet. Their futures may have been forgotten, so the
    /// sockets end with the runtime.
    sockets: RefCell<Slab<OwnedFd>>,
    /// How many descriptors were closed.
    closed: Cell<u64>,
    /// How many calls failed for lack of a descriptor.
    shortages: Cell<u64>,
    /// Futures whose call failed for lack of a descriptor. They wait until one is closed.
    waiting: RefCell<Waiters>,
    /// Futures that can close a descriptor early. They do so in a shortage.
    sparing: RefCell<Waiters>,
}

impl Descriptors {
    /// Takes the sockets that no future has claimed. Later claims find none.
    pub(super) fn take_sockets(&self) -> Slab<OwnedFd> {
        self.sockets.take()
    }
}

impl Driver {
    /// Keeps a socket until [`claim`](Self::claim), or until the end of the runtime, which closes
    /// it. Returns the key of the socket.
    pub(crate) fn keep_socket(&self, fd: OwnedFd) -> usize {
        self.descriptors.sockets.borrow_mut().insert(fd)
    }

    /// Calls `look` with the kept socket of `key`, and gives what it returns. `None`: the socket
    /// was claimed, or the runtime has ended. A claimed key may soon name another socket.
    pub(crate) fn with_socket<T>(
        &self,
        key: usize,
        look: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> Option<T> {
        self.descriptors.sockets.borrow().get(key).map(|fd| look(fd.as_fd()))
    }

    /// Gives the kept socket of `key` to the caller, who closes it. `None`: the socket was claimed
    /// before, or the runtime has ended. A claimed key may soon name another socket.
    pub(crate) fn claim(&self, key: usize) -> Option<OwnedFd> {
        self.descriptors.sockets.borrow_mut().try_remove(key)
    }

    /// Closes a descriptor that may have had ops, and wakes the futures that wait for a close. None
    /// of its ops may be in flight.
    pub(crate) fn close_descriptor(&self, fd: OwnedFd) {
        self.release(fd.as_fd());
        drop(fd);
        self.descriptor_closed();
    }

    /// Makes the engine forget a descriptor that may have had ops, before the caller closes it or
    /// gives it away. None of its ops may be in flight. In a forked child it does nothing, because
    /// the engine is the parent's.
    pub(crate) fn release(&self, fd: BorrowedFd<'_>) {
        if !self.is_forked_copy() {
            self.submissions.forget(fd);
        }
    }

    /// Closes the descriptor of an end of a pipe before its object ends. None of its ops may be in
    /// flight, and none follows. Nobody may hold a borrow of it: pipes lend theirs to no user.
    #[allow(unsafe_code)]
    pub(crate) fn close_early(&self, fd: &ClosableFd) {
        self.release(fd.as_fd());
        // SAFETY: the caller promises that no borrow lives, and the one above has ended.
        drop(unsafe { fd.take() });
        self.descriptor_closed();
    }

    /// Runs `change` on a list of waiting futures, under its borrow. What `change` puts into the
    /// `Deferred` is woken and dropped when the borrow has ended, since it may call back.
    fn change_waiters(
        &self,
        waiters: &RefCell<Waiters>,
        change: impl FnOnce(&mut Waiters, &mut Deferred),
    ) {
        let mut deferred = Deferred::default();
        change(&mut waiters.borrow_mut(), &mut deferred);
        deferred.run();
    }

    /// Counts a close. Wakes the futures that waited for one, so that they try again.
    pub(crate) fn descriptor_closed(&self) {
        count(&self.descriptors.closed, 1);
        self.change_waiters(&self.descriptors.waiting, Waiters::wake);
    }

    /// How many descriptors this runtime has closed. A future whose call found no descriptor
    /// remembers the number. When it has changed, the future tries again.
    pub(crate) fn closed_descriptors(&self) -> u64 {
        self.descriptors.closed.get()
    }

    /// Registers the waker of `cx`, to be woken when a descriptor is closed. `id` names the future:
    /// it is `None` at first, and is set here. The caller keeps it for later calls and for
    /// [`stop_waiting_for_close`](Self::stop_waiting_for_close).
    pub(crate) fn wait_for_close(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>) {
        if self.descriptors.waiting.borrow().wants(*id, cx.waker()) {
            let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
            self.change_waiters(&self.descriptors.waiting, |waiting, deferred| {
                waiting.register(id, waker, deferred);
            });
        }
    }

    /// Drops the waker of the future `id`. No effect if it was woken, or never waited (`None`).
    pub(crate) fn stop_waiting_for_close(&self, id: Option<WaiterId>) {
        if id.is_some() {
            self.change_waiters(&self.descriptors.waiting, |waiting, deferred| {
                waiting.remove(id, deferred);
            });
        }
    }

    /// A call has failed with `errno`. If that is EMFILE or ENFILE, futures that can close a
    /// descriptor are woken. Any other errno has no effect.
    pub(crate) fn note_shortage(&self, errno: i32) {
        if matches!(errno, libc::EMFILE | libc::ENFILE) {
            count(&self.descriptors.shortages, 1);
            self.change_waiters(&self.descriptors.sparing, Waiters::wake);
        }
    }

    /// As [`note_shortage`](Self::note_shortage), of a system call around the engine.
    pub(crate) fn note_failure(&self, error: &io::Error) {
        self.note_shortage(error.raw_os_error().unwrap_or(0));
    }
}

/// A wait until a call fails for lack of a descriptor.
#[cfg(feature = "tls")]
pub(crate) struct UntilShortage<'a> {
    driver: &'a Driver,
    /// How many calls had failed when the wait began.
    before: u64,
    id: Option<WaiterId>,
}

#[cfg(feature = "tls")]
impl<'a> UntilShortage<'a> {
    /// Begins the wait. Calls that failed before do not count.
    pub(crate) fn new(driver: &'a Driver) -> Self {
        UntilShortage { driver, before: driver.descriptors.shortages.get(), id: None }
    }

    /// Ready: a call has failed for lack of a descriptor since [`new`](Self::new). Pending: the
    /// next such call wakes the waker of `cx`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let descriptors = &self.driver.descriptors;
        if descriptors.shortages.get() != self.before {
            return Poll::Ready(());
        }
        if descriptors.sparing.borrow().wants(self.id, cx.waker()) {
            let (waker, id) = (cx.waker().clone(), &mut self.id);
            self.driver.change_waiters(&descriptors.sparing, |sparing, deferred| {
                sparing.register(id, waker, deferred);
            });
        }
        // Cloning a waker runs foreign code, which may have met a shortage. So look again.
        if descriptors.shortages.get() != self.before { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(feature = "tls")]
impl Drop for UntilShortage<'_> {
    fn drop(&mut self) {
        let id = self.id;
        self.driver.change_waiters(&self.driver.descriptors.sparing, |sparing, deferred| {
            sparing.remove(id, deferred);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Wake, Waker};

    use super::super::{Backend, Settings};
    use super::*;

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn driver() -> Rc<Driver> {
        let driver = Driver::new(Settings::small(Backend::Epoll));
        driver.unwrap_or_else(|error| panic!("epoll does not start: {error}"))
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_shortage_wakes_each_future_that_can_spare_a_descriptor() {
        let driver = driver();
        let wakes = Arc::new(WakeCount::default());
        let waker = Waker::from(wakes.clone());
        let cx = &mut Context::from_waker(&waker);
        let [mut first, mut second] = [UntilShortage::new(&driver), UntilShortage::new(&driver)];
        assert!(first.poll(cx).is_pending() && second.poll(cx).is_pending());
        driver.note_shortage(libc::ECONNRESET);
        assert_eq!(wakes.0.load(Relaxed), 0, "another error is no shortage");
        drop(second);
        driver.note_shortage(libc::EMFILE);
        assert_eq!(wakes.0.load(Relaxed), 1, "the future that was dropped is not woken");
        assert!(first.poll(cx).is_ready());
        assert!(UntilShortage::new(&driver).poll(cx).is_pending(), "it begins after the shortage");
        driver.close();
    }

    #[test]
    fn a_closed_descriptor_wakes_each_future_that_found_none() {
        let driver = driver();
        let wakes = Arc::new(WakeCount::default());
        let waker = Waker::from(wakes.clone());
        let cx = &mut Context::from_waker(&waker);
        let (mut stays, mut goes) = (None, None);
        driver.wait_for_close(&mut stays, cx);
        driver.wait_for_close(&mut goes, cx);
        driver.stop_waiting_for_close(goes);
        let before = driver.closed_descriptors();
        driver.descriptor_closed();
        assert_eq!((driver.closed_descriptors() - before, wakes.0.load(Relaxed)), (1, 1));
        driver.descriptor_closed();
        assert_eq!(wakes.0.load(Relaxed), 1, "each wait is woken once");
        driver.close();
    }
}
