use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::*;
use crate::protocol::Frame;
use crate::transport::fake::{Answer, FakeServer};
use crate::transport::inbound::ServerRequest;

#[derive(Debug, Default)]
struct Connections {
    count: AtomicUsize,
    changed: Notify,
}

impl Inbound for Connections {
    fn serve(&self, _peer: &str, _frame: Frame) -> Option<ServerRequest> {
        None
    }

    fn connected(&self, _peer: &str) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }
}

fn pool() -> (Arc<Pool>, Arc<Connections>) {
    let inbound = Arc::new(Connections::default());
    let tasks = Tasks::new(Handle::current());
    let options = TransportOptions::default();
    let pool = Pool::new(options, Arc::clone(&inbound) as Arc<dyn Inbound>, tasks);
    (pool, inbound)
}

fn within(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn many_callers_share_one_dial_and_one_connection() {
    let server = FakeServer::start(|_| Answer::done()).await;
    let (pool, inbound) = pool();
    let address = server.address();
    assert!(pool.ready(&address).is_none());
    let (a, b, c) = tokio::join!(
        pool.connection(&address, within(3000)),
        pool.connection(&address, within(3000)),
        pool.connection(&address, within(3000)),
    );
    let a = a.unwrap();
    assert!(Arc::ptr_eq(&a, &b.unwrap()) && Arc::ptr_eq(&a, &c.unwrap()));
    assert!(Arc::ptr_eq(&a, &pool.ready(&address).unwrap()));
    inbound.changed.notified().await;
    assert_eq!(inbound.count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refused_dial_is_an_error_that_names_the_address_and_the_next_one_backs_off() {
    let address = nobody().await;
    let (pool, _) = pool();
    let error = pool.connection(&address, within(3000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot connect to {address}: ")),
        "{error}"
    );
    assert_eq!(error.broker(), Some(&*address));
    // Within the back-off, who cannot wait for its end is told at once.
    let error = pool.connection(&address, Instant::now()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    // Who can wait gets another dial.
    let error = pool.connection(&address, within(3000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(lock(&pool.peer(&address).link).failures, 2);
}

#[tokio::test]
async fn a_broken_connection_is_replaced() {
    let server = FakeServer::start(|_| Answer::done()).await;
    let (pool, inbound) = pool();
    let address = server.address();
    let first = pool.connection(&address, within(3000)).await.unwrap();
    inbound.changed.notified().await;
    let address_again = server.kill().await;
    while first.is_usable() {
        tokio::task::yield_now().await;
    }
    assert!(pool.ready(&address).is_none());
    let _server = FakeServer::start_at(address_again, |_| Answer::done()).await;
    let second = pool.connection(&address, within(5000)).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    inbound.changed.notified().await;
}

#[tokio::test]
async fn a_peer_that_accepts_and_closes_is_dialed_ever_more_slowly() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (pool, _) = pool();
    for failures in 1..4 {
        let connection = pool.connection(&address, within(5000)).await.unwrap();
        drop(listener.accept().await.unwrap());
        while connection.is_usable() {
            tokio::task::yield_now().await;
        }
        // What the next caller finds.
        let peer = pool.peer(&address);
        let mut link = lock(&peer.link);
        link.notice_failure();
        assert_eq!(link.failures, failures);
        assert!(link.not_before > Instant::now());
    }
}

#[tokio::test]
async fn a_retired_connection_goes_on_for_what_is_in_flight_and_takes_nothing_new() {
    let server = FakeServer::start(|_| Answer::done()).await;
    let (pool, _) = pool();
    let address = server.address();
    let first = pool.connection(&address, within(3000)).await.unwrap();
    pool.retire(&address, &first);
    assert!(first.is_usable());
    let second = pool.connection(&address, within(3000)).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    // Retiring the old one again leaves the new one alone.
    pool.retire(&address, &first);
    assert!(Arc::ptr_eq(&second, &pool.ready(&address).unwrap()));
}

#[tokio::test]
async fn draining_ends_all_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (pool, _) = pool();
    let connection = pool.connection(&address, within(3000)).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    pool.drain(Duration::from_secs(3)).await;
    assert_eq!(connection.failure().unwrap().kind(), ErrorKind::Closed);
    assert_eq!(
        peer.read_u8().await.unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
}

/// Dial and deadline end together as a rule, and whoever waits must not be told less for that.
#[cfg(feature = "tls")]
#[tokio::test]
async fn who_waits_for_a_handshake_that_stalls_is_told_so_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut options = TransportOptions::default();
    options.dial.broker_tls = Some(crate::Tls::new().connector().unwrap());
    let inbound = Arc::new(Connections::default());
    let pool = Pool::new(options, inbound, Tasks::new(Handle::current()));
    let accept = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 1];
        stream.read_exact(&mut hello).await.unwrap();
        stream
    };
    let (_stalled, waited) = tokio::join!(accept, pool.connection(&address, within(1000)));
    let error = waited.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert_eq!(
        error.to_string(),
        format!("TLS to {address}: the handshake did not end before the deadline; does this port speak TLS?")
    );
}
