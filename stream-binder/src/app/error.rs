//! Why an application did not start.

use std::{error::Error, fmt, io};

use crate::{
    binder::BindError,
    config::{ConfigError, ConfigErrorKind, ConfigErrors},
    failure::ErrorChain,
    rocketmq::ConnectError,
};

/// Why an application did not start. Prints every mistake, one per line, each with its place and remedy.
///
/// `Debug` prints the same text with its causes, because that is what the user of a program sees whose `main`
/// returns this error.
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be read.
    Config(ConfigErrors),
    /// Configuration, functions and states do not fit together; never empty.
    Mismatch(Vec<StartProblem>),
    /// The messaging system cannot be reached.
    Connect(ConnectError),
    /// The messaging system refuses a binding.
    Bind(BindError),
    /// Signals cannot be received.
    Signal(io::Error),
}

impl StartError {
    /// The mismatches, if it is about those.
    #[must_use]
    pub fn problems(&self) -> &[StartProblem] {
        match self {
            Self::Mismatch(problems) => problems,
            _ => &[],
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => errors.fmt(f),
            Self::Mismatch(problems) => {
                for (index, problem) in problems.iter().enumerate() {
                    if index > 0 {
                        writeln!(f)?;
                    }
                    problem.fmt(f)?;
                }
                Ok(())
            }
            Self::Connect(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
            Self::Signal(_) => f.write_str("cannot receive Ctrl-C and SIGTERM"),
        }
    }
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ErrorChain(self))
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Bind(error) => error.source(),
            Self::Signal(error) => Some(error),
            Self::Config(_) | Self::Mismatch(_) | Self::Connect(_) => None,
        }
    }
}

impl From<ConnectError> for StartError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

/// One mistake, found before anything was bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartProblem {
    kind: StartProblemKind,
    text: String,
}

/// The kinds of [`StartProblem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartProblemKind {
    /// `spring.cloud.function.definition` names a function that does not exist.
    UnknownFunction,
    /// Several functions exist and `spring.cloud.function.definition` does not choose.
    AmbiguousDefinition,
    /// Two functions have the same name, or the definition names one twice.
    DuplicateFunction,
    /// Two functions have the same input binding.
    DuplicateBinding,
    /// A configured output looks like a misspelt output of a function.
    UnknownBinding,
    /// The configuration does not fit the functions, for instance an input without a group.
    Config(ConfigErrorKind),
    /// A function takes a state that the application does not have.
    MissingState,
}

impl StartProblem {
    pub(crate) fn new(kind: StartProblemKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// What sort of mistake it is.
    #[must_use]
    pub fn kind(&self) -> StartProblemKind {
        self.kind
    }
}

impl From<ConfigError> for StartProblem {
    fn from(error: ConfigError) -> Self {
        Self::new(StartProblemKind::Config(error.kind()), error.to_string())
    }
}

impl fmt::Display for StartProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
