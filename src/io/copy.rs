//! What one stream brings goes to another one.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use super::receive::Receive;
use super::transmit::Transmit;
use crate::buf::{Return, Returning};

/// Sends all that `from` brings to `to`, up to its end, and returns how many bytes that were. No
/// byte is copied: each chunk is sent as it came. `to` is not shut down.
///
/// # Errors
/// Those of either. The chunk that could not be sent is first in line of `from` again.
/// # Cancel safety
/// No byte is lost: a chunk that was received is sent, or given back. A chunk that has begun goes on with
/// `to`, so it is lost if `to` is dropped too. To reconnect, let the copy fail by itself: it gives the
/// whole chunk back, of which the peer that is gone may have had a part.
/// # Examples
/// An echo:
/// ```
/// use tamam::io::copy;
/// use tamam::net::UnixStream;
///
/// # tamam::run(async {
/// let (client, server) = UnixStream::pair()?;
/// let echo = tamam::spawn(async move { copy(&server, &server).await });
/// client.send_all("hello").await?;
/// assert_eq!(client.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
/// client.shutdown().await?;
/// assert_eq!(echo.await??, 5);
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn copy<F, T>(from: &F, to: &T) -> io::Result<u64>
where
    F: Receive + ?Sized,
    T: Transmit + ?Sized,
{
    let copied = Cell::new(0);
    match pump(from, to, &copied).await {
        Ok(()) => Ok(copied.get()),
        Err(Failed::Receiving(error) | Failed::Sending(error)) => Err(error),
    }
}

enum Failed {
    Receiving(io::Error),
    Sending(io::Error),
}

/// As [`copy`]; the count is kept where others see it.
async fn pump<F, T>(from: &F, to: &T, copied: &Cell<u64>) -> Result<(), Failed>
where
    F: Receive + ?Sized,
    T: Transmit + ?Sized,
{
    while let Some(chunk) = from.recv().await.map_err(Failed::Receiving)? {
        let len = chunk.len() as u64;
        let (chunk, back) = Returning::new(chunk);
        // Dropped in this order: the send, which drops the chunk unless it is on its way out, and then
        // the guard, which gives a chunk that came back to its source.
        let _guard = GiveBack { source: from, back: &back };
        let sent = to.send_all(chunk).await;
        match sent {
            Ok(sent) => drop(sent.into_chunk()),
            Err(error) => {
                let (error, unsent) = error.into_parts();
                from.unread(unsent.into_chunk());
                return Err(Failed::Sending(error));
            }
        }
        copied.set(copied.get() + len);
    }
    Ok(())
}

/// A chunk that was received, and whose send is under way. If the send drops it, it is the source's
/// again.
struct GiveBack<'a, F: Receive + ?Sized> {
    source: &'a F,
    back: &'a Return,
}

impl<F: Receive + ?Sized> Drop for GiveBack<'_, F> {
    fn drop(&mut self) {
        if let Some(chunk) = self.back.take() {
            self.source.unread(chunk);
        }
    }
}

/// Which of two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first one.
    A,
    /// The second one.
    B,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::A => "the first side",
            Side::B => "the second side",
        })
    }
}

/// What [`copy_both`] has done, and why it has ended.
#[derive(Debug)]
pub struct Copied {
    /// How many bytes went from the first to the second.
    pub a_to_b: u64,
    /// How many bytes went from the second to the first.
    pub b_to_a: u64,
    /// `None`: both have finished. Else who has failed first, and why.
    pub failed: Option<(Side, io::Error)>,
}

/// Copies in both directions until both have ended, or one has failed: what a proxy does.
///
/// The end of one direction is passed on by [`shutdown`](Transmit::shutdown), and the other goes on.
/// A failure is passed on by [`abort_on_drop`](Transmit::abort_on_drop): when the caller drops the
/// streams, the other peer sees a reset, and takes nothing for an end that was none.
///
/// # Cancel safety
/// No byte is lost: a chunk that was received is sent, or given back.
/// # Examples
/// ```
/// use tamam::io::copy_both;
/// use tamam::net::UnixStream;
///
/// # tamam::run(async {
/// let (client, near) = UnixStream::pair()?;
/// let (far, server) = UnixStream::pair()?;
/// let proxy = tamam::spawn(async move { copy_both(&near, &far).await });
///
/// client.send_all("question").await?;
/// client.shutdown().await?;
/// assert_eq!(server.read_exact(Vec::with_capacity(8), 8).await?, b"question");
/// assert!(server.recv().await?.is_none());
/// server.send_all("answer").await?;
/// drop(server);
/// assert_eq!(client.read_exact(Vec::with_capacity(6), 6).await?, b"answer");
///
/// let copied = proxy.await?;
/// assert_eq!((copied.a_to_b, copied.b_to_a), (8, 6));
/// assert!(copied.failed.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn copy_both<A, B>(a: &A, b: &B) -> Copied
where
    A: Receive + Transmit + ?Sized,
    B: Receive + Transmit + ?Sized,
{
    let (a_to_b, b_to_a) = (Cell::new(0), Cell::new(0));
    let mut there = pin!(one_way(a, b, Side::A, &a_to_b));
    let mut back = pin!(one_way(b, a, Side::B, &b_to_a));
    let (mut there_is_over, mut back_is_over) = (false, false);
    let failed = poll_fn(|cx| {
        if !there_is_over {
            if let Poll::Ready(result) = there.as_mut().poll(cx) {
                there_is_over = true;
                if let Err(failed) = result {
                    return Poll::Ready(Some(failed));
                }
            }
        }
        if !back_is_over {
            if let Poll::Ready(result) = back.as_mut().poll(cx) {
                back_is_over = true;
                if let Err(failed) = result {
                    return Poll::Ready(Some(failed));
                }
            }
        }
        if there_is_over && back_is_over { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    match failed {
        Some((Side::A, _)) => b.abort_on_drop(),
        Some((Side::B, _)) => a.abort_on_drop(),
        None => {}
    }
    Copied { a_to_b: a_to_b.get(), b_to_a: b_to_a.get(), failed }
}

/// One direction, and its end. `Err` names the side that has failed; `from` is `side`.
async fn one_way<F, T>(
    from: &F,
    to: &T,
    side: Side,
    copied: &Cell<u64>,
) -> Result<(), (Side, io::Error)>
where
    F: Receive + ?Sized,
    T: Transmit + ?Sized,
{
    let other = if side == Side::A { Side::B } else { Side::A };
    match pump(from, to, copied).await {
        Ok(()) => {}
        Err(Failed::Receiving(error)) => return Err((side, error)),
        Err(Failed::Sending(error)) => return Err((other, error)),
    }
    match to.shutdown().await {
        // It was reset. The other direction says so, if there was more to come from it.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        Err(error) => Err((other, error)),
        Ok(()) => Ok(()),
    }
}
