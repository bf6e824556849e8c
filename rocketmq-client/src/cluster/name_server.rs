//! Several name servers as one: any of them will do, so one that answers is kept and a failure moves on to the next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::{outbound, read_response};
use crate::error::{Error, ErrorKind, Persisted, Result};
use crate::protocol::{Fields, Request, ResponseCode};
use crate::sync::{read, write};
use crate::transport::{Pool, Remoting, random};

/// For how long a name server that failed comes last.
const AVOIDED: Duration = Duration::from_secs(10);

/// The name servers of one client. Their list may change while it runs.
#[derive(Debug)]
pub(super) struct NameServers {
    /// Never empty.
    addresses: RwLock<Arc<[Arc<str>]>>,
    /// Counts up; its remainder is the one in use.
    current: AtomicUsize,
}

/// The addresses of a list like `a:9876;b:9876`; commas will do too.
///
/// # Errors
/// [`ErrorKind::Config`] if something in it is no address, or if there is none.
pub(super) fn parse_list(list: &str) -> Result<Vec<Arc<str>>> {
    let mut addresses: Vec<Arc<str>> = Vec::new();
    for part in list.split([';', ',']) {
        let address = part.trim();
        let address = address.strip_prefix("http://").unwrap_or(address);
        if address.is_empty() {
            continue;
        }
        check_address(address)?;
        if !addresses.iter().any(|known| &**known == address) {
            addresses.push(address.into());
        }
    }
    if addresses.is_empty() {
        return Err(Error::config(
            "no name server is given; name at least one as host:port, several separated by ';'",
        ));
    }
    Ok(addresses)
}

impl NameServers {
    /// These name servers, at least one.
    pub(super) fn new(addresses: Vec<Arc<str>>) -> Self {
        Self {
            addresses: RwLock::new(addresses.into()),
            // Clients of one list do not all start with the same server.
            current: AtomicUsize::new(usize::from(random() as u16)),
        }
    }

    /// All of them.
    pub(super) fn addresses(&self) -> Arc<[Arc<str>]> {
        Arc::clone(&read(&self.addresses))
    }

    /// Replaces the list by another one that is not empty. Gives whether that changed anything but the order.
    pub(super) fn replace(&self, addresses: Vec<Arc<str>>) -> bool {
        let mut known = write(&self.addresses);
        let same = known.len() == addresses.len() && addresses.iter().all(|address| known.contains(address));
        if same || addresses.is_empty() {
            return false;
        }
        *known = addresses.into();
        true
    }

    /// The one in use.
    pub(super) fn current(&self) -> Arc<str> {
        at(&self.addresses(), self.current.load(Ordering::Relaxed))
    }

    pub(super) fn contains(&self, address: &str) -> bool {
        read(&self.addresses).iter().any(|known| &**known == address)
    }

    /// Connects to one of them, so that a wrong address is noticed at the start.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`] if none can be reached, each within `timeout`.
    pub(super) async fn reach(&self, pool: &Arc<Pool>, timeout: Duration) -> Result<()> {
        let addresses = self.addresses();
        pool.set_name_servers(&addresses);
        let start = self.current.load(Ordering::Relaxed);
        let mut last = None;
        for index in start..start + addresses.len() {
            let address = at(&addresses, index);
            match pool.connection(&address, Instant::now() + timeout).await {
                Ok(_) => {
                    self.keep(start, index);
                    return Ok(());
                }
                Err(error) => {
                    warn!(%address, %error, "a name server cannot be reached");
                    last = Some(error);
                }
            }
        }
        Err(none_answered(&addresses, last))
    }

    /// Asks one after the other until one answers, all within the timeout.
    ///
    /// # Errors
    /// A refusal of the server that answered; [`ErrorKind::NameServer`] with the last reason if none did.
    pub(super) async fn call<R: Request>(
        &self,
        remoting: &Remoting,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response> {
        let deadline = Instant::now() + timeout;
        let addresses = self.addresses();
        let start = self.current.load(Ordering::Relaxed);
        let count = addresses.len();
        let mut order: Vec<usize> = (start..start + count).collect();
        order.sort_by_key(|&index| remoting.pool().standings().of(&at(&addresses, index)));
        let mut last = None;
        for (tried, index) in order.into_iter().enumerate() {
            let address = at(&addresses, index);
            let now = Instant::now();
            // Each gets its share of what is left, so a frozen one leaves time for the others.
            let share = deadline.saturating_duration_since(now) / u32::try_from(count - tried).unwrap_or(1);
            let extra = Fields::new();
            let answer = remoting
                .request(&address, &outbound(request, &extra), now + share)
                .await
                .and_then(|frame| read_response::<R>(&address, frame));
            match answer {
                Ok(response) => {
                    self.keep(start, index);
                    remoting.pool().standings().good(&address);
                    return Ok(response);
                }
                Err(error) if is_answer(&error) => {
                    self.keep(start, index);
                    return Err(error);
                }
                Err(error) => {
                    warn!(%address, %error, "a name server failed");
                    remoting.pool().standings().broken(&address, Some(AVOIDED));
                    last = Some(error);
                }
            }
        }
        Err(none_answered(&addresses, last))
    }

    /// Stays with the server that answered, unless another call has moved on meanwhile.
    fn keep(&self, start: usize, index: usize) {
        if start != index {
            // Failing means that somebody else has chosen; either choice is good.
            let _ = self
                .current
                .compare_exchange(start, index, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// The list is never empty; an index is a count whose remainder is meant.
fn at(addresses: &[Arc<str>], index: usize) -> Arc<str> {
    let place = index % addresses.len().max(1);
    addresses.get(place).map_or_else(|| "".into(), Arc::clone)
}

fn none_answered(addresses: &[Arc<str>], last: Option<Error>) -> Error {
    let list = addresses.join("; ");
    let text = match &last {
        Some(error) => format!("no name server of [{list}] answered; the last one: {error}"),
        None => format!("no name server of [{list}] answered"),
    };
    // A certificate that is not accepted will not be accepted later either.
    let kind = match &last {
        Some(error) if error.kind() == ErrorKind::Tls => ErrorKind::Tls,
        _ => ErrorKind::NameServer,
    };
    let error = Error::new(kind, text);
    match last {
        Some(last) => error.caused_by(last.with_persisted(Persisted::No)),
        None => error,
    }
}

/// Whether the server has answered the question, if with a no; anything else another server may do better.
fn is_answer(error: &Error) -> bool {
    match error.response() {
        Some((code, _)) => ![
            ResponseCode::SYSTEM_ERROR,
            ResponseCode::SYSTEM_BUSY,
            ResponseCode::GO_AWAY,
        ]
        .contains(&code),
        None => matches!(
            error.kind(),
            ErrorKind::Config | ErrorKind::TooLarge | ErrorKind::Closed
        ),
    }
}

fn check_address(address: &str) -> Result<()> {
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(()),
        _ => Err(Error::config(format!(
            "name server {address:?} is no address; write host:port, for instance 127.0.0.1:9876"
        ))),
    }
}

#[cfg(test)]
mod tests;
