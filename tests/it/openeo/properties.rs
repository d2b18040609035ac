//! What strangers send, changed at random: nothing panics, nothing hangs, nothing lands outside of its folder, and what is read is
//! no more than what was sent.

use std::sync::Mutex;
use std::time::Duration;

use fulmar::backoff::Backoff;
use fulmar::batch::BatchRunner;
use fulmar::client::http::{HttpClient, RetryPolicy, Timeouts};
use fulmar::client::openeo::{Connection, DownloadOptions, OpenEoError};
use openeo_server::{Config, Server};
use serde_json::{Value, json};

use super::{Folder, finished, sum};

const SEED: u64 = 20_261_126;
const CASES: u64 = 500;

/// SplitMix64. (Steele, Lea, Flood, 2014)
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A value that a stranger may put anywhere.
    fn odd(&mut self) -> Value {
        let long = "é".repeat(300);
        let texts = [
            "",
            "../../../etc/passwd",
            "/etc/passwd",
            "C:\\x",
            "s3://b/k",
            "http://",
            "http://[::1",
            "file:///etc/passwd",
            "\u{1b}[2J\u{202e}",
            "\u{0}",
            "NaN",
            "?page=0",
            "//127.0.0.1:1/x",
            "http://127.0.0.1:1/",
            "job-results.json",
            "con",
            &long,
            "#",
            "finished",
            "next",
            "item",
            "-1",
            "1e999",
        ];
        match self.below(9) {
            0 => Value::Null,
            1 => json!(self.next()),
            2 => json!(-1.5e300),
            3 => json!([[], {}, null, "x"]),
            4 => (0..60).fold(json!({"href": "x"}), |inner, _| json!([inner])),
            5 => json!({"": {"href": null}, "../x": {"href": "x"}, "a\u{0}": 7}),
            6 => json!(self.below(2) == 0),
            _ => json!(texts[self.below(texts.len())]),
        }
    }

    /// Changes some places of a document: other values, other keys, things twice, things gone.
    fn change(&mut self, document: &mut Value) {
        match document {
            Value::Object(object) => {
                let keys: Vec<String> = object.keys().cloned().collect();
                for key in keys {
                    match self.below(24) {
                        0 => drop(object.remove(&key)),
                        1 => drop(object.insert(key, self.odd())),
                        2 => {
                            let value = object.remove(&key).unwrap_or_default();
                            let key = self.odd().as_str().unwrap_or("renamed").to_owned();
                            object.insert(key, value);
                        }
                        _ => object.get_mut(&key).into_iter().for_each(|inner| self.change(inner)),
                    }
                }
            }
            Value::Array(items) => {
                // What is new stays as it is, or there would be no end.
                items.iter_mut().for_each(|item| self.change(item));
                if self.below(12) == 0 {
                    items.push(self.odd());
                }
                if let Some(first) = items.first().cloned().filter(|_| self.below(12) == 0) {
                    items.push(first);
                }
            }
            other if self.below(12) == 0 => *other = self.odd(),
            _ => {}
        }
    }
}

fn seed() -> u64 {
    std::env::var("FULMAR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// A back-end, each reply of which to these calls is changed at random.
fn changing(kinds: &[&'static str], seed: u64) -> (Server, Connection, String) {
    let server = Server::start(Config { page: Some(2), ..Config::quick() }).expect("a server");
    let timeouts = Timeouts { total: Some(Duration::from_secs(20)), ..Timeouts::default() };
    let client = HttpClient::builder().timeouts(timeouts).retry(RetryPolicy::never());
    let connection = Connection::connect_with(&server.url(), client).expect("connected");
    connection.authenticate_basic("u", "u123").expect("logged in");
    let job = finished(&connection, "with logs").id().to_owned();
    for number in 0..4 {
        connection.create_job(sum(&format!("job {number}"))).expect("created");
    }
    for (number, kind) in (0..).zip(kinds.iter().copied()) {
        let random = Mutex::new(Random(seed + number));
        server.rewrite(kind, move |_, reply| random.lock().expect("no panic").change(reply));
    }
    (server, connection, job)
}

#[test]
fn lists_and_logs_of_strangers_are_read_as_far_as_they_go() {
    let seed = seed();
    let (server, connection, job) = changing(&["list", "logs", "describe"], seed);
    let sent = server.jobs().len();
    for case in 0..CASES {
        let about = || format!("case {case}, FULMAR_SEED={seed}");
        if let Ok(list) = connection.list_jobs() {
            assert!(list.is_complete() == list.gap().is_none() && list.len() <= 2 * sent + 20, "{}: {list}", about());
            assert!(!list.to_string().contains(['\u{1b}', '\u{202e}', '\0']), "{}", about());
        }
        if let Ok(logs) = connection.job(&job).logs(None, None) {
            assert_eq!(logs.iter().count(), logs.to_json().as_array().map_or(0, Vec::len), "{}", about());
            assert!(!logs.to_string().contains(['\u{1b}', '\u{202e}', '\0']), "{}", about());
        }
        if let Ok(description) = connection.job(&job).describe() {
            assert!(!description.to_string().contains(['\u{1b}', '\u{202e}', '\0']), "{}", about());
        }
    }
}

#[test]
fn results_of_strangers_stay_in_their_folder_and_leave_what_can_be_had() {
    let seed = seed();
    let (server, connection, job) = changing(&["results"], seed);
    let backoff = Backoff::new(Duration::from_millis(1));
    let options = DownloadOptions::new().run_on(BatchRunner::builder().attempts(1).backoff(backoff));
    let mut whole = 0;
    for case in 0..CASES {
        let about = || format!("case {case}, FULMAR_SEED={seed}");
        let outer = Folder::new();
        let inner = outer.path().join("inner");
        let results = connection.job(&job).results();
        let outcome = results.download_files(&inner, &options);
        let outside: Vec<String> = outer.names().into_iter().filter(|name| name != "inner").collect();
        assert!(outside.is_empty(), "{outside:?} is outside; {}", about());
        let assets = results.assets().unwrap_or_default();
        match outcome {
            Ok(files) => {
                assert_eq!(files.len(), assets.len(), "{}", about());
                whole += 1;
            }
            Err(OpenEoError::Downloads { total, failed, .. }) => assert!(failed.len() <= total, "{}", about()),
            Err(OpenEoError::PartialResults { files, .. }) => {
                assert!(files.iter().all(|file| file.is_file()), "{}", about())
            }
            Err(OpenEoError::Reply(_) | OpenEoError::Http(_) | OpenEoError::Api(_)) => {}
            Err(error) => panic!("{error:?}; {}", about()),
        }
        // What has a sound link of this server, and what its metadata say, is there whole.
        for asset in
            assets.iter().filter(|asset| asset.href().starts_with(&format!("{}/jobs/{job}/results/", server.root())))
        {
            let key = asset.href().rsplit('/').next().unwrap_or_default();
            let file = std::fs::read(inner.join(asset.file_name()));
            if let Ok(bytes) = file {
                assert_eq!(Some(bytes), server.asset(&job, key), "{key}; {}", about());
            }
        }
    }
    assert!(whole > 0, "nothing ever came through; FULMAR_SEED={seed}");
}

#[test]
fn a_back_end_that_says_anything_is_connected_to_or_refused() {
    let seed = seed();
    let server = Server::start(Config::quick()).expect("a server");
    for (number, kind) in (0..).zip(["versions", "capabilities", "providers", "issuer"]) {
        let random = Mutex::new(Random(seed + 10 + number));
        server.rewrite(kind, move |_, reply| random.lock().expect("no panic").change(reply));
    }
    let timeouts = Timeouts { total: Some(Duration::from_secs(20)), ..Timeouts::default() };
    let mut connected = 0;
    for _ in 0..CASES {
        let client = HttpClient::builder().timeouts(timeouts).retry(RetryPolicy::never());
        let Ok(connection) = Connection::connect_with(&server.url(), client) else { continue };
        connected += 1;
        assert!(!format!("{connection:?}").contains('\u{1b}'));
        let service = fulmar::client::openeo::Oidc::new().client("service").secret("sec");
        let _ = connection.authenticate_oidc_client_credentials(&service);
        assert!(connection.root_url().starts_with("http://"), "{}", connection.root_url());
    }
    assert!(connected > 0, "never; FULMAR_SEED={seed}");
}
