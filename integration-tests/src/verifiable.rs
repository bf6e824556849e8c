//! Programs that send and consume and print one JSON line for each thing they do, for runs in which processes are killed.
//!
//! `verifiable-producer` and `verifiable-consumer` are the two programs; their lines are those of
//! [`history`](crate::history), their options are listed by `--help`. [`Program`] starts one from a scenario and gathers
//! its lines; `check-history` judges files of them. What a program says is written before it goes on, so a line tells
//! what was done even if the process is killed right after it.

mod arguments;
mod behaviour;
mod consumer;
mod producer;
mod program;
mod recorder;

pub use arguments::{Arguments, Flag};
pub use consumer::consume;
pub use producer::produce;
pub use program::Program;

use std::{
    future::Future,
    io::Read,
    process::{self, ExitCode},
    thread,
};

use crate::Failure;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a program's main function on a runtime of its own. It ends with its standard input, so that it never outlives
/// the process that started it.
///
/// # Errors
/// What the function fails with.
pub fn run(
    threads: usize,
    main: impl Future<Output = Result<(), Failure>> + Send + 'static,
) -> Result<(), Failure> {
    thread::spawn(|| {
        // Nobody writes there: whatever ends this read, the one who started the program is gone.
        let _ = std::io::stdin().read(&mut [0; 1]);
        process::exit(3);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    let mut tasks = tokio::task::JoinSet::new();
    // On a worker, where an application's code is, too.
    tasks.spawn_on(main, runtime.handle());
    runtime.block_on(async {
        match tasks.join_next().await {
            Some(ended) => ended?,
            None => Ok(()),
        }
    })
}

/// The end of a program: its error is printed as text.
#[must_use]
pub fn exit(ended: Result<(), Failure>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Waits for SIGTERM.
///
/// # Errors
/// When signals cannot be handled.
async fn terminated() -> Result<(), Failure> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}
