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

    let server = Server::start(|seen, stream| match seen.number {
        0 => reply(stream, 503, &[], b"t0ken-value b34rer"),
        1 => reply(stream, 401, &[], b"t0ken-value b34rer"),
        _ => reply(stream, 200, &[], b"ok"),
    });
    let tokens = Tokens::new(&server.url("/"), |_| Ok(Token::new("t0ken-value"))).expect("a URL");
    let client = quick().auth(tokens).build().expect("sound settings");
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let request = client.get(&server.url("/x?sig=qu3ry-value")).secret_header("X-Key", "h3ader-value");
        request.send().expect("a reply in the end");
    });
    let text = lines.0.lock().expect("no panic").clone();
    assert!(text.contains("sent again") && text.contains("renewed"), "nothing was logged: {text:?}");
    assert_clean("the log", &text);
}
