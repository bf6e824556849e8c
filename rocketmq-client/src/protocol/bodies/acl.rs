//! Who may do what.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Text that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A user of a 5.x broker. Java: `UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserInfo {
    /// The name; clients give it as their access key.
    pub username: String,
    /// The password; clients give it as their secret key. Absent in an update means that it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// `Super` or `Normal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_type: Option<String>,
    /// `enable` or `disable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_status: Option<String>,
}

/// What a subject may do on a 5.x broker. Java: `AclInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AclInfo {
    /// `User:name`.
    pub subject: String,
    /// What it may do.
    pub policies: Vec<AclPolicy>,
}

/// Rules of one kind. Java: `AclInfo.PolicyInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AclPolicy {
    /// `Custom`, or `Default` for what no custom one decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_type: Option<String>,
    /// The rules.
    pub entries: Vec<AclEntry>,
}

/// One rule. Java: `AclInfo.PolicyEntryInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AclEntry {
    /// `Topic:orders`, `Topic:orders-*`, `Group:*`, `Cluster:*` or `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `All`, `Pub`, `Sub`, `Create`, `Update`, `Delete`, `Get`, `List`.
    pub actions: Vec<String>,
    /// From where; empty means from everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ips: Option<Vec<String>>,
    /// `Allow` or `Deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
}

/// The accounts of a 4.9 broker. Java: `AclConfig`, `GetBrokerClusterAclConfigResponseBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AclOfBroker {
    /// Addresses that need no account.
    pub global_white_addrs: Vec<String>,
    /// The accounts.
    pub plain_access_configs: Vec<Account>,
}

/// An account of a 4.9 broker. Java: `PlainAccessConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Account {
    /// The account.
    pub access_key: String,
    /// Its secret.
    pub secret_key: Secret,
    /// The addresses that need no signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub white_remote_address: Option<String>,
    /// Whether it may do everything.
    pub admin: bool,
    /// What it may do with topics that are not named: `DENY`, `PUB`, `SUB` or `PUB|SUB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_topic_perm: Option<String>,
    /// The same for groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_group_perm: Option<String>,
    /// `topic=permission`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_perms: Option<Vec<String>>,
    /// `group=permission`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_perms: Option<Vec<String>>,
}
