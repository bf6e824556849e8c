//! Consumes numbered messages and prints a JSON line for the begin and the end of each handler: see
//! [`integration_tests::verifiable`].

use std::process::ExitCode;

use integration_tests::verifiable::{consume, exit};

fn main() -> ExitCode {
    exit(consume(std::env::args().skip(1)))
}
