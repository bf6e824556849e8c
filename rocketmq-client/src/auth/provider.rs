//! Where credentials come from, and how they change while the client runs.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Credentials, Signer};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{backoff, random};

/// How long one call of a provider may take.
const FETCH_LIMIT: Duration = Duration::from_secs(10);
/// The least time between two calls of a provider: so that neither short lives nor refusals become a storm.
const PACE: Duration = Duration::from_secs(1);
/// The least time between two calls that refusals of a broker ask for.
const REFUSED_PACE: Duration = Duration::from_secs(30);

/// Gives a client its credentials, and other ones later on.
///
/// Called when the client connects; again when four fifths of what it gave have run out, when
/// [`changed`](Self::changed) completes, and (at most every 30 s) when a broker has refused what it gave. Requests never
/// wait for it: they are signed with the last credentials that came. A call that fails, or takes more than 10 s, is
/// repeated with a growing pause, and the old credentials are kept meanwhile.
///
/// [`Credentials`] are a provider that always gives the same; [`RotatingCredentials`] one whose credentials are set from
/// elsewhere.
///
/// ```
/// use std::time::Duration;
/// use rocketmq_client::{Credentials, CredentialsProvider, IssuedCredentials};
///
/// /// Keys from files that a secret store keeps up to date.
/// struct FromFiles;
///
/// #[async_trait::async_trait]
/// impl CredentialsProvider for FromFiles {
///     async fn credentials(&self) -> Result<IssuedCredentials, Box<dyn std::error::Error + Send + Sync>> {
///         let access_key = std::fs::read_to_string("/run/secrets/access-key")?;
///         let secret_key = std::fs::read_to_string("/run/secrets/secret-key")?;
///         let credentials = Credentials::new(access_key.trim(), secret_key.trim());
///         Ok(IssuedCredentials::new(credentials).valid_for(Duration::from_secs(300)))
///     }
/// }
/// ```
#[async_trait]
pub trait CredentialsProvider: Send + Sync + 'static {
    /// The credentials to use from now on.
    async fn credentials(&self) -> Result<IssuedCredentials, Box<dyn StdError + Send + Sync>>;

    /// Completes when there are other credentials than `current`, those that the client uses. By default it never does.
    ///
    /// # Cancellation
    /// It is dropped and called again, and must then miss nothing.
    async fn changed(&self, current: &Credentials) {
        let _ = current;
        std::future::pending::<()>().await;
    }
}

/// Credentials, and for how long they are good.
#[derive(Clone, Debug)]
pub struct IssuedCredentials {
    credentials: Credentials,
    valid_for: Option<Duration>,
}

impl IssuedCredentials {
    /// Credentials that stay good.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            valid_for: None,
        }
    }

    /// For how long they are good, from now on. New ones are fetched when four fifths of that are over.
    #[must_use]
    pub fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }
}

#[async_trait]
impl CredentialsProvider for Credentials {
    async fn credentials(&self) -> Result<IssuedCredentials, Box<dyn StdError + Send + Sync>> {
        Ok(IssuedCredentials::new(self.clone()))
    }
}

/// Credentials that the program replaces while the client runs. Clones share them.
///
/// ```
/// # use rocketmq_embedded_broker::EmbeddedBroker;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = EmbeddedBroker::start().await?;
/// use rocketmq_client::{Client, Credentials, RotatingCredentials};
///
/// let keys = RotatingCredentials::new(Credentials::new("orders-svc", "first secret"));
/// let client = Client::builder(broker.name_server()).credentials(keys.clone()).connect().await?;
///
/// // Some day, with the client running:
/// keys.rotate(Credentials::new("orders-svc", "second secret"));
/// # client.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RotatingCredentials(Arc<watch::Sender<Credentials>>);

impl RotatingCredentials {
    /// Starts with these.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self(Arc::new(watch::Sender::new(credentials)))
    }

    /// Replaces them: clients sign with the new ones soon after this returns.
    pub fn rotate(&self, credentials: Credentials) {
        self.0.send_replace(credentials);
    }
}

#[async_trait]
impl CredentialsProvider for RotatingCredentials {
    async fn credentials(&self) -> Result<IssuedCredentials, Box<dyn StdError + Send + Sync>> {
        Ok(IssuedCredentials::new(self.0.borrow().clone()))
    }

    async fn changed(&self, current: &Credentials) {
        let mut replaced = self.0.subscribe();
        // The sender is this provider's own, so it is there.
        let _ = replaced.wait_for(|now| !now.is_same(current)).await;
    }
}

/// Keeps a signer supplied with credentials.
pub(crate) struct Rotation {
    provider: Arc<dyn CredentialsProvider>,
    signer: Arc<Signer>,
    current: Credentials,
    fetched: Instant,
    renew_at: Option<Instant>,
    failures: u32,
}

impl Rotation {
    /// Fetches the first credentials.
    ///
    /// # Errors
    /// [`ErrorKind::Auth`] when the provider fails or takes too long, [`ErrorKind::Config`] for credentials that cannot
    /// be used.
    pub(crate) async fn start(provider: Arc<dyn CredentialsProvider>) -> Result<Self> {
        let issued = fetch(&*provider).await?;
        let now = Instant::now();
        Ok(Self {
            signer: Arc::new(Signer::new(issued.credentials.clone())),
            provider,
            renew_at: issued.renew_at(now),
            current: issued.credentials,
            fetched: now,
            failures: 0,
        })
    }

    pub(crate) fn signer(&self) -> &Arc<Signer> {
        &self.signer
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let work = async {
            loop {
                self.wait().await;
                sleep_until(self.fetched + PACE).await;
                self.renew().await;
            }
        };
        // `None` alone can come out: the loop has no end.
        let _: Option<()> = stop.run_until_cancelled(work).await;
    }

    /// Waits until there is a reason to fetch.
    async fn wait(&self) {
        let due = async {
            match self.renew_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let refused = async {
            sleep_until(self.fetched + REFUSED_PACE).await;
            self.signer.refusal().await;
        };
        tokio::select! {
            () = due => {}
            () = refused => {}
            () = self.provider.changed(&self.current) => {}
        }
    }

    async fn renew(&mut self) {
        let fetched = fetch(&*self.provider).await;
        let now = Instant::now();
        self.fetched = now;
        match fetched {
            Ok(issued) => {
                if !issued.credentials.is_same(&self.current) {
                    self.signer.renew(issued.credentials.clone());
                    info!(
                        access_key = issued.credentials.access_key(),
                        "signing with new credentials"
                    );
                }
                self.renew_at = issued.renew_at(now);
                self.current = issued.credentials;
                self.failures = 0;
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.renew_at = Some(now + backoff(self.failures, random()));
                warn!(%error, failures = self.failures, "no new credentials, the old ones stay in use");
            }
        }
    }
}

impl IssuedCredentials {
    fn renew_at(&self, now: Instant) -> Option<Instant> {
        now.checked_add(self.valid_for? / 5 * 4)
    }
}

async fn fetch(provider: &dyn CredentialsProvider) -> Result<IssuedCredentials> {
    let failed = |why: String| {
        Error::new(
            ErrorKind::Auth,
            format!("the credentials provider gave no credentials: {why}"),
        )
    };
    let issued = match timeout(FETCH_LIMIT, provider.credentials()).await {
        Ok(Ok(issued)) => issued,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer in {} s", FETCH_LIMIT.as_secs()))),
    };
    issued.credentials.check()?;
    Ok(issued)
}

#[cfg(test)]
mod tests;
