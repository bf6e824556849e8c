//! Any async function of extractors is a handler.

use std::future::Future;

use crate::{
    delivery::Delivery,
    failure::Failure,
    function::{
        context::{Context, Requirements},
        extract::{FromContext, FromDelivery},
    },
};

/// Where arguments come from: a [`Delivery`], or `()` for suppliers, which are called without one.
pub trait Source: Sync + sealed::Sealed {}

impl Source for Delivery {}
impl Source for () {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::delivery::Delivery {}
    impl Sealed for () {}
}

/// An argument that can be taken from a source; holds exactly for the extractors of that source.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor",
    label = "not an extractor",
    note = "a consumer or function takes what is `FromDelivery`, a supplier what is `FromContext`"
)]
pub trait Argument<S>: Sized {
    #[doc(hidden)]
    fn extract(source: &S, cx: &Context) -> impl Future<Output = Result<Self, Failure>> + Send;
    #[doc(hidden)]
    fn require(requirements: &mut Requirements);
}

#[diagnostic::do_not_recommend]
impl<T: FromDelivery> Argument<Delivery> for T {
    async fn extract(delivery: &Delivery, cx: &Context) -> Result<Self, Failure> {
        T::from_delivery(delivery, cx).await.map_err(Into::into)
    }

    fn require(requirements: &mut Requirements) {
        <T as FromDelivery>::require(requirements);
    }
}

#[diagnostic::do_not_recommend]
impl<T: FromContext + Send> Argument<()> for T {
    async fn extract(_: &(), cx: &Context) -> Result<Self, Failure> {
        T::from_context(cx).map_err(Into::into)
    }

    fn require(requirements: &mut Requirements) {
        <T as FromContext>::require(requirements);
    }
}

/// An async function or closure of up to twelve extractors, in any order.
///
/// `Args` is the tuple of its arguments; it is inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler",
    label = "not a handler",
    note = "a handler is an async function of at most 12 extractors that can be sent between threads"
)]
pub trait Handler<S: Source, Args>: Send + Sync + 'static {
    /// What the function returns.
    type Output;

    /// Extracts the arguments and calls the function.
    fn call(&self, source: &S, cx: &Context) -> impl Future<Output = Result<Self::Output, Failure>> + Send;

    /// Collects what the arguments need from the application.
    fn require(requirements: &mut Requirements);
}

macro_rules! handlers {
    ($(($($arg:ident $value:ident),*);)+) => {$(
        impl<S, F, Fut, R, $($arg),*> Handler<S, ($($arg,)*)> for F
        where
            S: Source,
            F: Fn($($arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: Send,
            $($arg: Argument<S> + Send,)*
        {
            type Output = R;

            async fn call(&self, source: &S, cx: &Context) -> Result<R, Failure> {
                let _ = (source, cx); // not used where there are no arguments
                $(let $value = $arg::extract(source, cx).await?;)*
                Ok(self($($value),*).await)
            }

            fn require(requirements: &mut Requirements) {
                let _ = &requirements;
                $($arg::require(requirements);)*
            }
        }
    )+};
}

handlers! {
    ();
    (A a);
    (A a, B b);
    (A a, B b, C c);
    (A a, B b, C c, D d);
    (A a, B b, C c, D d, E e);
    (A a, B b, C c, D d, E e, G g);
    (A a, B b, C c, D d, E e, G g, H h);
    (A a, B b, C c, D d, E e, G g, H h, I i);
    (A a, B b, C c, D d, E e, G g, H h, I i, J j);
    (A a, B b, C c, D d, E e, G g, H h, I i, J j, K k);
    (A a, B b, C c, D d, E e, G g, H h, I i, J j, K k, L l);
    (A a, B b, C c, D d, E e, G g, H h, I i, J j, K k, L l, M m);
}
