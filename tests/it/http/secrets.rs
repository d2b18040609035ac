//! Nothing that is shown has a secret in it, whatever a server repeats.

use std::error::Error;
use std::fmt::Write;

use fulmar::client::http::{Basic, Bearer, Download, HttpError, Token, Tokens};

use super::server::{Server, Then, reply};
use super::{Folder, quick};

const SECRETS: &[&str] = &[
    "pa55-word",
    "b34rer",
    "h3ader-value",
    "qu3ry-value",
    "f0rm-key",
    "t0ken-value",
    "fr4gment",
    "aGlkZGVuOnBhNTUtd29yZA==", // hidden:pa55-word
];

fn assert_clean(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is shown in {what}: {text}");
    }
}

fn assert_error_is_clean(error: &HttpError) {
    let mut text = format!("{error} {error:?} {error:#?} {} {} {}", error.url(), error.message(), error.body());
    let mut next = error.source();
    while let Some(source) = next {
        write!(text, " {source} {source:?}").expect("in memory");
        next = source.source();
    }
    assert_clean("an error", &text);
}

#[test]
fn no_error_shows_what_the_request_carried() {
    // A server that repeats all it was sent, in every way it can.
    let server = Server::start(|seen, stream| {
        let mut said = format!("{:?} {} {}", seen.headers, seen.target, String::from_utf8_lossy(&seen.body));
        said = said.replace('"', "'");
        match seen.target.split('?').next() {
            Some("/json") => reply(stream, 400, &[], format!("{{\"message\": \"{said}\"}}").as_bytes()),
            Some("/text") => reply(stream, 403, &[("Content-Type", "text/plain")], said.as_bytes()),
            Some("/page") => reply(stream, 404, &[], format!("<html><title>{said}</title>").as_bytes()),
            Some("/away") => reply(stream, 302, &[("Location", &format!("ftp://x/?{said}"))], b""),
            _ => Then::Close,
        }
    });
    let folder = Folder::new();
    let tokens = Tokens::new(&server.url("/"), |_| Ok(Token::new("t0ken-value"))).expect("a URL");
    for client in [
        quick().auth(Basic::new(&server.url("/"), "hidden", "pa55-word")).build(),
        quick().auth(Bearer::new(&server.url("/"), "b34rer")).build(),
        quick().auth(tokens).build(),
    ] {
        let client = client.expect("sound settings");
        for path in ["/json", "/text", "/page", "/away", "/lost"] {
            let request = || {
                client
                    .post(&server.url(&format!("{path}#fr4gment")))
                    .query("token", "qu3ry-value")
                    .secret_header("X-Key", "h3ader-value")
                    .form(&[("apikey", "f0rm-key"), ("grant_type", "x")])
            };
            assert_clean("a request", &format!("{:?}", request()));
            assert_error_is_clean(&request().send().expect_err("refused"));
            assert_error_is_clean(&request().download(&Download::new(folder.path(), "x")).expect_err("refused"));
        }
        assert_clean("a client", &format!("{client:?}"));
    }
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn settings_and_credentials_do_not_show_themselves() {
    let url = "https://host.example/";
    let tokens = Tokens::new(url, |_| Ok(Token::new("t0ken-value"))).expect("a URL");
    let text = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        Basic::new(url, "hidden", "pa55-word"),
        Bearer::new(url, "b34rer"),
        tokens,
        Token::new("t0ken-value"),
        quick().auth(Bearer::new(url, "b34rer")),
    );
    assert_clean("settings", &text);
}

#[cfg(feature = "tracing")]
#[test]
fn no_log_line_shows_a_secret() {
    use std::sync::{Arc, Mutex};

    /// Writes down every event with all its fields.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<String>>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            struct Fields<'a>(&'a mut String);
            impl tracing::field::Visit for Fields<'_> {
                fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    writeln!(self.0, "{field} = {value:?}").expect("in memory");
                }
            }
            event.record(&mut Fields(&mut self.0.lock().expect("no panic")));
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    let server = Server::start(|seen, stream| match seen.number % 3 {
        0 => reply(stream, 503, &[], b"t0ken-value b34rer"),
        1 => reply(stream, 401, &[], b"t0ken-value b34rer"),
        _ => reply(stream, 200, &[], b"ok"),
    });
    let tokens = Tokens::new(&server.url("/"), |_| Ok(Token::new("t0ken-value"))).expect("a URL");
    let client = quick().auth(tokens).build().expect("sound settings");
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        // Twice: at the first, another test may just be finding out that nobody listens.
        for _ in 0..2 {
            tracing::callsite::rebuild_interest_cache();
            let request = client.get(&server.url("/x?sig=qu3ry-value")).secret_header("X-Key", "h3ader-value");
            request.send().expect("a reply in the end");
        }
    });
    let text = lines.0.lock().expect("no panic").clone();
    assert!(text.contains("sent again") && text.contains("renewed"), "nothing was logged: {text:?}");
    assert_clean("the log", &text);
}

#[test]
fn the_secrets_of_a_redirect_are_hidden_too() {
    let server = Server::start(|seen, stream| match seen.target.as_str() {
        "/" => reply(stream, 302, &[("Location", "/data?X-Amz-Signature=qu3ry-value&X-Amz-Credential=f0rm-key")], b""),
        target => reply(stream, 403, &[], format!("<Error>SignatureDoesNotMatch {target}</Error>").as_bytes()),
    });
    assert_error_is_clean(&quick().build().expect("sound settings").get(&server.url("/")).send().expect_err("403"));
}

#[test]
fn a_secret_is_hidden_however_a_server_escapes_it() {
    let server = Server::start(|seen, stream| {
        let said = match seen.target.as_str() {
            "/php" => r#"{"a": {"got": "\/h3ader-value\/="}}"#,
            "/url" => "got %2fh3ader-value%2f%3d",
            "/path" => "got /h3ader-value/%3D",
            _ => "<html>got &#x2F;h3ader-value&#47;=</html>",
        };
        reply(stream, 403, &[], said.as_bytes())
    });
    for path in ["/php", "/url", "/path", "/html"] {
        let request = quick().build().expect("sound settings").get(&server.url(path));
        assert_error_is_clean(&request.secret_header("X-Key", "/h3ader-value/=").send().expect_err("403"));
    }
}

#[test]
fn urls_that_make_no_sense_show_no_password_and_no_key() {
    let client = quick().build().expect("sound settings");
    for url in
        ["https://me:pa55-word#x@host/", "https://me:pa55-word?x@host/", "ftp://host/?qu3ry-value==", "//pa55-word@h"]
    {
        assert_clean("a request", &format!("{:?}", client.get(url)));
        assert_error_is_clean(&client.get(url).send().expect_err("no sound URL"));
    }
}

#[test]
fn json_of_another_shape_shows_none_of_its_values() {
    #[derive(Debug)]
    struct Kind;
    impl<'de> serde::Deserialize<'de> for Kind {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
            let text = String::deserialize(from)?;
            Err(serde::de::Error::unknown_variant(&text, &["known"]))
        }
    }
    let client = quick().build().expect("sound settings");
    let reply = |body| client.get(&Server::of(body).url("/")).send().expect("a reply");
    let error = reply(b"\"t0ken-value\"").json::<Kind>().expect_err("another variant");
    assert_error_is_clean(&error);
    assert!(format!("{error:?}").contains("expected `known`"), "{error:?}");
    let error = reply(b"4711081512345").json::<String>().expect_err("a number");
    assert!(!format!("{error:?}").contains("4711"), "{error:?}");
}

#[test]
fn the_password_for_a_proxy_is_hidden_too() {
    let proxy = Server::start(|seen, stream| {
        let said = format!("<pre>{:?}</pre> pa55-word", seen.headers);
        match seen.target.ends_with("/whole") {
            true => reply(stream, 200, &[], said.as_bytes()),
            false => reply(stream, 502, &[], said.as_bytes()),
        }
    });
    let through = proxy.url("").replace("http://", "http://hidden:pa55-word@");
    let client = quick().proxy(&through).build().expect("sound settings");
    assert_error_is_clean(&client.get("http://inside.example/").send().expect_err("502"));
    assert!(proxy.seen()[0].header("proxy-authorization").is_some(), "the proxy got no password");
    let reply = client.get("http://inside.example/whole").send().expect("a reply");
    assert_clean("a quoted reply", &reply.hide(reply.text().expect("text")));
}

#[test]
fn no_part_of_a_secret_is_shown_at_the_end_of_a_long_reply() {
    const SECRET: &str = "h3ader-value";
    let server = Server::start(|seen, stream| {
        let at: usize = seen.header("x-at").and_then(|at| at.parse().ok()).expect("the test says it");
        let said = format!("{}{SECRET}{}", "-".repeat(at), "-".repeat(300_000));
        reply(stream, 403, &[("Content-Type", "text/plain")], said.as_bytes())
    });
    let client = quick().build().expect("sound settings");
    for limit in [64 << 10, 128 << 10] {
        for shown in 1..SECRET.len() {
            let request = client.get(&server.url("/")).header("X-At", &(limit - shown).to_string());
            let error = request.secret_header("X-Key", SECRET).send().expect_err("403");
            let body = error.body();
            assert!(!body.contains('h'), "{limit}, {shown}: {}", &body[body.len() - 20..]);
            assert!((1_000..=64 << 10).contains(&body.len()), "{limit}, {shown}: {}", body.len());
        }
    }
}
