//! Processes with parameters, of users and of the back-end; what the back-end has; and the rest of
//! its API.

use fulmar::client::http::{HttpErrorKind, Method};
use fulmar::client::openeo::{
    BoundingBox, JobChange, NewProcess, OpenEoError, Parameter, Period, ProcessGraph, parameters_from_csv,
};
use openeo_server::{Config, Fault};
use serde_json::{Value, json};

use super::scripted::{Server, reply};
use super::{Folder, server, sum};

/// `x + 2 * y`.
fn weighted() -> NewProcess {
    let (x, y) = (Parameter::number("x1"), Parameter::number("y1").default_value(json!(10)));
    let graph = ProcessGraph::start("multiply", json!({"x": y.here(), "y": 2}));
    let graph = graph.process("add", json!({"x": x.here(), "y": {"from_node": "multiply1"}}));
    NewProcess::new(graph).parameter(x).parameter(y).summary("Weighted sum").description("Of two.")
}

/// A server that isn't the API, with these documents.
fn elsewhere(documents: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static) -> Server {
    Server::start(move |seen, stream| match documents(&seen.target) {
        Some(document) => reply(stream, 200, &[("Content-Type", "application/json")], document.as_bytes()),
        None => reply(stream, 404, &[], b"nothing here"),
    })
}

#[test]
fn a_process_is_stored_listed_described_called_and_deleted() {
    let (server, connection) = server(Config::quick());
    connection.save_user_defined_process("weighted", &weighted()).expect("stored");
    let list = connection.list_user_defined_processes().expect("a list");
    assert_eq!((list.len(), list.is_complete()), (1, true));
    assert_eq!(list.to_string(), "id        parameters  summary\nweighted  x1, [y1]    Weighted sum");

    let stored = connection.describe_user_defined_process("weighted").expect("described");
    assert_eq!(stored.process_graph().expect("a graph"), &weighted().as_json()["process_graph"]);
    assert_eq!(stored.parameters(), [Parameter::number("x1"), Parameter::number("y1").default_value(json!(10))]);
    let text = stored.to_string();
    assert!(text.contains("parameter: y1 (optional)  y1") && text.contains("Weighted sum"), "{text}");

    let call = |arguments: Value| ProcessGraph::call("weighted", "user", arguments);
    let computed = |graph| connection.execute(graph, &Default::default()).expect("computed").json().expect("JSON");
    assert_eq!(computed(call(json!({"x1": 1}))), 21);
    assert_eq!(computed(call(json!({"x1": 1, "y1": 3.25}))), 7.5);

    connection.delete_user_defined_process("weighted").expect("deleted");
    for error in [
        connection.describe_user_defined_process("weighted").expect_err("gone"),
        connection.delete_user_defined_process("weighted").expect_err("gone"),
    ] {
        assert_eq!((error.code(), error.status()), (Some("ProcessGraphNotFound"), Some(404)));
    }
    assert_eq!(server.count("processes"), 6);
}

#[test]
fn a_process_that_was_deleted_although_the_reply_was_lost_is_deleted() {
    let (server, connection) = server(Config::quick());
    connection.save_user_defined_process("weighted", &weighted()).expect("stored");
    server.plan("processes", Fault::LostReply, 1);
    connection.delete_user_defined_process("weighted").expect("deleted");
    server.plan("processes", Fault::LostReply, 1);
    connection.save_user_defined_process("weighted", &weighted()).expect("stored again: twice is as good as once");
}

#[test]
fn a_parameter_that_nobody_said_is_found_before_anything_is_sent() {
    let (server, connection) = server(Config::quick());
    let graph = ProcessGraph::start("add", json!({"x": {"from_parameter": "a"}, "y": {"from_parameter": "b"}}));
    let error = connection
        .save_user_defined_process("p", &NewProcess::new(graph).parameter(Parameter::number("a")))
        .expect_err("b wasn't said");
    assert!(matches!(&error, OpenEoError::Invalid(text) if text.contains("`b`")), "{error}");
    assert_eq!(server.count("processes"), 0);
}

#[test]
fn an_id_of_a_process_stays_below_its_path() {
    let (server, connection) = server(Config::quick());
    for id in ["../me", "a/b", "", "..", "a?b"] {
        let error = connection.save_user_defined_process(id, &weighted()).expect_err(id);
        assert!(matches!(error, OpenEoError::Api(_)), "{id}: {error:?}");
    }
    assert!(
        server.seen().iter().filter(|seen| seen.method == "PUT").all(|seen| seen.segments()[2] == "process_graphs")
    );
}

#[test]
fn a_graph_is_filled_for_each_row_tile_and_month() {
    let (server, connection) = server(Config::quick());
    let (area, month, n) =
        (Parameter::bounding_box("area"), Parameter::temporal_interval("month"), Parameter::integer("n"));
    let graph = ProcessGraph::load_collection("SENTINEL2_L2A").spatial_extent(&area).temporal_interval(&month);
    let graph = graph.process("add", json!({"x": {"from_node": "loadcollection1"}, "y": n.here()}));
    let rows = parameters_from_csv("n,comment\n1,x\n2,y\n".as_bytes(), &[n]).expect("rows");
    let mut count = 0;
    for tile in BoundingBox::new(3.0, 51.0, 4.0, 52.0).split_by_count(2, 1).expect("tiles") {
        for month in Period::new("2022-01-01", "2022-03-01").expect("a period").split_by_months(1).expect("months") {
            for row in &rows {
                let filled = graph.fill(row).expect("the row's");
                let filled = filled.fill(&json!({"area": tile.to_json(), "month": month.to_json()})).expect("the rest");
                assert!(filled.parameters().is_empty());
                connection.create_job(filled).expect("created");
                count += 1;
            }
        }
    }
    assert_eq!((count, server.jobs().len()), (8, 8));
    let last = connection.job("j-000008").describe().expect("described");
    let arguments = &last.process_graph().expect("a graph")["loadcollection1"]["arguments"];
    assert_eq!(arguments["spatial_extent"], json!({"west": 3.5, "south": 51.0, "east": 4.0, "north": 52.0}));
    assert_eq!(arguments["temporal_extent"], json!(["2022-02-01", "2022-03-01"]));
}

#[test]
fn what_a_back_end_has_is_listed_without_a_login_page_by_page() {
    let (server, _) = server(Config { page: Some(2), ..Config::quick() });
    let connection = fulmar::client::openeo::Connection::connect(&server.url()).expect("connected");
    let collections = connection.list_collections().expect("a list");
    assert_eq!((collections.len(), collections.is_complete()), (4, true));
    assert_eq!(
        collections.to_string(),
        "id                      from        to  license      title\n\
         SENTINEL2_L2A           2015-07-06  ..  proprietary  Sentinel-2\n\
         SENTINEL1_GRD           2015-07-06  ..  proprietary\n\
         CORINE                  2015-07-06  ..  proprietary  Land cover\n\
         LANDSAT/LC08/C02/T1_L2  2015-07-06  ..  proprietary  Landsat"
    );
    let slashed = connection.describe_collection("LANDSAT/LC08/C02/T1_L2").expect("described");
    assert_eq!(slashed.id(), "LANDSAT/LC08/C02/T1_L2");
    assert!(connection.describe_collection("LANDSAT/../me").expect_err("no such").is_not_found());
    assert_eq!(collections.find("SENTINEL1_GRD").expect("listed").bands(), ["VV", "VH"]);
    let one = connection.describe_collection("SENTINEL2_L2A").expect("described");
    assert_eq!((one.bands(), one.extent()), (vec!["B04", "B08"], Some([-180.0, -56.0, 180.0, 83.0])));
    assert!(one.to_string().contains("bands             B04, B08"), "{one}");
    let error = connection.describe_collection("NONE").expect_err("there is none");
    assert_eq!((error.code(), error.is_not_found()), (Some("CollectionNotFound"), true));

    for processes in [connection.list_processes(None), connection.list_processes("backend")] {
        let processes = processes.expect("a list");
        assert_eq!(
            processes.iter().map(|process| process.id()).collect::<Vec<_>>(),
            ["add", "divide", "multiply", "subtract"]
        );
    }
    assert_eq!(connection.describe_process("add", None).expect("there").parameters()[1].name(), "y");
    assert!(
        matches!(connection.describe_process("none", None), Err(OpenEoError::Invalid(text)) if text.contains("`none`"))
    );
    assert!(connection.list_processes("no body").expect_err("no such namespace").is_not_found());

    let formats = connection.list_file_formats().expect("formats");
    assert_eq!(formats.output()[0].options(), ["tile_size"]);
    assert_eq!(formats.find_output("gtiff").map(|format| format.name()), Some("GTiff"));
    assert!(formats.find_input("gtiff").is_none() && formats.find_input("GEOJSON").is_some());
    assert_eq!(
        formats.to_string(),
        "format   for     data    options    title\nGeoJSON  input   vector\nGTiff    output  raster  tile_size  GeoTIFF"
    );
    let runtimes = connection.list_udf_runtimes().expect("runtimes");
    assert_eq!(runtimes.find("python").expect("there").libraries("3.11"), [("numpy", "1.26")]);
    assert!(runtimes.to_string().contains("Python   language  3.11 (default)  numpy 1.26"), "{runtimes}");
}

#[test]
fn a_process_that_a_url_describes_is_described_and_gets_no_credentials() {
    let (_server, connection) = server(Config::quick());
    let elsewhere = elsewhere(|target| match target {
        "/evi.json" => Some(r#"{"id":"evi","parameters":[{"name":"month"}],"process_graph":{}}"#),
        "/all.json" => Some(r#"{"processes":[{"id":"ndvi"},null,{"id":"evi"}],"links":[null]}"#),
        _ => None,
    });
    for url in ["/evi.json", "/all.json"] {
        let process = connection.describe_process("evi", elsewhere.url(url).as_str()).expect("described");
        assert_eq!(process.id(), "evi");
        let missing = connection.describe_process("nbr", elsewhere.url(url).as_str()).expect_err("another");
        assert!(matches!(&missing, OpenEoError::Invalid(text) if text.contains("`nbr`")), "{missing}");
    }
    let error = connection.describe_process("evi", elsewhere.url("/none").as_str()).expect_err("nothing there");
    assert_eq!(error.status(), Some(404));
    assert!(elsewhere.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn a_list_with_null_among_its_links_and_items_is_whole() {
    let server = elsewhere(|target| match target {
        "/" => Some(r#"{"api_version":"1.2.0","links":[null],"endpoints":[null]}"#),
        "/collections" => Some(r#"{"collections":[{"id":"a"},null,{"id":"b","extent":null}],"links":[null]}"#),
        _ => None,
    });
    let connection = fulmar::client::openeo::Connection::connect(&server.url("")).expect("connected");
    let list = connection.list_collections().expect("a list");
    assert_eq!((list.len(), list.is_complete(), list.find("b").map(|b| b.id())), (3, true, Some("b")));
}

#[test]
fn any_path_of_the_api_can_be_asked_and_none_outside() {
    let (server, connection) = server(Config::quick());
    let folder = Folder::new();
    let me: Value = connection.api(Method::Get, "/me").expect("a path").send().expect("answered").json().expect("JSON");
    assert_eq!(me["user_id"], "u");
    let job = connection.create_job(sum("t")).expect("created");
    let path = format!("/jobs/{}", job.id());
    let send = |method, body: Value| {
        connection.api(method, &path).expect("a path").json(&body).send().map_err(OpenEoError::from)
    };
    assert_eq!(send(Method::Patch, json!({"title": "other"})).expect("changed").status(), 204);
    assert_eq!(job.describe().expect("there").title(), Some("other"));
    assert_eq!(send(Method::Put, json!({})).expect_err("no such").code(), Some("FeatureUnsupported"));
    assert_eq!(send(Method::Delete, json!(null)).expect("deleted").status(), 204);
    let error = send(Method::Get, json!(null)).expect_err("gone");
    assert!(error.is_not_found() && error.code() == Some("JobNotFound"), "{error:?}");
    let file = fulmar::client::http::Download::new(folder.path(), "me.json");
    connection.api(Method::Get, "/me").expect("a path").download(&file).expect("downloaded");
    assert_eq!(folder.names(), ["me.json"]);

    let requests = server.count("total");
    for outside in ["me", "/../../secret", "http://127.0.0.1:1/me", "/jobs/../../../x", ""] {
        let error = connection.api(Method::Get, outside).expect_err(outside);
        assert!(
            matches!(&error, OpenEoError::Invalid(text) if text.contains("isn't a path of the API")),
            "{outside}: {error}"
        );
    }
    assert_eq!(server.count("total"), requests);
    server.plan("other", Fault::Status(502), 9);
    let error =
        connection.api(Method::Post, "/services").expect("a path").json(&json!({})).send().expect_err("refused");
    assert_eq!((error.kind(), error.attempts()), (HttpErrorKind::Status(502), 1), "what may be done twice isn't");
}

#[test]
fn a_job_is_changed_unless_it_runs() {
    let (server, connection) = server(Config { run: std::time::Duration::from_secs(3_600), ..Config::quick() });
    let job = connection.create_job(sum("t").budget(5.0)).expect("created");
    let graph = ProcessGraph::start("subtract", json!({"x": 3, "y": 5}));
    server.plan("patch", Fault::LostReply, 1);
    let change = JobChange::new().title("u").description("d").graph(&graph).budget(None);
    job.change(&change).expect("changed, whatever came of the first reply");
    let now = job.describe().expect("described");
    assert_eq!((now.title(), now.description(), now.as_json().get("budget")), (Some("u"), Some("d"), None));
    assert_eq!(now.process_graph(), Some(&json!(graph.as_json())));
    assert!(matches!(job.change(&JobChange::new().budget(f64::NAN)), Err(OpenEoError::Invalid(_))));

    job.start().expect("started");
    assert_eq!(job.change(&JobChange::new().title("v")).expect_err("it runs").code(), Some("JobLocked"));
    assert_eq!(server.count("patch"), 3);
}
