//! What the attributes' expansion refers to. Not for use by hand: it may change in any version.

use std::sync::Arc;

pub use inventory;

pub use crate::{
    delivery::Delivery,
    function::{
        BoxFuture, Function,
        context::{Context, Requirements},
        handler::Argument,
        registry::Registration,
    },
};
use crate::{
    failure::Failure,
    function::{
        Body, Role,
        output::{IntoOutcome, IntoOutput, Output},
    },
};

type Answer<'a> = BoxFuture<'a, Result<Output, Failure>>;

/// What the arguments need of the application.
pub mod probe {
    use std::marker::PhantomData;

    use crate::function::{context::Requirements, handler::Argument};

    /// What an argument needs, without an error of its own where it is no extractor: the extraction has that.
    #[derive(Debug)]
    pub struct Probe<T, S>(PhantomData<fn() -> (T, S)>);

    impl<T, S> Probe<T, S> {
        #[expect(clippy::new_without_default, reason = "for generated code alone")]
        #[must_use]
        pub const fn new() -> Self {
            Self(PhantomData)
        }
    }

    /// Found first, for extractors.
    pub trait ProbeRequirements {
        fn require(&self, requirements: &mut Requirements);
    }

    impl<T: Argument<S>, S> ProbeRequirements for Probe<T, S> {
        fn require(&self, requirements: &mut Requirements) {
            T::require(requirements);
        }
    }

    /// Found one reference later, for everything else.
    pub trait ProbeNothing {
        fn require(&self, _: &mut Requirements) {}
    }

    impl<T, S> ProbeNothing for &Probe<T, S> {}
}

/// Exactly [`IntoOutcome`], with an error text of its own.
#[diagnostic::on_unimplemented(
    message = "a consumer cannot return `{Self}`",
    label = "return `()`, `Result<(), E>` or `Outcome`",
    note = "`E` is `Failure` or an error type; to send what is returned, make it a `#[function]`"
)]
pub trait ConsumerReturn {
    #[doc(hidden)]
    fn convert(self) -> Result<Output, Failure>;
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome> ConsumerReturn for T {
    fn convert(self) -> Result<Output, Failure> {
        self.into_outcome().map(|()| Output::none())
    }
}

/// Exactly [`IntoOutput`], with an error text of its own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent",
    label = "return `Json<T>`, `Text`, `Bytes` or `Message`, also in `Option`, `Vec` or `Result<_, E>`",
    note = "a value of your own goes as `Json(value)`; `E` is `Failure` or an error type"
)]
pub trait FunctionReturn {
    #[doc(hidden)]
    fn convert(self) -> Result<Output, Failure>;
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutput> FunctionReturn for T {
    fn convert(self) -> Result<Output, Failure> {
        self.into_output()
    }
}

/// A consumer from generated code.
pub fn consumer(
    name: &'static str,
    invoke: for<'a> fn(&'a Delivery, &'a Context) -> Answer<'a>,
    requirements: Requirements,
) -> Function {
    Function::new(name, Role::Consumer, Body::Invoke(Arc::new(invoke)), requirements)
}

/// A function from generated code.
pub fn function(
    name: &'static str,
    invoke: for<'a> fn(&'a Delivery, &'a Context) -> Answer<'a>,
    requirements: Requirements,
) -> Function {
    Function::new(name, Role::Function, Body::Invoke(Arc::new(invoke)), requirements)
}

/// A supplier from generated code.
pub fn supplier(
    name: &'static str,
    poll: for<'a> fn(&'a Context) -> Answer<'a>,
    requirements: Requirements,
) -> Function {
    Function::new(name, Role::Supplier, Body::Poll(Arc::new(poll)), requirements)
}

/// Where the function is written, for messages at start.
pub fn at(function: Function, file: &'static str, line: u32) -> Function {
    function.place(file, line)
}
