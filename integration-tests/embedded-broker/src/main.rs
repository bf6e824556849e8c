//! The embedded broker as a process of its own, for clients in any language.

mod args;

use std::io::Write as _;
use std::process::ExitCode;

use tokio::time::Instant;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let started = Instant::now();
    match Args::parse(std::env::args().skip(1)) {
        Ok(Command::Run(args)) => run(args, started),
        Ok(Command::Print(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rocketmq-embedded-broker: {error}\nTry --help.");
            ExitCode::from(2)
        }
    }
}

fn run(args: Args, started: Instant) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = runtime.and_then(|runtime| runtime.block_on(serve(args, started)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rocketmq-embedded-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args, started: Instant) -> std::io::Result<()> {
    // Before the ports: a signal that comes while starting must not be lost.
    let stop = Stop::listen()?;
    let broker = args.builder()?.start().await?;
    let (name_server, address) = (broker.name_server(), broker.broker_address());
    let took = started.elapsed().as_millis();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "ready name_server={name_server} broker={address} in {took} ms"
    )?;
    out.flush()?;
    stop.wait().await;
    broker.shutdown().await;
    Ok(())
}

#[cfg(unix)]
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stop {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Stop;

#[cfg(not(unix))]
impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn wait(self) {
        // Without a handler Ctrl-C ends the process as the system likes; there is nothing to clean up.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
