//! The command line.

use std::{path::PathBuf, process::ExitCode};

const USAGE: &str = "\
Numbers go producer -> processor (squares them) -> consumer, over RocketMQ.

Usage: comprehensive [OPTIONS]

Options:
  --count N      end after N records went all the way through
  --input FILE   send the records of FILE, one JSON value per line (- is standard input),
                 instead of 0, 1, 2, ..; end after the last one
  --config FILE  use this application.yml instead of the built-in one
  --json         end with one line of JSON: sent, received, failed, mean_us, p99_us
  --help         print this

Environment:
  NAMESRV_ADDR   host:port of a name server; without it an embedded broker runs in this process
  RUST_LOG       what to log, for instance debug
  Every key of the configuration, as SPRING_CLOUD_STREAM_..

Ends with 0 if everything that was sent was received and nothing failed, with 1 if not, and with 2 if
these arguments are not understood.";

/// What the user asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) count: Option<u64>,
    pub(crate) input: Option<PathBuf>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) json: bool,
}

/// Why the program ends before it starts.
#[derive(Debug, PartialEq)]
pub(crate) enum Exit {
    Help,
    Mistake(String),
}

impl Exit {
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Help => {
                println!("{USAGE}");
                ExitCode::SUCCESS
            }
            Self::Mistake(text) => {
                eprintln!("comprehensive: {text}\n\n{USAGE}");
                ExitCode::from(2)
            }
        }
    }
}

impl Arguments {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, Exit> {
        let mut parsed = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, attached) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (argument, None),
            };
            let mut value = || {
                let value = attached
                    .clone()
                    .or_else(|| arguments.next())
                    .filter(|value| !value.is_empty());
                value.ok_or_else(|| Exit::Mistake(format!("{name} needs a value")))
            };
            match name.as_str() {
                "--count" => parsed.count = Some(count(&value()?)?),
                "--input" => parsed.input = Some(value()?.into()),
                "--config" => parsed.config = Some(value()?.into()),
                "--json" if attached.is_none() => parsed.json = true,
                "--help" | "-h" => return Err(Exit::Help),
                _ => return Err(Exit::Mistake(format!("unknown argument {name}"))),
            }
        }
        Ok(parsed)
    }

    /// Whether the run ends by itself.
    pub(crate) fn is_bounded(&self) -> bool {
        self.count.is_some() || self.input.is_some()
    }
}

fn count(text: &str) -> Result<u64, Exit> {
    let mistake = || {
        Exit::Mistake(format!(
            "--count is {text:?}; it must be a whole number of at least 1"
        ))
    };
    text.parse().ok().filter(|count| *count > 0).ok_or_else(mistake)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, Exit> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn values_follow_or_are_attached() {
        let parsed = parse("--count 5 --input=- --json --config a.yml").unwrap();
        let expected = Arguments {
            count: Some(5),
            input: Some("-".into()),
            config: Some("a.yml".into()),
            json: true,
        };
        assert_eq!(parsed, expected);
        assert!(!parse("").unwrap().is_bounded());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("--count", "--count needs a value"),
            (
                "--count=0",
                "--count is \"0\"; it must be a whole number of at least 1",
            ),
            (
                "--count -3",
                "--count is \"-3\"; it must be a whole number of at least 1",
            ),
            ("--conut 3", "unknown argument --conut"),
            ("--json=yes", "unknown argument --json"),
            ("7", "unknown argument 7"),
        ] {
            assert_eq!(parse(line), Err(Exit::Mistake(expected.to_owned())), "{line}");
        }
        assert_eq!(parse("--json --help"), Err(Exit::Help));
    }
}
