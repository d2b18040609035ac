//! Which certificates the client trusts, and a readable text for what is wrong with one.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, InvalidMessage,
    OtherError, PeerIncompatible, RootCertStore, SignatureScheme,
};

use super::super::kind::HttpErrorKind;
use super::fault::Fault;
use super::stream::{Stream, Tls};
use crate::error::{Error, Result};
use crate::sync::OnceLock;

/// The settings of a client. The system's certificates are read when the first connection needs
/// them.
pub(in super::super) struct TlsSettings {
    /// Certificates that are trusted in addition to the system's.
    pub(in super::super) roots: Vec<CertificateDer<'static>>,
    pub(in super::super) system_roots: bool,
    pub(in super::super) identity: Option<Identity>,
    pub(in super::super) verify: bool,
    config: OnceLock<Arc<ClientConfig>>,
}

/// A client's certificate, with the intermediate ones, and its key.
pub(in super::super) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a certificate chain and a key from PEM texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no certificate or no key, or if they don't belong together.
    pub(in super::super) fn of_pem(chain: &[u8], key: &[u8]) -> Result<Identity> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| Error::Invalid("the client certificate's key isn't a private key as PEM text".into()))?;
        let identity = Identity { chain, key };
        let unfit = |_| Error::Invalid("the client certificate and its key don't belong together".into());
        rustls::sign::CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), &provider())
            .map_err(unfit)?;
        Ok(identity)
    }
}

/// The certificates in a PEM text, which may have comments and other things between them.
///
/// # Errors
/// [`Error::Invalid`] if there are none.
pub(in super::super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| Error::Invalid("a certificate isn't PEM text with a certificate in it".into()))
}

impl Default for TlsSettings {
    fn default() -> TlsSettings {
        let config = OnceLock::new();
        TlsSettings { roots: Vec::new(), system_roots: true, identity: None, verify: true, config }
    }
}

impl TlsSettings {
    /// Starts TLS on a connection to `host`, until the stream's deadline.
    pub(super) fn secure(&self, host: &str, below: Box<dyn Stream>) -> std::result::Result<Tls, Fault> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| failed("the host's name is none that a certificate could hold"))?;
        let tls = ClientConnection::new(self.config()?, name)
            .map_err(|error| failed("the connection could not be secured").with_source(error))?;
        let unsecured = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => Fault::timeout("securing the connection took too long"),
            _ => fault_of(&error).unwrap_or_else(|| {
                let text = "the server ended the connection while it was being secured; it may speak no TLS";
                Fault { retryable: true, ..failed(text) }.with_source(error)
            }),
        };
        Tls::handshake(tls, below).map_err(|error| Fault::within(error, unsecured))
    }

    fn config(&self) -> std::result::Result<Arc<ClientConfig>, Fault> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let config = self.build()?;
        Ok(self.config.get_or_init(|| Arc::new(config)).clone())
    }

    fn build(&self) -> std::result::Result<ClientConfig, Fault> {
        let unusable = |error: rustls::Error| failed("TLS could not be set up").with_source(error);
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let chains = if self.verify { Some(self.chains(provider.clone())?) } else { None };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Trust { provider, chains }));
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(Identity { chain, key }) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(unusable)
            }
        }
    }

    fn chains(&self, provider: Arc<CryptoProvider>) -> std::result::Result<Chains, Fault> {
        let mut named = self.roots.clone();
        if self.system_roots {
            named.extend(system_roots()?);
        }
        let mut roots = RootCertStore::empty();
        // Skip a certificate that the parser can't read, and use the others.
        roots.add_parsable_certificates(named.iter().cloned());
        if self.system_roots && roots.len() <= self.roots.len() {
            // A minimal container has no certificates of its own.
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| failed("no certificate of an authority to trust could be read").with_source(error))?;
        Ok(Chains { roots, named })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The system's certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
fn system_roots() -> std::result::Result<Vec<CertificateDer<'static>>, Fault> {
    let found = rustls_native_certs::load_native_certs();
    let names = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    let named: Vec<&str> =
        names.into_iter().filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())).collect();
    if found.certs.is_empty() && !named.is_empty() {
        let text = format!("{} names no certificates that can be read: correct or unset it", named.join(" or "));
        let why = found.errors.into_iter().next();
        return Err(match why {
            Some(error) => failed(text).with_source(error),
            None => failed(text),
        });
    }
    Ok(found.certs)
}

/// Whose certificates are trusted.
#[derive(Debug)]
struct Trust {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate is accepted if the server has its key.
    chains: Option<Chains>,
}

/// Trusts chains up to a trusted authority, and any certificate that the user named itself. So a
/// self-signed server certificate can be trusted, as with OpenSSL, whether or not it is marked as
/// an authority.
#[derive(Debug)]
struct Chains {
    roots: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trust {
    /// Accepts the server's certificate `own` if it leads to a trusted authority, or if the user
    /// named this very certificate. In both cases it must be of `name` and not out of date. Without
    /// `chains` every certificate is accepted.
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(Chains { roots, named }) = &self.chains else { return Ok(ServerCertVerified::assertion()) };
        match roots.verify_server_cert(own, intermediates, name, ocsp, now) {
            // If the user named this certificate itself, it doesn't matter who signed it. The
            // verifier has checked its dates by now, but not its host.
            Err(rustls::Error::InvalidCertificate(error))
                if is_of_issuer(&error) && named.iter().any(|named| named == own) =>
            {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, own, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, own, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether only the issuer is wrong with the certificate.
fn is_of_issuer(error: &CertificateError) -> bool {
    matches!(error, CertificateError::UnknownIssuer) || is_authority(error)
}

/// Whether the server uses the certificate of an authority, as `openssl req -x509` makes it.
fn is_authority(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(OtherError(other))
        if matches!(other.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)))
}

fn failed(text: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::before(HttpErrorKind::Tls, text, false)
}

/// The fault that TLS found, with a readable text; `None` if the error isn't from TLS.
pub(super) fn fault_of(error: &io::Error) -> Option<Fault> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(failed(words(error)).with_source(error.clone()))
}

/// Whether the server refuses the client's certificate, before it has got the request. In TLS 1.3
/// this comes after the client has finished the handshake.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::AlertReceived(alert)) if *alert != AlertDescription::InternalError
        && *alert != AlertDescription::UserCanceled && *alert != AlertDescription::CloseNotify)
}

/// An error of TLS as a sentence for the user, with what to do about it where that is known.
fn words(error: &rustls::Error) -> String {
    use rustls::Error::*;
    match error {
        InvalidCertificate(error) => format!("the server's certificate {}", certificate(error)),
        NoCertificatesPresented => "the server has no certificate".into(),
        InvalidMessage(self::InvalidMessage::InvalidContentType) => {
            "the server speaks no TLS at this port: is it an http:// one?".into()
        }
        AlertReceived(AlertDescription::ProtocolVersion)
        | PeerIncompatible(self::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig)
        | PeerIncompatible(self::PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the server speaks neither TLS 1.2 nor 1.3, and what is older isn't safe".into()
        }
        AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a certificate of the client: set `client_certificate`".into()
        }
        AlertReceived(AlertDescription::HandshakeFailure) => {
            "the server refused the handshake: it may want a certificate of the client, or ciphers that aren't safe"
                .into()
        }
        AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied),
        ) => format!("the server doesn't take the client's certificate ({alert:?})"),
        AlertReceived(AlertDescription::UnrecognisedName) => "the server knows no host of this name".into(),
        AlertReceived(alert) => format!("the server refused the handshake ({alert:?})"),
        PeerIncompatible(why) => {
            format!("the server and this client have no way to secure a connection in common ({why:?})")
        }
        _ => "the connection could not be secured".into(),
    }
}

/// What is wrong with the certificate, as the rest of a sentence that begins "the server's
/// certificate".
fn certificate(error: &CertificateError) -> String {
    use CertificateError::*;
    let day = |time: &UnixTime| {
        let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(time.as_secs()));
        time.map_or_else(|| "a day beyond the calendar".to_owned(), httpdate::fmt_http_date)
    };
    match error {
        Expired => "has expired".into(),
        ExpiredContext { time, not_after } => {
            format!("expired at {}, and this machine's clock says {}", day(not_after), day(time))
        }
        NotValidYet => "is not valid yet".into(),
        NotValidYetContext { time, not_before } => {
            format!("is not valid before {}, and this machine's clock says {}", day(not_before), day(time))
        }
        Revoked => "has been revoked".into(),
        UnknownIssuer => {
            "is signed by an authority that isn't trusted here: if you trust it, name its certificate as a \
                          `root_certificate` or in SSL_CERT_FILE"
                .into()
        }
        error if is_authority(error) => "is self-signed or an authority's own: if you trust it, name it as a \
                                         `root_certificate` or in SSL_CERT_FILE"
            .into(),
        NotValidForName => "is for another host".into(),
        NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "names no host: it has no subjectAltName, and a common name doesn't count".into()
        }
        NotValidForNameContext { expected, presented } => {
            let shown: Vec<String> = presented.iter().take(5).map(|name| bare(name)).collect();
            format!("is for other hosts ({}), not {}", shown.join(", "), expected.to_str())
        }
        InvalidPurpose | InvalidPurposeContext { .. } => "is not meant for servers".into(),
        BadSignature => "has a signature that is not its authority's".into(),
        BadEncoding => "can't be read".into(),
        _ => "is not acceptable".into(),
    }
}

/// The name in `DnsName("host.example")`: rustls gives it only in this form.
fn bare(presented: &str) -> String {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"').chars().take(100).collect()
}
