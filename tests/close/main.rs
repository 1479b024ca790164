//! Closing, halves, conversion (SEMANTICS section 4). Dropping a stream never waits and loses
//! nothing that it need not lose: the peer sees the end before this thread sleeps, behind every
//! byte that the kernel has. Halves end one direction each; conversions take every received byte
//! with them.

#[path = "../common/tcp.rs"]
mod family;

mod by_hand;
mod connects;
mod zero_linger;
mod lingering;

include!("rows.rs");
