//! A bound on the time of one delivery.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tower::{Layer, Service};

use crate::{
    delivery::Delivery,
    failure::{BoxError, Failure, Outcome},
};

/// Cuts a handler off when one delivery takes longer than a bound, and asks for another attempt.
///
/// The bound covers the local attempts of a delivery and the sending of its outputs. The handler's future is
/// dropped at its current await.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn demo() -> Result<(), stream_binder::StartError> {
/// use stream_binder::{App, layers::TimeoutLayer};
///
/// App::from_env()?.layer(TimeoutLayer::new(Duration::from_secs(30))).run().await
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TimeoutLayer {
    bound: Duration,
}

impl TimeoutLayer {
    /// At most `bound` for one delivery.
    #[must_use]
    pub fn new(bound: Duration) -> Self {
        Self { bound }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = TimeoutService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeoutService {
            inner,
            bound: self.bound,
        }
    }
}

/// The service that [`TimeoutLayer`] makes.
#[derive(Clone, Debug)]
pub struct TimeoutService<S> {
    inner: S,
    bound: Duration,
}

impl<S> Service<Delivery> for TimeoutService<S>
where
    S: Service<Delivery, Response = Outcome>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Outcome;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let bound = self.bound;
        let call = self.inner.call(delivery);
        Box::pin(async move {
            match tokio::time::timeout(bound, call).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Ok(Outcome::Failed(Failure::retry(format!(
                    "the handler took longer than {bound:?}"
                )))),
            }
        })
    }
}
