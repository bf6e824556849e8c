//! What became of a message in each group that consumes its topic.

use super::Admin;
use super::members::is_offline;
use crate::error::{Error, Result};
use crate::message::MessageView;
use crate::protocol::bodies::{ConsumeType, ConsumerConnection, MessageModel};

/// What became of a message in one group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MessageTrack {
    /// The group.
    pub group: String,
    /// What is known.
    pub state: TrackState,
    /// Why it is not known, if it is not.
    pub error: Option<Error>,
}

/// How far a message is in a group. Java: `TrackType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrackState {
    /// The group has committed an offset behind it.
    Consumed,
    /// So it has, but does not want messages of its tag.
    Filtered,
    /// The group has members and has not got to it.
    NotYet,
    /// The group pulls, so offsets say nothing.
    Pull,
    /// No member is connected.
    NotOnline,
    /// Every member consumes everything and keeps its offsets itself.
    Broadcasting,
    /// A broker could not be asked; see [`MessageTrack::error`].
    Unknown,
}

/// What became of a message in each group that consumes its topic.
impl Admin {
    /// What became of a message in each group that consumes its topic now or has done so. Java: `messageTrackDetail`.
    ///
    /// # Errors
    /// [`ErrorKind::TopicNotFound`](crate::ErrorKind::TopicNotFound) if no broker has the topic; the failure of the
    /// first broker if none knows the groups. What fails for one group is in its track.
    pub async fn message_tracks(&self, message: &MessageView) -> Result<Vec<MessageTrack>> {
        let groups = self.groups_of_topic(message.topic()).await?.complete()?;
        let mut tracks = Vec::with_capacity(groups.len());
        for group in groups {
            let track = match self.track(message, &group).await {
                Ok(state) => MessageTrack {
                    group,
                    state,
                    error: None,
                },
                Err(error) => MessageTrack {
                    group,
                    state: if is_offline(&error) {
                        TrackState::NotOnline
                    } else {
                        TrackState::Unknown
                    },
                    error: Some(error),
                },
            };
            tracks.push(track);
        }
        Ok(tracks)
    }

    async fn track(&self, message: &MessageView, group: &str) -> Result<TrackState> {
        let members = self.consumer_connection(group).await?;
        if members.consume_type == ConsumeType::Actively {
            return Ok(TrackState::Pull);
        }
        if members.message_model == MessageModel::Broadcasting {
            return Ok(TrackState::Broadcasting);
        }
        let stats = self.consume_stats_of(group, message.topic()).await?;
        let at = stats.queue(message.queue());
        if at.is_none_or(|at| at.consumer_offset <= message.queue_offset()) {
            // An answer that is missing because its broker failed is no "not yet".
            let failed = stats.failures().get(&*message.queue().broker_name).cloned();
            return failed.map_or(Ok(TrackState::NotYet), Err);
        }
        Ok(match wants(&members, message) {
            true => TrackState::Consumed,
            false => TrackState::Filtered,
        })
    }
}

fn wants(members: &ConsumerConnection, message: &MessageView) -> bool {
    let subscription = members.subscription_table.get(message.topic());
    subscription.is_none_or(|data| data.tags_set.contains("*") || data.matches_tag(message.tag()))
}
