use super::*;
use crate::cluster::testing::client;
use crate::producer::ProducerBuilder;
use crate::protocol::requests::SendMessageV2;
use crate::protocol::{Frame, HeaderFormat, Request, decompress};
use crate::transport::fake::{Answer, FakeServer};

async fn core(options: impl FnOnce(ProducerBuilder) -> ProducerBuilder) -> std::sync::Arc<Core> {
    let server = FakeServer::start(|_| Answer::Silence).await;
    let client = client(&server.address()).await;
    let producer = options(client.producer("g")).start().await.unwrap();
    std::sync::Arc::clone(producer.core())
}

#[tokio::test]
async fn the_borrowed_header_is_the_typed_request_on_the_wire() {
    let core = core(|builder| builder).await;
    let message = Message::new("orders", "body").tag("vip").key("42").flag(7);
    let prepared = Prepared::new(message, &core).unwrap();
    let typed = SendMessageV2 {
        producer_group: "g".into(),
        topic: "orders".into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: 3,
        sys_flag: 0,
        born_timestamp: prepared.born_timestamp,
        flag: 7,
        properties: Some(format!(
            "TAGS\u{1}vip\u{2}KEYS\u{1}42\u{2}UNIQ_KEY\u{1}{}\u{2}",
            prepared.message_id
        )),
        reconsume_times: None,
        unit_mode: None,
        max_reconsume_times: None,
        batch: None,
        broker_name: Some("broker-a".into()),
        body: Bytes::new(),
    };
    let borrowed = Fields::from_header(&prepared.header(&core, "broker-a", 3)).unwrap();
    assert_eq!(borrowed, Fields::from_header(&typed).unwrap());
    let frame = Frame {
        fields: borrowed,
        ..Frame::request(SendMessageV2::CODE)
    };
    let mut out = bytes::BytesMut::new();
    frame.encode(HeaderFormat::Binary, &mut out).unwrap();
    assert_eq!(prepared.message_id.len(), 32);
    assert_eq!(prepared.body, "body");
}

fn prepared(message: Message, core: &Core) -> Prepared {
    let mut prepared = Prepared::new(message, core).unwrap();
    prepared.compress(&core.options);
    prepared
}

#[tokio::test]
async fn large_bodies_are_compressed_when_that_is_a_gain() {
    for (compression, flag) in [
        (Compression::Zlib, 0x301),
        (Compression::Lz4, 0x101),
        (Compression::Zstd, 0x201),
    ] {
        if !compression.is_available() {
            continue;
        }
        let core = core(|builder| builder.compression(compression)).await;
        let large = prepared(Message::new("t", vec![b'x'; 4096]), &core);
        assert_eq!(large.sys_flag, flag);
        assert!(large.body.len() < 100);
        let plain = decompress(&large.body, compression, 4096).unwrap();
        assert_eq!(plain, vec![b'x'; 4096]);
        let small = prepared(Message::new("t", vec![b'x'; 4095]), &core);
        assert_eq!((small.sys_flag, small.body.len()), (0, 4095));
        let noise: Vec<u8> = (0..600)
            .flat_map(|_| crate::transport::random().to_be_bytes())
            .collect();
        let incompressible = prepared(Message::new("t", noise.clone()), &core);
        assert_eq!((incompressible.sys_flag, &*incompressible.body), (0, &*noise));
    }
}

#[tokio::test]
async fn a_very_large_body_is_compressed_elsewhere_to_the_same() {
    let core = core(|builder| builder).await;
    let body = b"0123456789".repeat(10_000);
    let mut elsewhere = Prepared::new(Message::new("t", body.clone()), &core).unwrap();
    assert!(elsewhere.is_compressed_elsewhere());
    elsewhere.compress_elsewhere(&core).await;
    let here = prepared(Message::new("t", body), &core);
    assert_eq!((&elsewhere.body, elsewhere.sys_flag), (&here.body, 0x301));
    assert!(!here.is_compressed_elsewhere(), "it is done");
}

#[tokio::test]
async fn old_brokers_get_nothing_that_they_would_ignore() {
    let core = core(|builder| builder).await;
    let old = BrokerVersion(407);
    let plain = Message::new("t", "x").delay_level(3);
    assert!(Prepared::new(plain, &core).unwrap().fit(old).is_ok());
    let timed = Message::new("t", "x").delay(std::time::Duration::from_secs(1));
    let mut timed = Prepared::new(timed, &core).unwrap();
    let error = timed.fit(old).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "the broker has version 4.9.7, which is before delivery times (5.0.0): it would deliver the message at once; use \
         delay_level, which it knows"
    );
    assert!(timed.fit(BrokerVersion::V5_0_0).is_ok());
    let mut urgent = Prepared::new(Message::new("t", "x").priority(3), &core).unwrap();
    let error = urgent.fit(BrokerVersion(473)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the broker has version 5.3.0, which is before priorities (5.5.0): it would ignore that of the message; send it \
         without"
    );
    assert!(urgent.fit(BrokerVersion::V5_5_0).is_ok());
}

#[tokio::test]
async fn compression_can_be_off_and_the_limit_is_before_it() {
    let core = core(|builder| builder.compress_from_bytes(None).max_message_bytes(5000)).await;
    let large = Prepared::new(Message::new("t", vec![b'x'; 5000]), &core).unwrap();
    assert_eq!((large.sys_flag, large.body.len()), (0, 5000));
    let error = Prepared::new(Message::new("t", vec![b'x'; 5001]), &core).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn too_many_properties_are_refused_before_anything_is_sent() {
    let core = core(|builder| builder).await;
    let message = Message::new("t", "x").property("large", "v".repeat(32_767));
    let error = Prepared::new(message, &core).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(
        error
            .to_string()
            .starts_with("message to topic t: its properties have "),
        "{error}"
    );
}

#[tokio::test]
async fn a_message_to_a_retry_topic_says_in_its_header_how_often_it_was_consumed() {
    let core = core(|builder| builder).await;
    let message = Message::new("%RETRY%g", "x")
        .set(property::RECONSUME_TIME, "3")
        .set(property::MAX_RECONSUME_TIMES, "16");
    let prepared = Prepared::new(message, &core).unwrap();
    let fields = Fields::from_header(&prepared.header(&core, "b", 0)).unwrap();
    assert_eq!((fields.get("j"), fields.get("l")), (Some("3"), Some("16")));
}

#[tokio::test]
async fn an_id_that_is_there_stays() {
    let core = core(|builder| builder).await;
    let message = Message::new("t", "x").set(property::UNIQUE_KEY, "0A0B");
    assert_eq!(Prepared::new(message, &core).unwrap().message_id, "0A0B");
}
