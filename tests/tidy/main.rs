//! What the compiler does not check: layers, unsafe code, the shape of files and types, a test for each
//! row of the contract, what the docs have, and what has no place in this repository.
//!
//! Each failure names a file and a line and says what to do. The tables below are meant to be edited,
//! in the change that makes them wrong.

mod layers;
mod unsafety;
mod shape;
mod contract;
mod documentation;
mod futures;
mod repository;
mod reader;
