//! Sends that find no room, of a family whose datagrams are never thrown away. A full receiver
//! pushes back on its senders, each of which keeps what it could not send.
//!
//! ```text
//!  the first in line   ── the kernel takes it ──► it is out; the next one
//!                      ── EAGAIN ── it goes to the peer ───► a poll, until the socket has room
//!                               └── it goes elsewhere ─────► a pause of 1, 2, 4 … 50 ms
//! ```
//!
//! The kernel's poll looks at the socket's own buffer and at the receiver of its peer, and at no
//! other receiver. So there is no event for a datagram with an address. No send is an op here: without
//! an event the ring hands it to a thread of the kernel, which waits.
//!
//! The queue is in `transmit.rs`: read that next.

use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::transmit::{DatagramFlight, Departures, Outcome};
use super::{DatagramAddr, DatagramSocket};
use crate::context;
use crate::deferred::Deferred;
use crate::driver::{Role, Submitted};
use crate::executor::AbortHandle;
use crate::ops;
use crate::queue::Key;
use crate::sys;
use crate::time::sleep;

/// The first and the longest pause before another try. Each is twice as long as the one before.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How often the first in line is tried at once, when poll(2) says that there is room and the send that
/// there is none.
const TRIES: u32 = 8;

/// What is known of the room for datagrams.
pub(super) struct Room {
    /// The first in line, if it has found no room and something will tell of some.
    awaited_by: Option<Key>,
    /// A `try_send` has found no room, and only a pause can tell of some.
    is_refused: bool,
    next_pause: Duration,
    /// The task that pauses.
    pausing: Option<AbortHandle>,
}

impl Room {
    pub(super) fn new() -> Room {
        Room { awaited_by: None, is_refused: false, next_pause: PAUSE.0, pausing: None }
    }

    /// Whether poll(2) may say that there is room, while there is none.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// An entry is out of line. Its key may be that of another one soon.
    pub(super) fn forget(&mut self, key: Key) {
        self.awaited_by.take_if(|awaiting| *awaiting == key);
    }

    /// The poll has ended: the first in line is to be tried again.
    pub(super) fn note_event(&mut self) {
        self.awaited_by = None;
    }

    /// A datagram without a place in the line was offered to the kernel.
    pub(super) fn note_try(&mut self, result: &io::Result<usize>, is_addressed: bool) {
        match result {
            Ok(_) => (self.is_refused, self.next_pause) = (false, PAUSE.0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_refused = is_addressed;
            }
            Err(_) => {}
        }
    }

    /// Ends the pause.
    pub(super) fn stop(&mut self) {
        self.pausing.take().into_iter().for_each(|task| task.abort());
    }
}

impl<A: DatagramAddr> DatagramSocket<A> {
    /// Offers the datagrams in line to the kernel, until there is no room. Nothing happens while the
    /// first one waits for some.
    pub(super) fn send_in_line(
        self: &Rc<Self>,
        departures: &mut Departures<A>,
        deferred: &mut Deferred,
    ) {
        let mut tries = TRIES;
        while let Some(key) = departures.queue.front() {
            if departures.room.awaited_by == Some(key) || self.home.is_forked_copy() {
                return;
            }
            self.home.count_call();
            let outcome = match departures.send_front(self.fd()) {
                Ok(()) => Outcome::Sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if tries > 0 && self.has_room_again(departures, key) {
                        tries -= 1;
                        continue;
                    }
                    return self.await_room_for(departures, key);
                }
                Err(error) => Outcome::Failed(error.raw_os_error().unwrap_or(libc::EIO)),
            };
            departures.room.next_pause = PAUSE.0;
            departures.finish(key, outcome, deferred);
            departures.waiters.wake(deferred);
        }
    }

    /// Whether there is room by now for the first in line, which has found none: another thread has
    /// received meanwhile. If there is none and an event tells of it, that is waited for from now on.
    fn has_room_again(self: &Rc<Self>, departures: &mut Departures<A>, key: Key) -> bool {
        let entry = departures.queue.get(key).expect("it is in line");
        if !entry.goes_to_peer() || departures.flight != DatagramFlight::Idle {
            return false;
        }
        if sys::is_writable(self.fd()) {
            return true;
        }
        match self.home.submit(ops::poll::writable(self.fd()), self.clone(), Role::Send) {
            Submitted::InFlight(token) => {
                departures.flight = DatagramFlight::AwaitingRoom(token);
                false
            }
            Submitted::Answered(done, _) => done.result().is_ok(),
        }
    }

    /// Makes sure that the first in line, which has found no room, is tried again: by the poll in
    /// flight, or after a pause.
    fn await_room_for(self: &Rc<Self>, departures: &mut Departures<A>, key: Key) {
        let entry = departures.queue.get(key).expect("it is in line");
        let is_polled = entry.goes_to_peer() && departures.flight != DatagramFlight::Idle;
        if is_polled || self.pause(departures) {
            departures.room.awaited_by = Some(key);
        }
    }

    /// Begins a pause, if there is none. False: the runtime is not entered on this thread. Then the
    /// next poll of a future at home comes here again.
    pub(super) fn pause(self: &Rc<Self>, departures: &mut Departures<A>) -> bool {
        let room = &mut departures.room;
        if room.pausing.is_none() {
            let Some(handle) = context::handle_of(&self.home) else { return false };
            let paused = paused(Rc::downgrade(self), room.next_pause);
            room.pausing = Some(handle.executor.spawn(paused).abort_handle());
            room.next_pause = (room.next_pause * 2).min(PAUSE.1);
        }
        true
    }

    /// The pause is over: tries again.
    fn end_pause(self: &Rc<Self>) {
        self.departing(|departures, deferred| {
            (departures.room.pausing, departures.room.is_refused) = (None, false);
            departures.room.awaited_by = None;
            departures.waiters.wake(deferred);
            self.send_next(departures, deferred);
        });
    }
}

/// The task of a pause. It keeps no socket.
async fn paused<A: DatagramAddr>(socket: Weak<DatagramSocket<A>>, pause: Duration) {
    sleep(pause).await;
    if let Some(socket) = socket.upgrade() {
        socket.end_pause();
    }
}
