//! The RocketMQ binder.

mod message;
