//! No secret in any `Debug`, error or log line, ours or those of what we stand on. In a process of its own, because it sets
//! the loggers.

#[path = "it/pairs/folder.rs"]
mod folder;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fulmar::Executor;
use fulmar::backoff::Backoff;
use fulmar::client::http::RetryPolicy;
use fulmar::client::pairs::{BatchOptions, Client, Query, batch_query};
use pairs_server::{Auth, Config, Faults, Server};
use serde_json::json;

use folder::Folder;

/// Every secret that is used below; those that the server makes contain `secret` as well.
const SECRETS: &[&str] =
    &["hunter2secret", "bad-secret", "key-secret", "PHX-secret", "token-secret", "cos-secret", "secretsignature"];

/// All that was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<String>>);

impl Lines {
    fn add(&self, line: std::fmt::Arguments<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(lines, "{line}");
    }
}

/// What the crates below log, should one of them do so.
impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.add(format_args!("{} {} {}", record.level(), record.target(), record.args()));
    }

    fn flush(&self) {}
}

/// What we log ourselves.
#[cfg(feature = "tracing")]
mod events {
    use std::fmt::{Debug, Write as _};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};

    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }

    impl tracing::Subscriber for super::Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let mut text = Text(span.metadata().name().to_owned());
            span.record(&mut text);
            self.add(format_args!("{}", text.0));
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            let mut text = Text(String::new());
            values.record(&mut text);
            self.add(format_args!("{}", text.0));
        }

        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = Text(event.metadata().target().to_owned());
            event.record(&mut text);
            self.add(format_args!("{}", text.0));
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
}

fn show(text: &mut String, error: &(dyn std::error::Error + 'static)) {
    let _ = writeln!(text, "{error}\n{error:?}\n{error:#?}");
    if let Some(source) = error.source() {
        show(text, source);
    }
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let faults = Faults { token_life: Some(Duration::from_millis(5)), unavailable: 0.2, ..Faults::default() };
    let lines = Lines::default();
    log::set_boxed_logger(Box::new(lines.clone())).expect("the first in this process");
    log::set_max_level(log::LevelFilter::Trace);
    #[cfg(feature = "tracing")]
    tracing::subscriber::set_global_default(lines.clone()).expect("the first in this process");

    let quick = || Config { run: Duration::from_millis(5), slots: 1_000, ..Config::default() };
    let server = |config| Server::start(config).expect("a server");
    let executor = Executor::builder().threads(4).build().expect("an executor");
    let basic = server(Config { auth: Auth::Basic, faults: faults.clone(), ..quick() });
    let bearer = server(Config { auth: Auth::Bearer, require_client_id: true, faults, ..quick() });
    let v3 = format!("{}/core/v3", bearer.origin());
    let nowhere = "http://127.0.0.1:9/v2";
    let with_key = |host: &str, key: &str| {
        let builder = Client::builder(host).api_key(key).tenant_id("tenant").org_id("organisation");
        builder.auth_endpoint(&format!("{}/authentication-retrieve", bearer.origin())).iam_endpoint(&bearer.origin())
    };
    let builders = [
        Client::builder(&basic.url()).basic("me", "hunter2secret"),
        Client::builder(&basic.url()).basic("me", "bad-secret"),
        Client::builder(nowhere).basic("me", "hunter2secret"),
        Client::builder(&v3).token("token-secret"),
        with_key(&v3, "key-secret"),
        with_key(&v3, "PHX-secret"),
        with_key(&v3, "bad-secret"),
        with_key(&v3, "key-secret").iam_endpoint("http://127.0.0.1:9"),
        Client::builder(&bearer.url()).api_key("bad-secret").auth_endpoint(&bearer.origin()),
        Client::builder(&bearer.url()).api_key("key-secret").auth_endpoint(&bearer.origin()),
    ];
    let upload = json!({"provider": "ibm", "endpoint": "e", "bucket": "b", "token": "cos-secret"});
    let spatial = json!({"type": "square", "coordinates": [0, 0, 1, 1]});
    let query = Query::builder().layer(92).spatial(spatial).field("upload", upload).build().expect("a query");
    let mut text = format!("{query:?}\n");
    let mut errors = 0;
    for builder in builders {
        let _ = writeln!(text, "{builder:?}");
        let hasty = RetryPolicy::attempts(2).backoff(Backoff::new(Duration::from_millis(1)));
        let client = builder.retry(hasty).build().expect("a client");
        let _ = writeln!(text, "{client:?} {client:#?}");
        let mut keep = |error: &(dyn std::error::Error + 'static)| {
            errors += 1;
            show(&mut text, error);
        };
        for _ in 0..3 {
            if let Err(error) = client.submit(&query) {
                keep(&error);
            }
            if let Err(error) = client.list(false, 1, 10) {
                keep(&error);
            }
            if let Err(error) = client.status("1234567890_12345678") {
                keep(&error);
            }
        }
        let folder = Folder::new();
        let interval = Duration::from_millis(10);
        let options = BatchOptions::new().status_interval_floor(interval).status_interval(interval).attempts(2);
        let backoff = Backoff::new(interval);
        let options = options.folder(folder.path()).runner_with(|runner| runner.executor(&executor).backoff(backoff));
        let _ = writeln!(text, "{options:?}");
        let report = batch_query(&client, [query.clone(), query.clone()], options).expect("sound");
        let _ = writeln!(text, "{report:?}");
        for failure in report.failures() {
            show(&mut text, failure.outcome.as_ref().expect_err("a failure"));
        }
    }
    assert!(errors > 20, "only {errors} errors were looked at");
    let logged = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    #[cfg(feature = "tracing")]
    assert!(logged.contains("batch ended"), "nothing was logged by us");
    text += &logged;
    for secret in SECRETS {
        assert!(!text.contains(secret), "`{secret}` is shown: {}", around(&text, secret));
    }
    // As a header has it: `me:hunter2secret` in base64.
    assert!(!text.contains("bWU6aHVudGVyMnNlY3JldA"));
}

fn around<'a>(text: &'a str, secret: &str) -> &'a str {
    let at = text.find(secret).unwrap_or(0);
    let floor = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    &text[floor(at.saturating_sub(200))..floor((at + 100).min(text.len()))]
}
