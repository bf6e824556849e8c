//! The fixture on the real servers themselves, where `TARGETS` asks for them.

use super::*;
use crate::{scenario::report_skip, target::Kind};

fn wanted(kind: Kind) -> bool {
    let wanted = !kind.selected().unwrap().is_empty();
    if !wanted {
        report_skip(&format!("tests of the fixture on {kind}: not in TARGETS"));
    }
    wanted
}

fn survives_kill_stop_and_freeze(version: Version) {
    let cluster = RealCluster::start(version, 1, &BTreeMap::new()).unwrap();
    let address = cluster.broker_address(0).unwrap();
    assert!(
        cluster
            .restart(0)
            .unwrap_err()
            .to_string()
            .contains("runs already")
    );

    cluster.kill(0).unwrap();
    assert!(wire::request(address, GET_BROKER_CONFIG, &json!({}), b"").is_err());
    assert!(cluster.kill(0).unwrap_err().to_string().contains("does not run"));
    cluster.restart(0).unwrap();
    assert!(probe(address).unwrap());

    cluster.freeze(0).unwrap();
    assert!(probe(address).is_err(), "a frozen broker answered");
    cluster.thaw(0).unwrap();
    assert!(probe(address).unwrap());

    cluster.stop(0).unwrap();
    assert!(probe(address).is_err());
}

#[test]
fn a_broker_of_5_survives_kill_stop_and_freeze() {
    if wanted(Kind::Rocketmq5) {
        survives_kill_stop_and_freeze(Version::V5);
    }
}

#[test]
fn a_broker_of_4_survives_kill_stop_and_freeze() {
    if wanted(Kind::Rocketmq4) {
        survives_kill_stop_and_freeze(Version::V4);
    }
}

#[test]
fn a_setting_that_does_not_take_is_an_error() {
    if !wanted(Kind::Rocketmq4) {
        return;
    }
    let wishes = BTreeMap::from([("defaultTopicQueueNums".to_owned(), "eight".to_owned())]);
    let error = RealCluster::start(Version::V4, 1, &wishes)
        .unwrap_err()
        .to_string();
    assert!(error.contains("defaultTopicQueueNums"), "{error}");
}
