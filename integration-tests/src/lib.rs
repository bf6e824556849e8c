//! Scenarios written once and run on the embedded broker and on real Apache RocketMQ.
//!
//! - [`target`]: the clusters to run on, chosen by the environment variable `TARGETS`;
//! - [`scenario`]: one test per scenario and target, and counted skips;
//! - [`real`]: name servers and brokers of Apache RocketMQ as child processes;
//! - [`peer`]: the official Java and Go clients as child processes;
//! - [`mqadmin`]: Apache RocketMQ's own command line as a child process;
//! - [`admin`]: single requests, without a client;
//! - [`fault_proxy`]: a TCP proxy that cuts, stalls, flips and lies;
//! - [`history`]: what was sent and received, and the verdict on it;
//! - [`verifiable`]: programs that send and consume and tell of every message, to be killed;
//! - [`program`]: the embedded broker as a child process;
//! - [`instant`]: a broker that answers every send at once;
//! - [`load`]: programs of several languages that send as fast as they can;
//! - [`usage`]: CPU time and memory of this process;
//! - [`report`]: tables and JSON lines of the benchmarks.
//!
//! The scenarios themselves are in `tests/scenarios`. What they need of the outside world is installed by
//! `bash integration-tests/peers/install`; without it, only those on the embedded broker run.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
};

mod base64;
mod measured;

pub mod admin;
pub mod consume_load;
pub mod fault_proxy;
pub mod history;
pub mod instant;
pub mod load;
pub mod mqadmin;
pub mod peer;
pub mod program;
pub mod real;
pub mod report;
pub mod scenario;
pub mod target;
pub mod usage;
pub mod verifiable;
pub mod wire;
pub mod wishes;

/// Why a scenario or a fixture failed; any error and any text converts into it.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Where `peers/install` puts servers and clients, and where the servers' data go: `ROCKETMQ_PEERS_DIR`, or
/// `rocketmq` in the build directory.
#[must_use]
pub fn peers_directory() -> PathBuf {
    if let Some(directory) = env::var_os("ROCKETMQ_PEERS_DIR") {
        return directory.into();
    }
    // A relative build directory is meant from the workspace, tests run one level below.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("/"));
    let build = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace.join(build).join("rocketmq")
}
