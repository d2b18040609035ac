//! What holds for every head and every setting of a proxy, tried on values made at random.

use url::Url;

use super::super::method::Method;
use super::head::{self, Framing};
use super::proxy::{Proxies, Proxy};
use crate::client::random::for_all;

const ROUNDS: u64 = 20_000;

const HEAD: &str = "HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json; charset=utf-8\r\n\
                    Content-Length: 17\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, close\r\nX-Folded: a\r\n b\r\n\r\n";

/// Cuts a damaged head into pieces of up to 9 bytes: `end` must find what it finds in the whole.
#[test]
fn a_head_ends_where_it_ends_however_it_comes_in_pieces() {
    for_all(ROUNDS, |random| {
        let text = random.damaged(HEAD);
        let bytes = text.as_bytes();
        let whole = head::end(bytes, 0);
        // As far as it has come after each piece, and no further.
        let (mut seen, mut found) = (0, None);
        while seen < bytes.len() && found.is_none() {
            let next = (seen + 1 + random.below(9)).min(bytes.len());
            found = head::end(&bytes[..next], seen);
            seen = next;
        }
        assert_eq!(found, whole, "{text:?}");
        if let Some(end) = whole {
            assert!(head::is_whole(&bytes[..end]), "{text:?}");
        }
    });
}

/// Damages a head that names a length and chunks. If it still can be read, `framing` must follow
/// from its headers.
#[test]
fn a_head_that_is_read_makes_sense() {
    for_all(ROUNDS, |random| {
        let text = random.damaged(HEAD);
        let Some(end) = head::end(text.as_bytes(), 0) else { return };
        let Ok(head) = head::parse(&text.as_bytes()[..end]) else { return };
        assert!((100..1000).contains(&head.status), "{text:?}");
        let method = if random.below(2) == 0 { Method::Get } else { Method::Head };
        let Ok(framing) = head.framing(method) else { return };
        let keeps = head.keeps_connection();
        if method == Method::Head {
            assert_eq!(framing, Framing::Length(0), "{text:?}");
        }
        if let Framing::Chunked = framing {
            assert!(head.headers.contains_key("transfer-encoding"), "{text:?}");
            // Two ends in one head: where the next reply begins can't be told.
            assert!(!keeps || !head.headers.contains_key("content-length"), "{text:?}");
        }
    });
}

/// Reads pieces of a proxy's URL in any order, a password among them.
#[test]
fn a_proxy_is_read_whole_or_not_at_all_and_its_password_is_never_told() {
    let pieces = [
        "http",
        "https",
        "socks5",
        "://",
        "user",
        ":",
        "s3cr3t",
        "@",
        "host.example",
        "[::1]",
        "8080",
        "/",
        "%40",
        "%f",
    ];
    for_all(ROUNDS, |random| {
        let text = random.text(&pieces);
        match Proxy::parse(&text, "HTTPS_PROXY") {
            Ok(proxy) => {
                assert!(!proxy.host.is_empty(), "{text:?}");
                assert!(!proxy.to_string().contains("s3cr3t") || proxy.host.contains("s3cr3t"), "{text:?}: {proxy}");
            }
            Err(why) => assert!(!why.contains("s3cr3t") && why.contains("HTTPS_PROXY"), "{text:?}: {why}"),
        }
    });
}

/// Adds a host to pieces of a `NO_PROXY` list in any order: requests to it must go directly.
#[test]
fn a_list_of_direct_hosts_covers_what_it_names_and_panics_at_nothing() {
    let pieces =
        ["a.example", ".", "*", ",", " ", ":", "80", "10.0.0.0", "/", "8", "::1", "[", "]", "fd00::", "-1", "129"];
    for_all(ROUNDS, |random| {
        let list = random.text(&pieces);
        let proxies = |list: &str| {
            let proxy = Proxy::parse("http://proxy.example", "x").expect("a proxy");
            Proxies::of(proxy).except(Some(list))
        };
        for url in ["http://a.example/", "http://10.1.2.3/", "http://[::1]/"] {
            let url = Url::parse(url).expect("a URL");
            let direct = |list: &str| proxies(list).for_url(&url).expect("a sound proxy").is_none();
            let host = url.host_str().expect("a host");
            assert!(direct(&format!("{list},{host}")), "{list:?}");
            // What stands alone and isn't a name of it says nothing.
            assert!(!direct(&format!("x{host}")) && !direct(""), "{list:?}");
            let _ = direct(&list);
        }
    });
}
