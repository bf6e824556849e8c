use super::*;
use crate::protocol::frame::next_frame;
use crate::protocol::requests::MaxOffset;
use crate::protocol::{Request, RequestCode};
use crate::transport::Outbound;

fn outbound<'a>(fields: &'a MaxOffset, extra: &'a Fields, body: Bytes) -> Outbound<'a, MaxOffset> {
    Outbound {
        code: MaxOffset::CODE.0,
        name: MaxOffset::NAME,
        fields,
        extra,
        body,
    }
}

fn sealed<'a>(outbound: &'a Outbound<'a, MaxOffset>) -> Sealed<'a, MaxOffset> {
    Sealed::unsigned(outbound, None)
}

fn request() -> MaxOffset {
    MaxOffset {
        topic: "t".into(),
        queue_id: 1,
    }
}

#[test]
fn frames_leave_in_order_with_large_bodies_in_their_place_however_the_socket_cuts() {
    let extra = Fields::new();
    let mut sizes = vec![0, 10, LARGE_BODY + 1, 3, 50_000, LARGE_BODY, 0, 20_000];
    // More than one buffer takes, with a segment at its end, and at the beginning of the next one.
    sizes.extend([LARGE_BODY; PIECE_BYTES / LARGE_BODY]);
    sizes.extend([LARGE_BODY + 1, LARGE_BODY + 2, 5]);
    sizes.extend([LARGE_BODY; PIECE_BYTES / LARGE_BODY]);
    for step in [1, 7, 1000, 100_000] {
        let mut outgoing = Outgoing::new(HeaderFormat::Json, usize::MAX);
        for (opaque, &size) in sizes.iter().enumerate() {
            let body = Bytes::from(vec![opaque as u8; size]);
            let pushed = outgoing.push(&sealed(&outbound(&request(), &extra, body)), opaque as i32, false);
            assert!(matches!(pushed, Pushed::Queued { .. }));
        }
        let mut batch = Batch::default();
        assert_eq!(outgoing.swap(&mut batch), Swapped::Filled);
        assert_eq!(outgoing.handed_over, batch.remaining() as u64);
        let mut written = BytesMut::new();
        while batch.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = batch.chunks_vectored(&mut slices);
            assert!(count > 0);
            assert_eq!(slices[0].first(), batch.chunk().first());
            let mut left = step;
            let mut taken = 0;
            for slice in &slices[..count] {
                let part = slice.len().min(left);
                written.extend_from_slice(&slice[..part]);
                left -= part;
                taken += part;
            }
            batch.advance(taken);
        }
        for (opaque, &size) in sizes.iter().enumerate() {
            let frame = next_frame(&mut written).unwrap().unwrap();
            assert_eq!(frame.opaque, opaque as i32);
            assert_eq!(frame.code, RequestCode::GET_MAX_OFFSET.0);
            assert_eq!(frame.body, vec![opaque as u8; size]);
        }
        assert!(written.is_empty());
    }
}

#[test]
fn the_limit_holds_but_one_frame_always_fits() {
    let extra = Fields::new();
    let mut outgoing = Outgoing::new(HeaderFormat::Binary, 100);
    let large = Bytes::from(vec![0; 1000]);
    assert!(matches!(
        outgoing.push(&sealed(&outbound(&request(), &extra, large.clone())), 0, false),
        Pushed::Queued { position: 0, .. }
    ));
    assert!(matches!(
        outgoing.push(&sealed(&outbound(&request(), &extra, large.clone())), 1, false),
        Pushed::Full
    ));
    let mut batch = Batch::default();
    assert!(!outgoing.is_handed_over(0));
    assert_eq!(outgoing.swap(&mut batch), Swapped::Filled);
    assert!(outgoing.is_handed_over(0));
    let Pushed::Queued { position, .. } =
        outgoing.push(&sealed(&outbound(&request(), &extra, large)), 1, false)
    else {
        panic!("no room");
    };
    assert_eq!(position, batch.remaining() as u64);
    assert!(!outgoing.is_handed_over(position));
}

#[test]
fn one_way_requests_wait_where_answered_ones_still_fit() {
    let extra = Fields::new();
    let mut outgoing = Outgoing::new(HeaderFormat::Binary, 4 * ONE_WAY_BYTES);
    let body = Bytes::from(vec![0; ONE_WAY_BYTES]);
    let mut push = |one_way| outgoing.push(&sealed(&outbound(&request(), &extra, body.clone())), 0, one_way);
    assert!(matches!(push(true), Pushed::Queued { .. }), "one always fits");
    assert!(matches!(push(true), Pushed::Full));
    assert!(matches!(push(false), Pushed::Queued { .. }));
}

#[test]
fn a_closed_buffer_gives_out_what_it_has_and_takes_nothing() {
    let extra = Fields::new();
    let mut outgoing = Outgoing::new(HeaderFormat::Json, 100);
    let mut batch = Batch::default();
    assert_eq!(outgoing.swap(&mut batch), Swapped::Empty);
    let pushed = outgoing.push(&sealed(&outbound(&request(), &extra, Bytes::new())), 0, true);
    assert!(matches!(
        pushed,
        Pushed::Queued {
            wake_writer: true,
            ..
        }
    ));
    outgoing.close();
    assert!(matches!(
        outgoing.push(&sealed(&outbound(&request(), &extra, Bytes::new())), 0, true),
        Pushed::Closed
    ));
    assert_eq!(outgoing.swap(&mut batch), Swapped::Filled);
    assert_eq!(outgoing.swap(&mut batch), Swapped::Closed);
}
