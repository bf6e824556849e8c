//! An async Apache RocketMQ client for the remoting protocol.

pub mod protocol;
