//! The comprehensive sample: a supplier of numbers, a function that squares them, a consumer of squares.
//!
//! Everything about topics, groups and the name server is in `application.yml`. Without a name server an
//! embedded broker runs in this process; `NAMESRV_ADDR=host:port` joins a real cluster.

mod arguments;
mod histogram;
mod records;
mod report;
mod tally;

use std::{process::ExitCode, sync::Arc, time::Duration};

use arguments::Arguments;
use records::Records;
use report::Console;
use serde::Serialize;
use serde_json::Number;
use stream_binder::{
    App, BoxError, Config, Failure, Headers, Json, Message, Payload, RunningApp, ShutdownSignals, State,
    Text, consumer, function, supplier,
};
use tally::{CountFailures, Tally};
use tokio::{runtime::Runtime, time::timeout};

/// The configuration unless `--config` names another.
const APPLICATION_YML: &str = include_str!("application.yml");
/// How long nothing may arrive at the end of a run before the rest is given up.
const STALLED: Duration = Duration::from_secs(60);
/// How long a run that was interrupted waits for what is on its way.
const DRAIN: Duration = Duration::from_secs(5);

/// Supplies the next record, or nothing while enough are on their way.
#[supplier]
async fn producer(
    State(records): State<Arc<Records>>,
    State(tally): State<Arc<Tally>>,
    State(console): State<Console>,
) -> Option<Message> {
    if !tally.has_room() {
        return None;
    }
    let record = tokio::select! {
        record = records.next(&console, &tally) => record,
        () = tally.all_sent() => return None, // somebody at the keyboard may never enter another line
    };
    let Some(record) = record else {
        tally.no_more();
        return None;
    };
    console.flow("producer ", &record);
    let message = Message::new(record).content_type("application/json");
    // Outputs inherit this header from inputs, so it reaches the consumer.
    Some(message.header("correlationId", tally.departure()))
}

/// Squares a number. What is no number is dead-lettered.
#[function]
async fn processor(
    Payload(n): Payload<Number>,
    State(console): State<Console>,
) -> Result<Json<Square>, Failure> {
    let square =
        Square::of(&n).ok_or_else(|| Failure::reject(format!("the square of {n} is out of range")))?;
    console.flow("processor", format_args!("{n} -> {square}"));
    Ok(Json(square))
}

/// Counts a square that came all the way.
#[consumer]
async fn consumer(
    Text(square): Text,
    headers: Headers,
    State(tally): State<Arc<Tally>>,
    State(console): State<Console>,
) {
    if tally.arrival(headers.get("correlationId")) {
        console.flow("consumer ", square);
    }
}

/// A square of an integer is an integer, whatever its size.
#[derive(Serialize)]
#[serde(untagged)]
enum Square {
    Integer(u128),
    Float(f64),
}

impl Square {
    fn of(n: &Number) -> Option<Self> {
        let integer = n
            .as_u64()
            .or_else(|| n.as_i64().map(i64::unsigned_abs))
            .map(u128::from);
        match integer {
            Some(integer) => integer.checked_mul(integer).map(Self::Integer),
            None => n
                .as_f64()
                .map(|float| float * float)
                .filter(|square| square.is_finite())
                .map(Self::Float),
        }
    }
}

impl std::fmt::Display for Square {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(square) => square.fmt(f),
            Self::Float(square) => square.fmt(f),
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(exit) => return exit.report(),
    };
    report::start_log();
    let result = Runtime::new().map_err(BoxError::from).and_then(|runtime| {
        let result = runtime.block_on(run(arguments));
        // Not dropped: that would wait for a read from standard input to end.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::error(&*error);
            ExitCode::FAILURE
        }
    }
}

/// Says whether everything that was sent was received.
async fn run(arguments: Arguments) -> Result<bool, BoxError> {
    let records = Arc::new(Records::open(arguments.input.as_deref(), arguments.count).await?);
    let tally = Arc::new(Tally::new());
    let console = Console::default();
    let app = App::new(config(&arguments)?)
        .state(records)
        .state(Arc::clone(&tally))
        .state(console.clone())
        .layer(CountFailures::new(Arc::clone(&tally)));
    let mut signals = ShutdownSignals::listen()?;
    let running = app.start().await?;
    if until_done(&running, &tally, &console, &mut signals).await? {
        tokio::select! {
            _report = running.shutdown() => {}
            signal = signals.next() => signal?,
        }
    }
    let summary = tally.summary();
    console.summary(&summary, arguments.json);
    Ok(summary.is_complete())
}

fn config(arguments: &Arguments) -> Result<Config, BoxError> {
    let mut builder = Config::builder().environment(std::env::vars_os());
    builder = match &arguments.config {
        Some(file) => builder.file(file),
        None => builder.named_yaml("application.yml", APPLICATION_YML),
    };
    if arguments.is_bounded() && arguments.config.is_none() {
        // A run with an end goes as fast as it can; one without is to be watched.
        let poller = "spring.cloud.stream.bindings.producer-out-0.producer.poller";
        builder = builder.set(format!("{poller}.fixed-delay"), "1ms");
        builder = builder.set(format!("{poller}.max-messages-per-poll"), "1000");
    }
    Ok(builder.load()?)
}

/// Waits until everything went through, a signal came, or nothing moves any more. Says whether there is time to
/// stop in order.
async fn until_done(
    running: &RunningApp,
    tally: &Tally,
    console: &Console,
    signals: &mut ShutdownSignals,
) -> Result<bool, BoxError> {
    tokio::select! {
        () = tally.finished(STALLED) => return Ok(true),
        signal = signals.next() => signal?,
    }
    console.note("stopping; press Ctrl-C again to stop at once");
    running.pause("producer-out-0");
    tally.no_more();
    tokio::select! {
        _ = timeout(DRAIN, tally.finished(DRAIN)) => Ok(true),
        signal = signals.next() => signal.map(|()| false).map_err(Into::into),
    }
}
