//! Logging in, and staying so while tokens expire.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fulmar::Executor;
use fulmar::client::http::{HttpError, HttpErrorKind};
use fulmar::client::openeo::{Connection, Oidc, OpenEoError, RefreshTokens};
use openeo_server::{Config, Server};
use serde_json::json;

use super::{Folder, impatient, server, sum};

fn open(config: Config) -> (Server, Connection) {
    let server = Server::start(config).expect("a server");
    let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
    (server, connection)
}

fn service() -> Oidc {
    Oidc::new().provider("local").client("service").secret("sec")
}

#[test]
fn without_credentials_the_back_end_refuses() {
    let (_server, connection) = open(Config::quick());
    assert_eq!(connection.list_jobs().expect_err("refused").code(), Some("AuthenticationRequired"));
}

#[test]
fn an_expired_login_is_renewed_once_and_the_request_repeated() {
    for expired_status in [401, 403] {
        let (server, connection) = server(Config { expired_status, ..Config::quick() });
        server.expire_tokens();
        connection.create_job(sum("after")).expect("renewed");
        assert_eq!((server.count("login"), server.count("expired"), server.jobs().len()), (2, 1, 1));
    }
}

#[test]
fn many_threads_that_meet_an_expired_token_renew_it_once() {
    let (server, connection) = open(Config::quick());
    connection.authenticate_oidc_client_credentials(&service()).expect("logged in");
    let executor = Executor::builder().threads(8).build().expect("an executor");
    let store = Arc::new(connection);
    let list = |connection: &Connection, ()| connection.list_jobs().map(|jobs| jobs.len());
    assert_eq!(server.count("token"), 1);
    server.expire_tokens();
    let requests: Vec<_> = (0..8).map(|_| executor.submit(&store, list, false, ()).expect("accepted")).collect();
    executor.wait_requests(&requests, None).expect("all renewed");
    assert_eq!(server.count("token"), 2, "one for all");
}

#[test]
fn client_credentials_are_renewed_before_they_expire() {
    let (server, connection) = open(Config { token_life: Duration::from_millis(50), ..Config::quick() });
    connection.authenticate_oidc_client_credentials(&service()).expect("logged in");
    // Until several tokens have come and gone.
    while server.count("token") < 4 {
        connection.list_jobs().expect("still welcome");
    }
    let bearer = format!("{:?}", server.seen().last().expect("a request").headers);
    assert!(bearer.contains("Bearer oidc/local/token-"), "{bearer}");
}

#[test]
fn a_password_gives_a_refresh_token_that_is_used_next() {
    let (server, connection) = open(Config::quick());
    let oidc = Oidc::new().client("app");
    connection.authenticate_oidc_password(&oidc, "ann", "ann123").expect("logged in");
    assert_eq!(connection.me().expect("known")["user_id"], "ann");
    for _ in 0..3 {
        server.expire_tokens();
        assert_eq!(connection.me().expect("refreshed")["user_id"], "ann");
    }
    let forms = server.seen().into_iter().filter(|seen| seen.target == "/oidc/token");
    let by_refresh = forms.filter(|seen| String::from_utf8_lossy(&seen.body).contains("grant_type=refresh_token"));
    assert_eq!(by_refresh.count(), 3, "each good for once");
}

#[test]
fn a_person_logs_in_by_device_and_is_remembered_when_asked() {
    let (server, connection) = open(Config { pending: 2, ..Config::quick() });
    let folder = Folder::new();
    let file = folder.path().join("refresh-tokens.json");
    let oidc = Oidc::new().remember(RefreshTokens::at(&file));
    let mut told = None;
    connection.authenticate_oidc_device(&oidc, |prompt| told = Some(prompt.clone())).expect("logged in");
    let prompt = told.expect("the person was told");
    assert_eq!(prompt.code, "ABCD-EFGH");
    assert!(prompt.to_string().contains("/oidc/go and enter user code ABCD-EFGH"), "{prompt}");
    assert_eq!(server.count("token"), 3, "twice pending");
    assert_eq!(connection.me().expect("known")["user_id"], "person");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    }

    // Another day: nobody is asked.
    let again = Connection::connect_with(&server.url(), impatient()).expect("connected");
    again.authenticate_oidc_device(&oidc, |_| panic!("nobody is to be asked")).expect("remembered");
    assert_eq!(again.me().expect("known")["user_id"], "person");
    server.expire_tokens();
    assert_eq!(again.me().expect("refreshed")["user_id"], "person");

    // A token that is good no more: asked again.
    let text = std::fs::read_to_string(&file).expect("readable");
    let spoilt =
        text.replace("refresh-", "spoilt-").replace("spoilt-tokens", "refresh-tokens").replace("spoilt-token", "x");
    std::fs::write(&file, spoilt.replace("\"refresh_token\": \"spoilt", "\"refresh_token\": \"no")).expect("written");
    let mut asked = false;
    let third = Connection::connect_with(&server.url(), impatient()).expect("connected");
    third.authenticate_oidc_device(&oidc, |_| asked = true).expect("logged in");
    assert!(asked, "the refused token led to the device flow");
}

#[test]
fn the_device_flow_goes_on_when_told_to_slow_down_or_when_the_connection_breaks() {
    let (server, connection) = open(Config { device_says: vec!["slow_down"], ..Config::quick() });
    connection.authenticate_oidc_device(&Oidc::new(), |_| {}).expect("logged in, 5 s later each time");
    assert_eq!(server.count("token"), 3, "told to slow down, then that it is pending");

    let (server, connection) = open(Config::quick());
    server.plan("token", openeo_server::Fault::Cut, 1);
    server.plan("token", openeo_server::Fault::Status(503), 1);
    connection.authenticate_oidc_device(&Oidc::new(), |_| {}).expect("logged in");
    assert_eq!(server.count("token"), 4);
}

#[test]
fn the_device_flow_ends_when_the_code_has_expired_or_the_person_refuses() {
    for (said, expected) in [("expired_token", "before the code expired"), ("access_denied", "refused")] {
        let (server, connection) = open(Config { device_says: vec!["authorization_pending", said], ..Config::quick() });
        let error = connection.authenticate_oidc_device(&Oidc::new(), |_| {}).expect_err(said);
        assert!(matches!(error, OpenEoError::Authentication { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error} {error:?}").contains("device-code"), "{error:?}");
        assert_eq!(server.count("token"), 2, "nobody asks on");
    }
}

#[test]
fn a_remembered_token_that_is_refused_leaves_the_password() {
    let (server, connection) = open(Config::quick());
    let folder = Folder::new();
    let (file, copy) = (folder.path().join("refresh-tokens.json"), folder.path().join("copy.json"));
    let oidc = Oidc::new().client("app");
    connection
        .authenticate_oidc_password(&oidc.clone().remember(RefreshTokens::at(&file)), "ann", "ann123")
        .expect("logged in");
    // Somebody else has used up what this login was told, and keeps to himself what he got for it.
    std::fs::copy(file, &copy).expect("copied");
    let other = Connection::connect_with(&server.url(), impatient()).expect("connected");
    other.authenticate_oidc_refresh_token(&oidc.remember(RefreshTokens::at(copy)), None).expect("logged in");
    server.expire_tokens();
    assert_eq!(connection.me().expect("by the password")["user_id"], "ann");
}

#[test]
fn those_who_share_a_file_of_tokens_find_what_the_others_got() {
    let (server, first) = open(Config::quick());
    let folder = Folder::new();
    let oidc = Oidc::new().client("app").remember(RefreshTokens::at(folder.path().join("refresh-tokens.json")));
    first.authenticate_oidc_password(&oidc, "ann", "ann123").expect("logged in");
    let connections: Vec<Connection> = (0..4)
        .map(|_| {
            let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
            connection.authenticate_oidc_refresh_token(&oidc, None).expect("logged in");
            connection
        })
        .collect();
    // Every renewal uses up the token that the others have seen last.
    for _ in 0..3 {
        server.expire_tokens();
        for connection in &connections {
            assert_eq!(connection.me().expect("by what is in the file")["user_id"], "ann");
        }
    }
    let before = server.count("token");
    server.expire_tokens();
    std::thread::scope(|scope| {
        for connection in &connections {
            scope.spawn(|| connection.me().expect("one after the other"));
        }
    });
    assert_eq!(server.count("token") - before, 4, "nobody was refused");
}

#[test]
fn a_token_that_is_used_up_while_it_is_on_its_way_leaves_the_new_one_in_the_file() {
    let (server, connection) = open(Config::quick());
    let folder = Folder::new();
    let (file, copy) = (folder.path().join("refresh-tokens.json"), folder.path().join("copy.json"));
    let oidc = |file: PathBuf| Oidc::new().client("app").remember(RefreshTokens::at(file));
    connection.authenticate_oidc_password(&oidc(file.clone()), "ann", "ann123").expect("logged in");
    std::fs::copy(&file, &copy).expect("copied");
    let first = Connection::connect_with(&server.url(), impatient()).expect("connected");
    server.plan("token", openeo_server::Fault::Hang, 1);
    std::thread::scope(|scope| {
        let login = scope.spawn(|| first.authenticate_oidc_refresh_token(&oidc(file.clone()), None));
        assert!(server.await_hung(1));
        // Another client, which knows of no lock, is faster, and writes what it got.
        connection.authenticate_oidc_refresh_token(&oidc(copy.clone()), None).expect("logged in");
        std::fs::rename(&copy, &file).expect("written");
        server.release();
        login.join().expect("no panic").expect("by the new one");
    });
    assert_eq!(first.me().expect("known")["user_id"], "ann");
}

#[test]
fn a_life_of_nothing_or_less_is_none() {
    for life in [-1.0, 0.0] {
        let (server, connection) = open(Config { claimed_life: Some(life), ..Config::quick() });
        connection.authenticate_oidc_client_credentials(&service()).expect("logged in");
        for _ in 0..3 {
            connection.list_jobs().expect("welcome");
        }
        assert_eq!(server.count("token"), 1, "expires_in {life}: used until it is refused");
    }
}

#[test]
fn those_who_keep_tokens_in_one_file_at_once_lose_none() {
    let (server, _) = open(Config::quick());
    let folder = Folder::new();
    let file = folder.path().join("refresh-tokens.json");
    let clients: Vec<String> = (0..12).map(|number| format!("client-{number}")).collect();
    let oidc = |client: &str| Oidc::new().client(client).remember(RefreshTokens::at(&file));
    std::thread::scope(|scope| {
        for client in &clients {
            let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
            let oidc = oidc(client);
            scope.spawn(move || {
                for _ in 0..5 {
                    connection.authenticate_oidc_password(&oidc, "ann", "ann123").expect("logged in");
                }
            });
        }
    });
    for client in &clients {
        let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
        connection
            .authenticate_oidc_refresh_token(&oidc(client), None)
            .unwrap_or_else(|error| panic!("{client}: {error}"));
    }
    #[cfg(unix)]
    for name in folder.names() {
        use std::os::unix::fs::PermissionsExt;
        let mode = folder.path().join(&name).metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} is for its owner");
    }
}

#[test]
#[cfg(unix)]
fn a_file_of_tokens_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (_server, connection) = open(Config::quick());
    let folder = Folder::new();
    let file = folder.path().join("refresh-tokens.json");
    std::fs::write(&file, "{}").expect("written");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("opened to all");
    let oidc = Oidc::new().remember(RefreshTokens::at(&file));
    let error = connection.authenticate_oidc_refresh_token(&oidc, None).expect_err("refused");
    assert!(matches!(&error, OpenEoError::Invalid(text) if text.contains("chmod 600")), "{error:?}");
}

#[test]
fn what_a_provider_refuses_is_told_without_secrets() {
    let (_server, connection) = open(Config::quick());
    let wrong = Oidc::new().client("service").secret("hush-hush");
    let error = connection.authenticate_oidc_client_credentials(&wrong).expect_err("wrong secret");
    assert!(matches!(error, OpenEoError::Authentication { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hush-hush"), "{error:?}");
    assert!(error.to_string().ends_with("local: it refused (invalid_client)"), "{error}");
    let source = std::error::Error::source(&error).expect("the request").to_string();
    assert!(
        source.contains("/oidc/token") && !error.to_string().contains("/oidc/token"),
        "told once: {error}: {source}"
    );
    let unknown = connection.authenticate_oidc_client_credentials(&service().provider("egi")).expect_err("no such");
    assert!(matches!(&unknown, OpenEoError::Invalid(text) if text.contains("\"egi\", but: local")), "{unknown:?}");
}

#[test]
fn a_token_from_elsewhere_is_used_as_it_is() {
    let (server, connection) = open(Config::quick());
    connection.authenticate_oidc_access_token(&Oidc::new(), "abc").expect("taken");
    let error = connection.me().expect_err("unknown token");
    assert_eq!(error.http().map(HttpError::kind), Some(HttpErrorKind::Unauthorized), "{error:?}");
    let seen = server.seen();
    let bearer = seen.iter().rev().find(|seen| seen.target.ends_with("/me")).expect("asked");
    assert!(bearer.headers.contains(&("authorization".to_owned(), "Bearer oidc/local/abc".to_owned())));
    assert!(matches!(connection.authenticate_bearer("two words"), Err(OpenEoError::Invalid(_))));
}

#[test]
fn a_renewal_that_breaks_passes_and_the_download_goes_on() {
    let (server, connection) = server(Config::quick());
    let job = super::finished(&connection, "renewal");
    let folder = Folder::new();
    let results = job.results();
    results.metadata().expect("known");
    server.expire_tokens();
    server.plan("login", openeo_server::Fault::Cut, 2);
    results.download_files(folder.path(), &fulmar::client::openeo::DownloadOptions::new()).expect("downloaded");
    assert_eq!(folder.names(), ["job-results.json", "openEO.tif", "out.csv"]);
}

/// What the form of the last request to a path of the issuer had.
fn form(server: &Server, path: &str, name: &str) -> Option<String> {
    server.seen().iter().rev().find(|seen| seen.target == format!("/oidc/{path}")).and_then(|seen| seen.form(name))
}

#[test]
fn scopes_are_those_that_the_provider_has_and_offline_access_only_where_it_has_it() {
    for (supported, asked) in [
        (json!(["openid", "email", "offline_access"]), "openid email offline_access"),
        (json!(["openid", "profile"]), "openid"),
        // It doesn't say.
        (json!(null), "openid email"),
    ] {
        let (server, connection) = open(Config::quick());
        server.rewrite("issuer", move |request, document| {
            if request.target.ends_with("openid-configuration") {
                document["scopes_supported"] = supported.clone();
            }
        });
        connection.authenticate_oidc_device(&Oidc::new(), |_| {}).expect("logged in");
        assert_eq!(form(&server, "device", "scope").as_deref(), Some(asked));
        let own = Oidc::new().scopes(["groups"]);
        connection.authenticate_oidc_device(&own, |_| {}).expect("logged in");
        let scope = form(&server, "device", "scope").expect("a scope");
        assert!(scope.starts_with("openid groups"), "what the user names is asked for: {scope}");
    }
}

#[test]
fn parameters_that_the_back_end_wants_go_along() {
    let (server, connection) = open(Config::quick());
    server.rewrite("providers", |_, document| {
        document["providers"][0]["authorization_parameters"] =
            json!({"audience": "openeo", "max_age": 60, "client_id": "not this", "odd": [1]});
    });
    connection.authenticate_oidc_device(&Oidc::new(), |_| {}).expect("logged in");
    let sent = |path, name| form(&server, path, name);
    assert_eq!(sent("device", "audience").as_deref(), Some("openeo"));
    assert_eq!(sent("device", "max_age").as_deref(), Some("60"));
    assert_eq!(sent("device", "client_id").as_deref(), Some("default-client"));
    assert_eq!(sent("device", "odd"), None);
    connection.authenticate_oidc_client_credentials(&service()).expect("logged in");
    assert_eq!(sent("token", "audience").as_deref(), Some("openeo"));
}

#[test]
fn a_jwt_goes_without_a_prefix_where_the_back_end_takes_it() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJsb2NhbCJ9.c2lnbmF0dXJl";
    for (class, token, sent) in [
        ("https://api.openeo.org/1.3.0/authentication/jwt", jwt, format!("Bearer {jwt}")),
        ("https://api.openeo.org/1.3.0/authentication/jwt", "opaque", "Bearer oidc/local/opaque".to_owned()),
        ("https://api.openeo.org/1.3.0", jwt, format!("Bearer oidc/local/{jwt}")),
    ] {
        let server = Server::start(Config::quick()).expect("a server");
        server.rewrite("capabilities", move |_, document| document["conformsTo"] = json!([class]));
        let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
        connection.authenticate_oidc_access_token(&Oidc::new().provider("local"), token).expect("taken as it is");
        let error = connection.me().expect_err("the test's back-end doesn't know it");
        assert_eq!(error.http().map(HttpError::kind), Some(HttpErrorKind::Unauthorized), "{error:?}");
        let seen = server.seen();
        assert_eq!(seen.last().and_then(|seen| seen.header("authorization")), Some(sent.as_str()));
    }
}

#[test]
fn the_first_provider_that_can_be_used_without_more_is_used() {
    let (server, connection) = open(Config::quick());
    server.rewrite("providers", |_, document| {
        let google = json!({"id": "google", "issuer": "https://accounts.google.com", "scopes": ["openid"]});
        document["providers"].as_array_mut().expect("providers").insert(0, google);
    });
    connection.authenticate_oidc_device(&Oidc::new(), |_| {}).expect("by the one that has a client for it");
    connection.me().expect("known");
}

#[test]
fn a_back_end_without_providers_says_so() {
    for none in [json!({"providers": []}), json!({"providers": null}), json!({})] {
        let (server, connection) = open(Config::quick());
        server.rewrite("providers", move |_, document| *document = none.clone());
        let error = connection.authenticate_oidc_device(&Oidc::new(), |_| {}).expect_err("none");
        assert!(matches!(&error, OpenEoError::Invalid(text) if text.contains("no identity provider")), "{error:?}");
    }
}
