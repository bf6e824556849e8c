//! Any bytes are stored messages or an error; what was read is written to the same bytes; bodies decompress within
//! a cap.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use rocketmq_client::protocol::{Record, decompress};

const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(records) = Record::decode_all(Bytes::copy_from_slice(data)) else { return };
    for record in records {
        if let Ok(Some(compression)) = record.sys_flag.compression() {
            if let Ok(body) = decompress(&record.body, compression, LIMIT) {
                assert!(body.len() <= LIMIT);
            }
        }
        for (name, value) in record.properties.iter() {
            assert_eq!(record.properties.get(name).is_some(), !value.is_empty());
        }
        let mut out = BytesMut::new();
        record.encode(&mut out).expect("a record that was read can be written");
        assert_eq!(out.len(), record.encoded_len());
        assert_eq!(Record::decode(out.freeze()).expect("and read again"), record);
    }
});
