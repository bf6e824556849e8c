use bytes::BytesMut;

use super::*;
use crate::protocol::frame::next_frame;
use crate::protocol::requests::MaxOffset;
use crate::protocol::{Frame, Request};
use crate::transport::outgoing::{Batch, Outgoing, Pushed, Swapped};

/// Proves nothing, but says what it saw.
#[derive(Debug)]
struct Witness;

impl Sign for Witness {
    fn sign(&self, request: &mut Unsigned<'_>) {
        let seen: Vec<_> = request
            .fields
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let seen = format!("{} + {} bytes", seen.join(","), request.body.len());
        request.fields.push("Signature", &seen);
        request.version = 395;
    }

    fn refused(&self) -> Arc<str> {
        "nobody".into()
    }
}

fn request() -> MaxOffset {
    MaxOffset {
        topic: "t".into(),
        queue_id: 1,
    }
}

fn outbound<'a>(fields: &'a MaxOffset, extra: &'a Fields) -> Outbound<'a, MaxOffset> {
    Outbound {
        code: MaxOffset::CODE.0,
        name: MaxOffset::NAME,
        fields,
        extra,
        body: Bytes::from_static(b"body"),
    }
}

fn written<F: Serialize + ?Sized>(sealed: &Sealed<'_, F>, format: HeaderFormat) -> Frame {
    let mut outgoing = Outgoing::new(format, usize::MAX);
    assert!(matches!(outgoing.push(sealed, 3, true), Pushed::Queued { .. }));
    let mut batch = Batch::default();
    assert_eq!(outgoing.swap(&mut batch), Swapped::Filled);
    let mut wire = BytesMut::from(batch.as_one().unwrap());
    next_frame(&mut wire).unwrap().unwrap()
}

#[test]
fn the_fields_of_all_requests_come_behind_those_of_the_request() {
    let common = Fields::from_iter([("nsd", "true"), ("ns", "shop")]);
    let extra = Fields::from_iter([("bname", "broker-a")]);
    for format in [HeaderFormat::Json, HeaderFormat::Binary] {
        let frame = written(
            &Sealed::unsigned(&outbound(&request(), &extra), Some(&common)),
            format,
        );
        let pairs: Vec<_> = frame.fields.iter().collect();
        let expected = [
            ("topic", "t"),
            ("queueId", "1"),
            ("bname", "broker-a"),
            ("nsd", "true"),
            ("ns", "shop"),
        ];
        assert_eq!(pairs, expected);
        assert!(frame.is_one_way());
        assert_eq!(
            (frame.opaque, frame.version, &*frame.body),
            (3, VERSION, &b"body"[..])
        );
    }
}

#[test]
fn a_signer_sees_every_pair_and_the_body_and_may_add_pairs_and_change_the_version() {
    let common = Fields::from_iter([("ns", "shop")]);
    let extra = Fields::from_iter([("bname", "broker-a")]);
    for format in [HeaderFormat::Json, HeaderFormat::Binary] {
        let signed = Signed::new(&outbound(&request(), &extra), Some(&common), format, &Witness).unwrap();
        let frame = written(&signed.seal(), format);
        assert_eq!(
            frame.fields.get("Signature"),
            Some("topic=t,queueId=1,bname=broker-a,ns=shop + 4 bytes")
        );
        assert_eq!(frame.fields.len(), 5);
        assert_eq!((frame.version, &*frame.body), (395, &b"body"[..]));
        assert_eq!(frame.code, MaxOffset::CODE.0);
    }
}

#[test]
fn fields_that_cannot_be_sent_are_no_signed_request_either() {
    #[derive(Serialize)]
    struct Nested {
        list: Vec<u8>,
    }
    let fields = Nested { list: vec![1] };
    let extra = Fields::new();
    let outbound = Outbound {
        code: 1,
        name: "Nested",
        fields: &fields,
        extra: &extra,
        body: Bytes::new(),
    };
    let error = Signed::new(&outbound, None, HeaderFormat::Json, &Witness).unwrap_err();
    assert!(error.to_string().starts_with("Nested cannot be sent"), "{error}");
}

#[test]
fn a_value_that_a_java_server_would_read_as_null_leaves_a_signed_request() {
    let extra = Fields::from_iter([("i", ""), ("bname", "broker-a")]);
    let seen = |format| {
        let signed = Signed::new(&outbound(&request(), &extra), None, format, &Witness).unwrap();
        let frame = written(&signed.seal(), format);
        frame.fields.get("Signature").unwrap().to_owned()
    };
    assert_eq!(
        seen(HeaderFormat::Binary),
        "topic=t,queueId=1,bname=broker-a + 4 bytes"
    );
    // The JSON form keeps it as it is.
    assert_eq!(
        seen(HeaderFormat::Json),
        "topic=t,queueId=1,i=,bname=broker-a + 4 bytes"
    );
}
