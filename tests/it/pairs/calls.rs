//! Every call of the client, and what a batch's options mean.

use std::sync::Arc;
use std::time::Duration;

use fulmar::client::http::{HttpErrorKind, RateLimit};
use fulmar::client::pairs::{BatchOptions, Client, Layer, PairsError, Phase, Query, Submission, batch_query};
use fulmar::{Error, Executor, Store};
use pairs_server::{Config, Faults};
use serde_json::{Value, json};

use super::{Folder, client, options, point, quick, server, square, told};
use crate::support::eventually;

fn job(submission: Submission) -> String {
    match submission {
        Submission::Job(id) => id,
        other => panic!("not a job: {other:?}"),
    }
}

fn until_done(client: &Client, id: &str) {
    eventually("the query is done", || client.status(id).expect("a status").code.phase() != Phase::Running);
}

#[test]
fn a_query_is_submitted_watched_and_downloaded_to_the_names_of_the_python_client() {
    let (server, folder) = (server(quick()), Folder::new());
    let client = client(&server);
    let id = job(client.submit(&square("a")).expect("accepted"));
    until_done(&client, &id);
    let status = client.status(&id).expect("a status");
    assert_eq!((status.nickname.as_deref(), status.ready, status.progress), (Some("a"), true, Some(1.0)));

    let files = client.download(&id, folder.path()).expect("downloaded");
    let archive = server.archive(&id).expect("an archive");
    assert_eq!(files.bytes, archive.len() as u64);
    assert_eq!(folder.files()[&format!("{id}.zip")], archive);
    let base = "Daily US weather (PRISM)-Daily Maximum Temperature-10_31_2018T12_00_00";
    let names: Vec<String> = folder.files().into_keys().collect();
    let expected =
        [format!("{base}.tiff"), format!("{base}.tiff.json"), "data_acknowledgement.txt".into(), "output.info".into()];
    let expected = expected.map(|name| format!("{id}/{name}"));
    for name in &expected {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    assert_eq!(names.len(), 5, "{names:?}");

    // Once more, over what is there.
    assert_eq!(client.download(&id, folder.path()).expect("downloaded").files.len(), 4);
    assert_eq!(folder.files().len(), 5);
}

#[test]
fn points_come_at_once_as_json_or_csv() {
    let server = server(quick());
    let client = client(&server);
    let Submission::Points(json) = client.submit(&point("p")).expect("answered") else { panic!("points") };
    let Submission::Points(csv) = client.submit_compact_csv(&point("p")).expect("answered") else { panic!("points") };
    assert!(csv.as_csv().is_some_and(|text| text.starts_with("layerId,")) && csv.length_known());
    assert_eq!(json.values().expect("values")[0].value, csv.values().expect("values")[0].value);
    let query = Query::builder().layer(92).points(&[(1.0, 2.0)]).output_type("csv").build().expect("a query");
    assert!(matches!(client.submit(&query), Ok(Submission::Points(points)) if points.as_csv().is_some()));
    assert_eq!(server.jobs().len(), 0);
}

#[test]
fn a_dry_run_creates_nothing() {
    let server = server(quick());
    let estimate = client(&server).dry_run(&square("a")).expect("an estimate");
    assert_eq!((estimate.usage, estimate.usage_unit.as_deref()), (Some(12_345.0), Some("bytes")));
    assert_eq!(server.jobs().len(), 0);
}

#[test]
fn history_list_and_favourites_are_those_of_the_server() {
    let server = server(quick());
    let client = client(&server);
    let ids: Vec<String> = ["a", "b", "c"].map(|name| job(client.submit(&square(name)).expect("accepted"))).into();
    let history = client.history(&ids[1]).expect("a history");
    assert_eq!(history.query.expect("a query"), square("b"));

    let page = client.list(false, 1, 2).expect("a list");
    assert_eq!(page.jobs.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), [&ids[2], &ids[1]]);
    assert_eq!(page.pages, 2);

    client.favorite(&ids[0], true).expect("a favourite");
    assert_eq!(client.list(true, 1, 10).expect("a list").jobs[0].id, ids[0]);
    client.favorite(&ids[0], false).expect("no favourite");
    assert!(client.list(true, 1, 10).expect("a list").jobs.is_empty());
}

#[test]
fn queries_for_one_box_are_merged_and_a_refusal_says_why() {
    let server = server(quick());
    let client = client(&server);
    let elsewhere = Query::builder().layer(92).square(0.0, 0.0, 1.0, 1.0).build().expect("a query");
    let ids = [square("a"), square("b"), elsewhere].map(|query| job(client.submit(&query).expect("accepted")));
    ids.iter().for_each(|id| until_done(&client, id));
    let layers = client.merge(&ids[0], &ids[1]).expect("merged");
    assert_eq!((layers.len(), layers[0].kind.as_deref()), (2, Some("raster")));
    for (other, status, why) in
        [(ids[2].as_str(), 412, "different boxes"), ("1234567890_00000000", 404, "doesn't exist")]
    {
        let error = client.merge(&ids[0], other).expect_err("refused");
        let PairsError::Merge { reason, source, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains(why) && source.kind() == HttpErrorKind::Status(status), "{error:?}");
    }
}

#[test]
fn an_error_tells_what_the_server_said() {
    let server = server(quick());
    let client = client(&server);
    let error = client.status("1234567890_00000000").expect_err("no such query");
    let PairsError::Http(http) = &error else { panic!("{error}") };
    assert_eq!(http.kind(), HttpErrorKind::Status(404));
    assert!(error.to_string().contains("404 Not Found."), "{error}");
    let error = client.submit(&Query::builder().layer(Layer::new(1)).spatial(json!({})).build().expect("a query"));
    let Err(PairsError::Http(http)) = error else { panic!("{error:?}") };
    assert_eq!(
        (http.kind(), http.message()),
        (HttpErrorKind::Status(400), "Error: 400 Bad Request. layers and spatial are required.")
    );
}

#[test]
fn an_id_that_climbs_reaches_neither_a_url_nor_a_path() {
    let (server, folder) = (server(Config { record: true, ..quick() }), Folder::new());
    let client = client(&server);
    for id in ["../secrets", "a/b", "", "a?b", "%2e%2e"] {
        assert!(matches!(client.status(id), Err(PairsError::Invalid(_))), "{id}");
        assert!(matches!(client.download(id, folder.path()), Err(PairsError::Invalid(_))), "{id}");
        assert!(matches!(client.history(id), Err(PairsError::Invalid(_))), "{id}");
        assert!(matches!(client.favorite(id, true), Err(PairsError::Invalid(_))), "{id}");
        assert!(matches!(client.merge("1", id), Err(PairsError::Invalid(_))), "{id}");
    }
    let id = job(client.submit(&square("a")).expect("accepted"));
    until_done(&client, &id);
    assert!(matches!(client.download_as(&id, folder.path(), "../x"), Err(PairsError::Invalid(_))));
    assert!(server.seen().iter().all(|seen| !seen.target.contains("..") && !seen.target.contains("secrets")));
}

#[test]
fn a_batch_has_areas_points_and_points_too_many_each_in_its_files() {
    let (server, folder) = (server(quick()), Folder::new());
    let csv = Query::builder().layer(92).points(&[(1.0, 2.0)]).output_type("csv").batch(true).name("as csv").build();
    let vectors = Query::builder().layer(92).square(0.0, 0.0, 1.0, 1.0).output_type("csv").build();
    let named = Query::builder().layer(92).square(0.0, 0.0, 1.0, 1.0).download_file_name("mine").build();
    let queries = [
        square("area"),
        point("few/points"),
        point("bulk"),
        csv.expect("a query"),
        vectors.expect("a query"),
        named.expect("a query"),
    ];
    let report = batch_query(&client(&server), queries, options(&folder)).expect("sound options");
    assert!(report.is_success(), "{}", told(&report));
    let results: Vec<_> = report.jobs.iter().map(|job| job.outcome.as_ref().expect("a result")).collect();
    let id = |at: usize| results[at].id.clone().expect("an id");
    let files = folder.files();
    assert!(files.contains_key(&format!("{}.zip", id(0))) && files.contains_key(&format!("{}/output.info", id(0))));
    let list: Value = serde_json::from_slice(&files["few_points.json"]).expect("JSON");
    assert_eq!(list[0]["layer_id"], 92);
    assert!(results[1].data.is_some() && results[1].id.is_none());
    assert!(files.contains_key(&format!("{}.json", id(2))), "points that became a job go by its id");
    assert_eq!(results[2].data.as_ref().expect("in memory, too").values().expect("values").len(), 1);
    assert!(files[&format!("{}.csv", id(3))].starts_with(b"layerId,"));
    assert!(files.contains_key(&format!("{}/Vector_Data_Output.csv", id(4))));
    assert!(files.contains_key("mine.zip") && files.contains_key("mine/output.info"));
    assert!(files.keys().all(|name| !name.ends_with(".part") && !name.ends_with(".download")), "{:?}", files.keys());
}

#[test]
fn submit_status_and_download_each_mean_what_they_say() {
    let (server, folder) = (server(quick()), Folder::new());
    let client = client(&server);
    // Only submitted: nobody asks how it is.
    let report = batch_query(&client, [square("a"), square("b")], options(&folder).status(false).download(false))
        .expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    assert_eq!((server.count("submit"), server.count("status"), server.count("download")), (2, 0, 0));
    let ids: Vec<String> = report.jobs.into_iter().filter_map(|job| job.outcome.ok()?.id).collect();

    // Only watched: nothing is submitted again.
    let known = || ids.iter().map(|id| square("known").with_id(id).expect("an id"));
    let report = batch_query(&client, known(), options(&folder).submit(false).download(false)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    let first = report.jobs[0].outcome.as_ref().expect("a result");
    assert_eq!(first.status.as_ref().map(|status| status.code.code()), Some(20));
    assert_eq!((server.count("submit"), server.count("download")), (2, 0));
    assert!(folder.files().is_empty());

    // Downloaded, and only that: it waits for the end by itself.
    let report = batch_query(&client, known(), options(&folder).submit(false).status(false)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    assert_eq!((server.count("submit"), server.count("download")), (2, 2));
    assert_eq!(folder.files().len(), 10);

    // Without an id there is nothing to watch.
    let report = batch_query(&client, [square("c")], options(&folder).submit(false)).expect("sound");
    assert!(told(&report).contains("has no id"), "{}", told(&report));
}

#[test]
fn files_without_a_place_are_known_before_anything_is_submitted() {
    let (server, folder) = (server(quick()), Folder::new());
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").expect("written");
    let climbing = Query::builder().layer(1).square(0.0, 0.0, 1.0, 1.0).download_file_name("../x").build();
    let blocked = Query::builder().layer(1).square(0.0, 0.0, 1.0, 1.0).download_folder(file.join("x")).build();
    let queries = [climbing.expect("a query"), blocked.expect("a query")];
    let report = batch_query(&client(&server), queries, options(&folder)).expect("sound");
    let reasons: Vec<_> =
        report.failures().map(|job| job.outcome.as_ref().expect_err("failed").error::<PairsError>()).collect();
    assert!(matches!(reasons[..], [Some(PairsError::Invalid(_)), Some(PairsError::File { .. })]), "{}", told(&report));
    assert_eq!(server.jobs().len(), 0);
}

#[test]
fn a_rate_limit_of_ones_own_spares_the_server() {
    let faults = Faults { rate_limit: 110, ..Faults::default() };
    let (server, folder) = (server(Config { faults, ..quick() }), Folder::new());
    let limit = RateLimit::per_second(100.0).max_concurrent(4);
    let client = Client::builder(&server.url()).rate_limit(limit).build().expect("a client");
    let queries = (0..30).map(|n| square(&n.to_string()));
    let report = batch_query(&client, queries, options(&folder).workers(30)).expect("sound");
    assert!(report.is_success(), "{}", told(&report));
    assert_eq!((server.count("fault 429"), report.stats.retries), (0, 0), "waiting for one's turn isn't an attempt");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let (server, folder) = (server(quick()), Folder::new());
    let run = |options: BatchOptions| batch_query(&client(&server), [square("a")], options).map(drop);
    let too_often = BatchOptions::new().status_interval(Duration::from_secs(14));
    assert!(matches!(run(too_often), Err(Error::Invalid(text)) if text.contains("15s")));
    let nothing = options(&folder).submit(false).status(false).download(false);
    assert!(matches!(run(nothing), Err(Error::Invalid(text)) if text.contains("nothing to do")));
    assert!(matches!(run(options(&folder).workers(0)), Err(Error::Invalid(text)) if text.contains("window")));
    assert!(matches!(run(options(&folder).attempts(0)), Err(Error::Invalid(text)) if text.contains("attempt")));
}

#[test]
fn every_final_status_ends_a_query_and_one_that_nobody_knows_as_well() {
    let (server, folder) = (server(quick()), Folder::new());
    let codes = [21, 30, 31, 40, 41, 42, 43, 77, -1];
    let queries = codes.map(|code| square(&format!("sim:code={code}")));
    let report = batch_query(&client(&server), queries, options(&folder)).expect("sound");
    for (job, code) in report.jobs.iter().zip(codes) {
        let failure = job.outcome.as_ref().expect_err("failed");
        let Some(PairsError::Failed { id, code: ended, message, .. }) = failure.error() else { panic!("{failure:?}") };
        assert_eq!((Some(id), ended.code()), (job.id.as_ref(), code));
        assert!(code < 40 || message.starts_with("simulated"), "{message}");
    }
    assert!(folder.files().is_empty());
    assert_eq!(server.count("download"), 0);
}

#[test]
fn a_client_is_a_store() {
    let server = server(quick());
    let client = Arc::new(client(&server));
    let executor = Executor::builder().threads(2).build().expect("an executor");
    let call = |op: &'static str, args: Value| {
        executor.submit(&client, op, false, args).expect("accepted").wait(crate::support::HANG)
    };
    let id = call("submit", square("a").to_submit()).expect("accepted")["id"].clone();
    eventually("the query is done", || call("status", json!({"id": id})).expect("a status")["status_code"] == 20);
    let folder = Folder::new();
    let files = call("download", json!({"id": id, "folder": folder.path()})).expect("downloaded");
    assert_eq!(files["files"].as_array().map(Vec::len), Some(4));
    assert_eq!(call("list", json!({})).expect("a list")[0]["id"], id);
    assert_eq!(call("history", json!({"id": id})).expect("a history")["name"], "a");
    assert_eq!(call("favorite", json!({"id": id})).expect("a favourite"), Value::Null);
    assert_eq!(call("list", json!({"favorites": true})).expect("a list")[0]["flag"], true);
    assert_eq!(call("dry_run", square("a").to_submit()).expect("an estimate")["count"], 2);
    assert_eq!(call("submit", point("p").to_submit()).expect("points")["data"][0]["layer_id"], 92);
    assert_eq!(call("merge", json!({"id": id, "other": id})).expect("layers").as_array().map(Vec::len), Some(2));
    assert!(client.call("fly", json!({})).expect_err("no such operation").to_string().contains("`fly`"));
    assert!(client.call("status", json!({})).expect_err("no id").to_string().contains("`id`"));
}

#[test]
fn one_result_that_is_not_ready_holds_up_no_other() {
    let faults = Faults { not_ready: 2, ..Faults::default() };
    let (server, folder) = (server(Config { faults, ..quick() }), Folder::new());
    let queries = (0..20).map(|n| square(&format!("sim:n={n};notready={}", if n == 0 { 1_000 } else { 0 })));
    let report = batch_query(&client(&server), queries, options(&folder).attempts(4)).expect("sound");
    assert_eq!((report.stats.succeeded, report.stats.failed), (19, 1), "{}", told(&report));
    assert!(told(&report).contains("not packaged yet"), "{}", told(&report));
}

#[test]
fn an_id_that_is_there_several_times_is_downloaded_in_turn() {
    let (server, folder) = (server(quick()), Folder::new());
    let client = client(&server);
    let id = job(client.submit(&square("a")).expect("accepted"));
    for round in 0..5 {
        let known = (0..8).map(|_| square("a").with_id(&id).expect("an id"));
        let report = batch_query(&client, known, options(&folder).submit(false)).expect("sound");
        assert!(report.is_success(), "round {round}: {}", told(&report));
        assert_eq!(folder.files().len(), 5, "{:?}", folder.files().keys());
    }
}
