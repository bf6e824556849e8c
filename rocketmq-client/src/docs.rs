//! Chapters for reading.

#[doc = include_str!("docs/architecture.md")]
pub mod architecture {}

#[doc = include_str!("docs/cancellation.md")]
pub mod cancellation {}
