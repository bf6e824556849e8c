//! The file of offsets: Java's format, replaced as a whole.
//!
//! What is on the disk at any time is one complete file under its name, or, between two renames, under the name of the
//! backup.
//!
//! Protocol source: `LocalFileOffsetStore`, `OffsetSerializeWrapper`, `MixAll#string2File`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tracing::warn;

use super::unusable;
use crate::error::Result;
use crate::protocol::bodies::{MessageQueue, QueueMap, loose};

/// Offsets by queue, as brokers name it.
pub(super) type Table = BTreeMap<MessageQueue, i64>;

/// More than any file of offsets: 4096 queues take half a megabyte.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The file of one group and identity, held against everybody else.
#[derive(Debug)]
pub(super) struct OffsetFile {
    path: PathBuf,
    backup: PathBuf,
    temporary: PathBuf,
    /// Whether what is under `path` is worth to become the backup.
    sound: bool,
    /// Given back by the system when it is closed, also after a crash.
    _lock: File,
}

/// What keeps a file from being opened.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody else has it at the moment.
    InUse,
    /// It cannot be used.
    Unusable(crate::Error),
}

impl From<crate::Error> for Refused {
    fn from(error: crate::Error) -> Self {
        Self::Unusable(error)
    }
}

impl OffsetFile {
    /// Makes the directory, takes the lock and reads what is there.
    pub(super) fn open(path: &Path) -> Result<(Self, Table), Refused> {
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(directory)
            .map_err(|error| unusable(directory, format_args!("the directory cannot be made: {error}")))?;
        let lock_path = with_suffix(path, ".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| unusable(&lock_path, format_args!("cannot be opened for writing: {error}")))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Refused::InUse),
            Err(TryLockError::Error(error)) => {
                return Err(unusable(&lock_path, format_args!("cannot be locked: {error}")).into());
            }
        }
        let mut file = Self {
            backup: with_suffix(path, ".bak"),
            temporary: with_suffix(path, ".tmp"),
            path: path.to_owned(),
            sound: true,
            _lock: lock,
        };
        let table = file.read()?;
        Ok((file, table))
    }

    /// Java reads the backup too when the file is missing or cannot be read, but tells nobody; and when the backup is
    /// missing then, it starts as if there had been nothing.
    fn read(&mut self) -> Result<Table> {
        let why = match read_table(&self.path) {
            Ok(Some(table)) => return Ok(table),
            Ok(None) => None,
            Err(fault) => Some(fault),
        };
        self.sound = why.is_none();
        match (read_table(&self.backup), why) {
            (Ok(Some(table)), Some(fault)) => {
                warn!(
                    file = %self.path.display(), backup = %self.backup.display(), fault,
                    "the file of offsets cannot be read, the one before it is used: some messages come again"
                );
                Ok(table)
            }
            // Between two renames a crash leaves only the backup.
            (Ok(Some(table)), None) => Ok(table),
            (Ok(None), None) => Ok(Table::new()),
            (Ok(None), Some(fault)) => Err(unusable(
                &self.path,
                format_args!(
                    "cannot be read ({fault}), and there is no {}; restore one of them, or delete the file to start \
                     where a new group does",
                    self.backup.display()
                ),
            )),
            (Err(fault), None) => Err(unusable(
                &self.backup,
                format_args!(
                    "cannot be read ({fault}), and there is no {}; restore one of them, or delete the backup to start \
                     where a new group does",
                    self.path.display()
                ),
            )),
            (Err(second), Some(first)) => Err(unusable(
                &self.path,
                format_args!(
                    "cannot be read ({first}), and neither can {} ({second}); restore one of them, or delete both to \
                     start where a new group does",
                    self.backup.display()
                ),
            )),
        }
    }

    /// Replaces the file. When this fails, the old one is still there.
    pub(super) fn write(&mut self, table: &Table) -> io::Result<()> {
        // Left behind by a crash.
        remove_if_there(&self.temporary)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.temporary)?;
        let written = file
            .write_all(text_of(table).as_bytes())
            .and_then(|()| file.sync_all());
        drop(file);
        if let Err(error) = written {
            // What there is of it takes room on a disk that may be full.
            let _ = fs::remove_file(&self.temporary);
            return Err(error);
        }
        if self.sound {
            match fs::rename(&self.path, &self.backup) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.temporary, &self.path)?;
        self.sound = true;
        sync_directory(&self.path)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A rename lasts from when the directory is on the disk. Other systems than Unix do not open directories.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// `None` if there is no file; else its offsets or what is wrong with it.
fn read_table(path: &Path) -> Result<Option<Table>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Content {
        offset_table: QueueMap<i64>,
    }
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let content: Content = serde_json::from_slice(&loose::tighten(&text))
        .map_err(|error| format!("no offsets in it: {error}"))?;
    Ok(Some(content.offset_table.0))
}

/// Java's file but for the layout: the keys are objects.
fn text_of(table: &Table) -> String {
    let mut text = String::from("{\n\t\"offsetTable\":{");
    for (place, (queue, offset)) in table.iter().enumerate() {
        let separator = if place == 0 { "" } else { "," };
        // Names of topics and brokers are text, and text has a JSON form.
        let key = serde_json::to_string(queue).unwrap_or_default();
        let _ = write!(text, "{separator}\n\t\t{key}:{offset}");
    }
    text.push_str("\n\t}\n}\n");
    text
}

#[cfg(test)]
mod tests;
