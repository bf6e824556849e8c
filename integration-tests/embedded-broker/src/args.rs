//! The command line.

use std::net::{IpAddr, Ipv4Addr};

#[cfg(feature = "tls")]
use rocketmq_embedded_broker::TlsMode;
use rocketmq_embedded_broker::{AccessStyle, Builder, EmbeddedBroker, User};

const HELP: &str = "\
A RocketMQ name server and broker in one process; everything is kept in memory.

Usage: rocketmq-embedded-broker [OPTIONS]

  --port N              Port of the name server, 0 for a free one [default: 9876]
  --broker-port N       Port of the broker, 0 for a free one [default: the name server's]
  --bind ADDR           Address to bind and to tell to clients [default: 127.0.0.1]
  --allow-remote        Allow an address that other machines can reach
  --memory-limit SIZE   What messages may take, in bytes or as 64MiB, 2GiB; above it the oldest go
                        [default: 256MiB]
  --no-auto-create      Refuse sends to topics that do not exist
  --access-control KIND Serve signed requests of users alone: plain-acl refuses as 4.9 does, users as 5.x
  --admin NAME:SECRET   Add a user who may do everything; whoever can list processes sees the secret
  --tls MODE            disabled, permissive (TLS and plain text) or enforcing [default: permissive]
  --tls-certificate F   PEM file of the certificate and its chain [default: a certificate made for this run]
  --tls-key F           PEM file of its key
  --tls-client-ca F     PEM file of the authority that must have signed the certificates of TLS clients
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

/// Who is let in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    access_control: Option<AccessStyle>,
    /// Names and secrets.
    admins: Vec<(String, String)>,
    #[cfg(feature = "tls")]
    tls: Option<TlsMode>,
    certificate: Option<String>,
    key: Option<String>,
    client_authority: Option<String>,
}

/// How to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    port: u16,
    broker_port: Option<u16>,
    bind: IpAddr,
    memory_limit: Option<usize>,
    auto_create: bool,
    security: Security,
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
            security: Security::default(),
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
                "--access-control" => args.security.access_control = Some(access_style(&value()?)?),
                "--admin" => args.security.admins.push(admin(&value()?)?),
                #[cfg(feature = "tls")]
                "--tls" => args.security.tls = Some(tls_mode(&value()?)?),
                "--tls-certificate" => args.security.certificate = Some(value()?),
                "--tls-key" => args.security.key = Some(value()?),
                "--tls-client-ca" => args.security.client_authority = Some(value()?),
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
            let control = match args.security.access_control {
                Some(_) => "",
                None => ", without access control",
            };
            return Err(format!(
                "--bind {bind} lets other machines in{control}; add --allow-remote"
            ));
        }
        if args.security.access_control.is_none() && !args.security.admins.is_empty() {
            return Err("--admin needs --access-control".to_owned());
        }
        if args.security.certificate.is_some() != args.security.key.is_some() {
            return Err("--tls-certificate and --tls-key need each other".to_owned());
        }
        Ok(Command::Run(args))
    }

    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn builder(&self) -> std::io::Result<Builder> {
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
        let security = &self.security;
        if let Some(style) = security.access_control {
            builder = builder.access_control(style);
        }
        for (name, secret) in &security.admins {
            builder = builder.user(User::new(name, secret).admin());
        }
        #[cfg(feature = "tls")]
        {
            if let Some(mode) = security.tls {
                builder = builder.tls_mode(mode);
            }
            if let (Some(certificate), Some(key)) = (&security.certificate, &security.key) {
                builder = builder.tls_identity(file(certificate)?, file(key)?);
            }
            if let Some(authority) = &security.client_authority {
                builder = builder.tls_client_authority(file(authority)?);
            }
        }
        Ok(builder)
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

fn access_style(text: &str) -> Result<AccessStyle, String> {
    match text {
        "plain-acl" => Ok(AccessStyle::PlainAcl),
        "users" => Ok(AccessStyle::Users),
        _ => Err(format!("--access-control {text}: plain-acl or users is needed")),
    }
}

fn admin(text: &str) -> Result<(String, String), String> {
    let user = text
        .split_once(':')
        .filter(|(name, secret)| !name.is_empty() && !secret.is_empty());
    let (name, secret) = user.ok_or("--admin: NAME:SECRET is needed")?;
    Ok((name.to_owned(), secret.to_owned()))
}

#[cfg(feature = "tls")]
fn tls_mode(text: &str) -> Result<TlsMode, String> {
    match text {
        "disabled" => Ok(TlsMode::Disabled),
        "permissive" => Ok(TlsMode::Permissive),
        "enforcing" => Ok(TlsMode::Enforcing),
        _ => Err(format!(
            "--tls {text}: disabled, permissive or enforcing is needed"
        )),
    }
}

#[cfg(feature = "tls")]
fn file(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| std::io::Error::new(error.kind(), format!("{path}: {error}")))
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
                "--access-control acl",
                "--access-control acl: plain-acl or users is needed",
            ),
            (
                "--access-control users --admin root",
                "--admin: NAME:SECRET is needed",
            ),
            ("--admin root:12345678", "--admin needs --access-control"),
            (
                "--tls on",
                "--tls on: disabled, permissive or enforcing is needed",
            ),
            (
                "--tls-key broker.key",
                "--tls-certificate and --tls-key need each other",
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
