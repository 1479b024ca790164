//! After `shutdown` and the drop of a TLS stream, the socket waits a little for the peer.
//!
//! A peer may have sent bytes that this end never received. Session tickets are an example: TLS 1.3
//! servers send them unasked. If the socket is closed before they arrive, TCP sends a reset, and
//! the peer loses what it had not read yet. So the socket stays open until the peer has finished
//! too: for at most [`TIME`], for at most [`LEN`] bytes, and not in a shortage of descriptors
//! (SEMANTICS TL22).
//!
//! How `close_notify` is sent is not here. Read next: `outbound.rs`.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::session::Session;
use crate::context;
use crate::driver::UntilShortage;
use crate::io::Duplex;
use crate::stream::{Bottom, Carrier, Source, drain};
use crate::time::timeout;

/// How long a dropped stream waits for its peer.
const TIME: Duration = Duration::from_secs(1);
/// How many bytes from its peer it discards.
const LEN: usize = 64 * 1024;

/// A handle of the session is about to be dropped. If it is the last one, and the stream was shut
/// down, and the peer has not finished, this spawns the task that waits. Otherwise, or away from
/// home, it does nothing, and the socket closes with the session.
pub(super) fn release<S: Duplex>(session: &Rc<Session<S>>) {
    // The pump has only a weak reference, and futures borrow a handle.
    let is_last = Rc::strong_count(session) == 1;
    if !is_last || !session.has_closed() || session.has_ended() {
        return;
    }
    if !session.is_home() {
        return; // no task can wait
    }
    let Some(handle) = context::handle_of(session.home()) else { return };
    // Ciphertext was discarded when the receiving half was dropped: what follows cannot be
    // decrypted.
    let has_gap = session.bottom().receive_again();
    drop(handle.executor.spawn(linger(session.clone(), has_gap)));
}

/// Waits for the peer's `close_notify`, or for the EOF below if the ciphertext has a gap.
async fn linger<S: Duplex>(session: Rc<Session<S>>, has_gap: bool) {
    let mut until_short = UntilShortage::new(session.home());
    let mut drained = pin!(timeout(TIME, async {
        match has_gap {
            true => session.drain_bottom(LEN).await,
            false => drain(&session, LEN).await,
        }
    }));
    poll_fn(|cx| match until_short.poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => drained.as_mut().poll(cx).map(|_| ()),
    })
    .await;
}
