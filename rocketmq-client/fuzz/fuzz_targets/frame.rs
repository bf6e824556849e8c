//! Any stream of bytes is frames or an error; a frame survives both header forms; every request reads any fields.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use rocketmq_client::protocol::frame::next_frame;
use rocketmq_client::protocol::requests::REQUESTS;
use rocketmq_client::protocol::{HeaderFormat, Language};

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(mut frame)) = next_frame(&mut buffer) {
        for meta in REQUESTS.iter().copied().flatten() {
            let _ = (meta.round_trip)(frame.clone());
        }
        // What only one of the two forms can hold is put aside: wide numbers, empty text, nameless languages.
        if frame.language.name().is_none() {
            frame.language = Language::OTHER;
        }
        frame.code &= 0x7FFF;
        frame.version &= 0x7FFF;
        frame.remark = frame.remark.filter(|remark| !remark.is_empty());
        frame.fields =
            frame.fields.iter().filter(|(key, value)| !key.is_empty() && key.len() < 30_000 && !value.is_empty()).collect();
        for format in [HeaderFormat::Json, HeaderFormat::Binary] {
            let mut wire = BytesMut::new();
            if frame.encode(format, &mut wire).is_ok() {
                let again = next_frame(&mut wire).expect("a frame that was written can be read");
                assert_eq!(again.as_ref(), Some(&frame));
            }
        }
    }
});
