//! Doubles of the SPI: what the core does when a binder misbehaves.

use async_trait::async_trait;
use mockall::{mock, predicate};

use super::*;
use crate::{BoundConsumer, OutboundError, Persisted, SendReceipt};

mock! {
    #[derive(Debug)]
    Binder {}

    #[async_trait]
    impl Binder for Binder {
        fn kind(&self) -> &str;
        async fn bind_consumer(
            &self,
            binding: ConsumerBinding,
            handler: DeliveryHandler,
        ) -> Result<Box<dyn BoundConsumer>, BindError>;
        async fn bind_producer(&self, binding: ProducerBinding) -> Result<Arc<dyn Outbound>, BindError>;
        async fn shutdown(&self, grace: Duration);
    }
}

mock! {
    #[derive(Debug)]
    Consumer {}

    #[async_trait]
    impl BoundConsumer for Consumer {
        fn pause(&self);
        fn resume(&self);
        async fn stop(&self, grace: Duration) -> usize;
    }
}

mock! {
    #[derive(Debug)]
    Sender {}

    #[async_trait]
    impl Outbound for Sender {
        async fn send(&self, topic: &str, message: Message) -> Result<SendReceipt, OutboundError>;
    }
}

fn double(sender: MockSender) -> MockBinder {
    let mut binder = MockBinder::new();
    let sender: Arc<dyn Outbound> = Arc::new(sender);
    binder.expect_kind().return_const("double".to_owned());
    binder
        .expect_bind_producer()
        .returning(move |_| Ok(Arc::clone(&sender)));
    binder.expect_shutdown().times(1).return_const(());
    binder
}

fn start(yaml: &str, function: Function, binder: MockBinder) -> App {
    App::new(Config::from_yaml(yaml).unwrap())
        .without_discovery()
        .register(function)
        .binder(binder)
}

/// A binder that hands out the handler of its only consumer.
fn handing_out(sender: MockSender) -> (MockBinder, mpsc::Receiver<DeliveryHandler>) {
    let (bound, handlers) = mpsc::channel(1);
    let mut binder = double(sender);
    binder
        .expect_bind_consumer()
        .times(1)
        .returning(move |_, handler| {
            bound.try_send(handler).unwrap();
            let mut consumer = MockConsumer::new();
            consumer.expect_pause().return_const(());
            consumer.expect_stop().times(1).return_const(0_usize);
            Ok(Box::new(consumer))
        });
    (binder, handlers)
}

async fn outcome_of_three(sender: MockSender) -> Outcome {
    let (binder, mut handlers) = handing_out(sender);
    let app = start(SQUARE, square(), binder).start().await.unwrap();
    let handler = handlers.recv().await.unwrap();
    let outcome = handler
        .handle(Delivery::builder("square-in-0", "num", "3").build())
        .await;
    app.shutdown().await;
    outcome
}

#[tokio::test]
async fn an_input_is_not_acknowledged_when_its_output_cannot_be_stored() {
    for (error, retried) in [
        (
            OutboundError::new("no route to topic square", Persisted::No),
            true,
        ),
        (
            OutboundError::new("message too large", Persisted::No).permanent(),
            false,
        ),
    ] {
        let mut sender = MockSender::new();
        let error = Mutex::new(Some(error));
        sender
            .expect_send()
            .with(predicate::eq("square"), predicate::always())
            .times(1)
            .returning(move |_, _| Err(error.lock().unwrap().take().unwrap()));
        let Outcome::Failed(failure) = outcome_of_three(sender).await else {
            panic!("an unsent output was acknowledged");
        };
        assert_eq!(failure.is_retry(), retried);
        let text = failure.to_string();
        assert!(
            text.starts_with("send through `square-out-0` to topic square failed: "),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_output_is_confirmed_before_its_input_is_acknowledged() {
    let mut sender = MockSender::new();
    sender.expect_send().times(1).returning(|topic, message| {
        assert_eq!(&message.payload()[..], b"9");
        Ok(SendReceipt::new("id", topic, 0, 0))
    });
    assert!(outcome_of_three(sender).await.is_ack());
}

#[tokio::test]
async fn a_binding_that_fails_unbinds_those_before_it() {
    let mut binder = double(MockSender::new());
    let mut bound = MockConsumer::new();
    bound.expect_pause().return_const(());
    bound.expect_stop().times(1).return_const(0_usize);
    let mut bound = Some(bound);
    binder
        .expect_bind_consumer()
        .times(2)
        .returning(move |binding, _| match bound.take() {
            Some(consumer) => Ok(Box::new(consumer)),
            None => Err(BindError::new(&*binding.name, "no route to the broker")),
        });
    let yaml = "
        spring.cloud.function.definition: one;two
        spring.cloud.stream.bindings:
          one-in-0: {destination: a, group: a}
          two-in-0: {destination: b, group: b}
    ";
    let app = start(yaml, Function::consumer("one", || async {}), binder)
        .register(Function::consumer("two", || async {}));
    let error = app.start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot bind `two-in-0`: no route to the broker"
    );
}

#[tokio::test(start_paused = true)]
async fn a_supplied_message_is_sent_until_it_is_stored() {
    let mut sender = MockSender::new();
    let mut failures = 3;
    let (stored, mut bodies) = mpsc::channel(8);
    sender.expect_send().returning(move |topic, message| {
        if failures > 0 {
            failures -= 1;
            return Err(OutboundError::new("broker busy", Persisted::No));
        }
        stored.try_send(message.payload().clone()).unwrap();
        Ok(SendReceipt::new("id", topic, 0, 0))
    });
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let ticks = Function::supplier("ticks", move || {
        let call = counter.fetch_add(1, Ordering::SeqCst);
        async move { (call == 0).then_some("only") }
    });
    let app = start(
        "spring.cloud.stream.bindings.ticks-out-0.destination: t",
        ticks,
        double(sender),
    );
    let app = app.start().await.unwrap();
    assert_eq!(bodies.recv().await.unwrap(), "only");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    app.shutdown().await;
}
