//! What tests do to the slave of a broker.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{EmbeddedBroker, STOP_GRACE, listen};
use crate::families;
use crate::lock::lock;
use crate::server;
use crate::tasks::Tasks;
use crate::wait;

impl EmbeddedBroker {
    /// The slave's address, if there is [one](super::Builder::slave).
    #[must_use]
    pub fn slave_address(&self) -> Option<SocketAddr> {
        self.broker.slave.address()
    }

    /// Lets the slave fall behind: messages that are stored from now on do not reach it.
    pub fn hold_slave(&self) {
        let end = self.broker.store.stats().max_physical;
        self.broker
            .slave
            .set_horizon(Some(u64::try_from(end).unwrap_or(0)));
    }

    /// Lets the slave have all messages again.
    pub fn release_slave(&self) {
        self.broker.slave.set_horizon(None);
        self.broker.release_all();
    }

    /// Stops the slave as a crash does; routes no longer tell of it. Does nothing if it is not running.
    pub async fn kill_slave(&self) {
        let running = lock(&self.slave_running).take();
        if let Some(tasks) = running {
            self.broker.slave.set_running(false);
            tasks.stop(STOP_GRACE).await;
        }
    }

    /// Starts the slave again on its port. Does nothing if it is running, or if there is none.
    ///
    /// # Errors
    /// The system's, if the port was taken by someone else in the meantime.
    pub async fn restart_slave(&self) -> io::Result<()> {
        let Some(address) = self.broker.slave.address() else {
            return Ok(());
        };
        if lock(&self.slave_running).is_none() {
            let listener = listen(address, "slave").await?;
            self.run_slave(listener);
        }
        Ok(())
    }

    pub(super) fn run_slave(&self, listener: tokio::net::TcpListener) {
        let tasks = Tasks::new();
        tasks.spawner().spawn(server::serve(
            Arc::clone(&self.broker),
            Arc::new(families::slave()),
            listener,
            true,
            #[cfg(feature = "tls")]
            Arc::clone(&self.acceptor),
            tasks.spawner(),
        ));
        self.broker.slave.set_running(true);
        *lock(&self.slave_running) = Some(tasks);
    }
}

impl crate::broker::Broker {
    /// Lets every pull that waits run once more.
    pub(crate) fn release_all(&self) {
        wait::release(self, self.store.take_all_waiting());
    }
}
