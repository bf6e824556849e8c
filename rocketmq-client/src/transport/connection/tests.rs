use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time;

use bytes::BytesMut;

use super::*;
use crate::protocol::frame::next_frame;
use crate::protocol::requests::{MaxOffset, NotifyConsumerIdsChanged};
use crate::protocol::{HeaderFormat, Request, ResponseCode};
use crate::transport::inbound::ServerRequest;
use crate::transport::{Sign, Unsigned};

/// Serves notifications, and knows how many.
#[derive(Debug, Default)]
struct Notified {
    count: AtomicUsize,
    panics: AtomicBool,
    seen: Notify,
}

impl Inbound for Notified {
    fn serve(&self, _peer: &str, frame: Frame) -> Option<ServerRequest> {
        if frame.code != NotifyConsumerIdsChanged::CODE.0 {
            return None;
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        self.seen.notify_one();
        assert!(!self.panics.load(Ordering::SeqCst), "in the reader itself");
        Some(Box::pin(async { Frame::response(ResponseCode::SUCCESS, 77) }))
    }

    fn connected(&self, _peer: &str) {}
}

fn plain_peer() -> PeerAddress {
    PeerAddress {
        address: "broker:1".into(),
        secure: false,
    }
}

/// A connection and the other end of its stream.
struct Pair {
    connection: Arc<Connection>,
    peer: DuplexStream,
    buffer: BytesMut,
    inbound: Arc<Notified>,
    tasks: Tasks,
}

impl Pair {
    fn new(options: TransportOptions) -> Self {
        let (ours, peer) = duplex(1024 * 1024);
        Self::over(options, ours, peer)
    }

    fn over(options: TransportOptions, ours: DuplexStream, peer: DuplexStream) -> Self {
        let tasks = Tasks::new(Handle::current());
        let inbound = Arc::new(Notified::default());
        let (reader, writer) = tokio::io::split(ours);
        let connection = Connection::start(
            reader,
            writer,
            plain_peer(),
            options,
            Arc::clone(&inbound) as Arc<dyn Inbound>,
            &tasks,
        );
        Self {
            connection,
            peer,
            buffer: BytesMut::new(),
            inbound,
            tasks,
        }
    }

    async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = next_frame(&mut self.buffer).unwrap() {
                return frame;
            }
            assert!(self.peer.read_buf(&mut self.buffer).await.unwrap() > 0);
        }
    }

    async fn answer(&mut self, frame: &Frame) {
        let mut out = BytesMut::new();
        frame.encode(HeaderFormat::Binary, &mut out).unwrap();
        self.peer.write_all(&out).await.unwrap();
    }

    fn start(&self, queue_id: i32, timeout: Duration) -> Started {
        start(&self.connection, queue_id, timeout)
    }

    fn in_flight(&self, queue_id: i32) -> InFlight {
        match self.start(queue_id, Duration::from_secs(3)) {
            Started::InFlight(in_flight) => in_flight,
            other => panic!("{other:?}"),
        }
    }
}

fn start(connection: &Arc<Connection>, queue_id: i32, timeout: Duration) -> Started {
    with_request(queue_id, |outbound| {
        connection.try_start(outbound, Instant::now() + timeout)
    })
}

fn with_request<T>(queue_id: i32, run: impl FnOnce(&Outbound<'_, MaxOffset>) -> T) -> T {
    let fields = MaxOffset {
        topic: "t".into(),
        queue_id,
    };
    let extra = Fields::new();
    run(&Outbound {
        code: MaxOffset::CODE.0,
        name: MaxOffset::NAME,
        fields: &fields,
        extra: &extra,
        body: Bytes::new(),
    })
}

async fn request(connection: &Arc<Connection>, timeout: Duration) -> Result<InFlight> {
    let fields = MaxOffset {
        topic: "t".into(),
        queue_id: 0,
    };
    let outbound = Outbound {
        code: MaxOffset::CODE.0,
        name: MaxOffset::NAME,
        fields: &fields,
        extra: &Fields::new(),
        body: Bytes::new(),
    };
    connection
        .start_request(&outbound, Instant::now() + timeout)
        .await
}

fn queue_of(frame: &Frame) -> String {
    frame.fields.get("queueId").unwrap().to_owned()
}

fn reply_to(frame: &Frame) -> Frame {
    let mut reply = Frame::response(ResponseCode::SUCCESS, frame.opaque);
    reply.fields.push("queueId", &queue_of(frame));
    reply
}

#[tokio::test]
async fn replies_find_their_requests_in_any_order() {
    let mut pair = Pair::new(TransportOptions::default());
    let flying: Vec<_> = (0..100).map(|queue| pair.in_flight(queue)).collect();
    let mut requests = Vec::new();
    for _ in 0..100 {
        requests.push(pair.next().await);
    }
    for request in requests.iter().rev() {
        pair.answer(&reply_to(request)).await;
    }
    for (queue, in_flight) in flying.into_iter().enumerate() {
        assert_eq!(queue_of(&in_flight.await.unwrap()), queue.to_string());
    }
    assert_eq!(pair.connection.in_flight(), 0);
}

#[tokio::test]
async fn a_cancelled_request_frees_its_slot_leaves_whole_and_its_late_reply_reaches_nobody() {
    let mut pair = Pair::new(TransportOptions::default());
    drop(pair.in_flight(1));
    assert_eq!(pair.connection.in_flight(), 0);
    let next = pair.in_flight(2);
    let cancelled = pair.next().await;
    assert_eq!(queue_of(&cancelled), "1");
    pair.answer(&reply_to(&cancelled)).await;
    let request = pair.next().await;
    pair.answer(&reply_to(&request)).await;
    assert_eq!(queue_of(&next.await.unwrap()), "2");
    assert_eq!(pair.connection.late_replies(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_reply_ends_at_its_deadline_and_one_with_an_earlier_deadline_before_it() {
    let pair = Pair::new(TransportOptions::default());
    let begin = Instant::now();
    let long = pair.in_flight(1);
    let Started::InFlight(short) = pair.start(2, Duration::from_millis(20)) else {
        panic!("not started");
    };
    let error = short.await.unwrap_err();
    let waited = begin.elapsed();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.persisted(), Persisted::Maybe);
    assert_eq!(waited.as_millis() / 10, 2, "{waited:?}");
    assert_eq!(long.await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(begin.elapsed().as_millis() / 10, 300);
    assert!(pair.connection.is_usable(), "two timeouts are no frozen peer");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_requests_unanswered_counts_as_frozen() {
    let pair = Pair::new(TransportOptions::default());
    let flying: Vec<_> = (0..3).map(|queue| pair.in_flight(queue)).collect();
    let Started::InFlight(long_poll) = pair.start(9, Duration::from_secs(30)) else {
        panic!("not started");
    };
    for in_flight in flying {
        assert_eq!(in_flight.await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    let error = long_poll.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(
        error.to_string(),
        "MaxOffset: broker:1 left 3 requests in a row without an answer; the message may have been stored"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_still_talks_is_not_frozen() {
    let mut pair = Pair::new(TransportOptions::default());
    for queue in 0..5 {
        let in_flight = pair.in_flight(queue);
        time::sleep(Duration::from_secs(2)).await;
        let notice = Frame::request(NotifyConsumerIdsChanged::CODE).one_way();
        pair.answer(&notice).await;
        assert_eq!(in_flight.await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert!(pair.connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_out_of_step_ends_though_bytes_keep_coming() {
    let mut pair = Pair::new(TransportOptions::default());
    // A frame that announces a megabyte: every answer that follows is taken for a part of it.
    pair.peer.write_all(&[0, 0x10, 0, 0]).await.unwrap();
    for request in 0..3 {
        assert!(pair.connection.is_usable(), "{request}");
        let in_flight = pair.in_flight(request);
        let asked = pair.next().await;
        pair.answer(&reply_to(&asked)).await;
        assert_eq!(in_flight.await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    let reason = pair.connection.failure().unwrap();
    assert_eq!(reason.kind(), ErrorKind::Protocol);
    assert!(
        reason.to_string().contains("bytes that make no frame"),
        "{reason}"
    );
}

#[tokio::test]
async fn garbage_ends_the_connection_with_an_error_that_says_so() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0, 0, 0, 1, 0],
        &[0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0],
        &[0, 0, 0, 8, 9, 0, 0, 1, 0, 0, 0, 0],
    ] {
        let mut pair = Pair::new(TransportOptions::default());
        let in_flight = pair.in_flight(1);
        pair.next().await;
        pair.peer.write_all(garbage).await.unwrap();
        let error = in_flight.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(
            error.to_string().contains("broker:1 sent what is no frame"),
            "{error}"
        );
        assert!(!pair.connection.is_usable());
        assert!(matches!(
            pair.start(2, Duration::from_secs(1)),
            Started::Failed(error) if error.kind() == ErrorKind::Protocol && error.persisted() == Persisted::No
        ));
    }
}

#[tokio::test]
async fn an_end_at_any_byte_fails_what_is_in_flight_as_maybe_stored() {
    let mut whole = BytesMut::new();
    Frame::response(ResponseCode::SUCCESS, 0)
        .encode(HeaderFormat::Json, &mut whole)
        .unwrap();
    for cut in 0..whole.len() {
        let mut pair = Pair::new(TransportOptions::default());
        let in_flight = pair.in_flight(1);
        pair.next().await;
        pair.peer.write_all(&whole[..cut]).await.unwrap();
        drop(pair.peer);
        let error = in_flight.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_eq!(error.persisted(), Persisted::Maybe);
    }
}

#[tokio::test]
async fn half_a_frame_and_a_reset_fail_what_is_in_flight() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    let tasks = Tasks::new(Handle::current());
    let (reader, writer) = stream.into_split();
    let connection = Connection::start(
        reader,
        writer,
        plain_peer(),
        TransportOptions::default(),
        Arc::new(Notified::default()),
        &tasks,
    );
    let Started::InFlight(in_flight) = start(&connection, 1, Duration::from_secs(3)) else {
        panic!("not started");
    };
    let mut buffer = BytesMut::new();
    while next_frame(&mut buffer).unwrap().is_none() {
        peer.read_buf(&mut buffer).await.unwrap();
    }
    peer.write_all(&[0, 0, 1, 0, 0, 0]).await.unwrap();
    peer.set_zero_linger().unwrap();
    drop(peer);
    let error = in_flight.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
}

#[tokio::test]
async fn a_frame_that_the_writer_never_took_is_certainly_not_sent() {
    // A stream that takes 16 bytes and no more.
    let (ours, peer) = duplex(16);
    let pair = Pair::over(TransportOptions::default(), ours, peer);
    let first = pair.in_flight(1);
    // The writer has taken the first frame as soon as it sleeps in the middle of it.
    while !lock(&pair.connection.shared.outgoing).is_handed_over(0) {
        tokio::task::yield_now().await;
    }
    let second = pair.in_flight(2);
    drop(pair.peer);
    assert_eq!(first.await.unwrap_err().persisted(), Persisted::Maybe);
    assert_eq!(second.await.unwrap_err().persisted(), Persisted::No);
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_a_slot_and_give_up_at_their_deadline() {
    let mut pair = Pair::new(TransportOptions {
        max_in_flight: 2,
        ..TransportOptions::default()
    });
    let first = pair.in_flight(1);
    let _second = pair.in_flight(2);
    assert!(matches!(pair.start(3, Duration::from_secs(1)), Started::Full));
    let error = request(&pair.connection, Duration::from_millis(10))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(error.persisted(), Persisted::No);

    let connection = Arc::clone(&pair.connection);
    let waiting = async move { request(&connection, Duration::from_secs(1)).await.unwrap().await };
    let answering = async {
        let request = pair.next().await;
        pair.answer(&reply_to(&request)).await;
        first.await.unwrap();
        assert_eq!(queue_of(&pair.next().await), "2");
        let third = pair.next().await;
        pair.answer(&reply_to(&third)).await;
    };
    let (reply, ()) = tokio::join!(waiting, answering);
    reply.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_room_in_the_buffer_and_a_cancelled_wait_takes_nothing() {
    let (ours, peer) = duplex(16);
    let options = TransportOptions {
        max_buffered_bytes: 1,
        ..TransportOptions::default()
    };
    let mut pair = Pair::over(options, ours, peer);
    let first = pair.in_flight(1);
    while !lock(&pair.connection.shared.outgoing).is_handed_over(0) {
        tokio::task::yield_now().await;
    }
    // The first is with the writer; the second is the one frame that always fits.
    let second = pair.in_flight(2);
    let error = request(&pair.connection, Duration::from_millis(10))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(pair.connection.in_flight(), 2);

    let connection = Arc::clone(&pair.connection);
    let waiting = async move { request(&connection, Duration::from_secs(1)).await.unwrap().await };
    let answering = async {
        for _ in 0..3 {
            let request = pair.next().await;
            let reply = reply_to(&request);
            let mut out = BytesMut::new();
            reply.encode(HeaderFormat::Binary, &mut out).unwrap();
            pair.peer.write_all(&out).await.unwrap();
        }
    };
    let (third, first, second, ()) = tokio::join!(waiting, first, second, answering);
    assert!(third.is_ok() && first.is_ok() && second.is_ok());
}

#[tokio::test]
async fn requests_of_the_server_are_served_answered_unless_one_way_and_refused_if_unknown() {
    let mut pair = Pair::new(TransportOptions::default());
    let notice = Frame {
        opaque: 5,
        ..Frame::request(NotifyConsumerIdsChanged::CODE)
    };
    pair.answer(&notice).await;
    let response = pair.next().await;
    assert!(response.is_response());
    assert_eq!((response.opaque, response.code), (5, 0));

    pair.answer(&notice.clone().one_way()).await;
    let unknown = Frame {
        opaque: 6,
        ..Frame::request(4711)
    };
    pair.answer(&unknown.clone().one_way()).await;
    pair.answer(&unknown).await;
    let response = pair.next().await;
    assert_eq!((response.opaque, response.code), (6, 3));
    assert_eq!(
        response.remark.as_deref(),
        Some(" request type 4711 not supported")
    );
    assert_eq!(pair.inbound.count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_was_queued_before_the_connection_is_closed_still_leaves() {
    let mut pair = Pair::new(TransportOptions::default());
    let fields = NotifyConsumerIdsChanged {
        consumer_group: "g".into(),
    };
    let outbound = Outbound {
        code: NotifyConsumerIdsChanged::CODE.0,
        name: NotifyConsumerIdsChanged::NAME,
        fields: &fields,
        extra: &Fields::new(),
        body: Bytes::new(),
    };
    let deadline = Instant::now() + Duration::from_secs(3);
    pair.connection.one_way(&outbound, deadline, None).await.unwrap();
    let in_flight = pair.in_flight(1);
    pair.connection.drain(Duration::from_secs(3)).await;
    let frame = pair.next().await;
    assert!(frame.is_one_way());
    assert_eq!(queue_of(&pair.next().await), "1");
    assert_eq!(pair.peer.read_buf(&mut pair.buffer).await.unwrap(), 0);
    assert_eq!(in_flight.await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pair.tasks.running(), 0);
}

#[tokio::test]
async fn the_last_handle_ends_the_connection_but_not_before_the_last_request() {
    let mut pair = Pair::new(TransportOptions::default());
    let in_flight = pair.in_flight(1);
    drop(pair.connection);
    let mut buffer = BytesMut::new();
    let request = loop {
        if let Some(frame) = next_frame(&mut buffer).unwrap() {
            break frame;
        }
        pair.peer.read_buf(&mut buffer).await.unwrap();
    };
    let mut out = BytesMut::new();
    reply_to(&request).encode(HeaderFormat::Json, &mut out).unwrap();
    pair.peer.write_all(&out).await.unwrap();
    in_flight.await.unwrap();
    assert_eq!(pair.peer.read_buf(&mut buffer).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_but_not_under_a_request() {
    let pair = Pair::new(TransportOptions::default());
    let Started::InFlight(long) = pair.start(1, Duration::from_secs(200)) else {
        panic!("not started");
    };
    time::sleep(Duration::from_secs(150)).await;
    assert!(pair.connection.is_usable());
    drop(long);
    time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        pair.connection.failure().unwrap().to_string(),
        "the connection to broker:1 was closed after a long silence"
    );
}

/// Marks what it is asked to sign.
#[derive(Debug)]
struct Marker;

impl Sign for Marker {
    fn sign(&self, request: &mut Unsigned<'_>) {
        request.fields.push("Signature", "mark");
    }

    fn refused(&self) -> Arc<str> {
        "mark".into()
    }
}

#[tokio::test]
async fn with_a_signer_every_request_is_signed_and_no_response() {
    let mut pair = Pair::new(TransportOptions {
        signer: Some(Arc::new(Marker)),
        common_fields: Some(Arc::new(Fields::from_iter([("ns", "shop")]))),
        ..TransportOptions::default()
    });
    let deadline = Instant::now() + Duration::from_secs(3);
    let _started = pair.in_flight(1);
    let _awaited = request(&pair.connection, Duration::from_secs(3)).await.unwrap();
    let fields = MaxOffset {
        topic: "t".into(),
        queue_id: 2,
    };
    let outbound = Outbound {
        code: MaxOffset::CODE.0,
        name: MaxOffset::NAME,
        fields: &fields,
        extra: &Fields::new(),
        body: Bytes::new(),
    };
    pair.connection.one_way(&outbound, deadline, None).await.unwrap();
    for queue in ["1", "0", "2"] {
        let frame = pair.next().await;
        assert_eq!(queue_of(&frame), queue);
        assert_eq!(frame.fields.get("ns"), Some("shop"));
        assert_eq!(frame.fields.get("Signature"), Some("mark"));
    }
    let mut notification = Frame::request(NotifyConsumerIdsChanged::CODE.0);
    notification.fields.push("consumerGroup", "g");
    pair.answer(&notification).await;
    let response = pair.next().await;
    assert!(response.is_response());
    assert!(response.fields.is_empty(), "{response:?}");
}

#[tokio::test]
async fn what_a_one_way_request_takes_is_given_back_when_the_socket_has_it_or_the_connection_is_lost() {
    let messages = Arc::new(Semaphore::new(10));
    let bytes = Arc::new(Semaphore::new(100));
    let hold = || Hold {
        _messages: Arc::clone(&messages).try_acquire_owned().unwrap(),
        _bytes: Arc::clone(&bytes).try_acquire_many_owned(7).unwrap(),
    };
    let fields = NotifyConsumerIdsChanged {
        consumer_group: "g".into(),
    };
    let outbound = Outbound {
        code: NotifyConsumerIdsChanged::CODE.0,
        name: NotifyConsumerIdsChanged::NAME,
        fields: &fields,
        extra: &Fields::new(),
        body: Bytes::from(vec![7; 2000]),
    };
    let deadline = Instant::now() + Duration::from_secs(3);
    // The stream takes less than one frame before somebody reads.
    let (ours, peer) = duplex(64);
    let mut pair = Pair::over(TransportOptions::default(), ours, peer);
    for _ in 0..3 {
        let sent = pair.connection.one_way(&outbound, deadline, Some(hold()));
        sent.await.unwrap();
    }
    assert_eq!((messages.available_permits(), bytes.available_permits()), (7, 79));
    for _ in 0..3 {
        pair.next().await;
    }
    let all = time::timeout(Duration::from_secs(3), messages.acquire_many(10)).await;
    drop(all.expect("the frames are written"));
    assert_eq!(bytes.available_permits(), 100);

    for _ in 0..3 {
        let sent = pair.connection.one_way(&outbound, deadline, Some(hold()));
        sent.await.unwrap();
    }
    drop(pair.peer);
    let all = time::timeout(Duration::from_secs(3), messages.acquire_many(10)).await;
    drop(all.expect("the connection is lost"));
}
