//! Requests of brokers, handed to the member they are about.
//!
//! Protocol source: `ClientRemotingProcessor`.

use std::sync::{Arc, OnceLock, Weak};

use tracing::debug;

use super::Cluster;
use crate::protocol::{Frame, RequestCode, ResponseCode};
use crate::transport::{Inbound, ServerRequest};

/// What connections hold of the cluster. It is filled in once the cluster exists, and does not keep it alive.
#[derive(Debug, Default)]
pub(super) struct ClusterInbound(OnceLock<Weak<Cluster>>);

impl ClusterInbound {
    pub(super) fn attach(&self, cluster: &Arc<Cluster>) {
        // Attached once, by the one who makes both.
        let _ = self.0.set(Arc::downgrade(cluster));
    }

    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.0.get()?.upgrade()
    }
}

impl Inbound for ClusterInbound {
    fn serve(&self, peer: &str, frame: Frame) -> Option<ServerRequest> {
        match RequestCode(frame.code) {
            RequestCode::CHECK_TRANSACTION_STATE => return self.cluster()?.check_transaction(peer, frame),
            RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT => {
                let response = self.cluster()?.receive_reply(peer, frame);
                return Some(Box::pin(async move { response }));
            }
            _ => {}
        }
        let group_field = match RequestCode(frame.code) {
            RequestCode::RESET_CONSUMER_CLIENT_OFFSET | RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT => {
                "group"
            }
            RequestCode::NOTIFY_CONSUMER_IDS_CHANGED
            | RequestCode::GET_CONSUMER_RUNNING_INFO
            | RequestCode::CONSUME_MESSAGE_DIRECTLY => "consumerGroup",
            _ => return None,
        };
        let group = frame.fields.get(group_field).unwrap_or_default();
        let member = self
            .cluster()
            .and_then(|cluster| cluster.members.consumer(&cluster.user_name(group)));
        let Some(member) = member else {
            debug!(
                peer,
                code = frame.code,
                group,
                "a request for a group that is not here"
            );
            let remark = format!("The Consumer Group <{group}> not exist in this client");
            return Some(Box::pin(async move {
                Frame::refusal(ResponseCode::SYSTEM_ERROR, 0, remark)
            }));
        };
        Some(Box::pin(async move {
            if frame.code == RequestCode::NOTIFY_CONSUMER_IDS_CHANGED.0 {
                member.on_members_changed();
                return Frame::response(ResponseCode::SUCCESS, 0);
            }
            member.handle(frame).await
        }))
    }

    fn connected(&self, peer: &str) {
        if let Some(cluster) = self.cluster() {
            cluster.broker_connected(peer);
        }
    }
}
