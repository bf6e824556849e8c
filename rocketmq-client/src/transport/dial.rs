//! From an address to a stream: TCP, through a proxy where one is set, with TLS where that is set.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::proxy::Proxy;
#[cfg(feature = "tls")]
use super::tls;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "tls")]
use crate::sync::read;
use crate::sync::write;

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct DialOptions {
    /// How long a dial may take, with proxy and handshake.
    pub(crate) connect_timeout: Duration,
    /// After how long a peer is given up that acknowledges nothing, as TCP sees it; zero leaves it to the system.
    pub(crate) tcp_user_timeout: Duration,
    /// The first one that serves an address is used.
    pub(crate) proxies: Vec<Proxy>,
    #[cfg(feature = "tls")]
    pub(crate) name_server_tls: Option<tls::Connector>,
    #[cfg(feature = "tls")]
    pub(crate) broker_tls: Option<tls::Connector>,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            tcp_user_timeout: Duration::from_secs(8),
            proxies: Vec::new(),
            #[cfg(feature = "tls")]
            name_server_tls: None,
            #[cfg(feature = "tls")]
            broker_tls: None,
        }
    }
}

/// A stream to a peer.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Makes the connections of one client.
#[derive(Debug)]
pub(super) struct Dialer {
    options: DialOptions,
    /// Which addresses are name servers; all others are brokers.
    name_servers: RwLock<HashSet<Arc<str>>>,
}

impl Dialer {
    pub(super) fn new(options: DialOptions) -> Self {
        Self {
            options,
            name_servers: RwLock::default(),
        }
    }

    pub(super) fn set_name_servers(&self, addresses: &[Arc<str>]) {
        *write(&self.name_servers) = addresses.iter().map(Arc::clone).collect();
    }

    #[cfg(feature = "tls")]
    fn is_name_server(&self, address: &str) -> bool {
        read(&self.name_servers).contains(address)
    }

    /// Connects, all within the connect timeout.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] or [`ErrorKind::Tls`], with the address and what to do.
    pub(super) async fn dial(&self, address: &Arc<str>, progress: &Progress) -> Result<Stream> {
        let limit = self.options.connect_timeout;
        progress.set(Step::Connect);
        match timeout(limit, self.steps(address, progress)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let waited = format!("in {} ms", limit.as_millis());
                Err(self.took_too_long(ErrorKind::Connect, address, progress, &waited))
            }
        }
    }

    #[cfg_attr(
        not(feature = "tls"),
        expect(unused_variables, reason = "there is one step without TLS")
    )]
    async fn steps(&self, address: &Arc<str>, progress: &Progress) -> Result<Stream> {
        let stream = self.tcp(address).await?;
        #[cfg(feature = "tls")]
        {
            let options = &self.options;
            let connector = if self.is_name_server(address) {
                &options.name_server_tls
            } else {
                &options.broker_tls
            };
            if let Some(connector) = connector {
                progress.set(Step::Tls);
                let stream = connector.connect(address, stream).await?;
                return Ok(Stream::Tls(Box::new(stream)));
            }
        }
        Ok(Stream::Plain(stream))
    }

    fn proxy_for(&self, address: &str) -> Option<&Proxy> {
        self.options.proxies.iter().find(|proxy| proxy.serves(address))
    }

    /// Why there is no connection yet, for who has waited long enough: `waited` says how long that was. An error of
    /// this kind, unless it is the handshake that was waited for.
    pub(super) fn took_too_long(
        &self,
        kind: ErrorKind,
        address: &Arc<str>,
        progress: &Progress,
        waited: &str,
    ) -> Error {
        match (progress.step(), self.proxy_for(address)) {
            #[cfg(feature = "tls")]
            (Step::Tls, _) => {
                let text = format!(
                    "TLS to {address}: the handshake did not end {waited}; does this port speak TLS?"
                );
                Error::new(ErrorKind::Tls, text).at(Arc::clone(address))
            }
            (Step::Connect, Some(proxy)) => {
                let proxy = proxy.address();
                let text = format!(
                    "no connection to {address} through the SOCKS5 proxy {proxy} {waited}; are both addresses right \
                     and both servers running?"
                );
                Error::new(kind, text).at(Arc::clone(address))
            }
            (Step::Connect, None) => {
                let text = format!(
                    "no connection to {address} {waited}; is the address right and the server running?"
                );
                Error::new(kind, text).at(Arc::clone(address))
            }
        }
    }

    async fn tcp(&self, address: &Arc<str>) -> Result<TcpStream> {
        let Some(proxy) = self.proxy_for(address) else {
            let stream = TcpStream::connect(&**address).await;
            let stream = stream.and_then(|stream| self.tuned(stream));
            return stream.map_err(|error| {
                let text = format!(
                    "cannot connect to {address}: {error}; is the address right and the server running?"
                );
                connect_error(address, text).caused_by(error)
            });
        };
        let connect = async {
            let mut stream = self.tuned(TcpStream::connect(proxy.address()).await?)?;
            proxy.connect(&mut stream, address).await?;
            Ok(stream)
        };
        connect.await.map_err(|error: io::Error| {
            let proxy = proxy.address();
            let text = format!(
                "cannot connect to {address} through the SOCKS5 proxy {proxy}: {error}; are both addresses right and \
                 both servers running?"
            );
            connect_error(address, text).caused_by(error)
        })
    }

    /// Requests are coalesced already, so Nagle's algorithm could only add delay; and a peer that vanished without a
    /// word is noticed both while something waits to be acknowledged and while nothing does.
    fn tuned(&self, stream: TcpStream) -> io::Result<TcpStream> {
        stream.set_nodelay(true)?;
        let limit = self.options.tcp_user_timeout;
        if !limit.is_zero() {
            let socket = SockRef::from(&stream);
            let keepalive = TcpKeepalive::new()
                .with_time((limit / 2).max(Duration::from_secs(1)))
                .with_interval((limit / 4).max(Duration::from_secs(1)));
            socket.set_tcp_keepalive(&keepalive)?;
            #[cfg(any(target_os = "linux", target_os = "android"))]
            socket.set_tcp_user_timeout(Some(limit))?;
        }
        Ok(stream)
    }
}

/// What a dial is at, for who does not wait any longer.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    #[cfg(feature = "tls")]
    Tls,
}

impl Progress {
    fn set(&self, step: Step) {
        self.0.store(step as u8, Ordering::Relaxed);
    }

    fn step(&self) -> Step {
        #[cfg(feature = "tls")]
        if self.0.load(Ordering::Relaxed) == Step::Tls as u8 {
            return Step::Tls;
        }
        Step::Connect
    }
}

fn connect_error(address: &Arc<str>, text: String) -> Error {
    Error::new(ErrorKind::Connect, text).at(Arc::clone(address))
}

#[cfg(test)]
mod tests;
