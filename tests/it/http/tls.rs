//! Whom the client trusts, and what it says of those whom it doesn't.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use fulmar::client::http::{HttpClient, HttpClientBuilder, HttpError, HttpErrorKind};
use fulmar::client::openeo::{Connection, OpenEoError};
use rustls::version::{TLS12, TLS13};

use super::child::get_in;
use super::server::{Server, Then};
use super::tls_server::{Authority, Signed, TlsServer, expired, local, not_yet_valid, params, self_signed};
use super::{Folder, quick, soon};

static OURS: LazyLock<Authority> = LazyLock::new(|| Authority::new("Authority of these tests"));

/// A client that trusts the authority of these tests beside the usual ones.
fn trusting(builder: HttpClientBuilder) -> HttpClient {
    builder.root_certificate(OURS.pem()).build().expect("sound settings")
}

/// What the client says of a server whose certificate it doesn't take, after one attempt and before a request.
fn refusal(signed: &Signed, client: &HttpClient) -> HttpError {
    let server = TlsServer::start(signed.config());
    let error = client.post(&server.url()).send().expect_err("it is not to be trusted");
    assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Tls, 1), "{error:?}");
    assert!(!error.may_have_arrived() && !error.is_retryable(), "{error:?}");
    assert_eq!(server.requests(), 0, "it got a request");
    error
}

#[test]
fn a_server_of_a_trusted_authority_is_asked_by_name_and_by_address() {
    let signed = OURS.sign(&local());
    for config in [signed.config(), signed.config_of(&TLS12), signed.config_of(&TLS13)] {
        let server = TlsServer::start(config);
        let client = trusting(quick());
        for url in [server.url(), server.url(), server.url().replace("localhost", "127.0.0.1")] {
            assert_eq!(client.get(&url).send().expect("a reply").bytes(), b"ok");
        }
        assert_eq!(server.connections(), 2, "the connection by name isn't kept");
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let client = trusting(quick());
    let nameless = {
        // A common name is all that it has.
        params(&[])
    };
    for (params, words) in [
        (params(&["other.example", "b.example"]), "is for other hosts (other.example, b.example), not localhost"),
        (expired(), "expired at Fri, 01 Jan 2021 00:00:00 GMT, and this machine's clock says"),
        (not_yet_valid(), "is not valid before Fri, 01 Jan 2140 00:00:00 GMT, and this machine's clock says"),
        (nameless, "names no host: it has no subjectAltName"),
    ] {
        let error = refusal(&OURS.sign(&params), &client);
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = refusal(&Authority::new("Somebody").sign(&local()), &client);
    assert!(error.to_string().contains("is signed by an authority that isn't trusted here"), "{error}");
    let error = refusal(&self_signed(local()), &client);
    assert!(error.to_string().contains("is self-signed"), "{error}");
}

#[test]
fn without_the_authority_named_nobody_of_its_own_is_trusted() {
    let client = quick().build().expect("sound settings");
    let error = refusal(&OURS.sign(&local()), &client);
    assert!(error.to_string().contains("root_certificate"), "no remedy: {error}");
}

#[test]
fn a_self_signed_server_is_trusted_if_it_is_named_for_its_own_host_and_in_its_time() {
    let signed = self_signed(local());
    let trusting = |signed: &Signed| quick().root_certificate(signed.pem()).build().expect("sound settings");
    let server = TlsServer::start(signed.config());
    assert_eq!(trusting(&signed).get(&server.url()).send().expect("a reply").bytes(), b"ok");

    let stranger = self_signed(local());
    let error = refusal(&stranger, &trusting(&signed));
    assert!(error.to_string().contains("self-signed"), "{error}");
    let other = self_signed(params(&["other.example"]));
    let error = refusal(&other, &trusting(&other));
    assert!(error.to_string().contains("is for other hosts"), "{error}");
    let old = self_signed(expired());
    let error = refusal(&old, &trusting(&old));
    assert!(error.to_string().contains("expired"), "{error}");

    // Named itself, whoever signed it.
    let leaf = Authority::new("Nobody").sign(&local());
    let server = TlsServer::start(leaf.config());
    assert_eq!(trusting(&leaf).get(&server.url()).send().expect("a reply").bytes(), b"ok");
}

#[test]
fn verification_can_be_turned_off_and_then_anybody_will_do() {
    let client = quick().danger_accept_invalid_certificates(true).build().expect("sound settings");
    for signed in [self_signed(expired()), OURS.sign(&params(&["other.example"])), OURS.sign(&params(&[]))] {
        for config in [signed.config_of(&TLS12), signed.config_of(&TLS13)] {
            let server = TlsServer::start(config);
            assert_eq!(client.get(&server.url()).send().expect("a reply").bytes(), b"ok");
        }
    }
}

#[test]
fn a_server_that_wants_a_client_certificate_gets_it_or_it_is_said() {
    let (server_side, clients) = (OURS.sign(&local()), Authority::new("For clients"));
    for version in [&TLS12, &TLS13] {
        let server = TlsServer::start(server_side.config_for_clients(&clients, version));
        let error = trusting(quick()).post(&server.url()).send().expect_err("it wants a certificate");
        assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Tls, 1), "{error:?}");
        assert!(!error.may_have_arrived() && error.to_string().contains("certificate of the client"), "{error:?}");
        assert_eq!(server.requests(), 0);

        let own = clients.sign(&params(&[]));
        let client = trusting(quick().client_certificate(own.pem(), own.key_pem()));
        assert_eq!(client.get(&server.url()).send().expect("a reply").bytes(), b"ok");

        let stranger = Authority::new("Somebody").sign(&params(&[]));
        let client = trusting(quick().client_certificate(stranger.pem(), stranger.key_pem()));
        let error = client.post(&server.url()).send().expect_err("not one of theirs");
        assert_eq!((error.kind(), error.may_have_arrived()), (HttpErrorKind::Tls, false), "{error:?}");
        assert!(error.to_string().contains("doesn't take the client's certificate"), "{error}");
    }
}

#[test]
fn what_is_no_certificate_is_refused_when_the_client_is_made() {
    let own = OURS.sign(&local());
    let other = OURS.sign(&local());
    for builder in [
        quick().root_certificate("no certificate"),
        quick().root_certificate(own.key_pem()),
        quick().root_certificate("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
        quick().client_certificate("", own.key_pem()),
        quick().client_certificate(own.pem(), own.pem()),
        quick().client_certificate(own.pem(), other.key_pem()),
    ] {
        assert!(matches!(builder.build(), Err(fulmar::Error::Invalid(_))));
    }
    let commented = format!("# our own\nIssuer: somebody\n{}{}", Authority::new("x").pem(), OURS.pem());
    let server = TlsServer::start(own.config());
    let client = quick().root_certificate(commented).build().expect("a bundle with comments");
    assert_eq!(client.get(&server.url()).send().expect("a reply").bytes(), b"ok");
}

#[test]
fn the_environment_names_whom_the_system_trusts() {
    let folder = Folder::new();
    folder.write("ours.pem", OURS.pem().as_bytes());
    folder.write("nothing.pem", b"nothing");
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let server = TlsServer::start(OURS.sign(&local()).config());
    assert_eq!(get_in(&server.url(), &[("SSL_CERT_FILE", &file("ours.pem"))]), "ok");
    assert_eq!(get_in(&server.url(), &[("SSL_CERT_DIR", &file(""))]), "ok");
    let told = get_in(&server.url(), &[]);
    assert!(told.starts_with("Tls false") && told.contains("isn't trusted here"), "{told}");
    for nothing in ["nothing.pem", "missing.pem"] {
        let told = get_in(&server.url(), &[("SSL_CERT_FILE", &file(nothing))]);
        assert!(told.starts_with("Tls false") && told.contains("SSL_CERT_FILE names no certificates"), "{told}");
    }
    // A self-signed server's own certificate may be named there, too.
    let signed = self_signed(local());
    folder.write("self.pem", signed.pem().as_bytes());
    let server = TlsServer::start(signed.config());
    assert_eq!(get_in(&server.url(), &[("SSL_CERT_FILE", &file("self.pem"))]), "ok");
}

#[test]
fn named_roots_can_be_all_that_is_trusted() {
    let client = quick().system_roots(false).root_certificate(OURS.pem()).build().expect("sound settings");
    let server = TlsServer::start(OURS.sign(&local()).config());
    assert_eq!(client.get(&server.url()).send().expect("a reply").bytes(), b"ok");
    let nobody = quick().system_roots(false).build().expect("sound settings");
    let error = nobody.get(&server.url()).send().expect_err("nobody is trusted");
    assert_eq!((error.kind(), error.may_have_arrived()), (HttpErrorKind::Tls, false), "{error:?}");
}

#[test]
#[ignore = "tests/run brings it: openssl"]
fn openssl_with_tls_1_1_alone_is_told_so() {
    let (folder, signed) = (Folder::new(), OURS.sign(&local()));
    folder.write("cert.pem", signed.pem().as_bytes());
    folder.write("key.pem", signed.key_pem().as_bytes());
    let file = |name: &str| folder.path().join(name);
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", "0", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-cert"]).arg(file("cert.pem"));
    server.arg("-key").arg(file("key.pem")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = server.spawn().expect("openssl runs");
    let mut lines = BufReader::new(server.stdout.take().expect("a pipe")).lines();
    let port = lines.find_map(|line| {
        let line = line.expect("a line");
        line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.parse::<u16>().ok()
    });
    let client = trusting(quick());
    let outcome = client.post(&format!("https://127.0.0.1:{}/", port.expect("it tells its port"))).send();
    server.kill().expect("it runs");
    server.wait().expect("ended");
    let error = outcome.expect_err("too old");
    assert_eq!((error.kind(), error.attempts(), error.may_have_arrived()), (HttpErrorKind::Tls, 1, false), "{error:?}");
    assert!(error.to_string().contains("neither TLS 1.2 nor 1.3"), "{error}");
}

/// What a server says that has no TLS that is safe: 1.1 alone, by an alert or by choosing it (RFC 4346, 7.4.1.3).
#[test]
fn a_server_with_old_tls_alone_is_told_so() {
    let alert = b"\x15\x03\x02\x00\x02\x02\x46".to_vec();
    let mut hello = b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02".to_vec();
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0xc0, 0x13, 0]);
    for answer in [alert, hello] {
        let error = answered(&answer).post("https").expect_err("old");
        assert_eq!(
            (error.kind(), error.attempts(), error.may_have_arrived()),
            (HttpErrorKind::Tls, 1, false),
            "{error:?}"
        );
        assert!(error.to_string().contains("neither TLS 1.2 nor 1.3"), "{error}");
    }
}

#[test]
fn a_server_without_tls_is_told_so() {
    let error = answered(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").post("https").expect_err("plain");
    assert_eq!((error.kind(), error.attempts(), error.may_have_arrived()), (HttpErrorKind::Tls, 1, false), "{error:?}");
    assert!(error.to_string().contains("speaks no TLS at this port"), "{error}");
}

#[test]
fn a_handshake_that_is_cut_may_succeed_later_and_nothing_was_sent() {
    let error = answered(b"").post("https").expect_err("cut");
    assert_eq!((error.kind(), error.attempts(), error.may_have_arrived()), (HttpErrorKind::Tls, 3, false), "{error:?}");
    assert!(error.is_retryable(), "{error:?}");
}

/// A server that says the same to whatever comes, and hangs up.
struct Answered(std::net::SocketAddr);

fn answered(answer: &[u8]) -> Answered {
    use std::io::Read;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let answer = answer.to_vec();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    Answered(address)
}

impl Answered {
    fn post(&self, scheme: &str) -> Result<fulmar::client::http::Response, HttpError> {
        let client = trusting(quick().retry(soon(3)));
        client.post(&format!("{scheme}://localhost:{}/", self.0.port())).send()
    }
}

#[test]
fn a_redirect_to_a_server_that_is_not_trusted_is_no_success_and_gets_nothing() {
    let server = TlsServer::start(self_signed(local()).config());
    let to = server.url();
    let plain = Server::start(move |_, stream| {
        super::server::reply(stream, 302, &[("Location", &to)], b"");
        Then::Close
    });
    let error = trusting(quick()).get(&plain.url("/")).send().expect_err("not trusted");
    assert_eq!(error.kind(), HttpErrorKind::Tls, "{error:?}");
    assert_eq!(error.url(), server.url(), "{error}");
    assert_eq!(server.requests(), 0);
}

/// As much of an openEO back-end as a login needs.
fn back_end(authority: &Authority) -> TlsServer {
    TlsServer::answering(authority.sign(&local()).config(), |head, stream| {
        let path = head.split(' ').nth(1).expect("a path");
        let secret = head.to_ascii_lowercase().contains("authorization: ");
        let (status, body) = match path {
            "/api/" => (200, r#"{"api_version": "1.2.0", "endpoints": []}"#),
            "/api/credentials/basic" if secret => (200, r#"{"access_token": "token-1234567"}"#),
            "/api/me" if secret => (200, r#"{"user_id": "me"}"#),
            _ => (404, "{}"),
        };
        let reply = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(reply.as_bytes()).is_ok() && stream.flush().is_ok()
    })
}

/// A server without encryption that sends all on to another.
fn sending_on(to: String) -> Server {
    Server::start(move |seen, stream| {
        super::server::reply(stream, 301, &[("Location", &format!("{to}{}", seen.target))], b"")
    })
}

#[test]
fn credentials_go_to_https_alone_if_the_first_answer_comes_from_there() {
    let server = back_end(&OURS);
    let plain = sending_on(server.url().trim_end_matches('/').to_owned());
    let asked = plain.url("/api").replace("127.0.0.1", "localhost");
    let http = || quick().root_certificate(OURS.pem());
    let connection = Connection::connect_with(&asked, http()).expect("it sends on to itself");
    assert_eq!(connection.root_url(), format!("{}api", server.url()));
    connection.authenticate_basic("me", "hunter2").expect("it takes all");
    assert_eq!(connection.me().expect("logged in")["user_id"], "me");
    let open = plain.seen();
    assert!(!open.is_empty() && open.iter().all(|seen| seen.header("authorization").is_none()), "{open:?}");

    // Who listens in between could have said that.
    let error = Connection::connect_with(&plain.url("/api"), http()).expect_err("another host");
    assert!(matches!(&error, OpenEoError::Invalid(text) if text.contains("redirects to another host")), "{error:?}");
}

#[test]
fn a_host_without_a_scheme_is_asked_by_https() {
    let server = back_end(&OURS);
    let http = quick().root_certificate(OURS.pem());
    let connection = Connection::connect_with(&format!("localhost:{}/api", server.port), http).expect("it is there");
    assert_eq!(connection.root_url(), format!("{}api", server.url()));
}

/// The seed's `batch_query(queries, verify = False)`.
#[cfg(feature = "pairs")]
#[test]
fn a_pairs_batch_verifies_calls_and_tokens_unless_the_dangerous_setting_says_otherwise() {
    use fulmar::client::pairs::{BatchOptions, Client, PairsError, Query, batch_query};
    use std::time::Duration;

    let server = TlsServer::answering(self_signed(params(&["other.example"])).config(), |head, stream| {
        let body = match head.split(' ').nth(1).unwrap_or_default() {
            path if path.starts_with("/api-key") => "a-token",
            path if path.ends_with("/download") => r#"{"data":[]}"#,
            _ => r#"{"id":"1","statusCode":20}"#,
        };
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(reply.as_bytes());
        let _ = stream.flush();
        true
    });
    let folder = Folder::new();
    let run = |accepted: bool| {
        let url = server.url();
        let client = Client::builder(&url).api_key("PHX-key").tenant_id("t").org_id("o").auth_endpoint(&url);
        let client = client.http(|http| http.environment_proxy(false)).danger_accept_invalid_certificates(accepted);
        let query = Query::builder().layer(92).square(30.0, -100.0, 30.5, -99.6).build().expect("a query");
        let options = BatchOptions::new().submit(false).folder(folder.path());
        let options = options.status_interval_floor(Duration::from_millis(5));
        let query = query.with_id("1").expect("an id");
        batch_query(&client.build().expect("sound settings"), [query], options).expect("sound options")
    };
    let report = run(false);
    let failure = report.jobs[0].outcome.as_ref().expect_err("nobody to trust");
    assert!(matches!(failure.error(), Some(PairsError::Credentials { is_retryable: false, .. })), "{failure:?}");
    assert_eq!((server.requests(), report.stats.retries), (0, 0));
    let report = run(true);
    assert!(report.is_success(), "{report}");
    assert!(folder.path().join("1.json").exists());
}
