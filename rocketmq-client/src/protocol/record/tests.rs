use proptest::prelude::*;

use super::*;
use crate::protocol::PropertiesBuf;

/// Made by the Java broker's encoder.
const JAVA_V1: &str =
    "0000007e daa320a7 3610a686 00000003 00000000 000000000000002a 0000000000001234 00000000
    0000018bcfe56800 7f0000010000c350 0000018bcfe56801 7f00000100002a9f 00000000 0000000000000000 00000005
    68656c6c6f 09 546f70696354657374 0015 5441475301 54616741 02 4b45595301 6b31206b32 02";

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn record() -> Record {
    let mut properties = PropertiesBuf::new();
    properties.set("TAGS", "TagA").unwrap();
    properties.set("KEYS", "k1 k2").unwrap();
    Record {
        queue_id: 3,
        flag: 0,
        queue_offset: 42,
        physical_offset: 0x1234,
        sys_flag: SysFlag(0),
        born_timestamp: 1_700_000_000_000,
        born_host: "127.0.0.1:50000".parse().unwrap(),
        store_timestamp: 1_700_000_000_001,
        store_host: "127.0.0.1:10911".parse().unwrap(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: Bytes::from_static(b"hello"),
        topic: Text::from_static("TopicTest"),
        properties: properties.into(),
    }
}

#[test]
fn a_record_of_the_java_broker_is_read_and_written_again() {
    assert_eq!(Record::decode(hex(JAVA_V1)).unwrap(), record());
    let mut out = BytesMut::new();
    record().encode(&mut out).unwrap();
    assert_eq!(out, hex(JAVA_V1));
    assert_eq!(record().encoded_len(), out.len());
}

#[test]
fn long_topics_use_version_two_and_hosts_may_be_ipv6() {
    let mut long = record();
    long.topic = Text::from("%RETRY%".to_owned() + &"g".repeat(200));
    long.born_host = "[::1]:1".parse().unwrap();
    long.store_host = "[fe80::2]:65535".parse().unwrap();
    let mut out = BytesMut::new();
    long.encode(&mut out).unwrap();
    assert_eq!(long.encoded_len(), out.len());
    let read = Record::decode(out.freeze()).unwrap();
    assert!(read.sys_flag.has(SysFlag::BORN_HOST_V6 | SysFlag::STORE_HOST_V6));
    long.sys_flag = read.sys_flag;
    assert_eq!(read, long);
}

#[test]
fn a_changed_body_is_noticed() {
    let mut bytes = hex(JAVA_V1).to_vec();
    let at = bytes.windows(5).position(|window| window == b"hello").unwrap();
    bytes[at] = b'j';
    let error = Record::decode(bytes.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("body at byte {at}: its checksum does not match")
    );
}

#[test]
fn errors_name_the_offset_in_the_whole_buffer() {
    let one = hex(JAVA_V1);
    let mut two = one.to_vec();
    two.extend_from_slice(&one);
    two[one.len() + 4] = 0;
    let error = Record::decode_all(two.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "magic at byte 130: 0xa320a7 is no message version"
    );
}

#[test]
fn compression_types_are_told_apart() {
    assert_eq!(SysFlag(0x100).compression(), Ok(None));
    assert_eq!(SysFlag(0x1).compression(), Ok(Some(Compression::Zlib)));
    assert_eq!(SysFlag(0x101).compression(), Ok(Some(Compression::Lz4)));
    assert_eq!(SysFlag(0x201).compression(), Ok(Some(Compression::Zstd)));
    assert_eq!(SysFlag(0x301).compression(), Ok(Some(Compression::Zlib)));
    assert_eq!(SysFlag(0x701).compression(), Err(7));
}

proptest! {
    #[test]
    fn no_input_panics_however_it_is_damaged(at in 0usize..126, byte: u8, len in 0usize..127) {
        let mut bytes = hex(JAVA_V1).to_vec();
        bytes[at] = byte;
        bytes.truncate(len);
        let _ = Record::decode_all(bytes.into());
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Record::decode_all(bytes.into());
    }
}
