//! What users rely on, written once, run on the embedded broker and on real ones. See `integration_tests::scenario`.

mod administration;
mod brokering;
mod garbage;
mod interop;
mod raw;
