//! Binding in order, and stopping in the reverse order.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    app::{
        Wrap,
        error::StartError,
        plan::{Plan, PlannedFunction},
    },
    binder::{Binder, BoundConsumer, ConsumerBinding, DeliveryHandler, ProducerBinding},
    bridge::{OutputBinding, StreamBridge},
    config::Config,
    function::{
        Body,
        context::{Context, States},
        pipeline::Pipeline,
        poller::Poller,
    },
    layers::retry::LocalRetry,
    tasks::{StillRunning, Tasks},
};

/// A started application. [`shutdown`](Self::shutdown) stops it gracefully; dropping it stops it at once and
/// cuts off what is running.
#[must_use = "dropping it stops the application"]
pub struct RunningApp {
    bridge: StreamBridge,
    consumers: BTreeMap<Arc<str>, Box<dyn BoundConsumer>>,
    suppliers: BTreeMap<Arc<str>, watch::Sender<bool>>,
    polling: Tasks,
    binder: Arc<dyn Binder>,
    closed: CancellationToken,
    grace: Duration,
}

/// What a shutdown had to cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Deliveries whose handler had not answered; their messages come again.
    pub unfinished_deliveries: usize,
    /// Suppliers whose call or send had not ended; what they had taken is lost.
    pub unfinished_suppliers: usize,
}

impl ShutdownReport {
    /// Whether everything that was running finished.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl RunningApp {
    /// Sends through the application's bindings.
    #[must_use]
    pub fn bridge(&self) -> &StreamBridge {
        &self.bridge
    }

    /// Names of the bound inputs, and of the outputs that have a supplier, sorted within each.
    pub fn bindings(&self) -> impl Iterator<Item = &str> {
        self.consumers
            .keys()
            .chain(self.suppliers.keys())
            .map(|name| &**name)
    }

    /// Stops deliveries to an input binding, or polls of the supplier of an output binding; what runs may
    /// finish. Says whether there is such a binding.
    pub fn pause(&self, binding: &str) -> bool {
        self.set_paused(binding, true)
    }

    /// Continues a binding that was paused, or that `auto-startup: false` left waiting. Says whether there is
    /// such a binding.
    pub fn resume(&self, binding: &str) -> bool {
        self.set_paused(binding, false)
    }

    fn set_paused(&self, binding: &str, paused: bool) -> bool {
        if let Some(consumer) = self.consumers.get(binding) {
            if paused {
                consumer.pause();
            } else {
                consumer.resume();
            }
            return true;
        }
        let supplier = self.suppliers.get(binding);
        supplier.is_some_and(|supplier| {
            supplier.send_replace(paused);
            true
        })
    }

    /// Stops in order, within `spring.cloud.stream.shutdown-timeout` (30 s) altogether: suppliers; intake of
    /// all inputs; running handlers, with what they send; then the bridge and the connections. Returns what had
    /// to be cut off.
    ///
    /// # Cancellation
    /// Dropping it stops at once.
    pub async fn shutdown(self) -> ShutdownReport {
        let deadline = Instant::now() + self.grace;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut report = ShutdownReport::default();
        for consumer in self.consumers.values() {
            consumer.pause();
        }
        if let Err(StillRunning(suppliers)) = self.polling.stop(left()).await {
            report.unfinished_suppliers = suppliers;
        }
        for consumer in self.consumers.values() {
            report.unfinished_deliveries += consumer.stop(left()).await;
        }
        self.closed.cancel();
        self.binder.shutdown(left()).await;
        let ShutdownReport {
            unfinished_deliveries,
            unfinished_suppliers,
        } = report;
        if report.is_clean() {
            info!("stopped");
        } else {
            warn!(
                unfinished_deliveries,
                unfinished_suppliers, "stopped, cutting off what had not finished in time"
            );
        }
        report
    }
}

/// However it ends, nobody can send through it any more.
impl Drop for RunningApp {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl fmt::Debug for RunningApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningApp")
            .field("inputs", &self.consumers.keys())
            .field("suppliers", &self.suppliers.keys())
            .field("binder", &self.binder)
            .finish_non_exhaustive()
    }
}

/// Outputs first, because handlers send; suppliers last, because somebody should listen.
pub(super) async fn start(
    config: &Config,
    plan: Plan,
    states: States,
    layers: &[Wrap],
    binder: Arc<dyn Binder>,
) -> Result<RunningApp, StartError> {
    for warning in config.warnings() {
        warn!("{warning}");
    }
    let closed = CancellationToken::new();
    let mut running = RunningApp {
        bridge: StreamBridge::new([], Arc::clone(&binder), closed.clone()),
        consumers: BTreeMap::new(),
        suppliers: BTreeMap::new(),
        polling: Tasks::new(),
        binder,
        closed,
        grace: config.shutdown_timeout(),
    };
    match bind_all(&mut running, plan, states, layers).await {
        Ok(()) => Ok(running),
        Err(error) => {
            running.shutdown().await;
            Err(error)
        }
    }
}

async fn bind_all(
    running: &mut RunningApp,
    plan: Plan,
    states: States,
    layers: &[Wrap],
) -> Result<(), StartError> {
    let mut outputs: BTreeMap<String, Arc<OutputBinding>> = BTreeMap::new();
    for (name, properties) in plan.outputs {
        let name_shared: Arc<str> = Arc::from(name.as_str());
        let destination: Arc<str> = Arc::from(properties.destination.as_str());
        let binding = ProducerBinding::new(Arc::clone(&name_shared), Arc::clone(&destination));
        let outbound = running.binder.bind_producer(binding).await?;
        let output = OutputBinding {
            name: name_shared,
            destination,
            content_type: properties.content_type,
            producer: properties.producer,
            outbound,
            closed: running.closed.clone(),
        };
        outputs.insert(name, Arc::new(output));
    }
    let bridge_outputs = outputs.values().map(Arc::clone);
    running.bridge = StreamBridge::new(
        bridge_outputs,
        Arc::clone(&running.binder),
        running.closed.clone(),
    );

    let states = Arc::new(states);
    let (suppliers, handlers): (Vec<_>, Vec<_>) =
        plan.functions.into_iter().partition(PlannedFunction::is_supplier);
    for planned in handlers.into_iter().chain(suppliers) {
        let cx = Context {
            function: Arc::from(planned.function.name()),
            content_type: planned
                .input
                .as_ref()
                .map_or("application/json", |(b, _)| &b.content_type)
                .into(),
            states: Arc::clone(&states),
            bridge: running.bridge.clone(),
        };
        let output = planned
            .output
            .as_ref()
            .and_then(|name| outputs.get(name))
            .cloned();
        bind_function(running, planned, cx, output, layers).await?;
    }
    let inputs = running.consumers.len();
    info!(
        binder = running.binder.kind(),
        inputs,
        outputs = outputs.len(),
        "started"
    );
    Ok(())
}

async fn bind_function(
    running: &mut RunningApp,
    planned: PlannedFunction,
    cx: Context,
    output: Option<Arc<OutputBinding>>,
    layers: &[Wrap],
) -> Result<(), StartError> {
    let function = Arc::clone(&cx.function);
    match (planned.function.body, planned.input, output) {
        (Body::Invoke(invoke), Some((input, group)), output) => {
            let sends_to = output.as_ref().map(|output| Arc::clone(&output.destination));
            let consumer = &input.consumer;
            let retry = LocalRetry::new(consumer.max_attempts, consumer.back_off.clone());
            let handler = DeliveryHandler::function(Pipeline {
                invoke,
                cx,
                output,
                retry,
            });
            let handler = layers.iter().fold(handler, |inner, layer| layer(inner));
            let name: Arc<str> = Arc::from(input.name.as_str());
            let binding = ConsumerBinding::new(Arc::clone(&name), input.destination.as_str(), group.as_str())
                .concurrency(consumer.concurrency)
                .auto_startup(consumer.auto_startup);
            let bound = running.binder.bind_consumer(binding, handler).await?;
            let (binding, topic) = (&*name, &*input.destination);
            let (concurrency, sends_to) = (consumer.concurrency, sends_to.as_deref());
            info!(
                function = &*function,
                binding, topic, group, concurrency, sends_to, "bound"
            );
            running.consumers.insert(name, bound);
        }
        (Body::Poll(poll), _, Some(output)) => {
            let properties = &output.producer.poller;
            let fixed_delay = match planned.function.every {
                Some(every) if !properties.fixed_delay_is_set => every,
                _ => properties.fixed_delay,
            };
            let (paused, pause) = watch::channel(!output.producer.auto_startup);
            let poller = Poller {
                poll,
                cx,
                initial_delay: properties.initial_delay,
                fixed_delay,
                max_messages_per_poll: properties.max_messages_per_poll,
                output: Arc::clone(&output),
            };
            let (binding, sends_to) = (&*output.name, &*output.destination);
            info!(function = &*function, binding, sends_to, every = ?fixed_delay, "bound");
            running.suppliers.insert(Arc::clone(&output.name), paused);
            running.polling.spawn("supplier", |stop| poller.run(pause, stop));
        }
        // The plan gives every handler an input and every supplier an output.
        (Body::Invoke(_), None, _) | (Body::Poll(_), _, None) => {}
    }
    Ok(())
}
