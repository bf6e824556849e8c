//! The slave of the broker: a second server that reads the same messages, or only those up to some point.
//!
//! It is what clients see of a real slave: id 1 in routes, a table of members of its own, pulls, and no corrections of
//! offsets. Nothing is copied.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Members;
use crate::lock::lock;

/// The id of the slave.
pub(crate) const SLAVE_ID: i64 = 1;

#[derive(Debug, Default)]
pub(crate) struct Slave {
    /// Absent if the broker has no slave.
    address: Option<SocketAddr>,
    running: AtomicBool,
    /// From this position of the log on, messages have not reached the slave; absent means that all have.
    horizon: Mutex<Option<u64>>,
    pub(crate) members: Members,
}

impl Slave {
    pub(crate) fn new(address: Option<SocketAddr>) -> Self {
        Self {
            address,
            ..Self::default()
        }
    }

    /// Whether groups may be sent to the slave. Java: `slaveReadEnable`.
    pub(crate) fn exists(&self) -> bool {
        self.address.is_some()
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The address that routes tell.
    pub(crate) fn registered(&self) -> Option<SocketAddr> {
        self.address.filter(|_| self.running.load(Ordering::Acquire))
    }

    pub(crate) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::Release);
    }

    pub(crate) fn horizon(&self) -> Option<u64> {
        *lock(&self.horizon)
    }

    pub(crate) fn set_horizon(&self, horizon: Option<u64>) {
        *lock(&self.horizon) = horizon;
    }
}
