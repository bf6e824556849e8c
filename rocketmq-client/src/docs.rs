//! Chapters for reading.

#[doc = include_str!("docs/architecture.md")]
pub mod architecture {}

#[doc = include_str!("docs/cancellation.md")]
pub mod cancellation {}

#[doc = include_str!("docs/java_admin.md")]
pub mod java_admin {}

#[doc = include_str!("docs/java_consumer.md")]
pub mod java_consumer {}

#[doc = include_str!("docs/java_producer.md")]
pub mod java_producer {}

#[doc = include_str!("docs/sending.md")]
pub mod sending {}
