use proptest::prelude::*;

use super::*;

fn batch_of(messages: &[(i32, &[u8], &str)]) -> Bytes {
    let mut out = BytesMut::new();
    for (flag, body, properties) in messages {
        encode_batch_message(*flag, body, properties, &mut out).unwrap();
    }
    out.freeze()
}

fn stored(body: Bytes, sys_flag: i32) -> Record {
    Record {
        queue_id: 3,
        flag: 9,
        queue_offset: 40,
        physical_offset: 4000,
        sys_flag: SysFlag(sys_flag),
        born_timestamp: 1,
        born_host: ([127, 0, 0, 1], 1).into(),
        store_timestamp: 2,
        store_host: ([127, 0, 0, 1], 2).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic: Text::from_static("orders"),
        properties: Properties::new(Text::from_static("INNER_NUM\u{1}2\u{2}")),
    }
}

#[test]
fn a_message_has_the_bytes_that_java_writes() {
    let wire = batch_of(&[(0, b"a", "TAGS\u{1}TagA\u{2}")]);
    let expected = [
        &[
            0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 10,
        ][..],
        b"TAGS\x01TagA\x02",
    ]
    .concat();
    assert_eq!(wire, expected);
    assert_eq!(wire.len(), BATCH_OVERHEAD + 1 + 10);
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_the_buffer_alone() {
    let mut out = BytesMut::from(&b"before"[..]);
    let error = encode_batch_message(0, b"x", &"p".repeat(32_768), &mut out).unwrap_err();
    assert_eq!(
        error.to_string(),
        "properties of 32768 bytes is above the limit of 32767"
    );
    assert_eq!(&out[..], b"before");
}

#[test]
fn a_batch_that_is_stored_as_one_record_is_unwrapped_into_its_messages() {
    let body = batch_of(&[
        (1, b"first", "TAGS\u{1}a\u{2}"),
        (2, b"second", "TAGS\u{1}b\u{2}"),
    ]);
    let flags = SysFlag::NEED_UNWRAP | SysFlag::INNER_BATCH | SysFlag::MULTI_TAGS;
    let unwrapped = stored(body, flags).unwrap_batch().unwrap();
    let seen: Vec<_> = unwrapped
        .iter()
        .map(|one| {
            (
                one.queue_offset,
                one.flag,
                &one.body[..],
                one.properties.get("TAGS"),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (40, 1, &b"first"[..], Some("a")),
            (41, 2, &b"second"[..], Some("b"))
        ]
    );
    for one in unwrapped {
        assert_eq!(
            (one.sys_flag, one.physical_offset),
            (SysFlag(SysFlag::MULTI_TAGS), 4000)
        );
        assert!(!one.is_batch());
    }
}

#[test]
fn a_compressed_batch_is_unwrapped_too_and_a_plain_record_stays_as_it_is() {
    let body = batch_of(&[(0, b"one", ""), (0, b"two", "")]);
    let compression = crate::protocol::Compression::Zlib;
    let compressed = crate::protocol::compress(&body, compression, 5).unwrap();
    let flags = SysFlag::NEED_UNWRAP | SysFlag::INNER_BATCH | compression.sys_flag();
    let unwrapped = stored(compressed, flags).unwrap_batch().unwrap();
    assert_eq!(unwrapped.len(), 2);
    assert_eq!(unwrapped.last().unwrap().body, "two");
    assert_eq!(unwrapped.last().unwrap().sys_flag.compression(), Ok(None));
    let plain = stored(body, 0);
    assert_eq!(plain.clone().unwrap_batch().unwrap(), [plain]);
}

#[test]
fn an_error_says_where_in_the_batch_it_is() {
    let mut wire = BytesMut::from(&batch_of(&[(0, b"good", "")])[..]);
    let first = wire.len();
    wire.unsplit(BytesMut::from(&batch_of(&[(0, b"bad", "")])[..]));
    // The length of the second body.
    wire[first + 19] = 200;
    let error = decode_batch(wire.freeze()).unwrap_err();
    let CodecError::Truncated { what, offset, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((what, offset), ("body", first + 20));
}

proptest! {
    #[test]
    fn any_batch_survives(
        messages in proptest::collection::vec(
            (any::<i32>(), proptest::collection::vec(any::<u8>(), 0..50), ".{0,20}"),
            0..20,
        ),
    ) {
        let mut out = BytesMut::new();
        for (flag, body, properties) in &messages {
            encode_batch_message(*flag, body, properties, &mut out).unwrap();
        }
        let read = decode_batch(out.freeze()).unwrap();
        let read: Vec<_> = read
            .into_iter()
            .map(|one| (one.flag, one.body.to_vec(), one.properties.as_str().to_owned()))
            .collect();
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn no_input_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        body in proptest::collection::vec(any::<u8>(), 0..50),
        at: proptest::sample::Index,
        cut: proptest::sample::Index,
    ) {
        let _ = decode_batch(noise.into());
        let mut damaged = batch_of(&[(1, &body, "a\u{1}b\u{2}"), (2, &body, "")]).to_vec();
        let place = at.index(damaged.len());
        damaged[place] ^= 0x80;
        let whole = Bytes::from(damaged);
        let _ = decode_batch(whole.clone());
        let cut = whole.slice(..cut.index(whole.len()));
        let flags = SysFlag::NEED_UNWRAP | SysFlag::INNER_BATCH;
        let _ = stored(cut, flags).unwrap_batch();
    }
}
