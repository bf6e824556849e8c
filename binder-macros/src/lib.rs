//! Attribute macros of `stream-binder`, which re-exports them: use them from there.
//!
//! An attribute leaves the function as it is, callable from a unit test, and adds a registration that the
//! linker collects. It adds no power over registering by hand; it adds error messages that name the argument
//! or return type at fault.

mod attributes;
mod check;
mod expand;

use proc_macro::TokenStream;

/// Binds an async function to an input: it receives messages and sends nothing by itself.
///
/// Its binding is `<function>-in-0`. Arguments are extractors (`FromDelivery`), in any order; it returns `()`,
/// `Result<(), E>` or `Outcome`.
///
/// | Key | Meaning |
/// | --- | --- |
/// | `name = ".."` | name in `spring.cloud.function.definition`; default: the function's own |
/// | `binding = ".."` | name of the input binding; default `<name>-in-0` |
#[proc_macro_attribute]
pub fn consumer(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(check::Role::Consumer, arguments.into(), item.into()).into()
}

/// Binds an async function between an input and an output: it receives messages and sends what it returns.
///
/// Its bindings are `<function>-in-0` and `<function>-out-0`. Arguments are extractors (`FromDelivery`), in any
/// order; it returns what `IntoOutput` takes: a value, `Option`, `Vec`, `Message`, or a `Result` of those.
/// Outputs are stored and confirmed before the input is acknowledged.
///
/// | Key | Meaning |
/// | --- | --- |
/// | `name = ".."` | name in `spring.cloud.function.definition`; default: the function's own |
/// | `binding = ".."` | name of the input binding; default `<name>-in-0` |
/// | `output = ".."` | name of the output binding; default `<name>-out-0` |
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(check::Role::Function, arguments.into(), item.into()).into()
}

/// Binds an async function to an output: it is polled and what it returns is sent.
///
/// Its binding is `<function>-out-0`. Arguments are `State<T>` and `StreamBridge` (`FromContext`); it returns
/// what `IntoOutput` takes. It is polled as `poller.fixed-delay`, `poller.initial-delay` and
/// `poller.max-messages-per-poll` say.
///
/// | Key | Meaning |
/// | --- | --- |
/// | `name = ".."` | name in `spring.cloud.function.definition`; default: the function's own |
/// | `binding = ".."` | name of the output binding; default `<name>-out-0` |
/// | `every = ".."` | delay between polls where none is configured, as `500ms`, `1s`, `2m` or `1h`; default 1 s |
#[proc_macro_attribute]
pub fn supplier(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(check::Role::Supplier, arguments.into(), item.into()).into()
}
