//! What is below all layers, where futures wait. Read next: `layer.rs`.

use std::io;
use std::task::{Context, Poll};

use super::Connection;
use super::transmit::Flight;
use crate::context;
use crate::queue::WaiterId;

/// What is below all layers: a connection, or one end of a stream in memory. Whoever waits for a
/// layer waits here, where bytes arrive and go out.
pub(crate) trait Bottom {
    /// `Ready(Ok)` if the caller may wait here. If not, takes a unit of the task's budget and gives
    /// `Ready(Err)`; `Pending` if no unit is left: the task is woken and asks again.
    fn poll_home(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The next arrival will wake the future `id`, which is `None` at first and gets its name here.
    /// The caller looks again afterwards: bytes may have arrived meanwhile, because cloning a waker
    /// runs foreign code.
    fn wait_for_arrival(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>);

    /// Ends the wait for an arrival of the future `id`.
    fn stop_waiting_for_arrival(&self, id: Option<WaiterId>);

    /// Wakes every future that receives, so that it looks again.
    fn wake_receivers(&self);

    /// Ends the receive that may write to a buffer that was lent: the buffer can be taken back.
    fn recall_buffer(&self);

    /// No handle receives any more: what is unread, and what still comes, is discarded.
    fn end_receive(&self);

    /// Opens receiving again after [`end_receive`](Self::end_receive), to wait for EOF. True: bytes
    /// that came in between may have been discarded. False, and no change: receiving has not ended.
    fn receive_again(&self) -> bool;

    /// Registers a caller that waits until bytes have gone out: the next progress wakes it, or this
    /// does if nothing is under way. `id` is `None` at first and gets its name here; the caller
    /// gives it to [`stop_waiting_for_progress`](Self::stop_waiting_for_progress) in the end.
    fn wait_for_progress(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>);

    /// Ends the wait of the caller `id`. With `None` it does nothing.
    fn stop_waiting_for_progress(&self, id: Option<WaiterId>);

    /// Wakes every caller that waits for progress, so that it looks at the layer above.
    fn wake_senders(&self);
}

impl Bottom for Connection {
    #[inline]
    fn poll_home(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        context::poll_home(&self.home, cx)
    }

    fn wait_for_arrival(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>) {
        if self.receive.borrow().waiters.wants(*id, cx.waker()) {
            let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
            self.receiving(|receive, deferred| receive.waiters.register(id, waker, deferred));
        }
    }

    /// If it lent its buffer to the receive in flight, and no other future waits, the receive is
    /// stopped.
    #[inline]
    fn stop_waiting_for_arrival(&self, id: Option<WaiterId>) {
        self.remove_receiver(id);
    }

    fn wake_receivers(&self) {
        self.receiving(|receive, deferred| receive.waiters.wake(deferred));
    }

    fn recall_buffer(&self) {
        self.cancel_receive_and_wait();
    }

    fn end_receive(&self) {
        Connection::end_receive(self);
    }

    fn receive_again(&self) -> bool {
        if !self.receive.borrow().is_closed() {
            return false;
        }
        self.cancel_receive_and_wait();
        self.receiving(|receive, _| receive.reopen());
        true
    }

    fn wait_for_progress(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>) {
        if self.transmit.borrow().waiters.wants(*id, cx.waker()) {
            let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
            let is_late = self.sending(|transmit, deferred| {
                transmit.waiters.register(id, waker, deferred);
                transmit.flight == Flight::Idle
            });
            if is_late {
                cx.waker().wake_by_ref(); // the clone of the waker ran foreign code, which has sent everything
            }
        }
    }

    fn stop_waiting_for_progress(&self, id: Option<WaiterId>) {
        if id.is_some() {
            self.sending(|transmit, deferred| transmit.waiters.remove(id, deferred));
        }
    }

    fn wake_senders(&self) {
        self.sending(|transmit, deferred| transmit.waiters.wake(deferred));
    }
}
