//! Who this client is to the brokers.

use std::net::{IpAddr, Ipv4Addr};

use tokio::net::UdpSocket;

use crate::protocol::UniqueIds;
use crate::transport::random;

/// The address by which this machine reaches a name server.
///
/// Connecting a datagram socket sends nothing; it only lets the system choose the interface. That is the address a
/// broker sees too, unless something translates addresses on the way.
pub(super) async fn local_address(name_server: &str) -> Ipv4Addr {
    let ask = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(name_server).await?;
        socket.local_addr()
    };
    match ask.await.map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) => address,
        // Without IPv4 the identity is still unique by its random part.
        _ => Ipv4Addr::LOCALHOST,
    }
}

/// `<ip>@<instance>`; without an instance name `<ip>@<pid>#<random>`, so that two clients of one process are told
/// apart. In a unit, `@<unit>` follows. Java: `ClientConfig#buildMQClientId`, `changeInstanceNameToPID`.
pub(super) fn client_id(address: Ipv4Addr, instance: Option<&str>, unit: Option<&str>) -> String {
    let mut id = match instance {
        Some(instance) => format!("{address}@{instance}"),
        None => format!("{address}@{}#{}", std::process::id(), random() >> 16),
    };
    if let Some(unit) = unit {
        id.push('@');
        id.push_str(unit);
    }
    id
}

/// The same with the instance name that Java has for consumers that nobody named: `DEFAULT`.
pub(super) fn stable_id(client_id: &str, unit: Option<&str>) -> String {
    let address = client_id.split('@').next().unwrap_or_default();
    match unit {
        Some(unit) => format!("{address}@DEFAULT@{unit}"),
        None => format!("{address}@DEFAULT"),
    }
}

pub(super) fn unique_ids(address: Ipv4Addr) -> UniqueIds {
    UniqueIds::new(address, std::process::id(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_name_makes_a_stable_identity_and_no_name_a_unique_one() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(client_id(address, Some("billing-1"), None), "10.0.0.1@billing-1");
        assert_eq!(client_id(address, Some("1"), Some("sh")), "10.0.0.1@1@sh");
        let first = client_id(address, None, None);
        assert!(
            first.starts_with(&format!("10.0.0.1@{}#", std::process::id())),
            "{first}"
        );
        assert_ne!(first, client_id(address, None, None));
        assert_eq!(stable_id(&first, None), "10.0.0.1@DEFAULT");
        assert_eq!(stable_id(&first, Some("sh")), "10.0.0.1@DEFAULT@sh");
    }

    #[tokio::test]
    async fn the_address_towards_this_machine_is_loopback() {
        assert_eq!(local_address("127.0.0.1:9").await, Ipv4Addr::LOCALHOST);
        assert_eq!(local_address("no such host").await, Ipv4Addr::LOCALHOST);
    }
}
