//! The queues of streams and listeners: what has arrived, what is to be sent, which futures wait.
//!
//! Most of ten thousand connections have at most one element in each of them. So both kinds keep
//! the first element in place and take memory on the heap for the second.
//!
//! - [`Fifo`]: elements without names, looked at from the front.
//! - [`Line`]: each element has a key, by which it is found and removed in constant time.
//! - [`Waiters`]: a line of wakers.
//!
//! No I/O. Read next: `line.rs`.

mod fifo;
mod line;
mod waiters;

pub(crate) use fifo::Fifo;
pub(crate) use line::{Key, Line};
pub(crate) use waiters::{WaiterId, Waiters};
