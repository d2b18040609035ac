//! Results: whole files, safe names, links that expire, and no credentials for strangers.

use std::time::Duration;

use fulmar::backoff::Backoff;
use fulmar::batch::BatchRunner;
use fulmar::client::http::{Existing, HttpError, HttpErrorKind};
use fulmar::client::openeo::{Connection, DownloadOptions, JobResults, JobStatus, OpenEoError};
use openeo_server::{Config, Fault, Request, Server};
use serde_json::{Value, json};

use super::{Folder, finished, server, soon, sum};

fn with_assets(assets: &[(&str, &str, usize)]) -> Config {
    let assets = assets.iter().map(|(key, kind, size)| ((*key).to_owned(), (*kind).to_owned(), *size)).collect();
    Config { assets, ..Config::quick() }
}

/// Of the kind `Asset`, for this reason.
fn assert_asset(error: &OpenEoError, why: &str) {
    assert!(matches!(error, OpenEoError::Asset { reason, .. } if reason.contains(why)), "{why}: {error:?}");
}

#[test]
fn all_assets_arrive_with_the_metadata_beside_them() {
    let (server, connection) = server(Config::quick());
    let job = finished(&connection, "all");
    let folder = Folder::new();
    let results = job.results();
    let files = results.download_files(folder.path().join("a/b"), &DownloadOptions::new()).expect("downloaded");
    assert_eq!(super::names_in(&folder.path().join("a/b")), ["job-results.json", "openEO.tif", "out.csv"]);
    for (file, key) in files.iter().zip(["openEO.tif", "out.csv"]) {
        assert_eq!(std::fs::read(file).ok(), server.asset(job.id(), key), "{key}");
    }
    let text = std::fs::read_to_string(folder.path().join("a/b/job-results.json")).expect("readable");
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(&metadata, results.metadata().expect("known").as_ref());
    assert!(results.to_string().contains("openEO.tif  image/tiff"), "{results}");
    assert_eq!(server.count("results"), 1, "asked for once");
}

#[test]
fn a_single_file_is_refused_when_there_are_several() {
    let (server, connection) = server(Config::quick());
    let job = finished(&connection, "several");
    let folder = Folder::new();
    let target = folder.path().join("result.tiff");
    let error = job.results().download_file(&target, None).expect_err("several");
    assert_asset(&error, "openEO.tif, out.csv");
    let error = job.results().download_file(&target, "x.tif").expect_err("no such");
    assert_asset(&error, "there is no asset \"x.tif\"");
    assert_eq!(job.results().download_file(&target, "openEO.tif").expect("named"), target);
    assert_eq!(std::fs::read(&target).ok(), server.asset(job.id(), "openEO.tif"));
    let into_folder = job.results().download_file(folder.path(), "out.csv").expect("into a folder");
    assert_eq!(into_folder, folder.path().join("out.csv"));
}

#[test]
fn assets_can_be_had_one_by_one_and_in_memory() {
    let (server, connection) =
        server(with_assets(&[("data.json", "application/json", 40), ("res.tiff", "image/tiff", 5_000)]));
    let job = finished(&connection, "each");
    let folder = Folder::new();
    for asset in job.results().assets().expect("assets") {
        if asset.media_type().is_some_and(|kind| kind.starts_with("image/tiff")) {
            asset.download(folder.path().join(format!("result-v2-{}", asset.key()))).expect("downloaded");
        }
    }
    assert_eq!(folder.names(), ["result-v2-res.tiff"]);
    let asset = job.results().asset("data.json").expect("there");
    assert_eq!(asset.load_json().expect("JSON")["job"], job.id());
    assert_eq!(Some(asset.load_bytes().expect("bytes")), server.asset(job.id(), "data.json"));
    let error = job.results().asset("res.tiff").expect("there").load_json().expect_err("a picture");
    assert_asset(&error, "isn't JSON");
}

#[test]
fn an_asset_with_a_path_for_a_name_stays_in_its_folder() {
    let (server, connection) = server(with_assets(&[("../../etc/x", "image/tiff", 100), ("/abs", "text/csv", 50)]));
    let job = finished(&connection, "hostile");
    let folder = Folder::new();
    let inner = folder.path().join("one/two");
    job.results().download_files(&inner, &DownloadOptions::new()).expect("downloaded");
    assert_eq!(super::names_in(&inner), ["abs.csv", "etc_x.tif", "job-results.json"]);
    assert_eq!(folder.names(), ["one"]);
    assert_eq!(std::fs::read(inner.join("etc_x.tif")).ok(), server.asset(job.id(), "../../etc/x"));
}

#[test]
fn a_cut_download_goes_on_where_it_was() {
    let (server, connection) = server(with_assets(&[("big.tif", "image/tiff", 300_000)]));
    let job = finished(&connection, "cut");
    let folder = Folder::new();
    server.plan("asset", Fault::CutAt(200_000), 1);
    job.results().download_files(folder.path(), &DownloadOptions::new()).expect("downloaded");
    assert_eq!(std::fs::read(folder.path().join("big.tif")).ok(), server.asset(job.id(), "big.tif"));
    assert_eq!((server.count("asset"), server.count("range")), (2, 1));
    assert_eq!(folder.names(), ["big.tif", "job-results.json"]);
}

#[test]
fn a_server_that_answers_a_range_with_the_whole_does_no_harm() {
    let config = Config { lies_about_ranges: true, ..with_assets(&[("big.tif", "image/tiff", 300_000)]) };
    let (server, connection) = server(config);
    let job = finished(&connection, "lie");
    let folder = Folder::new();
    server.plan("asset", Fault::CutAt(200_000), 2);
    job.results().download_files(folder.path(), &DownloadOptions::new()).expect("downloaded");
    assert_eq!(std::fs::read(folder.path().join("big.tif")).ok(), server.asset(job.id(), "big.tif"));
}

#[test]
fn another_checksum_is_not_taken() {
    let (server, connection) = server(with_assets(&[("a.tif", "image/tiff", 4_000)]));
    let job = finished(&connection, "other");
    let folder = Folder::new();
    server.plan("asset", Fault::Damaged, 9);
    let error = job.results().download_file(folder.path().join("a.tif"), None).expect_err("another checksum");
    assert_eq!(error.http().map(HttpError::kind), Some(HttpErrorKind::Content), "{error:?}");
    assert!(error.to_string().contains("checksum"), "{error}");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    let error = job.results().asset("a.tif").expect("there").load_bytes().expect_err("another checksum");
    assert_asset(&error, "another checksum");
}

#[test]
fn another_checksum_harms_no_file_that_was_there_whatever_its_kind() {
    let config = Config { other_checksum: Some("sha512"), ..with_assets(&[("a.tif", "image/tiff", 4_000)]) };
    let (server, connection) = server(config);
    let job = finished(&connection, "sha512");
    let (folder, target) = (Folder::new(), Folder::new());
    let (asset, file) = (job.results().asset("a.tif").expect("there"), target.path().join("a.tif"));
    std::fs::write(&file, "of yesterday").expect("written");
    server.plan("asset", Fault::Damaged, 1);
    let error = asset.download(&file).expect_err("another checksum");
    assert_eq!(error.http().map(HttpError::kind), Some(HttpErrorKind::Content), "{error:?}");
    assert_eq!(std::fs::read(&file).expect("still there"), b"of yesterday");
    server.plan("asset", Fault::Damaged, 1);
    assert_asset(&asset.load_bytes().expect_err("another checksum"), "another checksum");

    let keep = DownloadOptions::new().existing(Existing::Keep);
    job.results().download_files(folder.path(), &keep).expect("downloaded");
    let file = folder.path().join("a.tif");
    std::fs::write(&file, vec![7; 4_000]).expect("spoilt, with the same size");
    job.results().download_files(folder.path(), &keep).expect("replaced");
    assert_eq!(std::fs::read(&file).ok(), server.asset(job.id(), "a.tif"));
}

#[test]
fn a_checksum_of_an_unknown_kind_is_noted_and_no_failure() {
    for unknown in ["d50110000102030405060708090a0b0c0d0e0f", "md5:nonsense"] {
        let (_server, connection) = server(Config { other_checksum: Some(unknown), ..Config::quick() });
        let folder = Folder::new();
        let poll = Duration::from_millis(20);
        let options = fulmar::client::openeo::RunOptions::new().poll(poll, poll).download_to(folder.path());
        let back_end = fulmar::client::openeo::BackEnd::new(&connection);
        let report = fulmar::client::openeo::run_jobs([back_end], [sum("odd")], &options).expect("run");
        assert!(report.is_success(), "{report}");
        let notes = &report.jobs[0].notes;
        assert!(notes.iter().any(|note| note.contains("\"openEO.tif\"") && note.contains("checksum")), "{notes:?}");
    }
}

#[test]
fn expired_links_are_fetched_anew_and_strangers_get_no_credentials() {
    let (server, connection) = server(Config {
        signed: true,
        ..with_assets(&[("a.tif", "image/tiff", 4_000), ("b.tif", "image/tiff", 4_000)])
    });
    let job = finished(&connection, "signed");
    let folder = Folder::new();
    let results = job.results();
    results.metadata().expect("known");
    server.expire_links();
    results.download_files(folder.path(), &DownloadOptions::new()).expect("with new links");
    for key in ["a.tif", "b.tif"] {
        assert_eq!(std::fs::read(folder.path().join(key)).ok(), server.asset(job.id(), key), "{key}");
    }
    assert!(server.count("expired link") >= 1);
    assert_eq!(server.count("leaked credentials"), 0);

    let asset = results.asset("a.tif").expect("there");
    server.expire_links();
    assert_eq!(Some(asset.load_bytes().expect("with a new link")), server.asset(job.id(), "a.tif"));
}

#[test]
fn a_redirect_to_a_neighbour_on_the_same_host_gets_no_credentials() {
    let (server, connection) = server(Config { checksums: false, ..with_assets(&[("a.txt", "text/plain", 14)]) });
    let job = finished(&connection, "neighbour");
    server.plan("asset", Fault::Redirect(302), 1);
    assert_eq!(job.results().asset("a.txt").expect("there").load_bytes().expect("had"), b"of a neighbour");
    assert_eq!(server.count("leaked credentials"), 0);
}

#[test]
fn a_back_end_that_says_410_is_asked_for_the_results_again() {
    let (server, connection) = server(Config::quick());
    let job = finished(&connection, "gone");
    let folder = Folder::new();
    server.plan("asset", Fault::Expired, 1);
    job.results().download_file(folder.path(), "openEO.tif").expect("again");
    assert_eq!((server.count("results"), server.count("asset")), (2, 2));
}

#[test]
fn a_token_that_expires_within_a_download_is_renewed() {
    let (server, connection) = server(with_assets(&[("big.tif", "image/tiff", 300_000)]));
    let job = finished(&connection, "token");
    let folder = Folder::new();
    server.plan("asset", Fault::CutThenExpire(200_000), 1);
    job.results().download_files(folder.path(), &DownloadOptions::new()).expect("downloaded");
    assert_eq!(std::fs::read(folder.path().join("big.tif")).ok(), server.asset(job.id(), "big.tif"));
    assert_eq!((server.count("expired"), server.count("range")), (1, 1), "refused, renewed, gone on with");
}

#[test]
fn a_folder_is_completed_when_asked_to() {
    let (server, connection) = server(Config::quick());
    let job = finished(&connection, "keep");
    let folder = Folder::new();
    let options = DownloadOptions::new().existing(Existing::Keep);
    job.results().download_files(folder.path(), &options).expect("downloaded");
    std::fs::write(folder.path().join("out.csv"), "damaged").expect("written");
    job.results().download_files(folder.path(), &options).expect("completed");
    assert_eq!(server.count("asset"), 3, "one of two was good");
    assert_eq!(std::fs::read(folder.path().join("out.csv")).ok(), server.asset(job.id(), "out.csv"));
}

#[test]
fn an_asset_larger_than_allowed_is_not_taken_whatever_the_metadata_say() {
    let (server, connection) = server(Config::quick());
    let job = finished(&connection, "large");
    let folder = Folder::new();
    for verify in [true, false] {
        let options = DownloadOptions::new().max_bytes(1_000).verify(verify);
        let error = job.results().download_files(folder.path(), &options).expect_err("4,104 bytes");
        let OpenEoError::Downloads { failed, source, .. } = &error else { panic!("{error:?}") };
        assert_eq!((failed.len(), failed[0].0.as_str()), (1, "openEO.tif"));
        assert_eq!(source.http().map(HttpError::kind), Some(HttpErrorKind::TooLarge));
        assert_eq!(folder.names(), ["job-results.json", "out.csv"]);
    }
    assert_eq!(server.count("asset"), 4, "nothing is tried again");
    job.results().download_files(folder.path(), &DownloadOptions::new().max_bytes(4_104)).expect("allowed");
}

#[test]
fn the_metadata_come_last_and_are_treated_as_any_other_file() {
    let (server, connection) = server(Config::quick());
    let job = finished(&connection, "metadata");
    let folder = Folder::new();
    let metadata = folder.path().join("job-results.json");
    // Of somebody else who writes at this moment, or of long ago.
    std::fs::create_dir(folder.path().join("job-results.json.new")).expect("made");
    let download = |existing| job.results().download_files(folder.path(), &DownloadOptions::new().existing(existing));
    server.plan("asset", Fault::Hang, 1);
    std::thread::scope(|scope| {
        let downloads = scope.spawn(|| download(Existing::Replace));
        assert!(server.await_hung(1));
        assert!(!metadata.exists(), "before the assets");
        server.release();
        downloads.join().expect("no panic").expect("downloaded");
    });
    assert_eq!(folder.names(), ["job-results.json", "job-results.json.new", "openEO.tif", "out.csv"]);

    std::fs::write(&metadata, "mine").expect("written");
    download(Existing::Keep).expect("completed");
    assert_eq!(std::fs::read_to_string(&metadata).expect("there"), "mine");
    for asset in ["openEO.tif", "out.csv"] {
        std::fs::remove_file(folder.path().join(asset)).expect("removed");
    }
    let error = download(Existing::Refuse).expect_err("there already");
    assert!(matches!(&error, OpenEoError::File { path, .. } if path.ends_with("job-results.json")), "{error:?}");
    assert_eq!(std::fs::read_to_string(&metadata).expect("there"), "mine");
    assert_eq!(server.count("asset"), 2, "before anything is fetched");
    download(Existing::Replace).expect("replaced");
    assert_ne!(std::fs::read_to_string(&metadata).expect("there"), "mine");
}

#[test]
fn what_fails_is_named_and_the_others_are_there() {
    let (server, connection) = server(Config::quick());
    let job = finished(&connection, "half");
    let folder = Folder::new();
    server.plan("asset", Fault::NotFound, 1);
    let runner = fulmar::batch::BatchRunner::builder().window(1);
    let error =
        job.results().download_files(folder.path(), &DownloadOptions::new().run_on(runner)).expect_err("one failed");
    let OpenEoError::Downloads { failed, total, .. } = &error else { panic!("{error:?}") };
    assert_eq!((failed.len(), failed[0].0.as_str(), *total), (1, "openEO.tif", 2));
    assert_eq!(folder.names(), ["job-results.json", "out.csv"]);
}

#[test]
fn results_before_the_end_are_refused() {
    let (_server, connection) = server(Config { queue: Duration::from_secs(3_600), ..Config::quick() });
    let job = connection.create_job(sum("early")).expect("created");
    assert_eq!(job.results().metadata().expect_err("early").code(), Some("JobNotFinished"));
}

/// Downloads that are tried twice, without a long wait.
fn options() -> DownloadOptions {
    let backoff = Backoff::new(Duration::from_millis(5));
    DownloadOptions::new().run_on(BatchRunner::builder().attempts(2).backoff(backoff))
}

/// A job that has finished, whose results a test has changed.
fn changed(change: impl Fn(&Request, &mut Value) + Send + Sync + 'static) -> (Server, Connection, JobResults) {
    let (server, connection) = server(Config::quick());
    server.rewrite("results", change);
    let results = finished(&connection, "changed").results();
    (server, connection, results)
}

#[test]
fn an_asset_that_can_not_be_had_leaves_its_siblings() {
    for (href, why) in [(json!("s3://bucket/x.tif"), "s3://"), (Value::Null, "no link"), (json!(7), "no link")] {
        let (_server, _, results) = changed(move |_, doc| doc["assets"]["a bad one"] = json!({"href": href}));
        let folder = Folder::new();
        let error = results.download_files(folder.path(), &options()).expect_err("one is missing");
        let OpenEoError::Downloads { total, failed, .. } = &error else { panic!("{error:?}") };
        assert!(
            *total == 3 && failed.len() == 1 && failed[0].0 == "a bad one" && failed[0].1.contains(why),
            "{failed:?}"
        );
        assert_eq!(folder.names(), ["job-results.json", "openEO.tif", "out.csv"]);
        let error = results.asset("a bad one").expect("it is there").load_bytes().expect_err("no link");
        assert!(matches!(&error, OpenEoError::Asset { reason, .. } if reason.contains(why)), "{error}");
        assert!(results.asset("out.csv").expect("a sibling").load_bytes().is_ok());
    }
}

#[test]
fn an_alternate_link_is_followed_where_the_first_is_none() {
    let (_server, _, results) = changed(|_, doc| {
        let href = doc["assets"]["out.csv"]["href"].take();
        doc["assets"]["out.csv"]["href"] = json!("s3://bucket/out.csv");
        doc["assets"]["out.csv"]["alternate"] = json!({"local": {"href": "file:///x"}, "https": {"href": href}});
    });
    assert_eq!(results.asset("out.csv").expect("an asset").load_bytes().expect("by the alternate").len(), 48);
}

/// Moves each asset into an item of its own, under one key.
fn into_items(request: &Request, doc: &mut Value) {
    let item = request.query("item").and_then(|item| item.parse::<usize>().ok());
    let assets: Vec<Value> = doc["assets"].as_object().expect("assets").values().cloned().collect();
    match item {
        Some(item) => *doc = json!({"type": "Feature", "id": format!("i{item}"), "assets": {"openEO": assets[item]}}),
        None => {
            doc["assets"] = json!({"preview": {"href": "preview.png", "roles": ["thumbnail"]}});
            let links = (0..assets.len()).map(|item| json!({"rel": "item", "href": format!("results?item={item}")}));
            doc["links"] = links.collect();
        }
    }
}

#[test]
fn files_that_stand_in_items_alone_are_had() {
    let (server, connection, results) = changed(into_items);
    server.rewrite("results", |request, doc| {
        if request.query("item").is_none() {
            doc["assets"] = json!({});
        }
    });
    let folder = Folder::new();
    let files = results.download_files(folder.path(), &options()).expect("from the items");
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(folder.names(), ["i1_openEO.csv", "job-results.json", "openEO.tif"]);
    let keys: Vec<String> = results.assets().expect("assets").iter().map(|asset| asset.key().to_owned()).collect();
    assert_eq!(keys, ["openEO", "i1/openEO"]);
    // In a batch, too.
    let run = super::many::run_one(&connection, folder.path());
    assert_eq!(run.expect("done").files.len(), 2);
}

#[test]
fn an_item_that_can_not_be_had_is_named_beside_the_others() {
    let (server, connection, results) = changed(into_items);
    server.rewrite("results", |request, doc| {
        if request.query("item").is_none() {
            doc["assets"] = json!({});
            doc["links"][1]["href"] = json!("../nowhere");
        }
    });
    let folder = Folder::new();
    let error = results.download_files(folder.path(), &options()).expect_err("one is missing");
    assert!(matches!(&error, OpenEoError::Downloads { total: 2, failed, .. } if failed.len() == 1), "{error:?}");
    assert_eq!(folder.names(), ["job-results.json", "openEO.tif"]);
    assert!(results.gaps().expect("known")[0].contains("nowhere"));
    let report = super::many::run_one(&connection, folder.path()).expect_err("one is missing");
    assert!(matches!(&report, OpenEoError::Downloads { total: 2, failed, .. } if failed.len() == 1), "{report:?}");
}

#[test]
fn results_of_a_job_that_has_not_finished_say_so() {
    let (_server, connection, results) = changed(|_, doc| doc["openeo:status"] = json!("running"));
    let folder = Folder::new();
    let error = results.download_files(folder.path(), &options()).expect_err("partial");
    let OpenEoError::PartialResults { status: JobStatus::Running, files, .. } = &error else { panic!("{error:?}") };
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| file.is_file()));
    assert!(results.gaps().expect("known")[0].contains("running"));
    let partial = results.job().partial_results().download_files(folder.path(), &options());
    assert_eq!(partial.expect("as it was asked for").len(), 2);
    let error = super::many::run_one(&connection, folder.path()).expect_err("partial");
    assert!(matches!(error, OpenEoError::PartialResults { .. }), "{error:?}");
}

#[test]
fn a_job_that_failed_without_logs_has_failed_all_the_same() {
    let (server, connection) = server(Config::quick());
    server.plan("logs", Fault::Status(504), usize::MAX);
    let job = connection.create_job(sum("to fail")).expect("created");
    let error = job.start_and_wait(soon()).expect_err("it fails");
    let OpenEoError::JobFailed { status: JobStatus::Error, logs, .. } = &error else { panic!("{error:?}") };
    assert!(logs.gap().is_some_and(|gap| gap.contains("504")), "{logs}");
}
