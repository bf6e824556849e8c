//! Text that nobody is to see.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A password, key or token. It prints as `***`, cannot be serialized, and its memory is wiped when the last copy goes.
///
/// ```
/// let secret = rocketmq_client::Secret::from("12345678");
/// assert_eq!(format!("{secret:?}"), "***");
/// assert_eq!(secret.expose(), "12345678");
/// ```
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// The text. Whatever it is copied into is no longer guarded.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether both are one, or clones of one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Arc::new(Zeroizing::new(text)))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
