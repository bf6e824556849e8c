//! Blocks of neighbouring loopback ports.
//!
//! A broker opens more ports than it is told: two below its own ("fast"), and 4.9 one above (replication). So each
//! cluster takes a whole block. The block stays reserved against other test processes by a listener on its last port.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 20_000; // above the registered favourites, below the range of ephemeral ports
const SIZE: u16 = 16;
const BLOCKS: u16 = 700;

static TAKEN: AtomicU16 = AtomicU16::new(0);

#[derive(Debug)]
pub(super) struct PortBlock {
    base: u16,
    _reservation: TcpListener,
}

impl PortBlock {
    /// Finds a block of which every port is free right now.
    pub(super) fn take() -> io::Result<Self> {
        let start = process::id().wrapping_mul(7);
        for _ in 0..BLOCKS {
            let n = u32::from(TAKEN.fetch_add(1, Ordering::Relaxed)).wrapping_add(start) % u32::from(BLOCKS);
            let base = FIRST + SIZE * u16::try_from(n).unwrap_or_default();
            let Ok(reservation) = listen(base + SIZE - 1) else {
                continue;
            };
            if (base..base + SIZE - 1).all(|port| listen(port).is_ok()) {
                return Ok(Self {
                    base,
                    _reservation: reservation,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "no {SIZE} neighbouring free ports from {FIRST} on; are servers of earlier runs still up?"
            ),
        ))
    }

    pub(super) fn name_server(&self) -> u16 {
        self.base
    }

    pub(super) fn broker(&self, index: u16) -> BrokerPorts {
        let listen = self.base + 4 + 4 * index;
        BrokerPorts {
            listen,
            replication: listen + 1,
            metrics: listen - 1,
        }
    }

    /// How many brokers fit beside the name server and the reservation.
    pub(super) const BROKERS: u16 = 2;
}

/// The fast port, `listen - 2`, cannot be chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct BrokerPorts {
    pub(super) listen: u16,
    pub(super) replication: u16,
    pub(super) metrics: u16,
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_never_overlap() {
        let (a, b) = (PortBlock::take().unwrap(), PortBlock::take().unwrap());
        assert!(a.base.abs_diff(b.base) >= SIZE);
    }

    #[test]
    fn the_ports_of_all_brokers_lie_inside_the_block_and_apart() {
        let block = PortBlock::take().unwrap();
        let mut ports = vec![block.name_server(), block.base + SIZE - 1];
        for index in 0..PortBlock::BROKERS {
            let broker = block.broker(index);
            ports.extend([
                broker.listen,
                broker.listen - 2,
                broker.replication,
                broker.metrics,
            ]);
        }
        ports.sort_unstable();
        let count = ports.len();
        ports.dedup();
        assert_eq!(ports.len(), count);
        assert!(
            ports
                .iter()
                .all(|port| (block.base..block.base + SIZE).contains(port))
        );
    }
}
