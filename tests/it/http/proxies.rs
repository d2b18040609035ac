//! Through proxies and around them. Those that are ignored stand on real ones, which `tests/run`
//! starts.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fulmar::client::http::{Download, HttpClient, HttpError, HttpErrorKind, Timeouts};

use super::child::get_in;
use super::server::{Seen, Server, reply};
use super::tls_server::{Authority, TlsServer, local};
use super::{Folder, quick, soon};

/// A proxy as far as plain HTTP goes: it answers itself.
fn answering() -> Server {
    Server::start(|seen, stream| reply(stream, 200, &[], format!("proxy got {}", seen.target).as_bytes()))
}

fn refused(client: &HttpClient, url: &str) -> HttpError {
    let error = client.post(url).json("x").send().expect_err("the proxy lets nothing through");
    assert_eq!(error.kind(), HttpErrorKind::Proxy, "{error:?}");
    assert!(!error.may_have_arrived(), "{error:?}");
    error
}

#[test]
fn a_proxy_that_makes_no_sense_is_an_error() {
    for (url, why) in [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("http://", "it isn't a URL"),
        ("http://[bad", "it isn't a URL"),
        ("ftp://me:s3cr3t@host.example:21", "its scheme is not supported"),
        ("socks4://host.example", "its scheme is not supported"),
        ("http://me:%ff%fe@host.example", "its user or password is not text"),
    ] {
        match quick().proxy(url).build() {
            Err(fulmar::Error::Invalid(text)) => {
                assert!(text.contains(why) && !text.contains("s3cr3t"), "{url:?}: {text}");
            }
            other => panic!("{url:?}: {other:?}"),
        }
        if !url.is_empty() {
            let told = get_in("http://host.example/", &[("http_proxy", url)]);
            assert!(told.starts_with("Proxy false") && told.contains(why) && told.contains("http_proxy"), "{told}");
            assert!(!told.contains("s3cr3t"), "{told}");
        }
    }
}

#[test]
fn a_proxy_that_is_not_there_may_be_later_and_nothing_was_sent() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    for scheme in ["http", "https", "socks5", "socks5h"] {
        let client = quick().proxy(&format!("{scheme}://me:s3cr3t@{free}")).build().expect("sound settings");
        for url in ["http://127.0.0.1:1/", "https://127.0.0.1:1/"] {
            let error = refused(&client, url);
            assert_eq!(error.attempts(), 4, "{error:?}");
            assert!(error.to_string().contains(&free.to_string()), "which one? {error}");
            assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
        }
    }
    let nowhere = quick().retry(soon(1)).proxy("http://proxy.invalid:3128").build().expect("sound settings");
    assert!(refused(&nowhere, "http://127.0.0.1:1/").to_string().contains("can't be looked up"));
}

#[test]
fn plain_http_is_sent_to_the_proxy_with_its_whole_url_and_the_password_for_it() {
    let proxy = answering();
    let address = proxy.url("").replace("http://", "");
    let client = quick().proxy(&format!("http://us%20er:p%40ss%3Aw%2Frd@{address}")).build().expect("sound settings");
    for _ in 0..2 {
        // A name that nobody but the proxy needs to know.
        let reply = client.get("http://inside.example:8080/a?b=c").send().expect("the proxy's answer");
        assert_eq!(reply.text().expect("text"), "proxy got http://inside.example:8080/a?b=c");
    }
    assert_eq!(proxy.connections(), 1, "the connection isn't kept");
    for seen in proxy.seen() {
        assert_eq!(seen.header("proxy-authorization"), Some("Basic dXMgZXI6cEBzczp3L3Jk"));
        assert_eq!(seen.header("host"), Some("inside.example:8080"));
    }
}

#[test]
fn each_scheme_has_its_proxy_and_what_is_named_exactly_wins() {
    let (proxy, server) = (answering(), Server::of(b"direct"));
    let (through, url) = (proxy.url(""), server.url("/x"));
    let dead = "http://127.0.0.1:9";
    let by_proxy = format!("proxy got {url}");
    for (variables, told) in [
        (vec![("HTTP_PROXY", through.as_str())], by_proxy.as_str()),
        (vec![("http_proxy", &through), ("HTTP_PROXY", dead)], &by_proxy),
        (vec![("HTTP_PROXY", &through), ("ALL_PROXY", dead)], &by_proxy),
        (vec![("ALL_PROXY", &through)], &by_proxy),
        (vec![("all_proxy", &through), ("HTTPS_PROXY", dead)], &by_proxy),
        (vec![("HTTP_PROXY", through.trim_start_matches("http://"))], &by_proxy),
        (vec![("HTTPS_PROXY", dead)], "direct"),
        (vec![("HTTP_PROXY", ""), ("ALL_PROXY", "")], "direct"),
        (vec![("HTTP_PROXY", ""), ("ALL_PROXY", &through)], &by_proxy),
        (vec![("HTTP_PROXY", dead), ("NO_PROXY", "127.0.0.1")], "direct"),
        (vec![("HTTP_PROXY", dead), ("no_proxy", "*"), ("NO_PROXY", "x")], "direct"),
        // A header of a stranger, in a CGI program.
        (vec![("HTTP_PROXY", dead), ("REQUEST_METHOD", "GET")], "direct"),
    ] {
        assert_eq!(get_in(&url, &variables), told, "{variables:?}");
    }
    let told = get_in("https://host.example/", &[("HTTP_PROXY", &through), ("HTTPS_PROXY", dead)]);
    assert!(told.starts_with("Proxy false") && told.contains("127.0.0.1:9 of HTTPS_PROXY"), "{told}");
}

#[test]
fn a_proxy_by_setting_wins_over_the_environment() {
    let (proxy, server) = (answering(), Server::of(b"direct"));
    let client = quick().proxy(&proxy.url("")).no_proxy("other.example, 127.0.0.1").build().expect("sound settings");
    assert_eq!(client.get(&server.url("/")).send().expect("a reply").bytes(), b"direct");
    let told = client.get("http://inside.example/").send().expect("a reply");
    assert_eq!(told.text().expect("text"), "proxy got http://inside.example/");
}

#[test]
fn what_a_proxy_says_of_itself_is_told_as_its_word() {
    for (status, attempts, words) in [(407, 1, "wants a user and a password"), (403, 1, "403"), (502, 4, "502")] {
        let proxy = Server::start(move |_, stream| {
            reply(stream, status, &[("Proxy-Authenticate", "Basic realm=\"x\"")], b"<html>Denied</html>")
        });
        let client = quick().proxy(&proxy.url("")).build().expect("sound settings");
        let error = refused(&client, "https://inside.example/");
        assert_eq!(error.attempts(), attempts, "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        let seen: Vec<Seen> = proxy.seen();
        assert!(seen.iter().all(|seen| seen.method == "CONNECT" && seen.target == "inside.example:443"), "{seen:?}");
    }
    let proxy = Server::start(|_, stream| reply(stream, 407, &[], b""));
    let client = quick().proxy(&proxy.url("")).build().expect("sound settings");
    assert_eq!(refused(&client, "http://inside.example/").attempts(), 1);
    for garbage in ["\r\n\r\n", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 200"] {
        let client = quick().proxy(&saying(garbage.as_bytes())).build().expect("sound settings");
        refused(&client, "https://inside.example/");
        let client =
            quick().proxy(&saying(garbage.as_bytes()).replace("http", "socks5h")).build().expect("sound settings");
        refused(&client, "https://inside.example/");
    }
}

/// A proxy within TLS: it answers plain HTTP itself, and passes on what comes after a CONNECT.
fn secure_proxy(server: &TlsServer) -> TlsServer {
    let port = server.port;
    TlsServer::answering(OURS.sign(&local()).config(), move |head, client| {
        if !head.starts_with("CONNECT ") {
            let target = head.split(' ').nth(1).expect("a target");
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len());
            return client.write_all(reply.as_bytes()).is_ok() && client.flush().is_ok();
        }
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let _ = client.flush();
        let mut server = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        // Whoever has nothing to say just now lets the other speak.
        let turn = Some(Duration::from_millis(10));
        client.sock.set_read_timeout(turn).expect("a limit");
        server.set_read_timeout(turn).expect("a limit");
        let passed = |from: &mut dyn Read, to: &mut dyn Write| {
            let mut bytes = [0; 16 << 10];
            match from.read(&mut bytes) {
                Ok(0) => false,
                Ok(count) => to.write_all(&bytes[..count]).is_ok() && to.flush().is_ok(),
                Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        };
        while passed(client, &mut server) && passed(&mut server, client) {}
        false
    })
}

#[test]
fn a_proxy_within_tls_is_spoken_to_in_tls_and_tls_goes_through_it() {
    let server = TlsServer::start(OURS.sign(&local()).config());
    let proxy = secure_proxy(&server);
    let client = behind(&format!("https://localhost:{}", proxy.port));
    let told = client.get("http://inside.example/a").send().expect("the proxy's answer");
    assert_eq!(told.text().expect("text"), "http://inside.example/a");
    for _ in 0..2 {
        assert_eq!(client.get(&server.url()).send().expect("a reply").bytes(), b"ok");
    }
    assert_eq!((server.connections(), proxy.connections()), (1, 2), "the tunnel isn't kept");

    let stranger = quick().proxy(&format!("https://localhost:{}", proxy.port)).build().expect("sound settings");
    let error = refused(&stranger, &server.url());
    assert_eq!(error.attempts(), 1, "{error:?}");
    assert!(error.to_string().contains("signed by an authority that isn't trusted here"), "{error}");
}

/// Something that says the same to whatever comes, and hangs up.
fn saying(text: &[u8]) -> String {
    let (listener, text) = (TcpListener::bind("127.0.0.1:0").expect("a free port"), text.to_vec());
    let address: SocketAddr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&text);
        }
    });
    format!("http://{address}")
}

/// Which hosts are asked directly: the list, a URL, our answer, and that of curl 7.88. Where they
/// differ, ours is that of Python's requests, which knows ports, or of all but curl.
const NO_PROXY: &[(&str, &str, bool, bool)] = &[
    ("", "http://a.example/", false, false),
    ("*", "http://a.example/", true, true),
    (" * ", "http://a.example/", true, false),
    ("a.example", "http://a.example/", true, true),
    ("a.example", "http://A.Example/", true, true),
    ("A.EXAMPLE", "http://a.example/", true, true),
    ("a.example", "http://a.example./", true, true),
    ("a.example.", "http://a.example/", true, true),
    ("a.example", "http://b.a.example/", true, true),
    (".a.example", "http://b.a.example/", true, true),
    (".a.example", "http://a.example/", true, true),
    ("a.example", "http://ba.example/", false, false),
    ("a.example", "http://a.example.org/", false, false),
    ("b.a.example", "http://a.example/", false, false),
    ("example", "http://a.example/", true, true),
    ("x.example,a.example", "http://a.example/", true, true),
    ("x.example, a.example", "http://a.example/", true, true),
    ("x.example a.example", "http://a.example/", true, true),
    ("x.example\ta.example", "http://a.example/", true, true),
    (",,a.example,", "http://a.example/", true, true),
    ("  a.example  ", "http://a.example/", true, true),
    ("*.a.example", "http://b.a.example/", true, false),
    ("a.example:81", "http://a.example:81/", true, false),
    ("a.example:81", "http://a.example:82/", false, false),
    ("a.example:80", "http://a.example/", true, false),
    ("127.0.0.2", "http://127.0.0.2:1/", true, true),
    ("127.0.0.2", "http://127.0.0.22:1/", false, false),
    ("0.0.2", "http://127.0.0.2:1/", false, false),
    ("127.0.0.2:1", "http://127.0.0.2:1/", true, false),
    ("127.0.0.2:2", "http://127.0.0.2:1/", false, false),
    ("127.0.0.0/8", "http://127.9.9.9:1/", true, true),
    ("127.0.0.0/16", "http://127.9.9.9:1/", false, false),
    ("127.0.0.2/32", "http://127.0.0.2:1/", true, true),
    ("127.0.0.2/0", "http://127.9.9.9:1/", true, false),
    ("127.0.0.0/33", "http://127.0.0.1:1/", false, false),
    ("127.0.0.0/8", "http://localhost:1/", false, false),
    ("localhost", "http://127.0.0.1:1/", false, false),
    ("::1", "http://[::1]:1/", true, true),
    ("[::1]", "http://[::1]:1/", true, false),
    ("0:0:0:0:0:0:0:1", "http://[::1]:1/", true, false),
    ("::/8", "http://[::1]:1/", true, false),
    ("[::1]:1", "http://[::1]:1/", true, false),
    ("fe80::/10", "http://[::1]:1/", false, false),
];

/// A proxy that counts who comes, and answers all alike.
fn counting() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        }
    });
    (url, count)
}

#[test]
fn what_is_asked_directly_is_what_the_list_says() {
    let (proxy, count) = counting();
    for (list, url, direct, _) in NO_PROXY {
        let timeouts = Timeouts { connect: Some(Duration::from_secs(1)), ..Timeouts::default() };
        let builder = quick().retry(soon(1)).timeouts(timeouts);
        let client = builder.proxy(&proxy).no_proxy(list).build().expect("sound settings");
        let before = count.load(Ordering::SeqCst);
        let outcome = client.get(url).send();
        let asked = count.load(Ordering::SeqCst) > before;
        assert_eq!(asked, !direct, "NO_PROXY={list:?} {url}: {outcome:?}");
        assert_eq!(outcome.is_ok(), !direct, "NO_PROXY={list:?} {url}: {outcome:?}");
    }
}

#[test]
#[ignore = "tests/run brings it: curl"]
fn curls_answers_are_curls() {
    let (proxy, count) = counting();
    for (list, url, _, direct) in NO_PROXY {
        let before = count.load(Ordering::SeqCst);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "2", "--proxy", &proxy, "--output", "/dev/null", url]);
        curl.env_remove("no_proxy").env("NO_PROXY", list).status().expect("curl runs");
        let asked = count.load(Ordering::SeqCst) > before;
        assert_eq!(asked, !direct, "NO_PROXY={list:?} {url}");
    }
}

// With real proxies.

static OURS: LazyLock<Authority> = LazyLock::new(|| Authority::new("Authority of these tests"));

fn at(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: tests/run starts the proxies"))
}

/// A client behind a proxy, that trusts the servers of these tests.
fn behind(proxy: &str) -> HttpClient {
    quick().proxy(proxy).root_certificate(OURS.pem()).build().expect("sound settings")
}

#[test]
#[ignore = "tests/run brings it: a proxy"]
fn squid_lets_through_what_it_is_open_for() {
    let (server, secure) = (Server::of(b"plain"), TlsServer::start(OURS.sign(&local()).config()));
    let client = behind(&format!("http://{}", at("FULMAR_PROXY")));
    for _ in 0..3 {
        assert_eq!(client.get(&server.url("/a?b=c")).send().expect("a reply").bytes(), b"plain");
        assert_eq!(client.get(&secure.url()).send().expect("a reply").bytes(), b"ok");
    }
    assert_eq!(
        client.post(&server.url("/p")).body("a/b", vec![b'x'; 1 << 20]).send().expect("a reply").bytes(),
        b"plain"
    );
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.header("via").is_some_and(|via| via.contains("squid"))), "around it: {seen:?}");
    assert_eq!((seen[0].target.as_str(), seen[3].body.len()), ("/a?b=c", 1 << 20));
    assert_eq!(secure.connections(), 1, "the tunnel isn't kept");

    let folder = Folder::new();
    client.get(&secure.url()).download(&Download::new(folder.path(), "file")).expect("a file");
    assert_eq!(folder.read("file"), b"ok");
}

#[test]
#[ignore = "tests/run brings it: a proxy"]
fn squid_refuses_what_it_is_not_open_for_and_says_what_it_can_not_reach() {
    let client = behind(&format!("http://{}", at("FULMAR_PROXY")));
    let error = refused(&client, "https://127.0.0.1:81/");
    assert_eq!(error.attempts(), 1, "{error:?}");
    assert!(error.to_string().contains("403"), "{error}");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let error = refused(&client, &format!("https://{free}/"));
    assert_eq!(error.attempts(), 4, "it may be there later: {error:?}");
}

#[test]
#[ignore = "tests/run brings it: a proxy"]
fn squid_wants_a_password_and_gets_it_or_it_is_said() {
    let (server, secure) = (Server::of(b"plain"), TlsServer::start(OURS.sign(&local()).config()));
    let address = at("FULMAR_PROXY_CLOSED");
    let client = behind(&format!("http://us%20er:p%40ss%3Aw%2Frd@{address}"));
    assert_eq!(client.get(&server.url("/")).send().expect("a reply").bytes(), b"plain");
    assert_eq!(client.get(&secure.url()).send().expect("a reply").bytes(), b"ok");
    let leaked = server.seen().into_iter().find(|seen| seen.header("proxy-authorization").is_some());
    assert!(leaked.is_none(), "the server got the proxy's password");
    let (plain, tunnels) = (server.seen().len(), secure.connections());
    for proxy in [format!("http://{address}"), format!("http://us%20er:wr0ng-pass@{address}")] {
        for url in [server.url("/"), secure.url()] {
            let error = refused(&behind(&proxy), &url);
            assert_eq!(error.attempts(), 1, "{error:?}");
            assert!(error.to_string().contains("407") && !format!("{error:?}").contains("wr0ng"), "{error:?}");
        }
    }
    assert_eq!((server.seen().len(), secure.connections()), (plain, tunnels), "somebody was asked");
    assert_eq!(
        get_in(&server.url("/"), &[("HTTP_PROXY", &format!("http://us%20er:p%40ss%3Aw%2Frd@{address}"))]),
        "plain"
    );
}

#[test]
#[ignore = "tests/run brings it: a proxy"]
fn socks_lets_through_with_and_without_a_password() {
    let (server, secure) = (Server::of(b"plain"), TlsServer::start(OURS.sign(&local()).config()));
    let (open, closed) = (at("FULMAR_SOCKS"), at("FULMAR_SOCKS_CLOSED"));
    for scheme in ["socks5", "socks5h"] {
        for proxy in [format!("{scheme}://{open}"), format!("{scheme}://us%20er:p%40ss%3Aw%2Frd@{closed}")] {
            let client = behind(&proxy);
            assert_eq!(client.get(&server.url("/")).send().expect("a reply").bytes(), b"plain");
            assert_eq!(client.get(&secure.url()).send().expect("a reply").bytes(), b"ok");
            let error = refused(&client, "http://127.0.0.1:1/");
            assert!(error.is_retryable(), "{error:?}");
        }
        for proxy in [format!("{scheme}://{closed}"), format!("{scheme}://me:wr0ng-pass@{closed}")] {
            let error = refused(&behind(&proxy), &server.url("/"));
            assert_eq!(error.attempts(), 1, "{error:?}");
        }
    }
}
