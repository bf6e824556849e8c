//! TLS: what a client trusts, how it proves itself, and the handshake.
//!
//! RocketMQ speaks ordinary TLS on the ordinary port: the first bytes of a connection are the handshake, the same
//! frames follow. Protocol source: `NettyRemotingServer`, `TlsHelper`, `TlsSystemConfig`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use crate::error::{Error, ErrorKind, Result};

/// How connections are encrypted: whom the client trusts, and who it says it is.
///
/// Servers are verified: the chain up to an authority that is trusted, the validity in time, and the name, which is the
/// host of the address (an IP address has to be among the certificate's names too). Without authorities of your own
/// those that browsers trust are trusted. (Java trusts any certificate unless `tls.client.authServer` is set.)
///
/// ```no_run
/// # async fn connect() -> rocketmq_client::Result<()> {
/// use rocketmq_client::{Client, Tls};
///
/// let tls = Tls::new()
///     .ca_file("/etc/rocketmq/ca.pem")
///     .client_certificate_files("/etc/rocketmq/client.pem", "/etc/rocketmq/client.key");
/// let client = Client::builder("mq.example.org:9876").tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "it is handed to a client's builder"]
pub struct Tls {
    authorities: Vec<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
    accept_any_certificate: bool,
}

/// Where a PEM text is.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Text(Arc<[u8]>),
}

impl Tls {
    /// Trusts the authorities that browsers trust, and has no certificate of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities (or the very certificates) of a PEM text, and then no others but those added likewise.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(Pem::text(pem));
        self
    }

    /// As [`ca_pem`](Self::ca_pem), from a file that is read when the client connects. Java:
    /// `tls.client.trustCertPath`.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities.push(Pem::File(path.into()));
        self
    }

    /// Proves who the client is to servers that ask (mutual TLS): the PEM text of a certificate with its chain, and of
    /// its key (PKCS#8, PKCS#1 or SEC1; not encrypted).
    pub fn client_certificate_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some((Pem::text(certificate), Pem::text(key)));
        self
    }

    /// As [`client_certificate_pem`](Self::client_certificate_pem), from files that are read when the client connects.
    /// Java: `tls.client.certPath`, `tls.client.keyPath`. There is no `tls.client.keyPassword`: decrypt the key with
    /// `openssl pkcs8`.
    pub fn client_certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }

    /// The name that certificates must carry instead of the host of the address: for servers that are reached under an
    /// address which is not in their certificate, as brokers often are.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Accepts whatever certificate a server shows, as Java clients do by default. The connection is encrypted, but
    /// anybody may be at its other end, and read and change everything. For a first try with a server that made its own
    /// certificate; each client that is started so logs a warning.
    pub fn danger_accept_any_certificate(mut self) -> Self {
        self.accept_any_certificate = true;
        self
    }

    /// Reads the files and puts everything together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names what cannot be used.
    pub(crate) fn connector(&self) -> Result<Connector> {
        let provider = Arc::new(ring::default_provider());
        let server_name = match &self.server_name {
            Some(name) => Some(name_of(name).ok_or_else(|| {
                unusable(format_args!(
                    "{name:?} is no server name; write a host name or an IP address without a port"
                ))
            })?),
            None => None,
        };
        let verifier = self.verifier(&provider)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let (chain, key) = (certificate.certificates()?, key.private_key()?);
                config.with_client_auth_cert(chain, key).map_err(|error| {
                    unusable(format_args!(
                        "the client certificate of {certificate} and its key: {error}"
                    ))
                })?
            }
        };
        Ok(Connector {
            connector: TlsConnector::from(Arc::new(config)),
            server_name,
        })
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        if self.accept_any_certificate {
            warn!(
                "any certificate of any server is accepted: these connections are open to whoever is in between"
            );
            return Ok(Arc::new(AnyCertificate(
                provider.signature_verification_algorithms,
            )));
        }
        let mut roots = RootCertStore::empty();
        if self.authorities.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for pem in &self.authorities {
            for certificate in pem.certificates()? {
                let added = roots.add(certificate);
                added.map_err(|error| unusable(format_args!("an authority of {pem}: {error}")))?;
            }
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(verifier.build().map_err(unusable)?)
    }
}

impl Pem {
    fn text(pem: impl Into<Vec<u8>>) -> Self {
        Self::Text(pem.into().into())
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let read: std::result::Result<Vec<_>, pem::Error> = match self {
            Self::File(path) => CertificateDer::pem_file_iter(path).and_then(Iterator::collect),
            Self::Text(text) => CertificateDer::pem_slice_iter(text).collect(),
        };
        match read {
            Ok(certificates) if certificates.is_empty() => {
                Err(unusable(format_args!("{self} holds no PEM certificate")))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(unusable(format_args!("{self} cannot be read: {error}"))),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        let read = match self {
            Self::File(path) => PrivateKeyDer::from_pem_file(path),
            Self::Text(text) => PrivateKeyDer::from_pem_slice(text),
        };
        read.map_err(|error| {
            let why = match error {
                pem::Error::NoItemsFound => {
                    "it holds no PEM private key, or an encrypted one, which `openssl pkcs8` can decrypt"
                        .to_owned()
                }
                error => error.to_string(),
            };
            unusable(format_args!("the private key of {self}: {why}"))
        })
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Text(_) => f.write_str("the given PEM text"),
        }
    }
}

/// Never the text: it may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(***)"),
        }
    }
}

fn unusable(why: impl fmt::Display) -> Error {
    Error::config(format!("TLS options cannot be used: {why}"))
}

fn name_of(host: &str) -> Option<ServerName<'static>> {
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(host).ok().map(|name| name.to_owned())
}

/// Makes secure connections of plain ones.
#[derive(Clone)]
pub(crate) struct Connector {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    /// Makes the handshake with the server at this address. Not a byte is sent but those of the handshake unless it
    /// succeeds.
    ///
    /// # Errors
    /// [`ErrorKind::Tls`] that says what is wrong and what to do about it.
    pub(super) async fn connect(
        &self,
        address: &Arc<str>,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>> {
        let host = address.rsplit_once(':').map_or(&**address, |(host, _)| host);
        let Some(name) = self.server_name.clone().or_else(|| name_of(host)) else {
            let text = format!("TLS to {address}: {host:?} is no name that a certificate can carry");
            return Err(Error::new(ErrorKind::Tls, text).at(Arc::clone(address)));
        };
        self.connector
            .connect(name, stream)
            .await
            .map_err(|error| failure(address, error))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// What went wrong between two ends of a connection that was to be secure.
pub(super) fn failure(address: &Arc<str>, error: io::Error) -> Error {
    let remedy = remedy(&error);
    Error::new(ErrorKind::Tls, format!("TLS to {address}: {error}; {remedy}"))
        .caused_by(error)
        .at(Arc::clone(address))
}

fn remedy(error: &io::Error) -> &'static str {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has run out, or the clock of this machine is wrong"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "give the name that the certificate carries as server_name, or a certificate for this address to the \
                 server"
            }
            // An authority that was made anew under its old name signs wrongly.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "trust the authority that signed the server's certificate by ca_file or ca_pem"
            }
            _ => "have a look at the server's certificate",
        },
        Some(rustls::Error::AlertReceived(_)) => {
            "the server wants something else: does it ask for a client certificate, and does it trust ours?"
        }
        Some(rustls::Error::InvalidMessage(_)) => "does this port speak TLS?",
        Some(_) => "do client and server have a version and a cipher in common?",
        None => "does this port speak TLS, and does the server accept the client's certificate?",
    }
}

/// Believes every server.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
