//! TLS on the port of plain text: the first byte of a connection says which of both it is.
//!
//! Protocol source: `NettyRemotingServer` (`TlsModeHandler`), `TlsHelper`, `TlsSystemConfig`.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The first byte of a handshake. No frame begins with it: it would be longer than a frame may be.
const HANDSHAKE: u8 = 0x16;
/// How long a handshake may take. Netty: 10 s.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Which connections are accepted. Java: `tls.server.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain text alone.
    Disabled,
    /// Both, as the client likes.
    #[default]
    Permissive,
    /// TLS alone.
    Enforcing,
}

/// What TLS is set up with.
#[derive(Clone, Default)]
pub(crate) struct TlsOptions {
    pub(crate) mode: TlsMode,
    /// Certificate chain and key as PEM; without them a certificate is made when the first client asks for one.
    pub(crate) identity: Option<(String, String)>,
    /// The authorities, as PEM, one of which must have signed the certificate of a client.
    pub(crate) client_authority: Option<String>,
}

/// Never the key.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("mode", &self.mode)
            .field("identity", &self.identity.is_some())
            .field("client_authority", &self.client_authority.is_some())
            .finish()
    }
}

/// Accepts connections as the options say.
pub(crate) struct Acceptor {
    options: TlsOptions,
    tls: OnceLock<Result<TlsAcceptor, String>>,
}

/// A connection that may be served.
pub(super) enum Accepted {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Acceptor {
    /// # Errors
    /// `InvalidInput` when certificate, key or authority cannot be used.
    pub(crate) fn new(options: TlsOptions) -> io::Result<Self> {
        let acceptor = Self {
            options,
            tls: OnceLock::new(),
        };
        let given = acceptor.options.identity.is_some() || acceptor.options.client_authority.is_some();
        if given && acceptor.options.mode != TlsMode::Disabled {
            acceptor
                .tls()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        }
        Ok(acceptor)
    }

    fn tls(&self) -> Result<&TlsAcceptor, String> {
        let made = self.tls.get_or_init(|| {
            let config =
                server_config(&self.options).map_err(|error| format!("TLS cannot be set up: {error}"))?;
            Ok(TlsAcceptor::from(Arc::new(config)))
        });
        made.as_ref().map_err(Clone::clone)
    }

    /// Looks at the first byte, and makes the handshake if it is one.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let mode = self.options.mode;
        if mode == TlsMode::Disabled {
            return Ok(Accepted::Plain(stream));
        }
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first != [HANDSHAKE] {
            return match mode {
                TlsMode::Enforcing => Err(io::Error::other("plain text, where TLS is asked for")),
                _ => Ok(Accepted::Plain(stream)),
            };
        }
        let tls = self.tls().map_err(io::Error::other)?;
        let handshake = timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await;
        let stream = handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Accepted::Tls(Box::new(stream)))
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn server_config(options: &TlsOptions) -> Result<ServerConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let (chain, key) = match &options.identity {
        Some((certificate, key)) => (
            certificates(certificate)?,
            PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|error| format!("the private key: {error}"))?,
        ),
        None => self_signed()?,
    };
    let config =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = match &options.client_authority {
        None => config.with_no_client_auth(),
        Some(authority) => config.with_client_cert_verifier(client_verifier(authority, provider)?),
    };
    Ok(config.with_single_cert(chain, key)?)
}

fn client_verifier(
    authority: &str,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate)?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err("there is no PEM certificate".into());
    }
    Ok(certificates)
}

/// For who only wants to see TLS work, as real servers do by default (`tls.test.mode.enable`).
fn self_signed() -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    Ok((vec![made.cert.der().clone()], key))
}
