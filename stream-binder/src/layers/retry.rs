//! Attempts inside one delivery: the core keys `max-attempts` and `back-off-*`.

use std::time::Duration;

use crate::config::BackOffProperties;

/// How often a failed handler is called again before the binder's own retry takes over.
#[derive(Clone, Debug, Default)]
pub(crate) enum LocalRetry {
    /// The default: one attempt per delivery; the broker repeats. No worker ever sleeps on a message.
    #[default]
    Never,
    /// Up to `max_attempts` attempts, the first included.
    UpTo {
        max_attempts: u32,
        back_off: BackOffProperties,
    },
}

impl LocalRetry {
    pub(crate) fn new(max_attempts: u32, back_off: BackOffProperties) -> Self {
        if max_attempts > 1 {
            Self::UpTo {
                max_attempts,
                back_off,
            }
        } else {
            Self::Never
        }
    }

    /// The pause after `attempt` attempts have failed, `None` when there is no other.
    pub(crate) fn pause_after(&self, attempt: u32) -> Option<Duration> {
        match self {
            Self::UpTo {
                max_attempts,
                back_off,
            } if attempt < *max_attempts => Some(back_off.delay(attempt)),
            _ => None,
        }
    }
}
