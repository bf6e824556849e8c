//! The broker as clients see it: raw frames over TCP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admin;
mod client;
mod crash;
mod groups;
mod memory;
mod offsets;
mod popping;
mod popping_in_order;
mod popping_rules;
mod produce_and_consume;
mod pulls;
mod registration;
mod replies;
mod retries;
mod second_server;
mod sends;
mod strangers;
mod timers;
mod transactions;
