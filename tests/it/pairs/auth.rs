//! Four ways to say who one is, and tokens that expire.

use std::fs;
use std::time::Duration;

use fulmar::client::http::HttpErrorKind;
use fulmar::client::pairs::{Client, ClientBuilder, PairsError, batch_query};
use pairs_server::{Auth, Config, Faults, Server};

use super::{Folder, options, quick, server, square, told};

const PLAIN: &str = "http://127.0.0.1";

fn legacy(server: &Server, key: &str) -> ClientBuilder {
    Client::builder(&server.url()).api_key(key).auth_endpoint(&server.origin())
}

/// The API of v3, with its keys.
fn v3(server: &Server, key: &str) -> ClientBuilder {
    Client::builder(&format!("{}/geospatial/run/na/core/v3", server.origin()))
        .api_key(key)
        .tenant_id("geospatial-tenant")
        .org_id("organisation")
        .iam_endpoint(&server.origin())
        .auth_endpoint(&format!("{}/saascore/run/authentication-retrieve", server.origin()))
}

fn bearer(legacy: bool) -> Config {
    Config { auth: Auth::Bearer, legacy, require_client_id: !legacy, record: true, ..quick() }
}

#[test]
fn user_and_password_from_a_file_go_along_with_every_call() {
    let server = server(Config { auth: Auth::Basic, ..quick() });
    let folder = Folder::new();
    let file = folder.path().join("basic.txt");
    fs::write(&file, "# a comment\n127.0.0.1:me:with\\:colon\n127.0.0.1:you:bad\n").expect("written");
    let client = |user| Client::builder(&server.url()).password_file(user, &file).build();
    client("me").expect("a line").list(false, 1, 1).expect("welcome");
    let refused = client("you").expect("a line").list(false, 1, 1).expect_err("a bad password");
    let PairsError::Http(refused) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.kind(), HttpErrorKind::Status(401));
    assert!(client("nobody").expect_err("no line").to_string().contains("no line"));
}

#[test]
fn a_legacy_key_buys_a_token_and_the_refresh_token_the_next() {
    let server = server(bearer(true));
    let client = legacy(&server, "key").build().expect("a client");
    for _ in 0..3 {
        client.list(false, 1, 1).expect("welcome");
        server.expire_tokens();
    }
    assert_eq!((server.count("auth legacy"), server.count("auth refresh")), (1, 2));
    let error = legacy(&server, "bad").build().expect("a client").list(false, 1, 1).expect_err("a bad key");
    assert!(is_final(&error) && chain(&error).contains("invalid_grant"), "{}", chain(&error));
}

#[test]
fn an_iam_key_buys_a_token_that_buys_a_token() {
    let server = server(bearer(false));
    let client = v3(&server, "key").build().expect("a client");
    client.list(false, 1, 1).expect("welcome");
    server.expire_tokens();
    client.list(false, 1, 1).expect("welcome again");
    // One more, without a key: whether the host speaks plain http.
    assert_eq!((server.count("auth iam"), server.count("auth exchange")), (2, 1 + 2));
    for seen in server.seen().iter().filter(|seen| seen.target.contains("/queryjobs/")) {
        let id = seen.headers.iter().find(|(name, _)| name == "x-ibm-client-id");
        assert_eq!(id.map(|(_, value)| value.as_str()), Some("geospatial-tenant"));
    }
    let error = v3(&server, "bad").build().expect("a client").list(false, 1, 1).expect_err("a bad key");
    assert!(is_final(&error) && chain(&error).contains("BXNIM0415E"), "{}", chain(&error));
    let error = v3(&server, "key").org_id("bad").build().expect("a client").list(false, 1, 1).expect_err("nowhere");
    assert!(chain(&error).contains("Unable to retrieve organization"), "{}", chain(&error));
}

#[test]
fn a_key_of_environmental_intelligence_skips_iam() {
    let server = server(bearer(false));
    v3(&server, "PHX-key").build().expect("a client").list(false, 1, 1).expect("welcome");
    assert_eq!((server.count("auth iam"), server.count("auth exchange")), (0, 1 + 1));
}

#[test]
fn a_key_without_its_tenant_is_refused_before_anything_is_sent() {
    let base = || Client::builder(&format!("{PLAIN}/core/v3")).api_key("key");
    assert!(base().org_id("o").build().expect_err("no tenant").to_string().contains("`tenant_id`"));
    assert!(base().tenant_id("t").build().expect_err("no organisation").to_string().contains("`org_id`"));
}

#[test]
fn however_many_threads_meet_an_expired_token_one_renews_it() {
    for is_legacy in [true, false] {
        let server = server(bearer(is_legacy));
        let client = if is_legacy { legacy(&server, "key") } else { v3(&server, "key") }.build().expect("a client");
        client.list(false, 1, 1).expect("welcome");
        server.expire_tokens();
        let start = std::sync::Barrier::new(16);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    start.wait();
                    client.list(false, 1, 1).expect("renewed");
                });
            }
        });
        let renewals = server.count("auth refresh") + server.count("auth iam") - u64::from(!is_legacy);
        assert_eq!(renewals, 1, "legacy: {is_legacy}");
    }
}

#[test]
fn a_token_that_expires_in_the_middle_of_a_batch_is_renewed_downloads_included() {
    let faults = Faults { token_life: Some(Duration::from_millis(60)), ..Faults::default() };
    for is_legacy in [true, false] {
        let config = Config { run: Duration::from_millis(100), faults: faults.clone(), ..bearer(is_legacy) };
        let (server, folder) = (server(config), Folder::new());
        let client = if is_legacy { legacy(&server, "key") } else { v3(&server, "key") }.build().expect("a client");
        let report = batch_query(&client, (0..40).map(|n| square(&n.to_string())), options(&folder)).expect("sound");
        assert!(report.is_success(), "{}", told(&report));
        assert_eq!(folder.files().len(), 40 * 5);
        assert_eq!(server.jobs().len(), 40, "a refused submission isn't a submission");
    }
}

#[test]
fn a_token_host_that_is_out_for_a_moment_fails_no_query_and_a_bad_key_fails_each_at_once() {
    let faults = Faults { tokens_unavailable: 0.5, token_life: Some(Duration::from_millis(60)), ..Faults::default() };
    let server = server(Config { run: Duration::from_millis(100), faults, ..bearer(false) });
    let folder = Folder::new();
    for (name, key) in [("iam", "key"), ("environmental intelligence", "PHX-key")] {
        let client = v3(&server, key).build().expect("a client");
        let report =
            batch_query(&client, (0..20).map(|n| square(&format!("{name} {n}"))), options(&folder)).expect("sound");
        assert!(report.is_success(), "{}", told(&report));
    }
    assert!(server.count("fault tokens") > 0);

    let server = super::server(bearer(false));
    let client = v3(&server, "bad").build().expect("a client");
    let report = batch_query(&client, (0..20).map(|n| square(&n.to_string())), options(&folder)).expect("sound");
    assert_eq!((report.stats.failed, report.stats.retries), (20, 0), "{}", told(&report));
    assert!(told(&report).contains("BXNIM0415E"), "{}", told(&report));
    assert!(server.count("auth iam") <= 20);
}

/// Whether credentials were refused for good.
fn is_final(error: &PairsError) -> bool {
    matches!(error, PairsError::Credentials { is_retryable: false, .. })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}
