//! What is wrong with a configuration, where it was written, and the remedy.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The layer, and where possible the line, that gave a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nothing set it: the default of this crate.
    #[default]
    BuiltIn,
    /// A YAML file, or a YAML text (whose name is `<yaml>`).
    File {
        /// The name the file was opened by.
        name: Arc<str>,
        /// Line of the value, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(Arc<str>),
    /// [`ConfigBuilder::set`](super::ConfigBuilder::set).
    Override,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Override => f.write_str("set by the program"),
        }
    }
}

/// The kinds of mistake a configuration can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// A file could not be read, or is larger than 1 MiB.
    Unreadable,
    /// A text is not YAML, or exceeds the depth, size or alias limits.
    Syntax,
    /// The same key twice in one mapping.
    DuplicateKey,
    /// A key under `spring.cloud.stream` that nobody knows.
    UnknownKey,
    /// A key or a value that Spring or Spring Cloud Alibaba knows and this version does not implement.
    NotSupported,
    /// A value of the wrong type or outside its range.
    InvalidValue,
    /// A `${..}` that is malformed, unresolved or refers to itself.
    Placeholder,
    /// A topic or group name that RocketMQ refuses.
    IllegalName,
    /// An input binding without consumer group.
    MissingGroup,
    /// Two bindings of one consumer group with different subscriptions.
    InconsistentSubscription,
    /// A configured binding that no function has.
    UnknownBinding,
}

/// One mistake. `Display` names the place, the path, the reason and the remedy in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    kind: ConfigErrorKind,
    path: String,
    origin: Origin,
    message: String,
}

impl ConfigError {
    pub(crate) fn new(
        kind: ConfigErrorKind,
        path: impl Into<String>,
        origin: Origin,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            path: path.into(),
            origin,
            message: message.into(),
        }
    }

    /// What sort of mistake it is.
    #[must_use]
    pub fn kind(&self) -> ConfigErrorKind {
        self.kind
    }

    /// The key as the user wrote it, dots between its parts; empty where the whole file is meant.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The layer and line that holds the mistake.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The reason and the remedy, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::BuiltIn {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl Error for ConfigError {}

/// Every mistake found in one configuration, never empty. `Display` prints one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// `Ok` when the list is empty.
    pub(crate) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self { errors })
        }
    }

    /// The mistakes in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// How many there are; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.errors.len()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error] }
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}
