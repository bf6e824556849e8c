//! The command line.

use std::net::{IpAddr, Ipv4Addr};

use rocketmq_embedded_broker::{Builder, EmbeddedBroker};

const HELP: &str = "\
A RocketMQ name server and broker in one process; everything is kept in memory.

Usage: rocketmq-embedded-broker [OPTIONS]

  --port N              Port of the name server, 0 for a free one [default: 9876]
  --broker-port N       Port of the broker, 0 for a free one [default: the name server's]
  --bind ADDR           Address to bind and to tell to clients [default: 127.0.0.1]
  --allow-remote        Allow an address that other machines can reach: there is no access control
  --memory-limit SIZE   What messages may take, in bytes or as 64MiB, 2GiB; above it the oldest go
                        [default: 256MiB]
  --no-auto-create      Refuse sends to topics that do not exist
  --help                Print this
  --version             Print the version

Prints one line when it is ready: ready name_server=IP:PORT broker=IP:PORT in N ms
Ctrl-C and SIGTERM end it.";

/// The default port of a name server.
const NAME_SERVER_PORT: u16 = 9876;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Run(Args),
    Print(String),
}

/// How to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    port: u16,
    broker_port: Option<u16>,
    bind: IpAddr,
    memory_limit: Option<usize>,
    auto_create: bool,
}

impl Args {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
        let mut args = Self {
            port: NAME_SERVER_PORT,
            broker_port: None,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            memory_limit: None,
            auto_create: true,
        };
        let mut allow_remote = false;
        let mut arguments = arguments.flat_map(split);
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--port" => args.port = port(&argument, &value()?)?,
                "--broker-port" => args.broker_port = Some(port(&argument, &value()?)?),
                "--bind" => args.bind = address(&value()?)?,
                "--allow-remote" => allow_remote = true,
                "--memory-limit" => args.memory_limit = Some(size(&value()?)?),
                "--no-auto-create" => args.auto_create = false,
                "--help" | "-h" => return Ok(Command::Print(HELP.to_owned())),
                "--version" | "-V" => {
                    return Ok(Command::Print(format!(
                        "rocketmq-embedded-broker {}",
                        env!("CARGO_PKG_VERSION")
                    )));
                }
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        if !args.bind.is_loopback() && !allow_remote {
            let bind = args.bind;
            return Err(format!(
                "--bind {bind} lets other machines in, without access control; add --allow-remote"
            ));
        }
        Ok(Command::Run(args))
    }

    pub(crate) fn builder(&self) -> Builder {
        let mut builder = EmbeddedBroker::builder()
            .bind(self.bind)
            .port(self.port)
            .auto_create_topics(self.auto_create);
        if let Some(port) = self.broker_port {
            builder = builder.broker_port(port);
        }
        if let Some(bytes) = self.memory_limit {
            builder = builder.memory_limit(bytes);
        }
        builder
    }
}

/// `--name=value` is `--name value`.
fn split(argument: String) -> Vec<String> {
    match argument.split_once('=') {
        Some((name, value)) if name.starts_with("--") => vec![name.to_owned(), value.to_owned()],
        _ => vec![argument],
    }
}

fn port(name: &str, text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("{name} {text}: a port is a number from 0 to 65535"))
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("--bind {text}: an IP address is needed, such as 127.0.0.1"))
}

fn size(text: &str) -> Result<usize, String> {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let found = units
        .iter()
        .find_map(|&(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let (number, factor) = found.unwrap_or((text, 1));
    let bytes = number
        .trim()
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    bytes
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("--memory-limit {text}: bytes are needed, or a size such as 64MiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_in_both_spellings() {
        let Command::Run(args) =
            parse("--port 0 --broker-port=1 --memory-limit 64MiB --no-auto-create").unwrap()
        else {
            panic!("to run")
        };
        assert_eq!(
            (args.port, args.broker_port, args.auto_create),
            (0, Some(1), false)
        );
        assert_eq!(args.memory_limit, Some(64 << 20));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (line, error) in [
            ("--port", "--port needs a value"),
            ("--port 65536", "--port 65536: a port is a number from 0 to 65535"),
            ("--prot 1", "unknown argument \"--prot\""),
            (
                "--memory-limit 0",
                "--memory-limit 0: bytes are needed, or a size such as 64MiB",
            ),
            (
                "--memory-limit 99999999999GiB",
                "--memory-limit 99999999999GiB: bytes are needed, or a size such as 64MiB",
            ),
            (
                "--bind localhost",
                "--bind localhost: an IP address is needed, such as 127.0.0.1",
            ),
            (
                "--bind 192.0.2.1",
                "--bind 192.0.2.1 lets other machines in, without access control; add --allow-remote",
            ),
        ] {
            assert_eq!(parse(line), Err(error.to_owned()));
        }
    }

    #[test]
    fn another_address_needs_a_word() {
        assert!(matches!(
            parse("--allow-remote --bind 192.0.2.1"),
            Ok(Command::Run(_))
        ));
        assert!(matches!(parse("--help"), Ok(Command::Print(text)) if text.contains("--memory-limit")));
    }
}
