//! The programs are in `src/bin`, one for each thing a user wants to do.
//!
//! The README's code is compiled and run from here, so it cannot go stale.

#[doc = include_str!("../../README.md")]
mod readme {}
