//! Functions that announce themselves at link time.

use crate::function::Function;

/// What an attribute leaves behind: how to make the function. Collected by the linker from every crate that
/// is linked into the program; a crate that nothing refers to is not, so write `use my_handlers as _;`.
#[derive(Debug)]
pub struct Registration {
    make: fn() -> Function,
}

impl Registration {
    /// For generated code.
    #[must_use]
    pub const fn new(make: fn() -> Function) -> Self {
        Self { make }
    }
}

inventory::collect!(Registration);

/// All functions that attributes announced.
pub(crate) fn discovered() -> impl Iterator<Item = Function> {
    inventory::iter::<Registration>
        .into_iter()
        .map(|registration| (registration.make)())
}
