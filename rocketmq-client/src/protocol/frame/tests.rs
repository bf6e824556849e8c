use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn route_request(body: &'static [u8]) -> Frame {
    let mut frame = Frame::request(105);
    frame.language = Language::JAVA;
    frame.version = 479;
    frame.opaque = 7;
    frame.fields.push("topic", "TopicTest");
    frame.body = Bytes::from_static(body);
    frame
}

#[test]
fn the_json_form_equals_what_java_writes() {
    let header = r#"{"code":105,"extFields":{"topic":"TopicTest"},"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}"#;
    let mut expected = hex("00000087 00000083");
    expected.extend_from_slice(header.as_bytes());
    let mut out = BytesMut::new();
    route_request(b"").encode(HeaderFormat::Json, &mut out).unwrap();
    assert_eq!(out, expected);
    assert_eq!(next_frame(&mut out).unwrap(), Some(route_request(b"")));
}

#[test]
fn the_binary_form_equals_what_java_writes() {
    let expected = hex(
        "0000002f 01000029 0069 00 01df 00000007 00000000 00000000 00000014 0005 746f706963 00000009
         546f70696354657374 6869",
    );
    let mut out = BytesMut::new();
    route_request(b"hi")
        .encode(HeaderFormat::Binary, &mut out)
        .unwrap();
    assert_eq!(out, expected);
    assert_eq!(next_frame(&mut out).unwrap(), Some(route_request(b"hi")));
}

#[test]
fn a_code_that_binary_cannot_hold_is_written_as_json() {
    let mut out = BytesMut::new();
    Frame::request(200_050)
        .encode(HeaderFormat::Binary, &mut out)
        .unwrap();
    assert_eq!(out[4], 0);
    assert_eq!(next_frame(&mut out).unwrap().unwrap().code, 200_050);
}

#[test]
fn loose_json_headers_are_read_as_java_reads_them() {
    let header = br#"{"code":0,"language":"KLINGON","flag":1,"extFields":{"a":1,"b":true,"c":null,"d":"x\u0001y"},"later":[{}]}"#;
    let mut bytes = BytesMut::new();
    bytes.put_u32(header.len() as u32);
    bytes.put_slice(header);
    let frame = Frame::decode(bytes.freeze()).unwrap();
    assert!(frame.is_response());
    assert_eq!(frame.language, Language::OTHER);
    assert_eq!(
        frame.fields.iter().collect::<Vec<_>>(),
        [("a", "1"), ("b", "true"), ("d", "x\u{1}y")]
    );
}

#[test]
fn lengths_that_lie_are_refused_before_anything_is_reserved() {
    for (bytes, expected) in [
        (
            hex("7fffffff"),
            "frame of 2147483647 bytes is above the limit of 16777216",
        ),
        (
            hex("ffffffff"),
            "frame of 4294967295 bytes is above the limit of 16777216",
        ),
        (
            hex("00000003 000000"),
            "frame length at byte 0: 3 leaves no room for a header",
        ),
        (
            hex("00000004 00000001"),
            "header at byte 8 needs 1 bytes, 0 are left",
        ),
        (
            hex("00000004 09000000"),
            "header format at byte 4: unknown format 9",
        ),
    ] {
        let mut buffer = BytesMut::from(&bytes[..]);
        let capacity = buffer.capacity();
        assert_eq!(next_frame(&mut buffer).unwrap_err().to_string(), expected);
        assert!(buffer.capacity() <= capacity);
    }
}

#[test]
fn negative_lengths_inside_a_binary_header_are_refused() {
    // code, language, version, opaque, flag, then a remark of -1 bytes.
    let header = hex("0069 00 01df 00000007 00000000 ffffffff 00000000");
    let mut bytes = BytesMut::new();
    bytes.put_u32((1 << 24) | header.len() as u32);
    bytes.put_slice(&header);
    assert_eq!(
        Frame::decode(bytes.freeze()).unwrap_err().to_string(),
        "remark at byte 17: negative length -1"
    );
}

#[test]
fn a_frame_above_the_limit_leaves_the_buffer_as_it_was() {
    let mut out = BytesMut::from(&b"before"[..]);
    let mut frame = Frame::request(10);
    frame.body = Bytes::from(vec![0; MAX_FRAME_BYTES]);
    let error = frame.encode(HeaderFormat::Json, &mut out).unwrap_err();
    assert!(
        matches!(error, CodecError::TooLarge { what: "frame", .. }),
        "{error}"
    );
    assert_eq!(&out[..], b"before");
}

prop_compose! {
    fn any_frame()(
        code in 0..i32::from(i16::MAX),
        language in 0..14u8,
        version in 0..i32::from(i16::MAX),
        opaque: i32,
        flags in 0..4,
        remark in proptest::option::of(".{1,40}"),
        pairs in proptest::collection::vec((".{1,12}", ".{1,40}"), 0..8),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) -> Frame {
        let mut fields = Fields::new();
        for (key, value) in &pairs {
            fields.push(key, value);
        }
        Frame { code, language: Language(language), version, opaque, flags, remark, fields, body: body.into() }
    }
}

proptest! {
    #[test]
    fn frames_survive_both_forms_however_the_stream_is_cut(frame in any_frame(), cut in 1usize..64) {
        for format in [HeaderFormat::Json, HeaderFormat::Binary] {
            let mut wire = BytesMut::new();
            frame.encode(format, &mut wire).unwrap();
            frame.encode(format, &mut wire).unwrap();
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for chunk in wire.chunks(cut) {
                buffer.put_slice(chunk);
                while let Some(frame) = next_frame(&mut buffer).unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(&seen, &[frame.clone(), frame.clone()]);
        }
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), format in 0..2u8) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = next_frame(&mut buffer) {}
        // The same bytes behind a plausible prefix reach deeper.
        let mut body = BytesMut::new();
        body.put_u8(format);
        body.put_u8(0);
        body.put_u16(bytes.len() as u16);
        body.put_slice(&bytes);
        let _ = Frame::decode(body.freeze());
    }
}
