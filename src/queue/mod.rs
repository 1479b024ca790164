//! The queues of streams and listeners: unread bytes, buffers to send, futures that wait.
//!
//! Most connections have at most one element in each queue. So each queue stores its first element
//! in place, and allocates memory for the second.
//!
//! - [`Fifo`]: elements without keys, taken from the front.
//! - [`Line`]: each element has a key, which finds and removes it in constant time.
//! - [`Waiters`]: a line of wakers.
//!
//! There is no I/O here. Read next: `line.rs`.

mod fifo;
mod line;
mod waiters;

pub(crate) use fifo::Fifo;
pub(crate) use line::{Key, Line};
pub(crate) use waiters::{WaiterId, Waiters};
