//! The official image in a container, where Docker runs.
//!
//! A broker tells clients its address, so it must listen inside the container on the very port that is published
//! outside: free ports are chosen here first. Name server and broker share one container, which is all that the
//! scenarios on shared servers need.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rocketmq_client::protocol::requests::AllTopicConfig;
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    core::{ContainerPort, WaitFor},
    runners::AsyncRunner,
};
use tokio::sync::OnceCell;

use crate::{
    Failure,
    admin::call,
    real::Version,
    scenario::eventually,
    target::{Kind, brokers},
};

const IMAGE: &str = "apache/rocketmq";
/// The first start may have to fetch the image.
const START_LIMIT: Duration = Duration::from_secs(600);

/// A running container. It is removed with this process, however that ends.
#[derive(Debug)]
struct Container {
    name_server: String,
    _container: ContainerAsync<GenericImage>,
    /// Removes the container when the pipe to it closes: statics are not dropped, and a killed process drops nothing.
    _remover: Child,
}

/// The name server in the container that all scenarios of this process share.
pub(super) async fn shared(kind: Kind) -> Result<String, Failure> {
    static V5: OnceCell<Result<Container, String>> = OnceCell::const_new();
    static V4: OnceCell<Result<Container, String>> = OnceCell::const_new();
    let (cell, version) = match kind {
        Kind::Docker4 => (&V4, Version::V4),
        _ => (&V5, Version::V5),
    };
    let start = async || {
        let started = Container::start(version.number()).await;
        started.map_err(|error| error.to_string())
    };
    match cell.get_or_init(start).await {
        Ok(container) => Ok(container.name_server.clone()),
        Err(error) => Err(error.clone().into()),
    }
}

impl Container {
    async fn start(version: &str) -> Result<Self, Failure> {
        let [name_server, broker] = free_ports()?;
        let broker_conf = format!(
            "brokerClusterName=DefaultCluster\nbrokerName=broker-0\nbrokerId=0\nbrokerIP1=127.0.0.1\n\
             listenPort={broker}\nnamesrvAddr=127.0.0.1:{name_server}\nenablePropertyFilter=true\n\
             waitTimeMillsInSendQueue=5000\nmappedFileSizeCommitLog=134217728\n"
        );
        let script = "sh mqnamesrv -c /tmp/namesrv.properties & exec sh mqbroker -c /tmp/broker.conf";
        let container = GenericImage::new(IMAGE, version)
            .with_wait_for(WaitFor::message_on_stdout("The broker["))
            .with_mapped_port(name_server, ContainerPort::Tcp(name_server))
            .with_mapped_port(broker, ContainerPort::Tcp(broker))
            .with_host_config_modifier(|host| {
                // Published on loopback alone.
                for binding in host
                    .port_bindings
                    .iter_mut()
                    .flatten()
                    .flat_map(|(_, bindings)| bindings)
                    .flatten()
                {
                    binding.host_ip = Some(Ipv4Addr::LOCALHOST.to_string());
                }
            })
            // The image's scripts ask for 8 GiB otherwise.
            .with_env_var("JAVA_OPT_EXT", "-Xms256m -Xmx768m -Xmn128m")
            .with_copy_to(
                "/tmp/namesrv.properties",
                format!("listenPort={name_server}\n").into_bytes(),
            )
            .with_copy_to("/tmp/broker.conf", broker_conf.into_bytes())
            .with_cmd(["sh", "-c", script])
            .with_startup_timeout(START_LIMIT)
            .start()
            .await
            .map_err(|error| format!("cannot start {IMAGE}:{version} (does Docker run here?): {error}"))?;
        let remover = Command::new("sh")
            .args([
                "-c",
                "cat >/dev/null; exec docker rm -f -v \"$0\"",
                container.id(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let name_server = format!("127.0.0.1:{name_server}");
        eventually("the broker in the container", async || {
            let Ok(brokers) = brokers(&name_server).await else {
                return Ok(false);
            };
            let Some(broker) = brokers.first() else {
                return Ok(false);
            };
            Ok(call(*broker, &AllTopicConfig {}).await.is_ok())
        })
        .await?;
        Ok(Self {
            name_server,
            _container: container,
            _remover: remover,
        })
    }
}

/// Free at this moment, which is the best that can be known of ports to be used elsewhere.
fn free_ports() -> Result<[u16; 2], Failure> {
    let listeners = [
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
    ];
    let [a, b] = listeners;
    Ok([a.local_addr()?.port(), b.local_addr()?.port()])
}
