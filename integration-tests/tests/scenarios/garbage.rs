//! Bytes that are no requests: the server ends that connection and goes on.

use std::{net::SocketAddr, time::Duration};

use integration_tests::{Failure, scenario::TestResult, scenarios, target::Target};
use rocketmq_client::protocol::requests::BrokerClusterInfo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

scenarios![garbage_ends_the_connection_and_nothing_else];

const LIMIT: Duration = Duration::from_secs(20);

/// Beginnings of streams that no frame starts with. Each is longer than the 12 bytes that 5.x reads before anything
/// else, to tell the protocols of proxies.
fn openings() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a negative length", (-1_i32).to_be_bytes().repeat(4)),
        (
            "the greatest length",
            [i32::MAX.to_be_bytes().as_slice(), &[0; 16]].concat(),
        ),
        (
            "a header longer than its frame",
            [
                16_i32.to_be_bytes(),
                1_000_i32.to_be_bytes(),
                [0; 4],
                [0; 4],
                [0; 4],
            ]
            .concat(),
        ),
        (
            "a header that is no JSON",
            [&8_i32.to_be_bytes()[..], &4_i32.to_be_bytes()[..], b"}{]["].concat(),
        ),
        (
            "text of another protocol",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        (
            "an unknown serialization",
            [
                &8_i32.to_be_bytes()[..],
                &(9_i32 << 24 | 4).to_be_bytes()[..],
                b"{}{}",
            ]
            .concat(),
        ),
    ]
}

async fn garbage_ends_the_connection_and_nothing_else(target: &Target) -> TestResult {
    let mut servers = target.brokers().await?;
    servers.push(target.name_server_address().await?);
    for server in servers {
        for (what, bytes) in openings() {
            is_closed_after(server, &bytes)
                .await
                .map_err(|failure| format!("{what} to {server}: {failure}"))?;
        }
    }
    integration_tests::admin::call(target.name_server_address().await?, &BrokerClusterInfo {}).await?;
    Ok(())
}

async fn is_closed_after(server: SocketAddr, bytes: &[u8]) -> Result<(), Failure> {
    let mut socket = TcpStream::connect(server).await?;
    socket.write_all(bytes).await?;
    let mut answer = Vec::new();
    // The end may be a FIN or a RST; what matters is that it comes.
    match timeout(LIMIT, socket.read_to_end(&mut answer)).await {
        Ok(Ok(0) | Err(_)) => Ok(()),
        Ok(Ok(_)) => Err(format!("answered {:?}", String::from_utf8_lossy(&answer)).into()),
        Err(_) => Err(format!("still open after {LIMIT:?}").into()),
    }
}
