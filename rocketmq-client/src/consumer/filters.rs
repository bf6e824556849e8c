//! The filters of several topics, as a builder takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::filter::Filter;
use crate::cluster::Cluster;

/// The filters by topic; adds what is wrong with them to `faults`.
pub(super) fn check_filters(
    cluster: &Cluster,
    filters: &[(String, Filter)],
    faults: &mut Vec<String>,
) -> BTreeMap<Arc<str>, Filter> {
    let mut topics = BTreeMap::new();
    for (topic, filter) in filters {
        if let Err(error) = cluster.check_topic(topic) {
            faults.push(error.to_string());
        }
        if let Err(fault) = filter.check() {
            faults.push(format!("filter of topic {topic:?}: {fault}"));
        }
        if topics.insert(Arc::from(topic.as_str()), filter.clone()).is_some() {
            faults.push(format!(
                "topic {topic:?} is subscribed to twice; name all tags in one filter"
            ));
        }
    }
    topics
}
