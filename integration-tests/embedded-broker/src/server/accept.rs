//! Accepts connections and gives each a task of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time;

#[cfg(feature = "tls")]
use super::Acceptor;
use super::{Routes, Session, session};
use crate::broker::Broker;
use crate::tasks::Spawner;

/// Accepts until it is dropped.
pub(crate) async fn serve(
    broker: Arc<Broker>,
    routes: Arc<Routes>,
    listener: TcpListener,
    of_slave: bool,
    #[cfg(feature = "tls")] acceptor: Arc<Acceptor>,
    tasks: Spawner,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client that went away: trying again at once would only burn the processor.
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(session) = broker.sessions.open(peer, of_slave, broker.clock.now()) else {
            tracing::warn!(%peer, "too many connections, this one is closed");
            continue;
        };
        let broker = Arc::clone(&broker);
        let routes = Arc::clone(&routes);
        #[cfg(feature = "tls")]
        let acceptor = Arc::clone(&acceptor);
        tasks.spawn(async move {
            let open = OpenSession { broker, session };
            let served = session::Served {
                broker: &open.broker,
                session: &open.session,
                routes: &routes,
            };
            #[cfg(feature = "tls")]
            served.run(stream, &acceptor).await;
            #[cfg(not(feature = "tls"))]
            served.run(stream).await;
        });
    }
}

/// Takes the connection off all tables, however its task ends.
struct OpenSession {
    broker: Arc<Broker>,
    session: Arc<Session>,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.broker.forget(&self.session);
    }
}
