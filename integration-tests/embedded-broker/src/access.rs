//! Who may do what: users, the signatures that prove them, and their rights.
//!
//! Two styles, as there are two in RocketMQ: the access control lists of 4.9 (code 1 and the text of an `AclException`)
//! and the users and policies of 5.x (code 16). Requests are signed in the same way for both. As on real servers, the
//! name server asks nobody.
//!
//! Protocol source: `PlainAccessValidator`, `PlainPermissionManager` (4.9); `DefaultAuthenticationHandler`,
//! `UserAuthorizationHandler`, `AclAuthorizationHandler` (5.x).

mod needs;
mod signature;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::RwLock;

use rocketmq_client::protocol::{Frame, RequestCode, ResponseCode};

use self::needs::{Need, Resource};
use crate::lock::{read, write};
use crate::server::Refusal;

/// How a broker refuses those who may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessStyle {
    /// Access control lists of 4.9: `aclEnable=true` and `plain_acl.yml`.
    PlainAcl,
    /// Users and policies of 5.x: `authenticationEnabled=true` and `authorizationEnabled=true`.
    Users,
}

/// What is done to a topic or with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Everything.
    All,
    /// Sending to a topic.
    Pub,
    /// Consuming a topic, consuming as a group.
    Sub,
    /// Creating it. In the style of 4.9 nobody but an administrator may.
    Create,
    /// Changing it.
    Update,
    /// Deleting it.
    Delete,
    /// Looking at it.
    Get,
    /// Listing all.
    List,
}

/// Somebody who may use the broker.
#[derive(Clone)]
pub struct User {
    name: String,
    secret: String,
    admin: bool,
    enabled: bool,
    topics: Vec<Right>,
    groups: Vec<Right>,
}

#[derive(Clone, Debug)]
struct Right {
    /// A name, the beginning of names with a `*` behind it, or `*` for all.
    pattern: String,
    actions: Vec<Action>,
}

impl User {
    /// A user who may do nothing. The name is the access key of its clients, the secret their secret key.
    pub fn new(name: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            secret: secret.into(),
            admin: false,
            enabled: true,
            topics: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Lets the user do everything. 4.9: `admin: true`; 5.x: a user of type `Super`.
    #[must_use]
    pub fn admin(mut self) -> Self {
        self.admin = true;
        self
    }

    /// Shuts the user out. 5.x: the status `disable`; in the style of 4.9 it is as if there were no such user.
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.enabled = false;
        self
    }

    /// Allows actions on topics: those of this name, those that begin with what comes before a final `*`, or all with
    /// `*` alone. The style of 4.9 knows names and `*`, which is its `defaultTopicPerm`.
    #[must_use]
    pub fn topic(mut self, pattern: impl Into<String>, actions: impl Into<Vec<Action>>) -> Self {
        self.topics.push(Right::new(pattern, actions));
        self
    }

    /// As [`topic`](Self::topic), for consumer groups.
    #[must_use]
    pub fn group(mut self, pattern: impl Into<String>, actions: impl Into<Vec<Action>>) -> Self {
        self.groups.push(Right::new(pattern, actions));
        self
    }
}

/// Never the secret.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("admin", &self.admin)
            .field("enabled", &self.enabled)
            .field("topics", &self.topics)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl Right {
    fn new(pattern: impl Into<String>, actions: impl Into<Vec<Action>>) -> Self {
        Self {
            pattern: pattern.into(),
            actions: actions.into(),
        }
    }

    fn allows_one_of(&self, wanted: &[Action]) -> bool {
        self.actions.contains(&Action::All) || wanted.iter().any(|action| self.actions.contains(action))
    }

    /// How closely the pattern fits: the closest one decides. `None` when it does not.
    fn fit(&self, name: &str, style: AccessStyle) -> Option<usize> {
        match self.pattern.strip_suffix('*') {
            Some("") => Some(0),
            Some(start) if style == AccessStyle::Users => name.starts_with(start).then_some(start.len()),
            _ => (self.pattern == name).then_some(usize::MAX),
        }
    }
}

/// The users of a broker that asks who its clients are.
#[derive(Debug)]
pub(crate) struct AccessControl {
    style: AccessStyle,
    cluster: String,
    users: RwLock<BTreeMap<String, User>>,
}

impl AccessControl {
    pub(crate) fn new(style: AccessStyle, cluster: &str, users: &[User]) -> Self {
        let users = users.iter().map(|user| (user.name.clone(), user.clone()));
        Self {
            style,
            cluster: cluster.to_owned(),
            users: RwLock::new(users.collect()),
        }
    }

    pub(crate) fn put(&self, user: User) {
        write(&self.users).insert(user.name.clone(), user);
    }

    pub(crate) fn remove(&self, name: &str) {
        write(&self.users).remove(name);
    }

    /// Lets a request pass, or says why not.
    pub(crate) fn check(&self, frame: &Frame, peer: IpAddr) -> Result<(), Refusal> {
        let users = read(&self.users);
        match self.style {
            AccessStyle::PlainAcl => plain(&users, frame),
            AccessStyle::Users => self.policies(&users, frame, peer),
        }
    }

    fn policies(&self, users: &BTreeMap<String, User>, frame: &Frame, peer: IpAddr) -> Result<(), Refusal> {
        let refused = |text: String| Err(Refusal::new(ResponseCode::NO_PERMISSION, text));
        let Some(name) = frame.fields.get("AccessKey").filter(|name| !name.is_empty()) else {
            return refused("username cannot be null.".to_owned());
        };
        let Some(user) = users.get(name) else {
            return refused(format!("User:{name} is not found."));
        };
        if !user.enabled {
            return refused(format!("User:{name} is disabled."));
        }
        if !signature::is_good(frame, &user.secret, self.style) {
            return refused("check signature failed.".to_owned());
        }
        if user.admin {
            return Ok(());
        }
        for need in needs::of(frame, self.style).map_err(unreadable)? {
            if !may(user, &need, self.style) {
                let resource = need.resource.describe(&self.cluster);
                return refused(format!(
                    "User:{name} has no permission to access {resource} from {peer}, no matched policies."
                ));
            }
        }
        Ok(())
    }
}

fn plain(users: &BTreeMap<String, User>, frame: &Frame) -> Result<(), Refusal> {
    let refused = |text: String| {
        let remark = format!("org.apache.rocketmq.acl.common.AclException: {text}");
        Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
    };
    let Some(name) = frame.fields.get("AccessKey") else {
        return refused("No accessKey is configured".to_owned());
    };
    let Some(user) = users.get(name).filter(|user| user.enabled) else {
        return refused(format!("No acl config for {name}"));
    };
    let style = AccessStyle::PlainAcl;
    if !signature::is_good(frame, &user.secret, style) {
        return refused(format!("Check signature failed for accessKey={name}"));
    }
    let code = RequestCode(frame.code);
    if needs::ADMIN_CODES.contains(&code) && !user.admin {
        return refused(format!(
            "Need admin permission for request code={}, but accessKey={name} is not",
            frame.code
        ));
    }
    if user.admin && user.topics.is_empty() && user.groups.is_empty() {
        return Ok(());
    }
    let needs = needs::of(frame, style).map_err(unreadable)?;
    // Whoever is known may trace.
    if needs.iter().any(Need::is_tracing) {
        return Ok(());
    }
    for need in needs {
        if !may(user, &need, style) {
            let resource = match &need.resource {
                Resource::Topic(name) => format!("topic:{name}"),
                Resource::Group(name) => format!("group:{name}"),
                Resource::Cluster => continue,
            };
            return refused(format!("No default permission for {resource}"));
        }
    }
    Ok(())
}

fn may(user: &User, need: &Need, style: AccessStyle) -> bool {
    let (rights, name) = match &need.resource {
        Resource::Topic(name) => (&user.topics, name),
        Resource::Group(name) => (&user.groups, name),
        // Nobody can be given a right to the cluster as yet; administrators are not asked.
        Resource::Cluster => return false,
    };
    let fitting = rights
        .iter()
        .filter_map(|right| Some((right.fit(name, style)?, right)));
    match style {
        // The closest entry is the one that counts, be it one that allows less.
        AccessStyle::PlainAcl => fitting
            .max_by_key(|(fit, _)| *fit)
            .is_some_and(|(_, right)| right.allows_one_of(need.one_of)),
        // Entries that say nothing of the action do not count.
        AccessStyle::Users => fitting
            .into_iter()
            .any(|(_, right)| right.allows_one_of(need.one_of)),
    }
}

fn unreadable(error: rocketmq_client::protocol::CodecError) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())
}

#[cfg(test)]
mod tests;
