//! What a broker knows besides messages: topics, groups, their offsets and members, queue locks, name server values.

mod attributes;
mod groups;
mod kv;
mod locks;
mod members;
mod offsets;
mod permissions;
mod pop;
mod registry;
mod settings;
mod slave;
mod topics;

pub(crate) use self::attributes::{alter as alter_attributes, parse as parse_attributes};
pub(crate) use self::groups::{Groups, is_legal_group};
pub(crate) use self::kv::KvConfigs;
pub(crate) use self::locks::{LOCK_LIFE, QueueLocks};
pub(crate) use self::members::{Member, Members};
pub(crate) use self::offsets::Offsets;
pub(crate) use self::permissions::RoutePermissions;
pub(crate) use self::pop::{
    CheckPoint, Committed, Flight, Handed, HandedOut, Orders, Place, REVIVE_QUEUES, RequestModes,
};
pub(crate) use self::registry::{Registry, queue_data};
pub(crate) use self::settings::{ORDER_MESSAGE_ENABLE, Settings, SettingsError};
pub(crate) use self::slave::{SLAVE_ID, Slave};
pub(crate) use self::topics::{CreateTopicError, MAX_QUEUES, Topic, Topics};
