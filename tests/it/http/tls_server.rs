//! A real TLS server, and certificates of every kind, made on the spot.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// An authority that signs certificates.
pub(super) struct Authority {
    pub(super) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(super) struct Signed {
    pub(super) certificate: Certificate,
    pub(super) key: KeyPair,
}

pub(super) fn params(hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params
}

/// For `localhost` and `127.0.0.1`.
pub(super) fn local() -> CertificateParams {
    params(&["localhost", "127.0.0.1"])
}

pub(super) fn expired() -> CertificateParams {
    valid(2020)
}

pub(super) fn not_yet_valid() -> CertificateParams {
    valid(2140)
}

/// For that year.
fn valid(year: i32) -> CertificateParams {
    let mut params = local();
    params.not_before = date_time_ymd(year, 1, 1);
    params.not_after = date_time_ymd(year + 1, 1, 1);
    params
}

/// As `openssl req -x509` makes them: their own authority.
pub(super) fn self_signed(mut params: CertificateParams) -> Signed {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    Signed { certificate: params.self_signed(&key).expect("signed"), key }
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    pub(super) fn sign(&self, params: &CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key");
        Signed { certificate: params.signed_by(&key, &self.issuer).expect("signed"), key }
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }
}

impl Signed {
    pub(super) fn config(&self) -> ServerConfig {
        self.finish(
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("some"),
        )
    }

    pub(super) fn config_of(&self, version: &'static rustls::SupportedProtocolVersion) -> ServerConfig {
        self.finish(ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).expect("known"))
    }

    /// Of a server that wants certificates of its clients, signed by `authority`.
    pub(super) fn config_for_clients(
        &self,
        authority: &Authority,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).expect("a certificate");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().expect("sound");
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).expect("known");
        let builder = builder.with_client_cert_verifier(verifier);
        builder.with_single_cert(vec![self.certificate.der().clone()], self.key()).expect("its own key")
    }

    fn finish(&self, builder: rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>) -> ServerConfig {
        let builder = builder.with_no_client_auth();
        builder.with_single_cert(vec![self.certificate.der().clone()], self.key()).expect("its own key")
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key")
    }

    pub(super) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) type TlsStream = StreamOwned<ServerConnection, TcpStream>;

/// A server that answers each request in the same way.
pub(super) struct TlsServer {
    pub(super) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    requests: AtomicUsize,
    stopped: AtomicBool,
}

impl TlsServer {
    /// With `ok`, and a length.
    pub(super) fn start(config: ServerConfig) -> TlsServer {
        TlsServer::answering(config, |_, stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let _ = stream.flush();
            true
        })
    }

    /// `answer` gets the head of the request, and says whether the connection is kept; if not, it is dropped as it stands.
    pub(super) fn answering(
        config: ServerConfig,
        answer: impl Fn(&str, &mut TlsStream) -> bool + Send + Sync + 'static,
    ) -> TlsServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (state, config, answer) = (Arc::new(State::default()), Arc::new(config), Arc::new(answer));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (state, config, answer) = (shared.clone(), config.clone(), answer.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let tls = ServerConnection::new(config).expect("a sound configuration");
                    let mut stream = StreamOwned::new(tls, stream);
                    while let Some(head) = read_head(&mut stream) {
                        state.requests.fetch_add(1, Ordering::SeqCst);
                        if !answer(&head, &mut stream) {
                            return;
                        }
                    }
                });
            }
        });
        TlsServer { port, state }
    }

    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }

    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn read_head(stream: &mut TlsStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}
