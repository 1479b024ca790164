//! Polls a socket without a future: for callers that implement the traits of others.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::read::FOUND;
use super::{Datagram, DatagramAddr, DatagramSocket};
use crate::context;
use crate::queue::WaiterId;
use crate::sys;

impl<A: DatagramAddr> DatagramSocket<A> {
    /// As `recv`, for a caller without a future. Its waker replaces that of the last such caller.
    pub(crate) fn poll_recv(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Datagram<A>>> {
        ready!(self.poll_arrival(&mut Some(WaiterId::Poller), cx))?;
        Poll::Ready(self.take().expect(FOUND))
    }

    /// Waits until a datagram can be sent, or an error be told. `id` is the caller's name among
    /// those who wait, `None` at first.
    pub(crate) fn poll_send_ready(
        self: &Rc<Self>,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let has_room = || {
            let departures = self.departures.borrow();
            departures.is_idle() && !departures.room.is_refused() && sys::is_writable(self.fd())
        };
        if has_room() {
            return context::consume_budget(cx).map(Ok);
        }
        ready!(context::poll_home(&self.home, cx))?;
        if self.departures.borrow().waiters.wants(*id, cx.waker()) {
            let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
            self.departing(|departures, deferred| {
                departures.waiters.register(id, waker, deferred);
            });
        }
        // Cloning a waker runs foreign code, which may have sent everything. So it is asked only now.
        if self.await_room() {
            return context::consume_budget(cx).map(Ok);
        }
        Poll::Pending
    }

    /// A caller that waits for room, with this name, does so no more.
    #[cfg(feature = "quinn")]
    pub(crate) fn stop_waiting_for_room(&self, id: Option<WaiterId>) {
        if id.is_some() {
            self.departing(|departures, deferred| departures.waiters.remove(id, deferred));
        }
    }

    /// Takes the next datagram, if one was received already. An error is left for the next call.
    #[cfg(feature = "quinn")]
    pub(crate) fn take_datagram(&self) -> Option<Datagram<A>> {
        let has_datagram = self.arrivals.borrow().first().is_some();
        has_datagram.then(|| self.take()?.ok()).flatten()
    }

    /// Whether the kernel divides what is sent into datagrams.
    #[cfg(feature = "quinn")]
    pub(crate) fn divides(&self) -> bool {
        let offload = self.departures.borrow_mut().offload(self.fd(), &self.home);
        offload == super::transmit::Offload::Kernel
    }
}
