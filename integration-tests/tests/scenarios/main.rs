//! What users rely on, written once, run on the embedded broker and on real ones. See `integration_tests::scenario`.

mod administration;
mod binding;
mod brokering;
mod conformance;
mod consuming;
mod discovery;
mod faults;
mod garbage;
mod grouping;
mod inbox;
mod interop;
mod naming;
mod raw;
mod samples;
mod security;
mod sending;
mod tracing;
