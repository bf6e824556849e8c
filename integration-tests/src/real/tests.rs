//! The fixture on the real servers themselves; where they are not installed these say so and pass.

use super::*;
use crate::scenario::report_skip;

fn start(version: Version) -> Option<RealCluster> {
    if let Err(missing) = version.jars() {
        report_skip(&missing.to_string());
        return None;
    }
    Some(RealCluster::start(version, 1, &BTreeMap::new()).unwrap())
}

fn survives_kill_stop_and_freeze(version: Version) {
    let Some(cluster) = start(version) else { return };
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
    survives_kill_stop_and_freeze(Version::V5);
}

#[test]
fn a_broker_of_4_survives_kill_stop_and_freeze() {
    survives_kill_stop_and_freeze(Version::V4);
}

#[test]
fn a_setting_that_does_not_take_is_an_error() {
    if let Err(missing) = Version::V4.jars() {
        return report_skip(&missing.to_string());
    }
    let wishes = BTreeMap::from([("defaultTopicQueueNums".to_owned(), "eight".to_owned())]);
    let error = RealCluster::start(Version::V4, 1, &wishes)
        .unwrap_err()
        .to_string();
    assert!(error.contains("defaultTopicQueueNums"), "{error}");
}
