//! Sends numbered messages and prints a JSON line for the begin and the end of each: see
//! [`integration_tests::verifiable`].

use std::process::ExitCode;

use integration_tests::verifiable::{exit, produce};

fn main() -> ExitCode {
    exit(produce(std::env::args().skip(1)))
}
