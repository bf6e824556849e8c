use std::io::Read;

use super::*;
use crate::cluster::testing::client;
use crate::producer::ProducerBuilder;
use crate::protocol::requests::SendMessageV2;
use crate::protocol::{Fields, Frame, HeaderFormat, Request};
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

#[tokio::test]
async fn large_bodies_are_compressed_when_that_is_a_gain() {
    let core = core(|builder| builder).await;
    let large = Prepared::new(Message::new("t", vec![b'x'; 4096]), &core).unwrap();
    assert_eq!(large.sys_flag, 0x301);
    assert!(large.body.len() < 100);
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(&*large.body)
        .read_to_end(&mut plain)
        .unwrap();
    assert_eq!(plain, vec![b'x'; 4096]);
    let small = Prepared::new(Message::new("t", vec![b'x'; 4095]), &core).unwrap();
    assert_eq!((small.sys_flag, small.body.len()), (0, 4095));
    let noise: Vec<u8> = (0..600)
        .flat_map(|_| crate::transport::random().to_be_bytes())
        .collect();
    let incompressible = Prepared::new(Message::new("t", noise.clone()), &core).unwrap();
    assert_eq!((incompressible.sys_flag, &*incompressible.body), (0, &*noise));
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
