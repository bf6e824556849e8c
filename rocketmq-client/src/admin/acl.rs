//! Who may do what: users and policies of 5.x brokers, accounts of 4.9 brokers.

use super::Admin;
use super::fan_out::PerBroker;
use super::reach::is_code;
use crate::error::{Error, Result};
use crate::protocol::bodies::{Account, AclInfo, AclOfBroker, UserInfo};
use crate::protocol::requests::{
    AccountsVersion, CreateAcl, CreateUser, DeleteAccount, DeleteAcl, DeleteUser, GetAccounts, GetAcl,
    GetUser, ListAcls, ListUsers, Perhaps, UpdateAccount, UpdateAcl, UpdateGlobalWhiteAddresses, UpdateUser,
};
use crate::protocol::{Json, JsonBody, ResponseCode};

/// Users and policies of brokers from 5.3 on ("ACL 2.0"). Brokers before fail with
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
///
/// Brokers keep users each for themselves: what is done here is done on every master and slave of the scope.
impl Admin {
    /// Creates a user. Java: `createUser`.
    ///
    /// # Errors
    /// What a broker refuses, for instance a user that is there already, naming the brokers that failed and those that
    /// did it.
    pub async fn create_user(&self, user: &UserInfo) -> Result<()> {
        let request = CreateUser {
            username: user.username.clone(),
            body: body(user)?,
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context(format_args!("create user {}", user.username)).done()
    }

    /// Changes a user; what is absent stays. Java: `updateUser`.
    ///
    /// # Errors
    /// As [`create_user`](Self::create_user); for a user that is not there too.
    pub async fn update_user(&self, user: &UserInfo) -> Result<()> {
        let request = UpdateUser {
            username: user.username.clone(),
            body: body(user)?,
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context(format_args!("change user {}", user.username)).done()
    }

    /// Deletes a user. Java: `deleteUser`.
    ///
    /// # Errors
    /// As [`create_user`](Self::create_user).
    pub async fn delete_user(&self, name: &str) -> Result<()> {
        let request = DeleteUser {
            username: name.to_owned(),
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context(format_args!("delete user {name}")).done()
    }

    /// One user; none where there is no such user. Java: `getUser`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn user(&self, name: &str) -> Result<PerBroker<Option<UserInfo>>> {
        let request = &GetUser {
            username: name.to_owned(),
        };
        let places = self.masters_and_slaves().await?;
        let all = self.each(
            places,
            |place| async move { absent(self.call(&place, request).await) },
        );
        Ok(all.await)
    }

    /// The users whose names contain a text; all for none. Java: `listUser`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn users(&self, filter: Option<&str>) -> Result<PerBroker<Vec<UserInfo>>> {
        let request = ListUsers {
            filter: filter.map(str::to_owned),
        };
        let all = self.ask(self.masters_and_slaves().await?, &request).await;
        Ok(all.map(|Perhaps(users)| users.unwrap_or_default()))
    }

    /// Creates the policies of a subject. Java: `createAcl`.
    ///
    /// # Errors
    /// As [`create_user`](Self::create_user).
    pub async fn create_acl(&self, acl: &AclInfo) -> Result<()> {
        let request = CreateAcl {
            subject: acl.subject.clone(),
            body: body(acl)?,
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context(format_args!("create the policies of {}", acl.subject))
            .done()
    }

    /// Changes policies of a subject: those of the resources that are named. Java: `updateAcl`.
    ///
    /// # Errors
    /// As [`create_user`](Self::create_user).
    pub async fn update_acl(&self, acl: &AclInfo) -> Result<()> {
        let request = UpdateAcl {
            subject: acl.subject.clone(),
            body: body(acl)?,
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context(format_args!("change the policies of {}", acl.subject))
            .done()
    }

    /// Deletes the policies of a subject (`User:name`): of one resource or of all. Java: `deleteAcl`.
    ///
    /// # Errors
    /// As [`create_user`](Self::create_user).
    pub async fn delete_acl(&self, subject: &str, resource: Option<&str>) -> Result<()> {
        let request = DeleteAcl {
            subject: subject.to_owned(),
            policy_type: None,
            resource: resource.map(str::to_owned),
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context(format_args!("delete policies of {subject}")).done()
    }

    /// The policies of a subject (`User:name`); none where it has none. Java: `getAcl`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn acl(&self, subject: &str) -> Result<PerBroker<Option<AclInfo>>> {
        let request = &GetAcl {
            subject: subject.to_owned(),
        };
        let places = self.masters_and_slaves().await?;
        let all = self.each(
            places,
            |place| async move { absent(self.call(&place, request).await) },
        );
        Ok(all.await)
    }

    /// The policies whose subjects and resources contain texts; all for none. Java: `listAcl`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn acls(
        &self,
        subject: Option<&str>,
        resource: Option<&str>,
    ) -> Result<PerBroker<Vec<AclInfo>>> {
        let request = ListAcls {
            subject_filter: subject.map(str::to_owned),
            resource_filter: resource.map(str::to_owned),
        };
        let all = self.ask(self.masters_and_slaves().await?, &request).await;
        Ok(all.map(|Perhaps(acls)| acls.unwrap_or_default()))
    }
}

/// Accounts of brokers up to 5.3.2 ("ACL 1.0", `plain_acl.yml`). Newer ones fail with
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
impl Admin {
    /// Creates or changes an account on every master and slave of the scope. Java: `createAndUpdatePlainAccessConfig`.
    ///
    /// # Errors
    /// What a broker refuses, naming the brokers that failed and those that did it.
    pub async fn set_account(&self, account: &Account) -> Result<()> {
        let join = |perms: &Option<Vec<String>>| perms.as_ref().map(|perms| perms.join(","));
        let request = UpdateAccount {
            access_key: account.access_key.clone(),
            secret_key: account.secret_key.clone(),
            white_remote_address: account.white_remote_address.clone(),
            admin: account.admin,
            default_topic_perm: account.default_topic_perm.clone(),
            default_group_perm: account.default_group_perm.clone(),
            topic_perms: join(&account.topic_perms),
            group_perms: join(&account.group_perms),
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context(format_args!("set account {}", account.access_key))
            .done()
    }

    /// Deletes an account from every master and slave of the scope. Java: `deletePlainAccessConfig`.
    ///
    /// # Errors
    /// As [`set_account`](Self::set_account).
    pub async fn delete_account(&self, access_key: &str) -> Result<()> {
        let request = DeleteAccount {
            access_key: access_key.to_owned(),
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context(format_args!("delete account {access_key}")).done()
    }

    /// The accounts of each broker. Brokers of 4.9.7 tell them without secrets or not at all, by version. Java:
    /// `examineBrokerClusterAclConfig`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn accounts(&self) -> Result<PerBroker<AclOfBroker>> {
        let all = self.ask(self.masters_and_slaves().await?, &GetAccounts {}).await;
        Ok(all.map(|Json(found)| found))
    }

    /// In which state the accounts of each broker are: text that changes with them. Java:
    /// `examineBrokerClusterAclVersionInfo`.
    ///
    /// # Errors
    /// When the name servers know no such broker.
    pub async fn accounts_version(&self) -> Result<PerBroker<String>> {
        let all = self
            .ask(self.masters_and_slaves().await?, &AccountsVersion {})
            .await;
        Ok(all.map(|found| found.all_acl_file_version.or(found.version).unwrap_or_default()))
    }

    /// Sets the addresses that need no account, on every master and slave of the scope. Java:
    /// `updateGlobalWhiteAddrConfig`.
    ///
    /// # Errors
    /// As [`set_account`](Self::set_account).
    pub async fn set_global_white_addresses(&self, addresses: &[&str]) -> Result<()> {
        let request = UpdateGlobalWhiteAddresses {
            global_white_addrs: addresses.join(","),
            acl_file_full_path: None,
        };
        let all = self.tell(self.masters_and_slaves().await?, &request).await;
        all.context("set the addresses that need no account").done()
    }
}

fn body<T: JsonBody>(value: &T) -> Result<bytes::Bytes> {
    value
        .to_body()
        .map_err(|error| Error::from_encode(T::NAME, error))
}

/// Nothing instead of the errors that say so; 5.5 has an answer for it, without a body.
fn absent<T>(found: Result<Perhaps<T>>) -> Result<Option<T>> {
    match found {
        Ok(Perhaps(found)) => Ok(found),
        Err(error)
            if is_code(
                &error,
                &[ResponseCode::USER_NOT_EXIST, ResponseCode::POLICY_NOT_EXIST],
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
