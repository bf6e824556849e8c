//! The header of a send, read without a copy: this is the request that everything is measured by.

use std::borrow::Cow;

use rocketmq_client::protocol::{CodecError, Fields};
use serde::Serialize;

use super::REGION;

/// What the broker looks at of a send, in the long form and in the one of single letters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendHeader<'a> {
    pub(super) producer_group: &'a str,
    pub(super) topic: &'a str,
    pub(super) default_topic: &'a str,
    pub(super) default_topic_queue_nums: i32,
    pub(super) queue_id: i32,
    pub(super) sys_flag: i32,
    pub(super) born_timestamp: i64,
    pub(super) flag: i32,
    pub(super) properties: &'a str,
    pub(super) reconsume_times: i32,
    pub(super) max_reconsume_times: Option<i32>,
    pub(super) is_batch: bool,
}

/// The fields that must be there, in both forms.
const NEEDED: [[&str; 2]; 8] = [
    ["producerGroup", "a"],
    ["topic", "b"],
    ["defaultTopic", "c"],
    ["defaultTopicQueueNums", "d"],
    ["queueId", "e"],
    ["sysFlag", "f"],
    ["bornTimestamp", "g"],
    ["flag", "h"],
];

impl<'a> SendHeader<'a> {
    pub(super) fn read(fields: &'a Fields) -> Result<Self, CodecError> {
        let mut header = Self::default();
        let mut seen = 0u32;
        for (name, value) in fields.iter() {
            let needed = match name {
                "b" | "topic" => {
                    header.topic = value;
                    1
                }
                "i" | "properties" => {
                    header.properties = value;
                    continue;
                }
                "e" | "queueId" => {
                    header.queue_id = number(name, value)?;
                    4
                }
                "a" | "producerGroup" => {
                    header.producer_group = value;
                    0
                }
                "c" | "defaultTopic" => {
                    header.default_topic = value;
                    2
                }
                "d" | "defaultTopicQueueNums" => {
                    header.default_topic_queue_nums = number(name, value)?;
                    3
                }
                "f" | "sysFlag" => {
                    header.sys_flag = number(name, value)?;
                    5
                }
                "g" | "bornTimestamp" => {
                    header.born_timestamp = number(name, value)?;
                    6
                }
                "h" | "flag" => {
                    header.flag = number(name, value)?;
                    7
                }
                "j" | "reconsumeTimes" => {
                    header.reconsume_times = number(name, value)?;
                    continue;
                }
                "l" | "maxReconsumeTimes" => {
                    header.max_reconsume_times = Some(number(name, value)?);
                    continue;
                }
                "m" | "batch" => {
                    header.is_batch = value.eq_ignore_ascii_case("true");
                    continue;
                }
                _ => continue,
            };
            seen |= 1 << needed;
        }
        match (0..).zip(NEEDED).find(|(index, _)| seen & (1 << index) == 0) {
            None => Ok(header),
            Some((_, [long, short])) => {
                Err(CodecError::Field(format!("missing field `{long}` or `{short}`")))
            }
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, CodecError> {
    value
        .parse()
        .map_err(|_| CodecError::Field(format!("field `{name}`: {value:?} is no number of its size")))
}

/// The header of the answer; as `SendResultHeader`, without copies.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SendAnswer<'a> {
    msg_id: String,
    queue_id: i32,
    queue_offset: i64,
    transaction_id: Option<Cow<'a, str>>,
    recall_handle: Option<String>,
    #[serde(rename = "MSG_REGION")]
    region: &'static str,
    #[serde(rename = "TRACE_ON")]
    trace_on: &'static str,
}

impl<'a> SendAnswer<'a> {
    pub(super) fn new(
        msg_id: String,
        queue_id: i32,
        queue_offset: i64,
        transaction_id: Option<Cow<'a, str>>,
    ) -> Self {
        Self {
            msg_id,
            queue_id,
            queue_offset,
            transaction_id,
            recall_handle: None,
            region: REGION,
            trace_on: "true",
        }
    }

    /// Adds the handle by which the message can be taken back.
    pub(super) fn with_recall_handle(mut self, handle: Option<String>) -> Self {
        self.recall_handle = handle;
        self
    }
}

#[cfg(test)]
mod tests {
    use rocketmq_client::protocol::requests::{SendMessageV1, SendMessageV2, SendResultHeader};

    use super::*;

    const LONG: SendMessageV1 = SendMessageV1 {
        producer_group: String::new(),
        topic: String::new(),
        default_topic: String::new(),
        default_topic_queue_nums: 1,
        queue_id: -2,
        sys_flag: 3,
        born_timestamp: i64::MAX,
        flag: 5,
        properties: None,
        reconsume_times: Some(6),
        unit_mode: Some(true),
        max_reconsume_times: Some(7),
        batch: Some(true),
        body: bytes::Bytes::new(),
    };

    #[test]
    fn both_forms_say_the_same() {
        let long = SendMessageV1 {
            topic: "t".into(),
            default_topic: "d".into(),
            properties: Some("p".into()),
            ..LONG
        };
        let short = SendMessageV2::from(long.clone());
        let (long, short) = (
            Fields::from_header(&long).unwrap(),
            Fields::from_header(&short).unwrap(),
        );
        let (long, short) = (
            SendHeader::read(&long).unwrap(),
            SendHeader::read(&short).unwrap(),
        );
        assert_eq!(format!("{long:?}"), format!("{short:?}"));
        assert_eq!((long.topic, long.default_topic, long.properties), ("t", "d", "p"));
        assert_eq!(
            (
                long.default_topic_queue_nums,
                long.queue_id,
                long.sys_flag,
                long.flag
            ),
            (1, -2, 3, 5)
        );
        assert_eq!((long.born_timestamp, long.reconsume_times), (i64::MAX, 6));
        assert_eq!((long.max_reconsume_times, long.is_batch), (Some(7), true));
    }

    #[test]
    fn each_needed_field_is_missed_and_each_wrong_number_named() {
        let all = Fields::from_header(&SendMessageV2::from(LONG)).unwrap();
        for [long, short] in NEEDED {
            let without: Fields = all.iter().filter(|(name, _)| *name != short).collect();
            let error = SendHeader::read(&without).unwrap_err().to_string();
            assert_eq!(error, format!("missing field `{long}` or `{short}`"));
        }
        for (name, value) in [("e", "two"), ("g", "99999999999999999999"), ("l", "1.5")] {
            let wrong: Fields = all
                .iter()
                .map(|(key, old)| (key, if key == name { value } else { old }))
                .collect();
            let error = SendHeader::read(&wrong).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("field `{name}`: {value:?} is no number of its size")
            );
        }
    }

    #[test]
    fn the_answer_is_the_one_that_clients_read() {
        let answer = SendAnswer::new("7F".into(), 1, 2, Some(Cow::Borrowed("U")));
        let read: SendResultHeader = Fields::from_header(&answer).unwrap().header().unwrap();
        assert_eq!(
            (read.msg_id.as_str(), read.queue_id, read.queue_offset),
            ("7F", 1, 2)
        );
        assert_eq!(
            (read.transaction_id.as_deref(), read.region.as_deref()),
            (Some("U"), Some("DefaultRegion"))
        );
        assert_eq!(read.trace_on.as_deref(), Some("true"));
    }
}
