//! The send queue: whole buffers in order of their first polls. It knows which is next, how much of
//! each went out, and what the future of each is told.
//!
//! ```text
//!           push                    advance: all of it went out; or a failure
//! (future) ──────► Live, in line ────────────────────────────────────► Finished ──► collect
//!                    │ abandon: its future is gone, and a part may have gone out
//!                    ▼
//!                  Detached, in line ──────────────────────────────► (removed)
//! ```
//!
//! A connection sends from such a queue, and TLS encrypts from one. The entries in flight are
//! always the first in line, and the op has their payloads. If the kernel (for TLS: the peer) may
//! have seen a part of a buffer, the rest is committed and goes out too. So no message is cut short
//! (SEMANTICS G5).
//!
//! There is no I/O here. Read next: `transmit.rs`.

use std::io::IoSlice;
use std::task::Waker;

use crate::buf::Outgoing;
use crate::deferred::Deferred;
use crate::queue::{Key, Line};

/// `A` is what the future of a finished entry is told.
pub(crate) struct SendQueue<A> {
    line: Line<QueuedBuffer<A>>,
    /// Written bytes behind all entries. They are no entry yet, so that more can be added.
    written: Vec<u8>,
    totals: Totals,
}

struct QueuedBuffer<A> {
    /// `None` while an op has it.
    payload: Option<Outgoing>,
    len: usize,
    sent: usize,
    /// It counts as seen from the start ([`Fate::Committed`]).
    must_go_out: bool,
    state: BufferState<A>,
}

enum BufferState<A> {
    /// Its future is alive, or was forgotten.
    Live(Option<Waker>),
    /// No future will collect it: it was dropped, or there never was one.
    Detached,
    /// It is out of line, until its future collects it.
    Finished(A),
}

/// Bytes of the entries in line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    /// How many have not gone out.
    unsent: usize,
    /// How many of these have no future and are not in flight.
    detached: usize,
}

/// The payloads to send next: those of the first entries in line. Of the first payload, only the
/// bytes from `offset` on.
pub(crate) enum NextPayload {
    One { payload: Outgoing, offset: usize },
    Batch { payloads: Vec<Outgoing>, offset: usize },
}

/// A finished entry.
pub(crate) struct Collected<A, P = Outgoing> {
    pub(crate) sent: usize,
    pub(crate) answer: A,
    /// `None`: it is lost, because the engine has failed and the kernel may still read it.
    pub(crate) payload: Option<P>,
}

/// What becomes of a buffer whose future is gone before a byte of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Withdrawable,
    /// It goes out whole: a layer above can neither send it again nor leave it out.
    Committed,
}

/// What has become of an entry whose future is gone.
pub(crate) enum Abandoned<A> {
    /// A part of it may have gone out, so the rest follows.
    Committed,
    /// No byte of it went out, or it was finished, and then its answer is here.
    Removed(Option<A>),
}

impl<A> Default for SendQueue<A> {
    fn default() -> SendQueue<A> {
        SendQueue { line: Line::default(), written: Vec::new(), totals: Totals::default() }
    }
}

impl<A> Default for QueuedBuffer<A> {
    #[inline]
    fn default() -> QueuedBuffer<A> {
        QueuedBuffer {
            payload: None,
            len: 0,
            sent: 0,
            state: BufferState::Live(None),
            must_go_out: false,
        }
    }
}

impl<A> QueuedBuffer<A> {
    /// What the entry adds to the totals of the queue. A finished one adds nothing.
    #[inline]
    fn totals(&self) -> Totals {
        let unsent = self.len - self.sent;
        match (&self.state, &self.payload) {
            (BufferState::Finished(_), _) => Totals::default(),
            (BufferState::Detached, Some(_)) => Totals { unsent, detached: unsent },
            _ => Totals { unsent, detached: 0 },
        }
    }

    /// Whether a part of it may have been seen, so that the rest must go out.
    fn is_committed(&self) -> bool {
        self.sent > 0 || self.payload.is_none() || self.must_go_out
    }
}

impl<A: Copy> SendQueue<A> {
    // ---- what is in it ----------------------------------------------------------------------

    /// Whether everything is out, or has failed.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.written.is_empty() && self.line.front().is_none()
    }

    /// Whether bytes of [`write`](Self::write) are not an entry yet.
    pub(crate) fn has_written(&self) -> bool {
        !self.written.is_empty()
    }

    /// How many bytes have not gone out.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        self.written.len() + self.totals.unsent
    }

    /// How many bytes without a future wait behind the send in flight.
    #[inline]
    pub(crate) fn detached(&self) -> usize {
        self.written.len() + self.totals.detached
    }

    /// Whether one of the first `entries` must go out: a part of it is out, a layer above counts on
    /// it, or it has no future that could be told of a failure.
    pub(crate) fn is_any_committed(&self, entries: usize) -> bool {
        self.line.iter().take(entries).any(|entry| {
            entry.sent > 0 || entry.must_go_out || matches!(entry.state, BufferState::Detached)
        })
    }

    /// Changes an entry, and updates the totals. Gives the result of `change`; `None` if there is
    /// no entry `key`.
    #[inline]
    fn change<T>(&mut self, key: Key, change: impl FnOnce(&mut QueuedBuffer<A>) -> T) -> Option<T> {
        let entry = self.line.get_mut(key)?;
        let before = entry.totals();
        let result = change(entry);
        let after = entry.totals();
        self.totals.unsent = self.totals.unsent - before.unsent + after.unsent;
        self.totals.detached = self.totals.detached - before.detached + after.detached;
        Some(result)
    }

    // ---- in ---------------------------------------------------------------------------------

    /// Queues a buffer behind everything else. `waker`: whom the end of the entry wakes; without
    /// one, the future registers later. The future gives the key to `collect`, `abandon`, `detach`
    /// or `take_back` in the end.
    pub(crate) fn push(&mut self, payload: Outgoing, waker: Option<Waker>) -> Key {
        self.queue_written();
        let key = self.push_in_flight(payload.len(), waker);
        self.change(key, |entry| entry.payload = Some(payload));
        key
    }

    /// As [`push`](Self::push); `fate` says what becomes of the buffer if its future is gone early.
    pub(crate) fn push_as(&mut self, payload: Outgoing, waker: Option<Waker>, fate: Fate) -> Key {
        let key = self.push(payload, waker);
        self.change(key, |entry| entry.must_go_out = fate == Fate::Committed);
        key
    }

    /// Queues a buffer of `len` bytes that is in flight already: the op has its payload, and
    /// `give_back` puts it into the entry. No written bytes may wait.
    #[inline]
    pub(crate) fn push_in_flight(&mut self, len: usize, waker: Option<Waker>) -> Key {
        debug_assert!(!self.has_written(), "what was written comes first");
        let (key, entry) = self.line.push_default();
        (entry.len, entry.state) = (len, BufferState::Live(waker));
        self.totals.unsent += len;
        key
    }

    /// Queues bytes that no future will collect. Empty `bytes` do nothing.
    pub(crate) fn push_detached(&mut self, bytes: Vec<u8>) {
        self.queue_written();
        if !bytes.is_empty() {
            self.push_entry(bytes);
        }
    }

    /// Puts an entry without a future in line. `bytes` must not be empty.
    fn push_entry(&mut self, bytes: Vec<u8>) {
        let len = bytes.len();
        let (_, entry) = self.line.push_default();
        (entry.payload, entry.len) = (Some(Outgoing::one(bytes)), len);
        entry.state = BufferState::Detached;
        self.totals.unsent += len;
        self.totals.detached += len;
    }

    /// Adds a buffer that is out already, with its answer. It does not come in line; its future
    /// will collect it.
    pub(crate) fn push_finished(&mut self, len: usize, mut payload: Outgoing, answer: A) -> Key {
        payload.note_taken();
        let (key, entry) = self.line.push_default();
        (entry.payload, entry.len, entry.sent) = (Some(payload), len, len);
        entry.state = BufferState::Finished(answer);
        self.line.step_out(key);
        key
    }

    /// Copies bytes behind everything that is queued, until `max` bytes without a future wait.
    /// Gives how many were copied. They become an entry when the next entry is queued or sent.
    pub(crate) fn write(&mut self, bufs: &[IoSlice<'_>], max: usize) -> usize {
        let room = max.saturating_sub(self.detached());
        let total = bufs.iter().fold(0, |sum: usize, buf| sum.saturating_add(buf.len()));
        let taken = total.min(room);
        self.written.reserve(taken);
        let mut left = taken;
        for buf in bufs {
            let part = &buf[..buf.len().min(left)];
            self.written.extend_from_slice(part);
            left -= part.len();
        }
        taken
    }

    /// Makes an entry of the written bytes, if there are any.
    #[inline]
    pub(crate) fn queue_written(&mut self) {
        if !self.written.is_empty() {
            let bytes = std::mem::take(&mut self.written);
            self.push_entry(bytes);
        }
    }

    // ---- out --------------------------------------------------------------------------------

    /// Takes the payload of the first entry in line, and gives the offset of its first unsent byte.
    /// `None`: nothing is in line, or the payload was taken already. `give_back` ends this.
    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<(Outgoing, usize)> {
        let key = self.line.front()?;
        self.change(key, |entry| Some((entry.payload.take()?, entry.sent)))?
    }

    /// Takes the payloads of the first entries in line, at most `max` of them, for one op. Written
    /// bytes become an entry first. `None`: nothing is in line, or the first payload was taken
    /// already. `give_back` ends this.
    pub(crate) fn take_next(&mut self, max: usize) -> Option<NextPayload> {
        self.queue_written();
        let first = self.line.front()?;
        let (payload, offset) = self.take_first()?;
        let Some(second) = self.line.behind(first) else {
            return Some(NextPayload::One { payload, offset });
        };
        let mut payloads = vec![payload];
        let mut next = Some(second);
        while let Some(key) = next.filter(|_| payloads.len() < max) {
            next = self.line.behind(key);
            payloads.extend(self.change(key, |entry| entry.payload.take()).flatten());
        }
        Some(NextPayload::Batch { payloads, offset })
    }

    /// Puts payloads back into the first entries in line, in order, because their op has ended.
    /// Panics if there are more payloads than entries.
    pub(crate) fn give_back(&mut self, payloads: impl IntoIterator<Item = Outgoing>) {
        let mut next = self.line.front();
        for payload in payloads {
            let key = next.expect("an entry stays in line while it is being sent");
            next = self.line.behind(key);
            let replaced = self.change(key, |entry| entry.payload.replace(payload)).flatten();
            debug_assert!(replaced.is_none(), "a payload is given back once");
        }
    }

    /// The usual case of [`give_back`](Self::give_back) and [`advance`](Self::advance) in one step:
    /// one buffer with a future is in line, and its last `len` bytes went out. Gives the place for
    /// its payload. `None`: it is another case, and nothing was done.
    #[inline]
    pub(crate) fn complete_if_alone(
        &mut self,
        len: usize,
        answer: A,
        deferred: &mut Deferred,
    ) -> Option<&mut Option<Outgoing>> {
        let entry = self.line.step_out_if_alone(|entry| {
            matches!(entry.state, BufferState::Live(_)) && entry.sent + len == entry.len
        })?;
        if let BufferState::Live(Some(waker)) =
            std::mem::replace(&mut entry.state, BufferState::Finished(answer))
        {
            deferred.wake(waker);
        }
        entry.sent = entry.len;
        self.totals.unsent -= len;
        Some(&mut entry.payload)
    }

    /// `len` bytes of the first `entries` in line went out. Entries that are out completely are
    /// finished with an `answer()` each. Their payloads must be back.
    #[inline]
    pub(crate) fn advance(
        &mut self,
        entries: usize,
        mut len: usize,
        deferred: &mut Deferred,
        mut answer: impl FnMut() -> A,
    ) {
        for _ in 0..entries {
            let Some(key) = self.line.front() else { break };
            let is_out = self.change(key, |entry| {
                let more = len.min(entry.len - entry.sent);
                len -= more;
                entry.sent += more;
                if let Some(payload) = entry.payload.as_mut().filter(|_| entry.sent > 0) {
                    payload.note_taken();
                }
                entry.sent == entry.len
            });
            if is_out != Some(true) {
                break;
            }
            self.finish(key, answer(), deferred);
        }
        debug_assert_eq!(len, 0, "no more goes out than was handed over");
    }

    /// Ends the first `entries` in line (all, if there are fewer) with an `answer()` each, whatever
    /// went out of them.
    pub(crate) fn finish_first(
        &mut self,
        entries: usize,
        deferred: &mut Deferred,
        mut answer: impl FnMut() -> A,
    ) {
        for _ in 0..entries {
            let Some(key) = self.line.front() else { return };
            self.finish(key, answer(), deferred);
        }
    }

    /// Ends everything in line, and drops written bytes that are no entry yet.
    pub(crate) fn finish_all(&mut self, deferred: &mut Deferred, answer: impl FnMut() -> A) {
        self.written = Vec::new();
        self.finish_first(usize::MAX, deferred, answer);
    }

    /// Ends one entry and wakes its future. An entry without a future is removed.
    #[inline]
    fn finish(&mut self, key: Key, answer: A, deferred: &mut Deferred) {
        let waker = self.change(key, |entry| match &mut entry.state {
            BufferState::Live(waker) => {
                let waker = waker.take();
                entry.state = BufferState::Finished(answer);
                Some(waker)
            }
            BufferState::Detached | BufferState::Finished(_) => None,
        });
        match waker.flatten() {
            Some(waker) => {
                self.line.step_out(key);
                if let Some(waker) = waker {
                    deferred.wake(waker);
                }
            }
            None => self.remove(key, deferred),
        }
    }

    /// Removes the entry `key`, in whatever state, if it is there. Its payload and its waker go
    /// into `deferred`.
    fn remove(&mut self, key: Key, deferred: &mut Deferred) {
        if let Some(entry) = self.take_entry(key) {
            if let Some(payload) = entry.payload {
                deferred.discard(payload);
            }
            if let BufferState::Live(Some(waker)) = entry.state {
                deferred.discard(waker);
            }
        }
    }

    /// Takes the entry `key` out of the queue and its totals; `None` if it is not there.
    fn take_entry(&mut self, key: Key) -> Option<QueuedBuffer<A>> {
        let entry = self.line.remove(key)?;
        let totals = entry.totals();
        self.totals.unsent -= totals.unsent;
        self.totals.detached -= totals.detached;
        Some(entry)
    }

    // ---- a future and its entry -------------------------------------------------------------

    /// Whether the entry's future must call [`set_waker`](Self::set_waker) to be woken by `waker`.
    /// False also if the entry has no future, is finished, or is not there.
    pub(crate) fn wants(&self, key: Key, waker: &Waker) -> bool {
        match self.line.get(key).map(|entry| &entry.state) {
            Some(BufferState::Live(registered)) => {
                !registered.as_ref().is_some_and(|registered| registered.will_wake(waker))
            }
            _ => false,
        }
    }

    /// The end of the entry will wake `waker`. An entry that is finished wakes nothing any more:
    /// the caller asks `is_finished` afterwards. Panics if the entry is not there.
    pub(crate) fn set_waker(&mut self, key: Key, waker: Waker, deferred: &mut Deferred) {
        let entry = self.line.get_mut(key).expect("an entry stays until it is collected");
        let unneeded = match &mut entry.state {
            BufferState::Live(registered) => registered.replace(waker),
            BufferState::Detached | BufferState::Finished(_) => Some(waker),
        };
        if let Some(waker) = unneeded {
            deferred.discard(waker);
        }
    }

    /// Whether the first entry in line has a future, or had one that was forgotten.
    pub(crate) fn first_is_live(&self) -> bool {
        let first = self.line.front().and_then(|key| self.line.get(key));
        first.is_some_and(|first| matches!(first.state, BufferState::Live(_)))
    }

    /// Takes the waker of the first entry in line, because something else will wake its future.
    /// `None`: no waker is registered there.
    pub(crate) fn take_first_waker(&mut self) -> Option<Waker> {
        let key = self.line.front()?;
        match &mut self.line.get_mut(key)?.state {
            BufferState::Live(waker) => waker.take(),
            BufferState::Detached | BufferState::Finished(_) => None,
        }
    }

    /// Whether `collect` would give an answer.
    pub(crate) fn is_finished(&self, key: Key) -> bool {
        self.line.get(key).is_some_and(|entry| matches!(entry.state, BufferState::Finished(_)))
    }

    /// Removes the entry `key` and gives its answer and its payload, if it is finished. `None`, and
    /// no change: it is still under way, or not there.
    #[inline]
    pub(crate) fn collect(&mut self, key: Key) -> Option<Collected<A>> {
        self.collect_with(key, |payload| payload)
    }

    /// As [`collect`](Self::collect), with what `convert` makes of the payload. It must not run
    /// foreign code.
    #[inline]
    pub(crate) fn collect_with<P>(
        &mut self,
        key: Key,
        convert: impl FnOnce(Outgoing) -> P,
    ) -> Option<Collected<A, P>> {
        let entry = self.line.get_mut(key)?;
        let BufferState::Finished(answer) = entry.state else { return None };
        let (sent, payload) = (entry.sent, entry.payload.take().map(convert));
        self.line.drop_element(key); // an entry out of line is in no total
        Some(Collected { sent, answer, payload })
    }

    /// The future of an entry is gone before it took the answer. An entry that is committed stays
    /// and goes out. Otherwise it is removed: it was finished, or nothing of it will go out.
    pub(crate) fn abandon(&mut self, key: Key, deferred: &mut Deferred) -> Abandoned<A> {
        let Some(entry) = self.line.get(key) else { return Abandoned::Removed(None) };
        if entry.is_committed() && !matches!(entry.state, BufferState::Finished(_)) {
            self.detach(key, deferred);
            return Abandoned::Committed;
        }
        let entry = self.take_entry(key).expect("just looked");
        if let Some(payload) = entry.payload {
            deferred.discard(payload);
        }
        Abandoned::Removed(match entry.state {
            BufferState::Finished(answer) => Some(answer),
            BufferState::Live(waker) => {
                waker.into_iter().for_each(|waker| deferred.discard(waker));
                None
            }
            BufferState::Detached => None,
        })
    }

    /// The entry goes out, and no future will collect it. If it is finished already, it is removed.
    pub(crate) fn detach(&mut self, key: Key, deferred: &mut Deferred) {
        let was = self.change(key, |entry| match entry.state {
            BufferState::Finished(_) => None,
            _ => Some(std::mem::replace(&mut entry.state, BufferState::Detached)),
        });
        match was.flatten() {
            Some(BufferState::Live(Some(waker))) => deferred.discard(waker),
            Some(_) => {}
            None => self.remove(key, deferred),
        }
    }

    /// Whether the payload of the first entry in line was taken. False if nothing is in line.
    pub(crate) fn is_first_being_sent(&self) -> bool {
        self.line.front().is_some_and(|key| self.is_being_sent(key))
    }

    /// Whether the payload of the entry was taken.
    pub(crate) fn is_being_sent(&self, key: Key) -> bool {
        self.line.get(key).is_some_and(|entry| entry.payload.is_none())
    }

    /// Removes an entry whose future gives up, and returns its payload; `None` if there is none. If
    /// a part of it went out, the queue keeps a copy of the rest in the same place, and still sends
    /// it. No op may have the payload: with nothing sent, the entry would be removed under the op.
    /// The future's waker goes into `deferred`.
    pub(crate) fn take_back(&mut self, key: Key, deferred: &mut Deferred) -> Option<Outgoing> {
        let entry = self.line.get(key)?;
        if entry.sent == 0 || matches!(entry.state, BufferState::Finished(_)) {
            let mut entry = self.take_entry(key)?;
            if let BufferState::Live(Some(waker)) =
                std::mem::replace(&mut entry.state, BufferState::Detached)
            {
                deferred.discard(waker);
            }
            return entry.payload;
        }
        let payload = self.change(key, |entry| {
            let payload = entry.payload.take()?;
            let rest = payload.copy(entry.sent, usize::MAX);
            (entry.len, entry.sent) = (rest.len(), 0);
            entry.payload = Some(Outgoing::one(rest));
            Some(payload)
        });
        self.detach(key, deferred);
        payload.flatten()
    }

    /// Gives `send` the unsent bytes piece by piece, until it answers false. The entries stay as
    /// they are. No op may be in flight.
    pub(crate) fn for_each_piece(&mut self, mut send: impl FnMut(&[u8]) -> bool) {
        self.queue_written();
        for entry in self.line.iter() {
            let Some(payload) = &entry.payload else { return };
            let has_descriptors = entry.sent == 0 && !payload.descriptors().is_empty();
            if has_descriptors {
                return; // a plain send would lose them
            }
            if !payload.pieces(entry.sent).all(&mut send) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
