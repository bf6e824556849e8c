//! Judges files of histories: see [`integration_tests::history`].
//!
//! `check-history [--ordered | --one-owner | --key-ordered] [--duplicates N] history.jsonl...`
//!
//! Prints the verdict and the outages of all files together and ends with 0 if nothing is wrong.

use std::{fs::File, process::ExitCode};

use integration_tests::{
    Failure,
    history::{History, Line, Progress, Verdict},
};

fn main() -> ExitCode {
    match judge(std::env::args().skip(1)) {
        Ok(()) => {
            println!("PASS");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("FAIL: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn judge(mut arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let history = History::new();
    let mut judge: fn(&Verdict) -> Result<(), Failure> = Verdict::complete;
    let mut duplicates = None;
    let mut files = 0;
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--ordered" => judge = Verdict::ordered,
            "--one-owner" => judge = Verdict::one_owner,
            "--key-ordered" => judge = Verdict::one_handler_for_each_key,
            "--duplicates" => {
                let number = arguments.next().ok_or("--duplicates has no value")?;
                duplicates = Some(number.parse()?);
            }
            unknown if unknown.starts_with("--") => return Err(format!("{unknown} is no option").into()),
            path => {
                let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
                let lines = Line::read_all(file).map_err(|error| format!("{path}: {error}"))?;
                lines.into_iter().for_each(|line| history.push(line));
                files += 1;
            }
        }
    }
    if files == 0 {
        return Err("no file of a history is named".into());
    }
    let verdict = history.check();
    println!(
        "{} acknowledged, {} handled",
        history.acknowledged(),
        history.handled()
    );
    println!("{verdict:#}");
    println!("sends: {}", history.outages(Progress::Sends));
    println!("handlers: {}", history.outages(Progress::Handled));
    if history.acknowledged() == 0 {
        return Err("nothing was acknowledged: this proves nothing".into());
    }
    judge(&verdict)?;
    duplicates.map_or(Ok(()), |duplicates| verdict.at_most(duplicates))
}
