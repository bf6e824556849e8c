//! SOCKS5: connections that a proxy makes on behalf of the client.
//!
//! Protocol source: RFC 1928 (CONNECT), RFC 1929 (user and password); `NettyRemotingClient#getProxy` for which
//! addresses go through a proxy.

use std::io;
use std::net::IpAddr;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// A SOCKS5 proxy, and for which servers it is used.
///
/// Host names are handed to the proxy as they are, so it looks them up.
///
/// ```
/// use rocketmq_client::{Client, Socks5};
///
/// let builder = Client::builder("10.1.2.3:9876")
///     .socks5(Socks5::new("proxy.example.org:1080").user("alice", "sesame").only("10.0.0.0/8"));
/// assert!(!format!("{builder:?}").contains("sesame"));
/// ```
#[derive(Clone, Debug)]
#[must_use = "it is handed to a client's builder"]
pub struct Socks5 {
    address: String,
    user: Option<(String, Secret)>,
    only: Vec<String>,
}

impl Socks5 {
    /// A proxy at `host:port` that asks for no user, for all servers.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            user: None,
            only: Vec::new(),
        }
    }

    /// The user that the proxy asks for; at most 255 bytes each.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Uses the proxy for servers of this network alone (`10.0.0.0/8`, `fd00::/8`); more calls add more networks.
    /// A server that is addressed by a host name belongs to no network.
    pub fn only(mut self, network: impl Into<String>) -> Self {
        self.only.push(network.into());
        self
    }

    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names what cannot be used.
    pub(crate) fn proxy(&self) -> Result<Proxy> {
        let unusable =
            |why: String| Error::config(format!("SOCKS5 proxy {:?} cannot be used: {why}", self.address));
        let host_and_port = self.address.rsplit_once(':');
        if !host_and_port
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        {
            return Err(unusable(
                "write host:port, for instance 127.0.0.1:1080".to_owned(),
            ));
        }
        if let Some((name, password)) = &self.user {
            for (what, text) in [("user", name.as_str()), ("password", password.expose())] {
                if !(1..=255).contains(&text.len()) {
                    return Err(unusable(format!("the {what} must have 1 to 255 bytes")));
                }
            }
        }
        let networks = self.only.iter().map(|network| {
            network.parse().map_err(|()| {
                unusable(format!(
                    "{network:?} is no network; write address/bits, for instance 10.0.0.0/8"
                ))
            })
        });
        Ok(Proxy {
            networks: networks.collect::<Result<_>>()?,
            socks5: self.clone(),
        })
    }
}

/// A proxy whose options were found usable.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    socks5: Socks5,
    networks: Vec<Network>,
}

impl Proxy {
    /// `host:port` of the proxy itself.
    pub(super) fn address(&self) -> &str {
        &self.socks5.address
    }

    /// Whether connections to this address go through the proxy.
    pub(super) fn serves(&self, address: &str) -> bool {
        if self.networks.is_empty() {
            return true;
        }
        let ip: Option<IpAddr> = split(address).and_then(|(host, _)| host.parse().ok());
        ip.is_some_and(|ip| self.networks.iter().any(|network| network.contains(ip)))
    }

    /// Asks the proxy at the other end of the stream to connect to this address; afterwards the stream leads there.
    pub(super) async fn connect<S>(&self, stream: &mut S, address: &str) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let user = self.socks5.user.as_ref();
        let method = if user.is_some() { USER_PASSWORD } else { NO_USER };
        stream.write_all(&[VERSION, 1, method]).await?;
        match reply(stream).await? {
            [VERSION, chosen] if chosen == method => {}
            [VERSION, _] if user.is_some() => {
                return Err(io::Error::other("the proxy does not take a user and password"));
            }
            [VERSION, _] => return Err(io::Error::other("the proxy asks for a user and password")),
            _ => return Err(io::Error::other("this is no SOCKS5 proxy")),
        }
        if let Some((name, password)) = user {
            let mut login = Zeroizing::new(vec![USER_VERSION]);
            for text in [name.as_str(), password.expose()] {
                login.push(length(text)?);
                login.extend_from_slice(text.as_bytes());
            }
            stream.write_all(&login).await?;
            if reply(stream).await?[1] != 0 {
                return Err(io::Error::other(
                    "the proxy does not accept this user and password",
                ));
            }
        }
        stream.write_all(&request(address)?).await?;
        let [version, outcome] = reply(stream).await?;
        if version != VERSION || outcome != 0 {
            return Err(io::Error::other(reason(outcome)));
        }
        // Where the proxy connects from; of no interest, but in the way of what follows.
        let [_, kind] = reply(stream).await?;
        let length = match kind {
            IPV4 => 4,
            IPV6 => 16,
            NAME => usize::from(stream.read_u8().await?),
            _ => return Err(io::Error::other("the proxy names an address of an unknown kind")),
        };
        let mut bound = [0; 255 + 2];
        if let Some(bound) = bound.get_mut(..length + 2) {
            stream.read_exact(bound).await?;
        }
        Ok(())
    }
}

const VERSION: u8 = 5;
const USER_VERSION: u8 = 1;
const NO_USER: u8 = 0;
const USER_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

async fn reply<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; 2]> {
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

fn request(address: &str) -> io::Result<Vec<u8>> {
    let (host, port) = split(address).ok_or_else(|| io::Error::other("the address is no host:port"))?;
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.extend([NAME, length(host)?]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Some((host, port.parse().ok()?))
}

fn length(text: &str) -> io::Result<u8> {
    u8::try_from(text.len()).map_err(|_| io::Error::other("SOCKS5 has no room for more than 255 bytes"))
}

fn reason(outcome: u8) -> &'static str {
    match outcome {
        2 => "the proxy's rules do not allow this connection",
        3 => "the proxy finds the network unreachable",
        4 => "the proxy finds the host unreachable",
        5 => "the connection was refused at its other end",
        6 => "the proxy's attempt took too long",
        7 | 8 => "the proxy cannot make such a connection",
        _ => "the proxy failed",
    }
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    fn contains(self, ip: IpAddr) -> bool {
        // With no bits to compare the shift is as wide as the number.
        match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                let differs = first.to_bits() ^ ip.to_bits();
                differs.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => {
                let differs = first.to_bits() ^ ip.to_bits();
                differs.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (first, bits) = text.trim().split_once('/').ok_or(())?;
        let first: IpAddr = first.parse().map_err(|_| ())?;
        let bits = bits.parse().map_err(|_| ())?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { first, bits }).ok_or(())
    }
}

#[cfg(test)]
mod tests;
