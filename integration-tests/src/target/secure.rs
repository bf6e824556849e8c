//! Servers that ask who their clients are, and speak TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rocketmq_client::Credentials;
use rocketmq_client::protocol::{Frame, ResponseCode};
use rocketmq_embedded_broker::{AccessStyle, Action, EmbeddedBroker, TlsMode, User};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{Kind, Target};
use crate::Failure;
use crate::admin::Connection;
use crate::real::{Guard, RealCluster, Scratch, Version};
use crate::scenario::{eventually, skip};

/// The secret of all accounts that the secure servers know.
pub const SECRET: &str = "correct-horse-7";
/// May do everything.
pub const ADMIN: &str = "administrator";
/// May send to and consume everything.
pub const WORKERS: [&str; 2] = ["worker-one", "worker-two"];
/// May send everywhere and consume nowhere.
pub const SENDER: &str = "sender-only";

/// The credentials of one of the accounts.
#[must_use]
pub fn account(name: &str) -> Credentials {
    Credentials::new(name, SECRET)
}

/// A certificate and its key, as PEM.
#[expect(missing_debug_implementations, reason = "keys are not printed")]
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key, PKCS#8.
    pub key: String,
}

/// Somebody who signs certificates.
#[expect(missing_debug_implementations, reason = "keys are not printed")]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one, which nobody trusts as yet.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(name: &str) -> Result<Self, Failure> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its own certificate, for those who trust it.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this name.
    ///
    /// # Errors
    /// When the name cannot be in a certificate.
    pub fn identity(&self, name: &str) -> Result<Identity, Failure> {
        let params = CertificateParams::new([name.to_owned()])?;
        let key = KeyPair::generate()?;
        Ok(Identity {
            certificate: params.signed_by(&key, &self.0)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// What is secure about the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// The broker serves nobody but the accounts; both servers speak plain text and TLS.
    Accounts,
    /// Both servers serve everybody who speaks TLS and has a certificate of the authority. A real name server lets
    /// its broker in with plain text, so it lets in others too.
    MutualTls,
}

/// Secure servers of one kind.
#[expect(missing_debug_implementations, reason = "it holds the key of its authority")]
pub struct SecureServer {
    running: Running,
    authority: Authority,
}

enum Running {
    Embedded(EmbeddedBroker),
    Real {
        cluster: RealCluster,
        // The servers look after their certificates as long as they run.
        _files: Scratch,
    },
}

impl SecureServer {
    /// Starts servers, each at its own port, with a certificate for `127.0.0.1`.
    ///
    /// # Errors
    /// A [`skip`] when somebody else runs the servers, a failure when they do not start.
    pub async fn start(target: &Target, theme: Theme) -> Result<Arc<Self>, Failure> {
        match target.kind() {
            Kind::Embedded => Ok(Arc::new(Self::embedded(theme).await?)),
            Kind::Rocketmq5 => Self::shared(Version::V5, theme).await,
            Kind::Rocketmq4 => Self::shared(Version::V4, theme).await,
            kind => Err(skip(format!("{kind}: these servers are not ours to secure"))),
        }
    }

    async fn embedded(theme: Theme) -> Result<Self, Failure> {
        let authority = Authority::new("embedded")?;
        let identity = authority.identity("127.0.0.1")?;
        let builder = EmbeddedBroker::builder()
            .broker_port(0)
            .tls_identity(identity.certificate, identity.key);
        let builder = match theme {
            Theme::Accounts => builder
                .access_control(AccessStyle::Users)
                .user(User::new(ADMIN, SECRET).admin())
                .user(User::new(SENDER, SECRET).topic("*", [Action::Pub]))
                .user(worker(WORKERS[0]))
                .user(worker(WORKERS[1])),
            Theme::MutualTls => builder
                .tls_mode(TlsMode::Enforcing)
                .tls_client_authority(authority.pem()),
        };
        Ok(Self {
            running: Running::Embedded(builder.start().await?),
            authority,
        })
    }

    /// Real servers take too long to start to be started for each scenario.
    async fn shared(version: Version, theme: Theme) -> Result<Arc<Self>, Failure> {
        type Shared = OnceLock<Result<Arc<SecureServer>, String>>;
        static SHARED: [Shared; 4] = [const { OnceLock::new() }; 4];
        let place = match (version, theme) {
            (Version::V5, Theme::Accounts) => &SHARED[0],
            (Version::V5, Theme::MutualTls) => &SHARED[1],
            (Version::V4, Theme::Accounts) => &SHARED[2],
            (Version::V4, Theme::MutualTls) => &SHARED[3],
        };
        let start = move || {
            place
                .get_or_init(|| match Self::real(version, theme) {
                    Ok(server) => Ok(Arc::new(server)),
                    Err(error) => Err(error.to_string()),
                })
                .clone()
        };
        let server = spawn_blocking(start).await??;
        if (version, theme) == (Version::V5, Theme::Accounts) {
            server.create_accounts().await?;
        }
        Ok(server)
    }

    fn real(version: Version, theme: Theme) -> Result<Self, Failure> {
        let authority = Authority::new(version.number())?;
        let identity = authority.identity("127.0.0.1")?;
        let files = Scratch::new("certificates")?;
        let mut tls = vec!["-Dtls.test.mode.enable=false".to_owned()];
        for (setting, name, text) in [
            ("tls.server.certPath", "server.pem", identity.certificate),
            ("tls.server.keyPath", "server.key", identity.key),
            ("tls.server.trustCertPath", "authority.pem", authority.pem()),
        ] {
            let path = files.path().join(name);
            std::fs::write(&path, text)?;
            tls.push(format!("-D{setting}={}", path.display()));
        }
        let mut guard = Guard {
            name_server_jvm: tls.clone(),
            broker_jvm: tls,
            is_closed: true,
            ..Guard::default()
        };
        let mut wishes = BTreeMap::new();
        match theme {
            Theme::MutualTls => guard.broker_jvm.extend(
                [
                    "-Dtls.server.mode=enforcing",
                    "-Dtls.server.need.client.auth=require",
                    "-Dtls.server.authClient=true",
                ]
                .map(str::to_owned),
            ),
            Theme::Accounts => match version {
                Version::V4 => {
                    wishes.insert("aclEnable".to_owned(), "true".to_owned());
                    guard.files.push(("conf/plain_acl.yml".to_owned(), plain_acl()));
                }
                Version::V5 => wishes.extend(users_of_5()),
            },
        }
        let cluster = RealCluster::start_guarded(version, &wishes, &guard)?;
        Ok(Self {
            running: Running::Real {
                cluster,
                _files: files,
            },
            authority,
        })
    }

    /// `host:port` of the name server.
    #[must_use]
    pub fn name_server(&self) -> String {
        match &self.running {
            Running::Embedded(broker) => broker.name_server(),
            Running::Real { cluster, .. } => cluster.name_server(),
        }
    }

    /// Who signed the servers' certificates, and is trusted for those of clients.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    fn broker(&self) -> Result<SocketAddr, Failure> {
        match &self.running {
            Running::Embedded(broker) => Ok(broker.broker_address().parse()?),
            Running::Real { cluster, .. } => cluster.broker_address(0),
        }
    }

    /// A broker of 5.x is started with its administrator alone.
    async fn create_accounts(&self) -> Result<(), Failure> {
        for (name, actions) in [
            (WORKERS[0], &["Pub", "Sub", "Get"][..]),
            (WORKERS[1], &["Pub", "Sub", "Get"]),
            (SENDER, &["Pub"]),
        ] {
            let user = json!({
                "username": name, "password": SECRET, "userType": "Normal", "userStatus": "enable",
            });
            self.administer(3001, ("username", name), &user.to_string())
                .await?;
            let subject = format!("User:{name}");
            let mut entries = vec![json!({
                "resource": "Topic:*", "actions": actions, "sourceIps": [], "decision": "Allow",
            })];
            if actions.contains(&"Sub") {
                entries.push(json!({
                    "resource": "Group:*", "actions": ["Sub", "Get"], "sourceIps": [], "decision": "Allow",
                }));
            }
            let policies = json!([{ "policyType": "Custom", "entries": entries }]);
            let acl = json!({ "subject": subject, "policies": policies });
            self.administer(3006, ("subject", &subject), &acl.to_string())
                .await?;
        }
        Ok(())
    }

    /// Makes a request as the administrator until the broker, which has just started, takes it.
    async fn administer(&self, code: i32, field: (&str, &str), body: &str) -> Result<(), Failure> {
        let mut request = Frame::request(code);
        request.body = body.to_owned().into_bytes().into();
        // In the order of the keys, of which this one comes first.
        let content = format!("{ADMIN}{}{body}", field.1);
        request.fields.push("AccessKey", ADMIN);
        request.fields.push(field.0, field.1);
        let signature = account(ADMIN).signature(content.as_bytes());
        request.fields.push("Signature", &signature);
        let broker = self.broker()?;
        eventually("the administrator's request", async || {
            let mut connection = Connection::open(broker).await?;
            let answer = connection.exchange(&request).await?;
            match ResponseCode(answer.code) {
                ResponseCode::SUCCESS => Ok(true),
                // Another scenario may have been quicker.
                _ if answer
                    .remark
                    .as_deref()
                    .is_some_and(|remark| remark.contains("existed")) =>
                {
                    Ok(true)
                }
                code => Err(format!("request {code:?}: {:?}", answer.remark).into()),
            }
        })
        .await
    }
}

fn worker(name: &str) -> User {
    User::new(name, SECRET)
        .topic("*", [Action::Pub, Action::Sub, Action::Get])
        .group("*", [Action::Sub, Action::Get])
}

/// `conf/plain_acl.yml` of 4.9.
fn plain_acl() -> String {
    let mut text = format!(
        "accounts:\n- accessKey: {ADMIN}\n  secretKey: {SECRET}\n  admin: true\n  defaultTopicPerm: PUB|SUB\n  \
         defaultGroupPerm: PUB|SUB\n"
    );
    for (name, topics, groups) in [
        (WORKERS[0], "PUB|SUB", "SUB"),
        (WORKERS[1], "PUB|SUB", "SUB"),
        (SENDER, "PUB", "DENY"),
    ] {
        text.push_str(&format!(
            "- accessKey: {name}\n  secretKey: {SECRET}\n  admin: false\n  defaultTopicPerm: {topics}\n  \
             defaultGroupPerm: {groups}\n"
        ));
    }
    text
}

/// The settings that make a broker of 5.x ask for users.
fn users_of_5() -> BTreeMap<String, String> {
    let provider = "org.apache.rocketmq.auth";
    [
        ("authenticationEnabled", "true".to_owned()),
        ("authorizationEnabled", "true".to_owned()),
        (
            "authenticationMetadataProvider",
            format!("{provider}.authentication.provider.LocalAuthenticationMetadataProvider"),
        ),
        (
            "authorizationMetadataProvider",
            format!("{provider}.authorization.provider.LocalAuthorizationMetadataProvider"),
        ),
        (
            "initAuthenticationUser",
            json!({ "username": ADMIN, "password": SECRET }).to_string(),
        ),
        (
            "innerClientAuthenticationCredentials",
            json!({ "accessKey": ADMIN, "secretKey": SECRET }).to_string(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
