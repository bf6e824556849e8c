//! A cluster of fake servers for tests: one of them is name server and broker at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{Client, ClientBuilder};
use crate::protocol::bodies::{BrokerData, QueueData, TopicRouteData};
use crate::protocol::requests::{HeartBeatResult, HeartBeatResultHeader, RouteInfo};
use crate::protocol::{Frame, Json, Request, RequestCode, ResponseCode};
use crate::sync::lock;
use crate::transport::fake::{Answer, FakeServer};

/// Routes that a fake name server tells; tests change them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeRoutes(Arc<Mutex<BTreeMap<String, TopicRouteData>>>);

impl FakeRoutes {
    pub(crate) fn set(&self, topic: &str, route: TopicRouteData) {
        lock(&self.0).insert(topic.to_owned(), route);
    }

    pub(crate) fn remove(&self, topic: &str) {
        lock(&self.0).remove(topic);
    }

    /// What a name server answers; `None` for what it does not serve.
    pub(crate) fn answer(&self, frame: &Frame) -> Option<Answer> {
        if frame.code != RouteInfo::CODE.0 {
            return None;
        }
        let request = RouteInfo::from_frame(frame.clone()).unwrap();
        Some(match lock(&self.0).get(&request.topic) {
            Some(route) => Answer::with(Json(route.clone())),
            None => Answer::code(ResponseCode::TOPIC_NOT_EXIST),
        })
    }
}

/// A route with `queues` queues on each broker, given as name and master address.
pub(crate) fn route(brokers: &[(&str, &str)], queues: i32) -> TopicRouteData {
    TopicRouteData {
        broker_datas: brokers
            .iter()
            .map(|(name, address)| BrokerData {
                broker_addrs: BTreeMap::from([(0, (*address).to_owned())]),
                broker_name: (*name).to_owned(),
                cluster: "DefaultCluster".into(),
                enable_acting_master: false,
            })
            .collect(),
        queue_datas: brokers
            .iter()
            .map(|(name, _)| QueueData {
                broker_name: (*name).to_owned(),
                perm: 6,
                read_queue_nums: queues,
                write_queue_nums: queues,
                topic_sys_flag: 0,
            })
            .collect(),
        ..TopicRouteData::default()
    }
}

/// What any broker answers to who only says that it is there.
pub(crate) fn manage(frame: &Frame) -> Option<Answer> {
    match RequestCode(frame.code) {
        RequestCode::HEART_BEAT => Some(Answer::with(HeartBeatResult {
            version: 473,
            header: HeartBeatResultHeader::default(),
        })),
        RequestCode::UNREGISTER_CLIENT => Some(Answer::done()),
        _ => None,
    }
}

/// A name server and a broker with a script for what is neither a route nor client management.
pub(crate) async fn name_server_and_broker(
    routes: &FakeRoutes,
    script: impl Fn(&Frame) -> Answer + Send + Sync + 'static,
) -> FakeServer {
    let routes = routes.clone();
    FakeServer::start(move |frame| {
        let served = routes.answer(frame).or_else(|| manage(frame));
        served.unwrap_or_else(|| script(frame))
    })
    .await
}

/// A client of these name servers.
pub(crate) async fn client(name_servers: &str) -> Client {
    builder(name_servers).connect().await.unwrap()
}

pub(crate) fn builder(name_servers: &str) -> ClientBuilder {
    Client::builder(name_servers).shutdown_grace(std::time::Duration::from_secs(2))
}
