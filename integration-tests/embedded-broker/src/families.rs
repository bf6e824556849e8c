//! What the broker does for each request, one file for each family, and the table of all of them.
//!
//! Adding a request is adding a line here.

mod admin;
mod back;
mod client;
mod config;
mod inspect;
mod name_server;
mod offset;
pub(crate) mod pop;
pub(crate) mod pull;
mod query;
mod recall;
mod register;
mod relay;
mod reset;
mod route;
mod send;
mod stats;
mod transaction;

use rocketmq_client::protocol::{BrokerVersion, RequestCode};

pub(crate) use self::send::answer_reply;
use crate::server::Routes;

/// What the name server serves.
pub(crate) fn name_server() -> Routes {
    Routes::new()
        .on_raw(RequestCode::GET_ROUTEINFO_BY_TOPIC, route::topic_route)
        .on_raw(RequestCode::GET_BROKER_CLUSTER_INFO, route::cluster_info)
        .on(route::all_topics)
        .on(route::topics_by_cluster)
        .on(route::delete_topic)
        .on(register::register)
        .on(register::unregister)
        .on(route::put_kv_config)
        .on(route::kv_config)
        .on(route::delete_kv_config)
        .on(route::kv_list)
        .on(name_server::config)
        .on(name_server::update_config)
        .on(name_server::wipe_write)
        .on(name_server::add_write)
        .on(name_server::system_topics)
        .on(name_server::unit_topics)
        .on(name_server::unit_subscribed)
        .on(name_server::unit_subscribed_foreign)
}

/// What the broker serves two below its port: everything that is answered at once.
pub(crate) fn second_server(version: BrokerVersion) -> Routes {
    broker(version).without(&[
        RequestCode::PULL_MESSAGE,
        RequestCode::LITE_PULL_MESSAGE,
        RequestCode::PEEK_MESSAGE,
        RequestCode::POP_MESSAGE,
        RequestCode::NOTIFICATION,
        RequestCode::POLLING_INFO,
    ])
}

/// What a slave serves: reading, and knowing who reads.
pub(crate) fn slave() -> Routes {
    Routes::new()
        .on_raw(RequestCode::PULL_MESSAGE, pull::pull)
        .on_raw(RequestCode::LITE_PULL_MESSAGE, pull::pull)
        .on(offset::query)
        .on(offset::update)
        .on(offset::max)
        .on(offset::min)
        .on(offset::search)
        .on(offset::earliest)
        .on(client::heartbeat)
        .on(client::unregister)
        .on(client::check_config)
        .on(client::consumer_list)
        .guarded()
}

/// What a broker of this version serves.
pub(crate) fn broker(version: BrokerVersion) -> Routes {
    let all = all_of_broker();
    let all = match version < BrokerVersion::V5_3_2 {
        true => all.without(&[RequestCode::POP_ROLLBACK]),
        false => all,
    };
    match version < BrokerVersion::V5_0_0 {
        true => all.without(&SINCE_5_0),
        false => all,
    }
}

/// What brokers of 4.9 do not know.
const SINCE_5_0: [RequestCode; 11] = [
    RequestCode::LITE_PULL_MESSAGE,
    RequestCode::POP_MESSAGE,
    RequestCode::ACK_MESSAGE,
    RequestCode::BATCH_ACK_MESSAGE,
    RequestCode::CHANGE_MESSAGE_INVISIBLETIME,
    RequestCode::NOTIFICATION,
    RequestCode::PEEK_MESSAGE,
    RequestCode::POLLING_INFO,
    RequestCode::QUERY_ASSIGNMENT,
    RequestCode::SET_MESSAGE_REQUEST_MODE,
    RequestCode::GET_ALL_MESSAGE_REQUEST_MODE,
];

fn all_of_broker() -> Routes {
    Routes::new()
        .on_raw(RequestCode::SEND_MESSAGE_V2, send::send)
        .on_raw(RequestCode::SEND_BATCH_MESSAGE, send::send)
        .on_raw(RequestCode::SEND_MESSAGE, send::send)
        .on_raw(RequestCode::SEND_REPLY_MESSAGE_V2, send::reply)
        .on_raw(RequestCode::SEND_REPLY_MESSAGE, send::reply)
        .on_raw(RequestCode::END_TRANSACTION, transaction::end)
        .on(back::consumer_send_back)
        .on(recall::recall)
        .on_raw(RequestCode::PULL_MESSAGE, pull::pull)
        .on_raw(RequestCode::LITE_PULL_MESSAGE, pull::pull)
        .on_raw(RequestCode::POP_MESSAGE, pop::pop)
        .on(pop::acknowledge)
        .on(pop::acknowledge_batch)
        .on_raw(
            RequestCode::CHANGE_MESSAGE_INVISIBLETIME,
            pop::change_invisible_time,
        )
        .on_raw(RequestCode::NOTIFICATION, pop::notification)
        .on_raw(RequestCode::PEEK_MESSAGE, pop::peek)
        .on_raw(RequestCode::POLLING_INFO, pop::polling_info)
        .on(pop::assignment)
        .on(pop::set_request_mode)
        .on_raw(RequestCode::GET_ALL_MESSAGE_REQUEST_MODE, pop::request_modes)
        .on_raw(RequestCode::POP_ROLLBACK, pop::roll_back)
        .on(offset::query)
        .on(offset::update)
        .on(offset::max)
        .on(offset::min)
        .on(offset::search)
        .on(offset::earliest)
        .on(client::heartbeat)
        .on(client::unregister)
        .on(client::check_config)
        .on(client::consumer_list)
        .on(client::lock_queues)
        .on(client::unlock_queues)
        .on(query::by_key)
        .on(query::by_offset)
        .on(config::create_topic)
        .on(config::create_topics)
        .on(config::delete_topic)
        .on(config::all_topics)
        .on(config::topic)
        .on(config::create_group)
        .on(config::create_groups)
        .on(config::all_groups)
        .on(config::group)
        .on(config::delete_group)
        .on(stats::topic)
        .on(stats::consume)
        .on(stats::consumers)
        .on(stats::producers)
        .on(stats::consume_by_who)
        .on(inspect::time_spans)
        .on(inspect::all_consume_stats)
        .on(inspect::topics_of_group)
        .on(inspect::subscription)
        .on(inspect::producers)
        .on(inspect::group_forbidden)
        .on(inspect::consume_queue)
        .on(inspect::broker_stats)
        .on(inspect::system_topics)
        .on(inspect::clean_unused_topics)
        .on(inspect::clean_consume_queues)
        .on(inspect::delete_commit_logs)
        .on(reset::reset)
        .on(reset::clone_offsets)
        .on_raw(RequestCode::GET_CONSUMER_RUNNING_INFO, relay::running_info)
        .on_raw(RequestCode::CONSUME_MESSAGE_DIRECTLY, relay::consume_directly)
        .on_raw(RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, relay::status)
        .on(admin::runtime_info)
        .on(admin::broker_config)
        .on(admin::update_broker_config)
        .guarded()
}
