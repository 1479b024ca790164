//! Descriptors that come with the bytes of a Unix socket (SEMANTICS UX5).
//!
//! Each is known by the place in the stream where it came. It is given when the bytes there have been
//! taken: by the call that takes them, or by a later one. Read next: `receive.rs`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use super::Connection;

/// The descriptors of one connection that no call has taken.
pub(super) struct DescriptorInbox {
    /// At most how many are kept.
    max: usize,
    /// How many bytes have come.
    received: usize,
    /// In order, with the number of bytes that came before.
    kept: VecDeque<(usize, OwnedFd)>,
    /// Some were closed since the last call that said so.
    is_any_lost: bool,
}

impl DescriptorInbox {
    /// At most how many descriptors can come with one receive.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// A receive has brought `len` bytes and these descriptors. `is_cut`: there were more.
    pub(super) fn arrived(&mut self, len: usize, descriptors: Vec<OwnedFd>, is_cut: bool) {
        let room = self.max - self.kept.len();
        self.is_any_lost |= is_cut || descriptors.len() > room;
        let at = self.received;
        self.kept.extend(descriptors.into_iter().take(room).map(|fd| (at, fd)));
        self.received += len;
    }
}

impl Connection {
    /// From now on at most `max` descriptors are kept that come. `Err`: receiving has begun.
    pub(crate) fn accept_descriptors(&self, max: usize) -> io::Result<()> {
        let receive = &mut *self.receive.borrow_mut();
        if !receive.is_untouched() {
            let text = "descriptors are accepted before the first receive";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let kept = VecDeque::new();
        let inbox = DescriptorInbox { max, received: 0, kept, is_any_lost: false };
        receive.inbox = Some(Box::new(inbox));
        Ok(())
    }

    /// Whether descriptors are kept that come.
    pub(crate) fn accepts_descriptors(&self) -> bool {
        self.receive.borrow().inbox.is_some()
    }

    /// Whether descriptors were received that no call has taken.
    pub(super) fn has_descriptors(&self) -> bool {
        self.receive.borrow().inbox.as_ref().is_some_and(|inbox| !inbox.kept.is_empty())
    }

    /// `Err`, once, if descriptors were closed since the last call.
    pub(crate) fn check_descriptors(&self) -> io::Result<()> {
        let receive = &mut *self.receive.borrow_mut();
        let inbox = receive.inbox.as_mut();
        match inbox.is_some_and(|inbox| std::mem::take(&mut inbox.is_any_lost)) {
            true => Err(io::Error::other(
                "more descriptors came than the stream keeps, or than the process may have: they \
                 are closed",
            )),
            false => Ok(()),
        }
    }

    /// Takes the descriptors of which the bytes have been taken, in order.
    pub(crate) fn take_descriptors(&self) -> Vec<OwnedFd> {
        let receive = &mut *self.receive.borrow_mut();
        let unread = receive.unread.available(usize::MAX);
        let Some(inbox) = &mut receive.inbox else { return Vec::new() };
        let taken = inbox.received.saturating_sub(unread);
        let count = inbox.kept.iter().take_while(|(at, _)| *at < taken).count();
        inbox.kept.drain(..count).map(|(_, fd)| fd).collect()
    }
}
