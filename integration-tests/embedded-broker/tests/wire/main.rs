//! The broker as clients see it: raw frames over TCP.

mod client;
mod produce_and_consume;
