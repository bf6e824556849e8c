//! Requests that a broker sends to its clients, over the connection that carried the heartbeat.
//!
//! Protocol source: `ClientRemotingProcessor`, `Broker2Client`.

use crate::protocol::bodies::{ConsumeDirectlyResult, ConsumerRunningInfo, ConsumerStatus};
use crate::protocol::request::requests;
use crate::protocol::{Done, Json, Never};

requests! {
    /// The members of a group changed. One-way.
    pub struct NotifyConsumerIdsChanged = NOTIFY_CONSUMER_IDS_CHANGED => Never {
        /// The group.
        pub consumer_group: String,
    }

    /// Asks how a transaction ended. One-way; the answer is a request of its own. Body: the half message.
    /// The half message is stored anew for each check: only the two positions here are the ones to answer with.
    pub struct CheckTransactionState = CHECK_TRANSACTION_STATE, body => Never {
        /// The topic of half messages; brokers before 5.x leave it out.
        pub topic: Option<String>,
        /// The position of the half message in its queue.
        pub tran_state_table_offset: i64,
        /// The position of the half message in the broker's log.
        pub commit_log_offset: i64,
        /// The client's id of the message.
        pub msg_id: Option<String>,
        /// The id of the transaction.
        pub transaction_id: Option<String>,
        /// The broker's id of the half message.
        pub offset_msg_id: Option<String>,
        /// The name of the broker; brokers before 5.x leave it out.
        #[serde(rename = "bname")]
        pub broker_name: Option<String>,
    }

    /// Moves a group to other offsets. One-way. Body: [`OffsetTable`](crate::protocol::bodies::OffsetTable).
    pub struct ResetConsumerClientOffset = RESET_CONSUMER_CLIENT_OFFSET, body => Never {
        /// The topic.
        pub topic: String,
        /// The group.
        pub group: String,
        /// The time that was asked for: milliseconds since 1970.
        pub timestamp: i64,
        /// Whether offsets may go back.
        #[serde(rename = "isForce")]
        pub force: bool,
    }

    /// The offsets that a member has.
    pub struct ConsumerStatusFromClient = GET_CONSUMER_STATUS_FROM_CLIENT => Json<ConsumerStatus> {
        /// The topic.
        pub topic: String,
        /// The group.
        pub group: String,
        /// The member.
        pub client_addr: Option<String>,
    }

    /// What a member says of itself.
    pub struct GetConsumerRunningInfo = GET_CONSUMER_RUNNING_INFO => Json<ConsumerRunningInfo> {
        /// The group.
        pub consumer_group: String,
        /// The member.
        pub client_id: String,
        /// Whether stacks of threads are wanted.
        pub jstack_enable: Option<bool>,
    }

    /// Lets a member consume one message now. Body: the stored message.
    pub struct ConsumeMessageDirectly = CONSUME_MESSAGE_DIRECTLY, body => Json<ConsumeDirectlyResult> {
        /// The group.
        pub consumer_group: String,
        /// The member.
        pub client_id: Option<String>,
        /// The id of the message.
        pub msg_id: Option<String>,
        /// The name of the broker.
        pub broker_name: Option<String>,
        /// The topic; of a question to a broker. 5.x.
        pub topic: Option<String>,
    }

    /// A reply to a request that this client made. Body: the reply's.
    pub struct PushReplyMessage = PUSH_REPLY_MESSAGE_TO_CLIENT, body => Done {
        /// The group of the replier.
        pub producer_group: String,
        /// The reply topic.
        pub topic: String,
        /// The replier's template topic.
        pub default_topic: String,
        /// How many queues the replier asks for.
        pub default_topic_queue_nums: i32,
        /// The queue that the replier asked for.
        pub queue_id: i32,
        /// See [`SysFlag`](crate::protocol::SysFlag).
        pub sys_flag: i32,
        /// When the reply was made: milliseconds since 1970.
        pub born_timestamp: i64,
        /// The user's flag.
        pub flag: i32,
        /// The property string; holds the correlation id.
        pub properties: Option<String>,
        /// Not used for replies.
        pub reconsume_times: Option<i32>,
        /// Whether the replier is a unit's.
        pub unit_mode: Option<bool>,
        /// The replier's address as the broker saw it.
        pub born_host: String,
        /// The broker's address.
        pub store_host: String,
        /// When the broker got the reply: milliseconds since 1970.
        pub store_timestamp: i64,
    }
}
