//! Keeping routes fresh: on demand, one question per topic at a time, and in the background.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::super::Cluster;
use super::{TopicRoute, TopicTemplate, not_found};
use crate::error::{Error, Result};
use crate::protocol::ResponseCode;
use crate::protocol::bodies::TopicRouteData;
use crate::protocol::requests::RouteInfo;
use crate::sync::lock;

/// How often topics of consumers that do not exist yet are asked for.
const MISSING_POLL: Duration = Duration::from_secs(1);

impl Cluster {
    /// Asks a name server where the queues of a topic are; who asks at the same time gets the same answer.
    ///
    /// # Errors
    /// As [`route`](Self::route).
    ///
    /// # Cancellation
    /// Safe; the question goes on for whoever else waits.
    pub(crate) async fn refresh_route(self: &Arc<Self>, topic: &str) -> Result<Arc<TopicRoute>> {
        let mut answer = self.ask(topic);
        match answer.wait_for(Option::is_some).await {
            Ok(answer) => match &*answer {
                Some(answer) => answer.clone(),
                None => Err(Error::closed("the client")),
            },
            // The task was cut off: the client is being shut down.
            Err(_) => Err(Error::closed("the client")),
        }
    }

    fn ask(self: &Arc<Self>, topic: &str) -> super::Asking {
        let mut asking = lock(&self.routes.asking);
        if let Some(asked) = asking.get(topic) {
            return asked.clone();
        }
        let (sender, receiver) = watch::channel(None);
        asking.insert(topic.to_owned(), receiver.clone());
        let cluster = Arc::clone(self);
        let topic = topic.to_owned();
        // If the task is cut off, the sender goes and with it the question.
        let question = Question {
            cluster,
            topic,
            sender,
        };
        self.tasks.spawn("route", |stop| async move {
            let cluster = Arc::clone(&question.cluster);
            let fetch = cluster.fetch(&question.topic);
            if let Some(answer) = stop.run_until_cancelled(fetch).await {
                question.sender.send_replace(Some(answer));
            }
        });
        receiver
    }

    async fn fetch(self: &Arc<Self>, topic: &str) -> Result<Arc<TopicRoute>> {
        let data = match self.ask_name_server(topic).await {
            Ok(data) => data,
            Err(error) if is_missing(&error) => {
                self.routes.note_missing(topic);
                // What was there once stays: the name server may have been restarted.
                return match self.routes.known(topic) {
                    Some(route) if !route.is_derived() => Ok(route),
                    _ => Err(not_found(topic)),
                };
            }
            Err(error) => return Err(error.context(format_args!("route of topic {topic}"))),
        };
        let (route, changed) = self.install(topic, self.new_route(topic, data, false));
        if changed {
            info!(
                topic,
                publish = route.publish.len(),
                subscribe = route.subscribe.len(),
                "route changed"
            );
            self.members.route_changed(topic);
        }
        Ok(route)
    }

    /// Takes over a route. A broker that comes with it may have been connected before it was known to be one, by a tool
    /// for instance: it hears now who is here.
    fn install(self: &Arc<Self>, topic: &str, route: TopicRoute) -> (Arc<TopicRoute>, bool) {
        let masters = route
            .data
            .broker_datas
            .iter()
            .flat_map(|broker| broker.broker_addrs.values());
        let new: Vec<_> = masters
            .filter(|address| !self.routes.is_broker(address))
            .cloned()
            .collect();
        let installed = self.routes.install(topic, route);
        for address in new
            .iter()
            .filter(|address| self.remoting.pool().ready(address).is_some())
        {
            self.broker_connected(address);
        }
        installed
    }

    fn new_route(&self, topic: &str, data: TopicRouteData, derived: bool) -> TopicRoute {
        TopicRoute::new(topic, data, derived, self.options.vip_channel)
    }

    async fn ask_name_server(&self, topic: &str) -> Result<TopicRouteData> {
        let request = RouteInfo {
            topic: self.wire_name(topic).into_owned(),
            accept_standard_json_only: Some(true),
        };
        Ok(self.call_name_server(&request).await?.0)
    }

    /// Lets the route be asked for in the background, because a send found it wrong; at most once a second.
    pub(crate) fn refresh_route_soon(self: &Arc<Self>, topic: &str) {
        if self.routes.may_ask_soon(topic) {
            // The answer is taken over by the question itself.
            let _ = self.ask(topic);
        }
    }

    /// The route to send by, if it is known: what the fast path of a send asks.
    pub(crate) fn known_publish_route(&self, topic: &str) -> Option<Arc<TopicRoute>> {
        self.routes
            .known(topic)
            .filter(|route| !route.publish_queues().is_empty())
    }

    /// The route to send by. For a topic that does not exist it is made from the template topic, with at most
    /// `queues` queues per broker: the first send creates the topic so.
    ///
    /// # Errors
    /// As [`route`](Self::route); [`ErrorKind::TopicNotFound`](crate::ErrorKind::TopicNotFound) also if no broker
    /// creates topics, or if none of the topic's queues can be written.
    pub(crate) async fn publish_route(
        self: &Arc<Self>,
        topic: &str,
        template: &TopicTemplate,
    ) -> Result<Arc<TopicRoute>> {
        if let Some(route) = self.known_publish_route(topic) {
            return Ok(route);
        }
        match self.route(topic).await {
            Ok(route) if route.publish_queues().is_empty() => Err(Error::new(
                crate::ErrorKind::TopicNotFound,
                format!(
                    "topic {topic}: none of its queues can be written; its brokers have no master, or its write \
                     permission was taken away"
                ),
            )),
            Ok(route) => Ok(route),
            Err(error) if error.kind() == crate::ErrorKind::TopicNotFound => {
                self.derive_route(topic, template).await.map_err(|without| {
                    if without.kind() == crate::ErrorKind::TopicNotFound {
                        error
                    } else {
                        without
                    }
                })
            }
            Err(error) => Err(error),
        }
    }

    async fn derive_route(
        self: &Arc<Self>,
        topic: &str,
        template: &TopicTemplate,
    ) -> Result<Arc<TopicRoute>> {
        let model = self.route(&template.topic).await?;
        let mut data = model.data.clone();
        for queue in &mut data.queue_datas {
            queue.read_queue_nums = queue.read_queue_nums.min(template.queues);
            queue.write_queue_nums = queue.write_queue_nums.min(template.queues);
        }
        let route = self.new_route(topic, data, true);
        if route.publish_queues().is_empty() {
            return Err(not_found(topic));
        }
        debug!(
            topic,
            queues = route.publish.len(),
            "the first send will create the topic"
        );
        Ok(self.install(topic, route).0)
    }

    /// Asks for all routes again and again.
    pub(in crate::cluster) async fn refresh_routes(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(MISSING_POLL.min(self.options.route_refresh_interval));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut all_due = Instant::now() + self.options.route_refresh_interval;
        let mut warned: HashMap<String, String> = HashMap::new();
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let all = Instant::now() >= all_due;
            let mut topics = self.members.topics();
            if all {
                all_due = Instant::now() + self.options.route_refresh_interval;
                topics.extend(self.routes.known_topics());
            } else {
                topics.retain(|topic| self.routes.known(topic).is_none_or(|route| route.is_derived()));
            }
            topics.sort();
            topics.dedup();
            for topic in topics {
                let Some(refreshed) = stop.run_until_cancelled(self.refresh_route(&topic)).await else {
                    return;
                };
                match refreshed {
                    Ok(_) => {
                        warned.remove(&topic);
                    }
                    // Once for each reason: topics that do not exist yet are asked for every second.
                    Err(error) => {
                        let text = error.to_string();
                        if warned.get(&topic) != Some(&text) {
                            warn!(topic, %error, "no route, the old one is kept if there is one");
                            warned.insert(topic, text);
                        }
                    }
                }
            }
            if all {
                self.forget_old_peers();
            }
        }
    }

    /// Connections to brokers that are in no route any more end with their last request.
    pub(in crate::cluster) fn forget_old_peers(&self) {
        self.remoting.pool().retain(|address| {
            self.routes.is_broker(&self.first_server(address)) || self.name_servers.contains(address)
        });
    }
}

/// Takes its question back when it ends, answered or not.
struct Question {
    cluster: Arc<Cluster>,
    topic: String,
    sender: watch::Sender<Option<Result<Arc<TopicRoute>>>>,
}

impl Drop for Question {
    fn drop(&mut self) {
        lock(&self.cluster.routes.asking).remove(&self.topic);
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error.response(), Some((ResponseCode::TOPIC_NOT_EXIST, _)))
}
