//! Many brokers as one: name servers, routes, heartbeats, and the [`Client`] that ties them together.
//!
//! A [`Cluster`] is what producers and consumers share. It is found through [`Client`], the handle that users hold.

mod checks;
mod client;
mod discovery;
mod heartbeat;
mod identity;
mod inbound;
mod latency;
mod member;
mod name_server;
mod naming;
mod replies;
mod route;
mod trace;
mod version;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use crate::error::{Error, Persisted, Result};
use crate::protocol::bodies::{MASTER_ID, MessageQueue};
use crate::protocol::requests::BrokerClusterInfo;
use crate::protocol::{Fields, Frame, Request, Response, UniqueIds};
use crate::tasks::Tasks;
use crate::trace::Tracer;
use crate::transport::{Outbound, Remoting};

pub(crate) use checks::TransactionCheck;
pub(crate) use client::Options;
pub use client::{Client, ClientBuilder};
pub(crate) use latency::Detector;
pub use latency::LatencyFaultTolerance;
pub(crate) use member::{BoxFuture, GroupMember, ProducerMember};
pub(crate) use route::{TopicRoute, TopicTemplate};

use heartbeat::Members;
use name_server::NameServers;
use replies::Replies;
use route::Routes;
use version::Versions;

/// One cluster as one client sees it.
pub(crate) struct Cluster {
    client_id: String,
    options: Options,
    remoting: Remoting,
    name_servers: NameServers,
    routes: Routes,
    members: Members,
    versions: Versions,
    replies: Replies,
    unique_ids: UniqueIds,
    trace: Option<Arc<Tracer>>,
    tasks: Tasks,
}

impl Cluster {
    /// The identity under which brokers know this client.
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The identity that a Java client of the same address and instance name has, which outlives the process: without
    /// an instance name [`client_id`](Self::client_id) is another one each time.
    pub(crate) fn stable_id(&self) -> String {
        if self.options.instance_name.is_some() {
            return self.client_id.clone();
        }
        identity::stable_id(&self.client_id, self.options.unit_name.as_deref())
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// The root of all tasks of this client.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Fails once the client is shut down.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.tasks.token().is_cancelled() {
            return Err(Error::closed("the client"));
        }
        Ok(())
    }

    pub(crate) fn remoting(&self) -> &Remoting {
        &self.remoting
    }

    /// Makes the ids of messages.
    pub(crate) fn unique_ids(&self) -> &UniqueIds {
        &self.unique_ids
    }

    /// Makes a request to an address and reads the response.
    ///
    /// # Errors
    /// As the transport gives them; a refusal of the peer with its code, see [`Error::response`].
    ///
    /// # Cancellation
    /// Safe; a request that is in the buffer leaves whole, and its reply is dropped.
    pub(crate) async fn call_addr<R: Request>(
        &self,
        address: &str,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response> {
        let deadline = Instant::now() + timeout;
        let frame = self
            .remoting
            .request(address, &outbound(request, &Fields::new()), deadline)
            .await
            // Whether something was stored is a question about sends alone.
            .map_err(|error| error.with_persisted(Persisted::No))?;
        read_response::<R>(address, frame)
    }

    /// Puts a one-way request into the buffer of the connection to an address.
    ///
    /// # Errors
    /// When there is no connection, or no room in its buffer, before the request timeout.
    pub(crate) async fn one_way<R: Request>(&self, address: &str, request: &R) -> Result<()> {
        let deadline = Instant::now() + self.options.request_timeout;
        self.remoting
            .one_way(address, &outbound(request, &Fields::new()), deadline, None)
            .await
    }

    /// Makes a request to whichever name server answers.
    ///
    /// # Errors
    /// [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if none does; a refusal with its code.
    pub(crate) async fn call_name_server<R: Request>(&self, request: &R) -> Result<R::Response> {
        self.name_servers
            .call(&self.remoting, request, self.options.request_timeout)
            .await
    }

    /// All name servers: for what each of them has to be told.
    pub(crate) fn name_server_addrs(&self) -> Arc<[Arc<str>]> {
        self.name_servers.addresses()
    }

    /// Where the queues of a topic are: as known, else as a name server says.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`](crate::ErrorKind::TopicNotFound) if no broker has the topic (remembered for a
    /// second), [`ErrorKind::NameServer`](crate::ErrorKind::NameServer) if no name server answers.
    pub(crate) async fn route(self: &Arc<Self>, topic: &str) -> Result<Arc<TopicRoute>> {
        match self.routes.known(topic) {
            Some(route) if !route.is_derived() => Ok(route),
            _ => {
                self.routes.check_missing(topic)?;
                self.refresh_route(topic).await
            }
        }
    }

    /// The queues of a topic that can be read, in the order that all members of a group agree on.
    ///
    /// # Errors
    /// As [`route`](Self::route).
    pub(crate) async fn subscribe_queues(self: &Arc<Self>, topic: &str) -> Result<Arc<[MessageQueue]>> {
        Ok(Arc::clone(self.route(topic).await?.subscribe_queues()))
    }

    /// The address of a broker of exactly this id.
    pub(crate) fn broker_addr(&self, broker_name: &str, broker_id: i64) -> Option<Arc<str>> {
        self.routes.broker_addr(broker_name, broker_id)
    }

    /// The address to read from: the id that was asked for; for a slave that is gone, the next one; else any.
    ///
    /// Java: `MQClientInstance#findBrokerAddressInSubscribe`.
    pub(crate) fn broker_addr_for_read(&self, broker_name: &str, broker_id: i64) -> Option<Arc<str>> {
        let replica = self.replica_for_read(broker_name, broker_id);
        replica.map(|(_, address)| address)
    }

    /// The same with the id of the broker that it is.
    pub(crate) fn replica_for_read(&self, broker_name: &str, broker_id: i64) -> Option<(i64, Arc<str>)> {
        self.routes.replica_for_read(broker_name, broker_id)
    }

    /// The id of a slave, if there is one.
    pub(crate) fn slave_of(&self, broker_name: &str) -> Option<i64> {
        self.routes.slave_of(broker_name)
    }

    /// The address of the master of a broker, from a name server if no route has told of it yet.
    pub(crate) async fn master_addr(&self, broker_name: &str) -> Result<Arc<str>> {
        if let Some(address) = self.broker_addr(broker_name, MASTER_ID) {
            return Ok(address);
        }
        let info = self.call_name_server(&BrokerClusterInfo {}).await?.0;
        let broker = info.broker_addr_table.get(broker_name);
        let address = broker.and_then(|broker| broker.broker_addrs.get(&MASTER_ID));
        address.map(|address| address.as_str().into()).ok_or_else(|| {
            let known: Vec<_> = info.broker_addr_table.keys().map(String::as_str).collect();
            Error::config(format!(
                "no master named {broker_name:?} is known to the name server; it knows {known:?}"
            ))
        })
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A typed request as the transport takes it.
pub(crate) fn outbound<'a, R: Request>(request: &'a R, extra: &'a Fields) -> Outbound<'a, R> {
    Outbound {
        code: R::CODE.0,
        name: R::NAME,
        fields: request,
        extra,
        body: request.body(),
    }
}

/// A request whose fields are borrowed: the way of the sends.
pub(crate) fn outbound_parts<'a, R: Request, F: Serialize>(
    fields: &'a F,
    extra: &'a Fields,
    body: Bytes,
) -> Outbound<'a, F> {
    Outbound {
        code: R::CODE.0,
        name: R::NAME,
        fields,
        extra,
        body,
    }
}

pub(crate) fn read_response<R: Request>(address: &str, frame: Frame) -> Result<R::Response> {
    R::Response::from_frame(frame).map_err(|error| Error::from_response(R::NAME, address, error))
}

#[cfg(test)]
pub(crate) mod testing;
