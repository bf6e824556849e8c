use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use super::*;
use crate::ErrorKind;
use crate::cluster::testing::{FakeRoutes, client, name_server_and_broker, route};
use crate::protocol::bodies::ClusterInfo;
use crate::protocol::requests::{BrokerClusterInfo, MaxOffset};
use crate::protocol::{Frame, Json, ResponseCode};
use crate::sync::lock;
use crate::transport::fake::{Answer, FakeServer, fields};

const MAX_OFFSET: MaxOffset = MaxOffset {
    topic: String::new(),
    queue_id: 1,
};

#[test]
fn handles_can_be_shared() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Client>();
}

#[tokio::test]
async fn options_that_cannot_be_used_are_named_all_at_once() {
    let error = Client::builder("a:1")
        .connect_timeout(Duration::ZERO)
        .max_in_flight(0)
        .instance_name(" ")
        .connect()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        error.to_string(),
        "client options cannot be used: connect_timeout must be longer than nothing; max_in_flight must be at least \
         1; instance_name must not be blank"
    );
}

#[tokio::test]
async fn an_address_and_an_instance_of_ones_own_make_the_identity() {
    let server = FakeServer::start(|_| Answer::Silence).await;
    let client = Client::builder(server.address())
        .client_ip(Ipv4Addr::new(10, 1, 2, 3))
        .instance_name("billing-1")
        .connect()
        .await
        .unwrap();
    assert_eq!(client.client_id(), "10.1.2.3@billing-1");
    let message_id = client.cluster().unique_ids().at(0);
    assert!(message_id.starts_with("0A010203"), "{message_id}");
    client.shutdown().await;
}

#[tokio::test]
async fn any_request_can_be_made_by_address_or_by_broker_name() {
    let server = FakeServer::start(|frame| {
        if frame.code == BrokerClusterInfo::CODE.0 {
            let address = frame.remark.clone();
            assert_eq!(address, None);
            return Answer::with(Json(ClusterInfo::default()));
        }
        fields([("offset", "42")])
    })
    .await;
    let client = client(&server.address()).await;
    assert_eq!(
        client.call(server.address(), MAX_OFFSET).await.unwrap().offset,
        42
    );
    let error = client.call("broker-x", MAX_OFFSET).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no master named \"broker-x\" is known to the name server; it knows []"
    );
    let routes = &client.cluster().routes;
    routes_with(routes, &server.address());
    assert_eq!(client.call("broker-x", MAX_OFFSET).await.unwrap().offset, 42);
}

fn routes_with(routes: &Routes, address: &str) {
    routes.learn("t", route(&[("broker-x", address)], 1));
}

#[tokio::test]
async fn a_refusal_comes_with_its_code_and_is_nothing_stored() {
    let server = FakeServer::start(|_| Answer::code(ResponseCode::NO_PERMISSION)).await;
    let client = client(&server.address()).await;
    let error = client.call(server.address(), MAX_OFFSET).await.unwrap_err();
    assert_eq!(error.response(), Some((ResponseCode::NO_PERMISSION, "scripted")));
    assert_eq!(error.kind(), ErrorKind::Rejected);
}

#[tokio::test]
async fn a_server_that_goes_away_is_asked_again_over_a_new_connection() {
    let asked = AtomicUsize::new(0);
    let server = FakeServer::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::code(ResponseCode::GO_AWAY),
        _ => fields([("offset", "42")]),
    })
    .await;
    let client = client(&server.address()).await;
    assert_eq!(
        client.call(server.address(), MAX_OFFSET).await.unwrap().offset,
        42
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_silent_server_costs_the_request_timeout_and_no_more() {
    let server = FakeServer::start(|_| Answer::Silence).await;
    let client = Client::builder(server.address())
        .request_timeout(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    let error = client.call(server.address(), MAX_OFFSET).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.persisted(), crate::Persisted::No, "no send, nothing stored");
}

/// Notes what passes, in the order of the layers.
#[derive(Clone)]
struct Note(&'static str, Arc<Mutex<Vec<String>>>);

impl<S> Layer<S> for Note {
    type Service = Noting<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Noting {
            note: self.clone(),
            inner,
        }
    }
}

#[derive(Clone)]
struct Noting<S> {
    note: Note,
    inner: S,
}

impl<S: Service<Call>> Service<Call> for Noting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut call: Call) -> S::Future {
        let Note(name, notes) = &self.note;
        lock(notes).push(format!("{name} {} {:?}", call.name, call.fields.get("by")));
        call.fields.push("by", name);
        self.inner.call(call)
    }
}

#[tokio::test]
async fn layers_see_every_request_from_the_outside_in_and_may_add_fields() {
    let server = FakeServer::start(|_| fields([("offset", "42")])).await;
    let notes = Arc::new(Mutex::new(Vec::new()));
    let client = Client::builder(server.address())
        .request_layer(Note("outer", Arc::clone(&notes)))
        .request_layer(Note("inner", Arc::clone(&notes)))
        .connect()
        .await
        .unwrap();
    assert_eq!(
        client.call(server.address(), MAX_OFFSET).await.unwrap().offset,
        42
    );
    assert_eq!(
        *lock(&notes),
        ["outer MaxOffset None", "inner MaxOffset Some(\"outer\")"]
    );
    let request: Frame = server.requests().pop().unwrap();
    assert_eq!(request.fields.get("queueId"), Some("1"));
    assert_eq!(request.fields.get("by"), Some("outer"));
}

#[tokio::test]
async fn a_layer_may_answer_or_refuse_by_itself() {
    let server = FakeServer::start(|_| Answer::Silence).await;
    let refusing = tower::layer::layer_fn(|_inner: RequestStack| {
        tower::service_fn(|_call: Call| async { Err::<Reply, BoxError>("closed on Sundays".into()) })
    });
    let client = Client::builder(server.address())
        .request_layer(refusing)
        .connect()
        .await
        .unwrap();
    let error = client.call(server.address(), MAX_OFFSET).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.to_string(), "a request layer failed: closed on Sundays");

    let ours = tower::layer::layer_fn(|_inner: RequestStack| {
        tower::service_fn(|_call: Call| async {
            Err::<Reply, BoxError>(Box::new(Error::new(ErrorKind::Overloaded, "enough")))
        })
    });
    let client = Client::builder(server.address())
        .request_layer(ours)
        .connect()
        .await
        .unwrap();
    let error = client.call(server.address(), MAX_OFFSET).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);

    let answering = tower::layer::layer_fn(|_inner: RequestStack| {
        tower::service_fn(|_call: Call| async {
            let mut reply = Reply::new(ResponseCode::SUCCESS);
            reply.fields.push("offset", "7");
            Ok::<Reply, Error>(reply)
        })
    });
    let client = Client::builder(server.address())
        .request_layer(answering)
        .connect()
        .await
        .unwrap();
    assert_eq!(client.call("any:1", MAX_OFFSET).await.unwrap().offset, 7);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_shutdown_ends_all_tasks_and_later_calls_say_so() {
    let routes = FakeRoutes::default();
    let server = name_server_and_broker(&routes, |_| fields([("offset", "42")])).await;
    let client = client(&server.address()).await;
    client.call(server.address(), MAX_OFFSET).await.unwrap();
    client.shutdown().await;
    assert_eq!(client.cluster().tasks().running(), 0);
    let error = client.call(server.address(), MAX_OFFSET).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(
        error.to_string(),
        "the client is shut down; make a new one to go on"
    );
    client.shutdown().await;
}

#[tokio::test]
async fn dropping_the_last_handle_asks_all_tasks_to_stop() {
    let server = FakeServer::start(|_| Answer::Silence).await;
    let client = client(&server.address()).await;
    let token = client.cluster().tasks().token().clone();
    let other = client.clone();
    drop(client);
    assert!(!token.is_cancelled());
    drop(other);
    assert!(token.is_cancelled());
}
