//! What stands around every handler: panic isolation, local attempts, and layers.
//!
//! From the outside in: the binder, the layers given to [`App::layer`](crate::App::layer) (the last given is
//! the outermost), local attempts, panic isolation, decoding, the function, the sending of its outputs. So a
//! layer sees the raw delivery, whatever the payload's type, and its final outcome.

pub(crate) mod panic;
pub(crate) mod retry;
mod timeout;

pub use timeout::{TimeoutLayer, TimeoutService};
