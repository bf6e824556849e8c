use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    consumer_group: String,
    queue_id: i32,
    #[serde(rename = "c")]
    committed: Option<bool>,
    offset: Option<i64>,
}

fn header() -> Header {
    Header {
        consumer_group: "g\u{1}\"ü".into(),
        queue_id: -7,
        committed: Some(true),
        offset: None,
    }
}

#[test]
fn a_typed_header_survives_the_list_of_pairs() {
    let fields = Fields::from_header(&header()).unwrap();
    assert_eq!(
        fields.iter().collect::<Vec<_>>(),
        [("consumerGroup", "g\u{1}\"ü"), ("queueId", "-7"), ("c", "true")]
    );
    assert_eq!(fields.header::<Header>().unwrap(), header());
}

#[test]
fn unknown_fields_are_ignored_and_missing_ones_are_named() {
    let fields: Fields = [("queueId", "1"), ("bname", "broker-a")].into_iter().collect();
    let error = fields.header::<Header>().unwrap_err();
    assert_eq!(error.to_string(), "missing field `consumerGroup`");
}

#[test]
fn a_value_of_the_wrong_type_names_its_field() {
    let fields: Fields = [("consumerGroup", "g"), ("queueId", "x")].into_iter().collect();
    let error = fields.header::<Header>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "header field \"queueId\": cannot read \"x\" as a number"
    );
}

#[test]
fn credentials_are_not_shown() {
    let fields: Fields = [("AccessKey", "ak"), ("Signature", "sig"), ("topic", "t")]
        .into_iter()
        .collect();
    let shown = format!("{fields:?}");
    assert!(
        !shown.contains("ak") && !shown.contains("sig") && shown.contains("\"t\""),
        "{shown}"
    );
}

#[test]
fn nested_values_are_refused() {
    #[derive(Serialize)]
    struct Nested {
        list: Vec<i32>,
    }
    let error = Fields::from_header(&Nested { list: vec![1] }).unwrap_err();
    assert_eq!(error.to_string(), "header field \"list\" cannot hold a list");
}
