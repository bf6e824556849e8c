//! The body of a pull response: messages back to back, most of them good.

use bytes::{Buf, Bytes};

use super::filter::Filter;
use crate::protocol::{CodecError, Record, property};

/// Where queue offset and physical offset are in a stored message.
const QUEUE_OFFSET_AT: usize = 20;
const PHYSICAL_OFFSET_AT: usize = 28;

/// What was read of a response.
#[derive(Debug)]
pub(super) struct Received {
    /// In the order of their offsets, up to the first that cannot be read.
    pub(super) records: Vec<Record>,
    /// The first message that cannot be read; what follows it is not looked at.
    pub(super) damaged: Option<Damaged>,
}

/// A message that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damaged {
    pub(super) error: CodecError,
    /// Its place in the queue and in the broker's log, as far as that can be told.
    pub(super) place: Option<(i64, i64)>,
}

impl Received {
    pub(super) fn read(body: Bytes) -> Self {
        // The usual case in one go.
        if let Ok(records) = Record::decode_all(body.clone())
            && !records.iter().any(Record::is_batch)
        {
            return Self {
                records,
                damaged: None,
            };
        }
        let mut rest = body;
        let mut records = Vec::new();
        let damaged = loop {
            if rest.is_empty() {
                break None;
            }
            // A size that cannot be is left to the decoder, which says what is wrong with it.
            let size = rest.first_chunk().map_or(0, |size| i32::from_be_bytes(*size));
            let len = usize::try_from(size).unwrap_or(0).clamp(0, rest.len());
            let record = if len == 0 {
                rest.split_off(0)
            } else {
                rest.split_to(len)
            };
            match Record::decode(record.clone()).and_then(Record::unwrap_batch) {
                Ok(mut whole) => records.append(&mut whole),
                Err(error) => {
                    let place = place_of(&record);
                    break Some(Damaged { error, place });
                }
            }
        };
        Self { records, damaged }
    }

    /// Leaves out what the filter does not want: a broker compares only hashes of tags.
    pub(super) fn keep(&mut self, filter: &Filter) {
        self.records
            .retain(|record| filter.matches(record.properties.get(property::TAGS)));
    }
}

fn place_of(record: &Bytes) -> Option<(i64, i64)> {
    let number = |at: usize| {
        let mut bytes = record.get(at..at + 8)?;
        Some(bytes.get_i64())
    };
    Some((number(QUEUE_OFFSET_AT)?, number(PHYSICAL_OFFSET_AT)?))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::protocol::{Properties, SysFlag, Text};

    fn stored(offset: i64, tag: &str) -> BytesMut {
        let record = Record {
            queue_id: 3,
            flag: 0,
            queue_offset: offset,
            physical_offset: offset * 1000,
            sys_flag: SysFlag::default(),
            born_timestamp: 0,
            born_host: ([127, 0, 0, 1], 1).into(),
            store_timestamp: 0,
            store_host: ([127, 0, 0, 1], 2).into(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: Bytes::from_static(b"body"),
            topic: Text::from_static("orders"),
            properties: Properties::new(Text::from(format!("TAGS\u{1}{tag}\u{2}"))),
        };
        let mut out = BytesMut::new();
        record.encode(&mut out).unwrap();
        out
    }

    fn offsets(received: &Received) -> Vec<i64> {
        received
            .records
            .iter()
            .map(|record| record.queue_offset)
            .collect()
    }

    #[test]
    fn other_tags_with_the_same_hash_are_left_out() {
        let mut body = stored(1, "Aa");
        body.unsplit(stored(2, "BB"));
        let mut received = Received::read(body.freeze());
        received.keep(&Filter::from("Aa"));
        assert_eq!(offsets(&received), [1]);
    }

    #[test]
    fn a_batch_stored_as_one_record_comes_as_its_messages() {
        let mut batch = BytesMut::new();
        for (text, tag) in [("one", "a"), ("two", "b"), ("three", "a")] {
            let properties = format!("TAGS\u{1}{tag}\u{2}");
            crate::protocol::encode_batch_message(0, text.as_bytes(), &properties, &mut batch).unwrap();
        }
        let mut record = Record::decode(stored(7, "envelope").freeze()).unwrap();
        record.sys_flag = SysFlag(SysFlag::NEED_UNWRAP | SysFlag::INNER_BATCH);
        record.body = batch.freeze();
        let mut body = stored(6, "a");
        record.encode(&mut body).unwrap();
        body.unsplit(stored(10, "a"));
        let mut received = Received::read(body.freeze());
        received.keep(&Filter::from("a"));
        assert_eq!(offsets(&received), [6, 7, 9, 10]);
        assert_eq!(received.damaged, None);
    }

    #[test]
    fn a_damaged_message_is_told_apart_from_the_good_ones_before_it() {
        let mut body = stored(1, "a");
        let mut damaged = stored(2, "a");
        // One bit of the body: its checksum does not match.
        damaged[85] ^= 1;
        body.unsplit(damaged);
        body.unsplit(stored(3, "a"));
        let received = Received::read(body.freeze());
        assert_eq!(offsets(&received), [1]);
        assert_eq!(received.damaged.unwrap().place, Some((2, 2000)));
    }

    #[test]
    fn noise_has_no_place() {
        for noise in [
            &b"\0"[..],
            b"\xff\xff\xff\xff",
            b"\0\0\0\0\0\0",
            b"\x7f\xff\xff\xffabc",
        ] {
            let received = Received::read(Bytes::from_static(noise));
            assert!(received.records.is_empty());
            assert_eq!(received.damaged.unwrap().place, None, "{noise:?}");
        }
    }

    #[test]
    fn any_cut_of_a_response_keeps_the_whole_messages_before_it() {
        let mut body = stored(1, "a");
        let first = body.len();
        body.unsplit(stored(2, "a"));
        let body = body.freeze();
        for cut in 1..body.len() {
            let received = Received::read(body.slice(..cut));
            assert_eq!(received.records.len(), usize::from(cut >= first), "{cut}");
            assert_eq!(received.damaged.is_none(), cut == first, "{cut}");
        }
    }
}
