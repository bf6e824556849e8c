//! The application: functions, configuration and a binder put together, started, and stopped in order.

mod error;
mod plan;
mod running;
mod signals;

use std::{fmt, sync::Arc};

use tower::{Layer, Service};
use tracing::{info, warn};

pub use error::{StartError, StartProblem, StartProblemKind};
pub use running::{RunningApp, ShutdownReport};
pub use signals::ShutdownSignals;

use crate::{
    binder::{Binder, DeliveryHandler},
    config::Config,
    delivery::Delivery,
    failure::{BoxError, Outcome},
    function::{Function, context::States, registry},
    rocketmq::RocketMqBinder,
};

type Wrap = Arc<dyn Fn(DeliveryHandler) -> DeliveryHandler + Send + Sync>;

/// Functions, their state, layers and configuration, before the start.
///
/// Functions with an attribute are found without being named here, as long as their crate is linked
/// (`use my_handlers as _;` for one that nothing else refers to). `spring.cloud.function.definition` says
/// which of them are bound, separated by `;`. Without it the one function there is gets bound, as in Spring;
/// where there are several, leaving it out is an error that lists them (Spring binds none and says nothing).
///
/// ```no_run,standalone_crate
/// use stream_binder::{App, Json, StartError, State, consumer};
///
/// #[derive(Clone)]
/// struct Db;
///
/// #[consumer]
/// async fn orders(Json(order): Json<u64>, State(_db): State<Db>) {
///     println!("order {order}");
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), StartError> {
///     App::from_env()?.state(Db).run().await
/// }
/// ```
#[must_use = "an application does nothing until `start` or `run`"]
pub struct App {
    config: Config,
    states: States,
    layers: Vec<Wrap>,
    functions: Vec<Function>,
    discover: bool,
    binder: Option<Arc<dyn Binder>>,
}

impl App {
    /// An application configured by `application.yml` and the environment; see [`Config::from_env`].
    ///
    /// # Errors
    /// [`StartError::Config`] with every mistake in the configuration.
    pub fn from_env() -> Result<Self, StartError> {
        Config::from_env().map(Self::new).map_err(StartError::Config)
    }

    /// An application with this configuration.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            states: States::default(),
            layers: Vec::new(),
            functions: Vec::new(),
            discover: true,
            binder: None,
        }
    }

    /// A value that functions take as `State<T>`; one per type, the last one counts.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// A tower layer around every consumer and function. It sees raw deliveries and their final outcome, after
    /// local attempts. The last layer given is the outermost. An error of the layer's service asks for a retry.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<DeliveryHandler> + Send + Sync + 'static,
        L::Service: Service<Delivery, Response = Outcome> + Clone + Send + Sync + 'static,
        <L::Service as Service<Delivery>>::Error: Into<BoxError>,
        <L::Service as Service<Delivery>>::Future: Send + 'static,
    {
        self.layers
            .push(Arc::new(move |inner| DeliveryHandler::new(layer.layer(inner))));
        self
    }

    /// A function by hand; see [`Function::consumer`], [`Function::function`] and [`Function::supplier`].
    pub fn register(mut self, function: Function) -> Self {
        self.functions.push(function);
        self
    }

    /// Leaves out the functions that attributes announced: only registered ones exist. For tests.
    pub fn without_discovery(mut self) -> Self {
        self.discover = false;
        self
    }

    /// Binds to this binder instead of the configured one, for instance a
    /// [`MemoryBinder`](crate::MemoryBinder).
    pub fn binder(mut self, binder: impl Binder + 'static) -> Self {
        self.binder = Some(Arc::new(binder));
        self
    }

    /// Checks everything, binds everything, then returns. Deliveries and polls begin meanwhile.
    ///
    /// # Errors
    /// [`StartError`]; whatever was bound before is unbound again.
    ///
    /// # Cancellation
    /// A start that is dropped leaves nothing running.
    pub async fn start(self) -> Result<RunningApp, StartError> {
        let Self {
            config,
            states,
            layers,
            mut functions,
            discover,
            binder,
        } = self;
        if discover {
            functions.extend(registry::discovered());
        }
        let plan = plan::plan(&config, functions, &states)?;
        let binder = match binder {
            Some(binder) => binder,
            None => default_binder(&config).await?,
        };
        running::start(&config, plan, states, &layers, binder).await
    }

    /// Starts, runs until Ctrl-C or SIGTERM, and stops gracefully within
    /// `spring.cloud.stream.shutdown-timeout` (30 s). A second signal ends the wait.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn run(self) -> Result<(), StartError> {
        let mut signals = ShutdownSignals::listen().map_err(StartError::Signal)?;
        let running = tokio::select! {
            running = self.start() => running?,
            signal = signals.next() => return signal.map_err(StartError::Signal),
        };
        info!("waiting for Ctrl-C or SIGTERM");
        signals.next().await.map_err(StartError::Signal)?;
        tokio::select! {
            _report = running.shutdown() => {}
            signal = signals.next() => {
                signal.map_err(StartError::Signal)?;
                warn!("second signal: stopping without waiting for what is running");
            }
        }
        Ok(())
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("config", &self.config)
            .field("functions", &self.functions)
            .field("binder", &self.binder)
            .finish_non_exhaustive()
    }
}

async fn default_binder(config: &Config) -> Result<Arc<dyn Binder>, StartError> {
    Ok(Arc::new(RocketMqBinder::connect(config).await?))
}

#[cfg(test)]
mod tests;
