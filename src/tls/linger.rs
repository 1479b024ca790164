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
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::session::Session;
use crate::context;
use crate::driver::UntilShortage;
use crate::stream::RecvChunk;
use crate::time::timeout;

/// How long a dropped stream waits for its peer.
const TIME: Duration = Duration::from_secs(1);
/// How many bytes from its peer it discards.
const LEN: usize = 64 * 1024;

/// A handle of the session is dropped.
pub(super) fn release(session: &Rc<Session>) {
    // The pump has only a weak reference, and futures borrow a handle.
    let is_last = Rc::strong_count(session) == 1;
    if !is_last || !session.has_closed() || session.has_ended() {
        return;
    }
    let connection = session.tcp().connection();
    if !connection.is_home() {
        return; // no task can wait
    }
    let Some(handle) = context::handle_of(connection.home()) else { return };
    connection.receive_again();
    drop(handle.executor.spawn(linger(session.clone())));
}

async fn linger(session: Rc<Session>) {
    let mut until_short = UntilShortage::new(session.tcp().connection().home());
    let mut drained = pin!(timeout(TIME, drain(&session, LEN)));
    poll_fn(|cx| match until_short.poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => drained.as_mut().poll(cx).map(|_| ()),
    })
    .await;
}

/// Receives until the peer has finished, and discards the bytes: at most `max`.
pub(super) async fn drain(session: &Rc<Session>, max: usize) -> io::Result<()> {
    let mut len = 0;
    while let Some(chunk) = RecvChunk::new(session).await? {
        len += chunk.len();
        if len > max {
            break;
        }
    }
    Ok(())
}
