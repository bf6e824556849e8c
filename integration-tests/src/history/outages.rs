//! How long nothing went on, and how soon after a fault it did again.

use std::{fmt, time::Duration};

use super::{Event, Line, SendStatus, check::is_handled};

/// What counts as going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Sends are acknowledged.
    Sends,
    /// Messages are handled.
    Handled,
}

impl Progress {
    fn is(self, line: &Line) -> bool {
        match self {
            Self::Sends => matches!(
                &line.event,
                Event::Send {
                    status: SendStatus::Ok,
                    ..
                }
            ),
            Self::Handled => is_handled(line),
        }
    }
}

/// How long nothing went on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outages {
    /// The longest time without progress that no fault explains.
    pub longest_outside_faults: Duration,
    /// Of each fault: what it was, and how long after it, or after it was mended, it went on.
    pub recoveries: Vec<(String, Duration)>,
}

impl Outages {
    /// Reads it off the lines.
    pub(super) fn of(lines: &[Line], progress: Progress) -> Self {
        let mut in_time: Vec<&Line> = lines.iter().collect();
        in_time.sort_by_key(|line| line.ts);
        let mut outages = Self::default();
        let mut last: Option<u64> = None;
        // The faults since the last progress, and those that are not mended.
        let mut waiting: Vec<(&str, u64)> = Vec::new();
        let mut in_force: Vec<&str> = Vec::new();
        let mut disturbed = false;
        for line in in_time {
            match &line.event {
                Event::Fault { what, target } => {
                    waiting.push((what, line.ts));
                    disturbed = true;
                    // What is done to a process is done with it.
                    if target.is_none() {
                        in_force.push(what);
                    }
                }
                Event::Mended { what } => {
                    in_force.retain(|fault| fault != what);
                    waiting.retain(|(fault, _)| fault != what);
                    waiting.push((what, line.ts));
                    disturbed = true;
                }
                _ if progress.is(line) => {
                    for (what, since) in waiting.drain(..) {
                        let took = Duration::from_micros(line.ts.saturating_sub(since));
                        outages.recoveries.push((what.to_owned(), took));
                    }
                    if let (Some(last), false) = (last, disturbed) {
                        let silence = Duration::from_micros(line.ts.saturating_sub(last));
                        outages.longest_outside_faults = outages.longest_outside_faults.max(silence);
                    }
                    last = Some(line.ts);
                    disturbed = !in_force.is_empty();
                }
                _ => {}
            }
        }
        outages
    }

    /// The longest recovery.
    #[must_use]
    pub fn longest_recovery(&self) -> Duration {
        let times = self.recoveries.iter().map(|(_, took)| *took);
        times.max().unwrap_or_default()
    }
}

impl fmt::Display for Outages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "longest recovery of {} {:.1?}, longest silence outside faults {:.1?}",
            self.recoveries.len(),
            self.longest_recovery(),
            self.longest_outside_faults
        )
    }
}
