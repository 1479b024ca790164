//! What the compiler does not check: layers, unsafe code, the docs of ops, a test for each row of the
//! contract, and what has no place in this repository.
//!
//! Each failure names a file and a line and says what to do. The tables below are meant to be edited,
//! in the change that makes them wrong.

mod layers;
mod unsafety;
mod contract;
mod documentation;
mod repository;
mod reader;
