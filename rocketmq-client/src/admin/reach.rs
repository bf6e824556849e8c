//! Which brokers an operation goes to, and the calls themselves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::fan_out::{PerBroker, for_each};
use super::{Admin, Scope};
use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::bodies::{BrokerData, ClusterInfo, MASTER_ID, TopicRouteData};
use crate::protocol::requests::{BrokerClusterInfo, BrokerRuntimeInfo, RouteInfo};
use crate::protocol::{Json, Request, RequestCode, ResponseCode};

/// One broker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The broker's name; a slave's has its number behind it.
    pub(super) name: String,
    pub(super) address: Arc<str>,
}

impl Place {
    fn new(broker: &str, id: i64, address: &str) -> Self {
        let name = match id {
            MASTER_ID => broker.to_owned(),
            id => format!("{broker}#{id}"),
        };
        Self {
            name,
            address: address.into(),
        }
    }

    /// The master, or any slave while there is no master.
    fn to_ask(broker: &BrokerData) -> Option<Self> {
        let master = broker.broker_addrs.get_key_value(&MASTER_ID);
        let (id, address) = master.or_else(|| broker.broker_addrs.iter().next())?;
        Some(Self::new(&broker.broker_name, *id, address))
    }
}

impl Admin {
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        self.client.cluster()
    }

    /// What the name servers know of brokers.
    pub(super) async fn known_brokers(&self) -> Result<ClusterInfo> {
        Ok(self.cluster().call_name_server(&BrokerClusterInfo {}).await?.0)
    }

    /// Where a topic is, from a name server and not as remembered.
    pub(super) async fn fresh_route(&self, topic: &str) -> Result<TopicRouteData> {
        let request = RouteInfo {
            topic: topic.to_owned(),
            accept_standard_json_only: Some(true),
        };
        let route = self.cluster().call_name_server(&request).await;
        let Json(mut route) = route.map_err(|error| error.context(format_args!("route of topic {topic}")))?;
        route.sort();
        Ok(route)
    }

    /// The masters of the scope.
    pub(super) async fn masters(&self) -> Result<Vec<Place>> {
        self.places(|id| id == MASTER_ID).await
    }

    /// The masters and slaves of the scope.
    pub(super) async fn masters_and_slaves(&self) -> Result<Vec<Place>> {
        self.places(|_| true).await
    }

    async fn places(&self, wanted: impl Fn(i64) -> bool) -> Result<Vec<Place>> {
        if let Scope::Address(address) = &self.scope {
            return Ok(vec![Place {
                name: address.to_string(),
                address: Arc::clone(address),
            }]);
        }
        let info = self.known_brokers().await?;
        let brokers = info
            .broker_addr_table
            .values()
            .filter(|broker| self.covers(broker));
        let places: Vec<_> = brokers
            .flat_map(|broker| {
                let addresses = broker.broker_addrs.iter().filter(|(id, _)| wanted(**id));
                addresses.map(|(id, address)| Place::new(&broker.broker_name, *id, address))
            })
            .collect();
        match places.is_empty() {
            false => Ok(places),
            true => Err(self.nobody(&info)),
        }
    }

    fn nobody(&self, info: &ClusterInfo) -> Error {
        let known: Vec<_> = info.broker_addr_table.keys().map(String::as_str).collect();
        let clusters: Vec<_> = info.cluster_addr_table.keys().map(String::as_str).collect();
        Error::config(format!(
            "no broker of {} is known to the name server, which knows the brokers {known:?} of the clusters \
             {clusters:?}",
            self.scope
        ))
    }

    fn covers(&self, broker: &BrokerData) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Cluster(name) => *broker.cluster == **name,
            Scope::Broker(name) => *broker.broker_name == **name,
            Scope::Address(address) => broker.broker_addrs.values().any(|known| **known == **address),
        }
    }

    /// The brokers of the scope that have a topic; each once.
    pub(super) async fn places_of_topic(&self, topic: &str) -> Result<Vec<Place>> {
        let route = self.fresh_route(topic).await?;
        Ok(self.places_of_route(&route))
    }

    pub(super) fn places_of_route(&self, route: &TopicRouteData) -> Vec<Place> {
        let brokers = route.broker_datas.iter().filter(|broker| self.covers(broker));
        brokers.filter_map(Place::to_ask).collect()
    }

    /// The brokers of the scope that may know a group: those of its retry topic, or else those of a topic, or else
    /// all.
    pub(super) async fn places_of_group(&self, group: &str, topic: Option<&str>) -> Result<Vec<Place>> {
        let retry = crate::protocol::names::retry_topic(group);
        for topic in [Some(retry.as_str()), topic].into_iter().flatten() {
            match self.places_of_topic(topic).await {
                Ok(places) if places.is_empty() => {}
                Ok(places) => return Ok(places),
                Err(error) if error.kind() == ErrorKind::TopicNotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.masters().await
    }

    /// The broker of a queue.
    pub(super) async fn place_of_broker(&self, broker: &str) -> Result<Place> {
        let info = self.known_brokers().await?;
        let place = info.broker_addr_table.get(broker).and_then(Place::to_ask);
        place.ok_or_else(|| self.in_scope(Scope::Broker(broker.into())).nobody(&info))
    }

    /// Makes a request of one broker. A broker that is too old for it is named with its version.
    pub(super) async fn call<R: Request>(&self, place: &Place, request: &R) -> Result<R::Response> {
        self.call_within(place, request, self.timeout).await
    }

    pub(super) async fn call_within<R: Request>(
        &self,
        place: &Place,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response> {
        let answer = self.cluster().call_addr(&place.address, request, timeout).await;
        match answer {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Err(self.explain(place, R::CODE, error).await)
            }
            answer => answer,
        }
    }

    /// Says which version a broker has that does not know a request.
    async fn explain(&self, place: &Place, code: RequestCode, error: Error) -> Error {
        let version = match self.version(place).await {
            Ok(version) => version,
            Err(_) => "a version that it does not tell".to_owned(),
        };
        let since = since(code);
        error.context(format_args!(
            "broker {} runs {version}, which does not have this request; brokers of {since} do",
            place.name
        ))
    }

    /// The version that a broker says it has, for instance `V4_9_7`.
    pub(super) async fn version(&self, place: &Place) -> Result<String> {
        let runtime = self
            .cluster()
            .call_addr(&place.address, &BrokerRuntimeInfo {}, self.timeout);
        let Json(runtime) = runtime.await?;
        let version = runtime.table.get("brokerVersionDesc").cloned();
        version.ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "the broker does not tell its version").at(&*place.name)
        })
    }

    /// Whether a broker is of 5.x.
    pub(super) async fn is_v5(&self, place: &Place) -> Result<bool> {
        let version = self.version(place).await?;
        let major = version.trim_start_matches('V').split(['_', '.', '-']).next();
        Ok(major
            .and_then(|major| major.parse::<u32>().ok())
            .is_some_and(|major| major >= 5))
    }

    /// Makes a request of each of these brokers.
    pub(super) async fn ask<R: Request>(&self, places: Vec<Place>, request: &R) -> PerBroker<R::Response> {
        self.each(places, |place| async move { self.call(&place, request).await })
            .await
    }

    /// Makes a request of each of these brokers and keeps no answer.
    pub(super) async fn tell<R: Request>(&self, places: Vec<Place>, request: &R) -> PerBroker<()> {
        self.ask(places, request).await.map(drop)
    }

    /// Runs a job for each of these brokers.
    pub(super) async fn each<T, F>(
        &self,
        places: Vec<Place>,
        job: impl Fn(Place) -> F + Send + Sync,
    ) -> PerBroker<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        for_each(places, |place| place.name.clone(), job).await
    }

    /// Makes a request of each name server.
    pub(super) async fn ask_name_servers<R: Request>(&self, request: &R) -> PerBroker<R::Response> {
        let all = self.cluster().name_server_addrs();
        for_each(
            all.to_vec(),
            |address| address.to_string(),
            |address| async move { self.cluster().call_addr(&address, request, self.timeout).await },
        )
        .await
    }
}

/// Whether an error says that a broker does not have what was asked for.
pub(super) fn is_code(error: &Error, codes: &[ResponseCode]) -> bool {
    error.response().is_some_and(|(code, _)| codes.contains(&code))
}

/// The brokers that know a request which not all do.
fn since(code: RequestCode) -> &'static str {
    match code {
        RequestCode::UPDATE_AND_CREATE_ACL_CONFIG
        | RequestCode::DELETE_ACL_CONFIG
        | RequestCode::GET_BROKER_CLUSTER_ACL_INFO
        | RequestCode::UPDATE_GLOBAL_WHITE_ADDRS_CONFIG
        | RequestCode::GET_BROKER_CLUSTER_ACL_CONFIG => {
            "4.4 to 5.3.2 (newer ones have users and policies instead)"
        }
        RequestCode::UPDATE_AND_CREATE_TOPIC_LIST | RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
            "5.3 and newer"
        }
        RequestCode(3001..=3010) => "5.3 and newer (older ones have accounts instead)",
        _ => "5.0 and newer",
    }
}

/// The names of all these topics.
pub(super) fn names_of(topics: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    topics.into_iter().collect()
}
