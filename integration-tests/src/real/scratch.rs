//! Directories of the servers' data and logs, below the build directory.
//!
//! A directory carries the id of the process that made it. It is removed when its owner is dropped; what a killed
//! process left behind is removed by the next one. Statics are never dropped, so the servers shared by all scenarios
//! always leave theirs, logs and all, until the next run.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use super::process::exists;
use crate::{Failure, peers_directory};

static COUNT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A fresh directory, removed on drop.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Result<Self, Failure> {
        let root = peers_directory().join("scratch");
        SWEEP.call_once(|| sweep(&root));
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{}-{count}-{name}", process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failing test's servers are gone by now; their logs were quoted in the failure.
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "scratch directory stays behind");
        }
    }
}

/// Best effort: what cannot be read or removed now is left to the next run.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.split('-').next())
            .and_then(|pid| pid.parse().ok());
        if owner.is_some_and(|pid| matches!(exists(pid), Ok(false))) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
