//! Scenarios, benchmarks, and what both need.

pub mod report;
