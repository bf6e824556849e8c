//! Questions of brokers about half messages, handed to a producer of their group.
//!
//! Protocol source: `ClientRemotingProcessor#checkTransactionState`.

use std::sync::Arc;

use tracing::{debug, warn};

use super::Cluster;
use crate::message::MessageView;
use crate::protocol::bodies::MessageQueue;
use crate::protocol::requests::CheckTransactionState;
use crate::protocol::{CodecError, Frame, Record, Request, ResponseCode, property};
use crate::transport::ServerRequest;

/// A broker asks what became of a transaction.
#[derive(Debug)]
pub(crate) struct TransactionCheck {
    /// The broker's address: the answer goes there.
    pub(crate) address: Arc<str>,
    /// The place of the half message by now. It is stored anew before each question.
    pub(crate) header: CheckTransactionState,
    /// The half message, with its real topic and queue.
    pub(crate) half: MessageView,
}

impl Cluster {
    /// Hands a question to a producer that runs transactions. Nobody answers for a group that is not here: the broker
    /// asks another member next time.
    pub(super) fn check_transaction(&self, peer: &str, frame: Frame) -> Option<ServerRequest> {
        let check = match self.read_check(peer, frame) {
            Ok(check) => check,
            Err(error) => {
                warn!(peer, %error, "a question about a half message cannot be read");
                return None;
            }
        };
        let group = check.half.property(property::PRODUCER_GROUP).unwrap_or_default();
        let group = self.user_name(group).into_owned();
        let members = self.members.producers_of(&group);
        let Some(member) = members.into_iter().find(|member| member.checks_transactions()) else {
            debug!(
                peer,
                group, "a question about a half message of a group that runs no transactions here"
            );
            return None;
        };
        Some(Box::pin(async move {
            member.check_transaction(check).await;
            // The question is one-way: nobody looks at this.
            Frame::response(ResponseCode::SUCCESS, 0)
        }))
    }

    fn read_check(&self, peer: &str, frame: Frame) -> Result<TransactionCheck, CodecError> {
        let header = CheckTransactionState::from_frame(frame)?;
        let record = Record::decode(header.body.clone())?;
        let broker_name = header.broker_name.clone();
        let broker_name = broker_name
            .or_else(|| self.routes.broker_name(peer))
            .unwrap_or_default();
        let topic = self.user_name(record.topic.as_str()).into_owned();
        let queue = MessageQueue::new(topic, broker_name, record.queue_id);
        Ok(TransactionCheck {
            address: peer.into(),
            half: MessageView::in_namespace(record, queue, self.namespace()),
            header,
        })
    }
}
