//! What a benchmark is asked to do, by environment variables.

use std::env;
use std::str::FromStr;

use crate::Failure;

/// The words of a list with commas between them.
///
/// # Errors
/// When one of them cannot be read.
pub fn list<T: FromStr<Err: Into<Failure>>>(name: &str, default: &str) -> Result<Vec<T>, Failure> {
    let text = env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',')
        .map(|word| word.trim().parse().map_err(Into::into))
        .collect()
}

/// A number.
///
/// # Errors
/// When it cannot be read.
pub fn number<T: FromStr<Err: Into<Failure>>>(name: &str, default: T) -> Result<T, Failure> {
    match env::var(name) {
        Ok(text) => text.parse().map_err(Into::into),
        Err(_) => Ok(default),
    }
}

/// Those that are installed; the others are printed and counted.
pub fn installed<T: Copy>(
    all: Vec<T>,
    name: impl Fn(T) -> &'static str,
    check: impl Fn(T) -> Result<(), Failure>,
) -> Vec<T> {
    let mut skipped = 0;
    let ready = all.into_iter().filter(|&one| match check(one) {
        Ok(()) => true,
        Err(reason) => {
            skipped += 1;
            println!("skip: {}: {reason}", name(one));
            false
        }
    });
    let ready = ready.collect();
    println!("{skipped} skipped");
    ready
}
