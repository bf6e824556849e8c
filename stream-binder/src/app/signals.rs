//! Ctrl-C and SIGTERM.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a process to end: Ctrl-C and, on Unix, SIGTERM.
///
/// From the moment it exists, they no longer end the process by themselves: each is one [`next`](Self::next).
#[derive(Debug)]
pub struct ShutdownSignals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

impl ShutdownSignals {
    /// Starts to receive them. Needs to be called within a tokio runtime.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// When the operating system stops to deliver them.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn next(&mut self) -> io::Result<()> {
        #[cfg(unix)]
        {
            let received = tokio::select! {
                received = self.interrupt.recv() => received,
                received = self.terminate.recv() => received,
            };
            received.ok_or_else(|| io::Error::other("signals are no longer delivered"))
        }
        #[cfg(not(unix))]
        tokio::signal::ctrl_c().await
    }
}
