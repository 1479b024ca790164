//! The rows of closing over Unix sockets (SEMANTICS UX1): the same tests as in `main.rs`.

#[path = "../common/unix.rs"]
mod family;

include!("rows.rs");
