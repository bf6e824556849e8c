//! Embedded brokers as a cluster that can be broken: one name server before several brokers, each behind a proxy.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::BytesMut;
use rocketmq_client::protocol::{
    Frame, HeaderFormat, Json, JsonBody, RequestCode, Response, ResponseCode,
    bodies::{BrokerData, ClusterInfo, TopicRouteData},
    frame::next_frame,
};
use rocketmq_embedded_broker::EmbeddedBroker;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::ServerSettings;
use crate::{
    Failure,
    admin::Connection,
    fault_proxy::{Direction, Fault, FaultProxy},
};

/// Brokers of their own, and a name server that tells of all of them and outlives each.
#[derive(Debug)]
pub(super) struct EmbeddedCluster {
    name_server: SocketAddr,
    members: Vec<Member>,
    // Keeps the name server.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Member {
    broker: EmbeddedBroker,
    /// Where clients find it. A process can be stopped; what can be stopped here is the way to the broker.
    proxy: Mutex<Option<FaultProxy>>,
    place: Place,
}

/// The addresses of one broker.
#[derive(Debug, Clone)]
struct Place {
    /// Its own name server, of which clients do not know.
    name_server: SocketAddr,
    /// What that says of the broker.
    own: SocketAddr,
    /// What clients are told instead.
    public: SocketAddr,
}

impl EmbeddedCluster {
    pub(super) async fn start(settings: &ServerSettings) -> Result<Self, Failure> {
        let mut members = Vec::new();
        for index in 0..settings.brokers {
            let broker = EmbeddedBroker::builder()
                .auto_create_topics(settings.auto_create_topics)
                .reject_transactions(
                    settings
                        .broker
                        .get("rejectTransactionMessage")
                        .is_some_and(|value| value == "true"),
                )
                .broker_name(format!("broker-{index}"))
                .start()
                .await?;
            let own: SocketAddr = broker.broker_address().parse()?;
            let proxy = FaultProxy::start(own).await?;
            let place = Place {
                name_server: broker.name_server().parse()?,
                own,
                public: proxy.address(),
            };
            members.push(Member {
                broker,
                proxy: Mutex::new(Some(proxy)),
                place,
            });
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let name_server = listener.local_addr()?;
        let places = members.iter().map(|member| member.place.clone()).collect();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, places));
        Ok(Self {
            name_server,
            members,
            _tasks: tasks,
        })
    }

    pub(super) fn name_server(&self) -> String {
        self.name_server.to_string()
    }

    fn member(&self, index: usize) -> Result<&Member, Failure> {
        self.members
            .get(index)
            .ok_or_else(|| format!("no broker {index} in this cluster").into())
    }

    pub(super) async fn kill(&self, index: usize) -> Result<(), Failure> {
        let member = self.member(index)?;
        // The port closes with the broker, so that nobody connects to a broker that is not there.
        drop(member.proxy().take());
        member.broker.kill().await;
        Ok(())
    }

    pub(super) async fn restart(&self, index: usize) -> Result<(), Failure> {
        let member = self.member(index)?;
        member.broker.restart().await?;
        let proxy = FaultProxy::start_at(member.place.public, member.place.own).await?;
        *member.proxy() = Some(proxy);
        Ok(())
    }

    pub(super) fn freeze(&self, index: usize) -> Result<(), Failure> {
        let proxy = self.member(index)?.proxy();
        let proxy = proxy
            .as_ref()
            .ok_or_else(|| format!("broker {index} does not run"))?;
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.inject(direction, Fault::Stall);
        }
        Ok(())
    }

    pub(super) fn thaw(&self, index: usize) -> Result<(), Failure> {
        if let Some(proxy) = self.member(index)?.proxy().as_ref() {
            proxy.heal();
        }
        Ok(())
    }
}

impl Member {
    /// A panic while it was held is reported by its own test.
    fn proxy(&self) -> MutexGuard<'_, Option<FaultProxy>> {
        self.proxy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, places: Vec<Place>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let places = places.clone();
                connections.spawn(async move {
                    // Any end of the connection is one.
                    let _ = serve(socket, &places).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut socket: TcpStream, places: &[Place]) -> Result<(), Failure> {
    let mut buffer = BytesMut::new();
    loop {
        while let Some(request) = next_frame(&mut buffer)? {
            let answer = Frame {
                opaque: request.opaque,
                ..answer(&request, places).await
            };
            if !request.is_one_way() {
                let mut bytes = BytesMut::new();
                answer.encode(HeaderFormat::Json, &mut bytes)?;
                socket.write_all(&bytes).await?;
            }
        }
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// What all that run say together. A broker that was killed is unknown at once, as its connection to a real name
/// server would have broken.
async fn answer(request: &Frame, places: &[Place]) -> Frame {
    let mut answers = Vec::new();
    for place in places {
        let asked = async { Connection::open(place.name_server).await?.exchange(request).await };
        if let Ok(answer) = asked.await {
            answers.push((place, answer));
        }
    }
    let done = answers
        .iter()
        .filter(|(_, answer)| answer.code == ResponseCode::SUCCESS.0);
    let merged = match RequestCode(request.code) {
        RequestCode::GET_ROUTEINFO_BY_TOPIC => merge_routes(done.map(|(place, answer)| (*place, answer))),
        RequestCode::GET_BROKER_CLUSTER_INFO => merge_clusters(done.map(|(place, answer)| (*place, answer))),
        _ => None,
    };
    let first = answers.into_iter().next().map(|(_, answer)| answer);
    merged.or(first).unwrap_or_else(|| {
        Frame::refusal(
            ResponseCode::TOPIC_NOT_EXIST,
            request.opaque,
            "no broker is there",
        )
    })
}

fn merge_routes<'a>(answers: impl Iterator<Item = (&'a Place, &'a Frame)>) -> Option<Frame> {
    let mut merged: Option<TopicRouteData> = None;
    for (place, answer) in answers {
        let mut route = TopicRouteData::from_body(&answer.body).ok()?;
        route
            .broker_datas
            .iter_mut()
            .for_each(|broker| publish(broker, place));
        match &mut merged {
            Some(all) => {
                all.broker_datas.append(&mut route.broker_datas);
                all.queue_datas.append(&mut route.queue_datas);
            }
            None => merged = Some(route),
        }
    }
    Json(merged?).into_frame(0).ok()
}

fn merge_clusters<'a>(answers: impl Iterator<Item = (&'a Place, &'a Frame)>) -> Option<Frame> {
    let mut merged: Option<ClusterInfo> = None;
    for (place, answer) in answers {
        let mut cluster = ClusterInfo::from_body(&answer.body).ok()?;
        cluster
            .broker_addr_table
            .values_mut()
            .for_each(|broker| publish(broker, place));
        match &mut merged {
            Some(all) => {
                all.broker_addr_table.append(&mut cluster.broker_addr_table);
                for (name, mut brokers) in cluster.cluster_addr_table {
                    all.cluster_addr_table
                        .entry(name)
                        .or_default()
                        .append(&mut brokers);
                }
            }
            None => merged = Some(cluster),
        }
    }
    Json(merged?).into_frame(0).ok()
}

fn publish(broker: &mut BrokerData, place: &Place) {
    let own = place.own.to_string();
    for address in broker.broker_addrs.values_mut() {
        if *address == own {
            *address = place.public.to_string();
        }
    }
}
