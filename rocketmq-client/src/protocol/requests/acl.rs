//! Who may do what: accounts of 4.9 brokers, users and policies of 5.x brokers.
//!
//! Protocol source: `CreateAccessConfigRequestHeader` and its like, `CreateUserRequestHeader`, `CreateAclRequestHeader`
//! and theirs.

use bytes::Bytes;

use crate::protocol::bodies::{AclInfo, AclOfBroker, Secret, UserInfo};
use crate::protocol::request::{Response, ResponseError, expect_success, requests, responses};
use crate::protocol::{CodecError, Done, Frame, Json, JsonBody, ResponseCode};

requests! {
    /// Creates or changes an account. 4.9; 5.0 to 5.3.2.
    pub struct UpdateAccount = UPDATE_AND_CREATE_ACL_CONFIG => Done {
        /// The account.
        pub access_key: String,
        /// Its secret.
        pub secret_key: Secret,
        /// The addresses that need no account.
        pub white_remote_address: Option<String>,
        /// Whether it may do everything.
        pub admin: bool,
        /// What it may do with topics that are not named: `DENY`, `PUB`, `SUB` or `PUB|SUB`.
        pub default_topic_perm: Option<String>,
        /// The same for groups.
        pub default_group_perm: Option<String>,
        /// `topic=permission`, separated by commas.
        pub topic_perms: Option<String>,
        /// `group=permission`, separated by commas.
        pub group_perms: Option<String>,
    }

    /// Removes an account. 4.9; 5.0 to 5.3.2.
    pub struct DeleteAccount = DELETE_ACL_CONFIG => Done {
        /// The account.
        pub access_key: String,
    }

    /// Which state the accounts of a broker are in. 4.9; 5.0 to 5.3.2.
    pub struct AccountsVersion = GET_BROKER_CLUSTER_ACL_INFO => AccountsVersionResult {}

    /// Sets the addresses that need no account. 4.9; 5.0 to 5.3.2.
    pub struct UpdateGlobalWhiteAddresses = UPDATE_GLOBAL_WHITE_ADDRS_CONFIG => Done {
        /// The addresses, separated by commas.
        pub global_white_addrs: String,
        /// The file of a broker that has several.
        pub acl_file_full_path: Option<String>,
    }

    /// The accounts of a broker. 4.9; 5.0 to 5.3.2.
    pub struct GetAccounts = GET_BROKER_CLUSTER_ACL_CONFIG => Json<AclOfBroker> {}

    /// Creates a user. Body: [`UserInfo`](crate::protocol::bodies::UserInfo). 5.3.
    pub struct CreateUser = AUTH_CREATE_USER, body => Done {
        /// The user.
        pub username: String,
    }

    /// Changes a user; what the body leaves out stays. Body: [`UserInfo`](crate::protocol::bodies::UserInfo). 5.3.
    pub struct UpdateUser = AUTH_UPDATE_USER, body => Done {
        /// The user.
        pub username: String,
    }

    /// Removes a user. 5.3.
    pub struct DeleteUser = AUTH_DELETE_USER => Done {
        /// The user.
        pub username: String,
    }

    /// One user. 5.3.
    pub struct GetUser = AUTH_GET_USER => Perhaps<UserInfo> {
        /// The user.
        pub username: String,
    }

    /// Users. 5.3.
    pub struct ListUsers = AUTH_LIST_USER => Perhaps<Vec<UserInfo>> {
        /// A part of the name; absent means all.
        pub filter: Option<String>,
    }

    /// Creates the policies of a subject. Body: [`AclInfo`](crate::protocol::bodies::AclInfo). 5.3.
    pub struct CreateAcl = AUTH_CREATE_ACL, body => Done {
        /// `User:name`.
        pub subject: String,
    }

    /// Changes policies of a subject. Body: [`AclInfo`](crate::protocol::bodies::AclInfo). 5.3.
    pub struct UpdateAcl = AUTH_UPDATE_ACL, body => Done {
        /// `User:name`.
        pub subject: String,
    }

    /// Removes policies of a subject. 5.3.
    pub struct DeleteAcl = AUTH_DELETE_ACL => Done {
        /// `User:name`.
        pub subject: String,
        /// `Custom` or `Default`; absent means both.
        pub policy_type: Option<String>,
        /// The resource, for instance `Topic:orders`; absent means all.
        pub resource: Option<String>,
    }

    /// The policies of one subject. 5.3.
    pub struct GetAcl = AUTH_GET_ACL => Perhaps<AclInfo> {
        /// `User:name`.
        pub subject: String,
    }

    /// Policies. 5.3.
    pub struct ListAcls = AUTH_LIST_ACL => Perhaps<Vec<AclInfo>> {
        /// A part of the subject; absent means all.
        pub subject_filter: Option<String>,
        /// A part of the resource; absent means all.
        pub resource_filter: Option<String>,
    }
}

responses! {
    /// Which state the accounts of a broker are in.
    pub struct AccountsVersionResult {
        /// A [`DataVersion`](crate::protocol::bodies::DataVersion) as JSON.
        pub version: Option<String>,
        /// The versions of all files, by path, as JSON.
        pub all_acl_file_version: Option<String>,
        /// The broker.
        pub broker_name: String,
        /// Its address.
        pub broker_addr: String,
        /// Its cluster.
        pub cluster_name: String,
    }
}

/// One value, or an answer without a body where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Perhaps<T>(pub Option<T>);

impl<T: JsonBody> Response for Perhaps<T> {
    fn from_frame(frame: Frame) -> Result<Self, ResponseError> {
        expect_success(&frame)?;
        match frame.body.is_empty() {
            true => Ok(Self(None)),
            false => Ok(Self(Some(T::from_body(&frame.body)?))),
        }
    }

    fn into_frame(self, opaque: i32) -> Result<Frame, CodecError> {
        let body = self.0.map_or(Ok(Bytes::new()), |value| value.to_body())?;
        Ok(Frame {
            body,
            ..Frame::response(ResponseCode::SUCCESS, opaque)
        })
    }
}
