//! Starts the broker of [`integration_tests::instant`] on a free loopback port, says `ready name_server=<address>` and
//! serves until its standard input ends.

use std::io::Read;
use std::net::TcpListener;
use std::{process, thread};

use integration_tests::{Failure, instant};

fn main() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("ready name_server={}", listener.local_addr()?);
    thread::spawn(|| {
        let mut rest = Vec::new();
        let ended = std::io::stdin().read_to_end(&mut rest);
        process::exit(i32::from(ended.is_err()));
    });
    instant::serve(&listener)
}
