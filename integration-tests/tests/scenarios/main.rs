//! What users rely on, written once, run on the embedded broker and on real ones. See `integration_tests::scenario`.

mod administration;
mod batching;
mod binding;
mod brokering;
mod compressing;
mod conformance;
mod consuming;
mod delaying;
mod discovery;
mod faults;
mod garbage;
mod grouping;
mod inbox;
mod intercepting;
mod interop;
mod naming;
mod raw;
mod requesting;
mod samples;
mod security;
mod selecting;
mod sending;
mod tracing;
mod transacting;
