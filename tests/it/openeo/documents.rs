//! What real back-ends send: capabilities, jobs, logs and results in the shapes of the Copernicus
//! Data Space, of EODC and of the aggregator that stands before both. Written anew; nulls, odd
//! types and fields that no specification has are theirs.

use fulmar::client::openeo::{Connection, DownloadOptions, JobStatus, LogLevel};
use openeo_server::{Config, Server};
use serde_json::{Value, json};

use super::{Folder, connect, finished, impatient, server};

/// A back-end whose replies of a kind are this document.
fn sending(kind: &'static str, document: &'static str) -> (Server, Connection) {
    let server = Server::start(Config::quick()).expect("a server");
    let document: Value = serde_json::from_str(document).expect("JSON");
    server.rewrite(kind, move |_, reply| *reply = document.clone());
    let connection = connect(&server);
    (server, connection)
}

const CAPABILITIES_OF_THE_AGGREGATOR: &str = r#"{
  "api_version": "1.2.0", "backend_version": "0.54.1a1", "stac_version": "1.0.0", "type": "Catalog", "id": "cdse-openeo-federation",
  "title": "Copernicus Data Space Ecosystem openEO Aggregator", "production": true, "links": null,
  "description": "The [openEO API](https://openeo.org) of the federation.\n\n\n# Contributions\n* one\n* two",
  "conformsTo": ["https://api.openeo.org/1.2.0", "https://api.openeo.org/extensions/federation/0.1.0", null],
  "endpoints": [
    {"path": "/", "methods": ["GET"]}, {"path": "/credentials/basic", "methods": ["GET"]}, {"path": "/jobs", "methods": ["GET", "POST"]},
    {"path": "/jobs/{job_id}", "methods": ["DELETE", "GET", "PATCH"], "federation:backends": ["cdse", "vito"]},
    {"path": "/jobs/{job_id}/results", "methods": ["DELETE", "GET", "POST"]}, {"path": "/validation", "methods": null}, null
  ],
  "billing": {"currency": "credits", "default_plan": null, "plans": [{"name": "generic", "description": null, "url": null, "paid": true}]},
  "federation": {"cdse": {"url": "https://openeofed.dataspace.copernicus.eu/openeo/1.2/", "title": "CDSE", "status": "online",
                          "last_status_check": "2024-11-06T12:00:00Z"},
                 "vito": {"url": "https://openeo.vito.be/openeo/1.2/", "title": null, "status": "offline"}},
  "_backend_deploy_metadata": {"date": "2024-11-05T10:00:00Z", "versions": {"openeo_driver": "0.116.0", "requests": 2.31}}
}"#;

const CAPABILITIES_OF_EODC: &str = r#"{
  "api_version": "1.1.0", "backend_version": 2, "stac_version": "0.9.0", "id": "eodc-openeo", "title": " EODC\tOpenEO ", "description": "",
  "endpoints": [{"path": "/jobs/{uuid:job_id}/", "methods": ["GET"]}, {"path": "/jobs", "methods": ["GET", "POST"]}],
  "grantedScopes": [], "links": []
}"#;

#[test]
fn capabilities_are_read_whole() {
    let (_server, connection) = sending("capabilities", CAPABILITIES_OF_THE_AGGREGATOR);
    let capabilities = connection.capabilities();
    assert_eq!(capabilities.api_version(), (1, 2, 0));
    assert_eq!(capabilities.title(), Some("Copernicus Data Space Ecosystem openEO Aggregator"));
    assert!(capabilities.supports("PATCH", "/jobs/{id}") && capabilities.supports("POST", "/jobs/{id}/results"));
    assert!(!capabilities.supports("POST", "/validation") && !capabilities.supports("GET", "/services"));
    assert_eq!(capabilities.as_json()["federation"]["vito"]["status"], "offline");
    let (_server, connection) = sending("capabilities", CAPABILITIES_OF_EODC);
    assert_eq!(connection.capabilities().api_version(), (1, 1, 0));
    assert!(connection.capabilities().supports("POST", "/jobs"));
}

#[test]
fn the_version_document_of_a_back_end_of_many_years_is_read() {
    let server = Server::start(Config::quick()).expect("a server");
    let root = server.root();
    server.rewrite("versions", move |_, reply| {
        *reply = json!({"versions": [
            {"api_version": "0.4.2", "production": false, "url": "https://openeo.example/openeo/0.4/"},
            {"api_version": "1.0.0", "production": null, "url": null},
            {"api_version": "1.2.0", "production": true, "url": format!("{root}/"), "stac": "1.0.0"},
            {"api_version": "2.0.0-alpha", "production": false, "url": "https://openeo.example/openeo/2/"},
            {"api_version": null, "url": "https://openeo.example/openeo/next/"},
        ], "links": null});
    });
    let connection = Connection::connect_with(&server.url(), impatient()).expect("connected");
    assert_eq!(connection.root_url(), server.root());
}

const JOBS: &str = r#"{
  "jobs": [
    {"id": "cdse-j-24110613404049f4a0e4ffb5", "title": "NDVI Flanders", "description": null, "status": "finished", "progress": 100,
     "created": "2024-11-06T13:40:40Z", "updated": "2024-11-06T13:55:11Z", "plan": null, "costs": 4, "budget": null,
     "usage": {"cpu": {"value": 2113, "unit": "cpu-seconds"}, "memory": {"value": 5414304.5, "unit": "mb-seconds"},
               "input_pixel": {"value": null, "unit": "mega-pixel"}, "sentinelhub": null, "max_executor_memory": "1.9 gb"},
     "federation:backends": ["cdse"]},
    {"id": "vito-j-1", "title": null, "status": "error", "created": "2024-11-06T13:40:40.123456+00:00", "progress": "12%", "costs": "0.5"},
    {"id": 4711, "title": "numbered", "status": "FINISHED", "created": null, "progress": null, "costs": null, "usage": []},
    {"id": "b7a3-eodc", "title": "", "status": "Cancelled", "created": "2023-03-01 08:15:00", "progress": 33.333},
    {"id": "b7a4-eodc", "title": "preprocessing", "status": "preparing", "created": 1698400000, "links": null, "process": null},
    null
  ],
  "links": [], "federation:missing": []
}"#;

#[test]
fn jobs_are_read_whole() {
    let (_server, connection) = sending("list", JOBS);
    let list = connection.list_jobs().expect("read");
    assert!(list.is_complete(), "{list}");
    let jobs: Vec<_> = list.iter().collect();
    assert_eq!(jobs.len(), 6);
    let ids = ["cdse-j-24110613404049f4a0e4ffb5", "vito-j-1", "4711", "b7a3-eodc", "b7a4-eodc", ""];
    assert_eq!(jobs.iter().map(|job| job.id()).collect::<Vec<_>>(), ids);
    let statuses: Vec<JobStatus> = jobs.iter().map(|job| job.status()).collect();
    assert_eq!(statuses[..4], [JobStatus::Finished, JobStatus::Error, JobStatus::Finished, JobStatus::Canceled]);
    assert_eq!((statuses[4].as_str(), statuses[5].as_str()), ("preparing", "unknown"));
    let progress: Vec<_> = jobs.iter().map(|job| job.progress()).collect();
    assert_eq!(progress, [Some(100.0), Some(12.0), None, Some(33.333), None, None]);
    assert_eq!((jobs[0].costs(), jobs[1].costs(), jobs[2].costs()), (Some(4.0), Some(0.5), None));
    let table = list.to_string();
    assert_eq!(table.lines().count(), 7, "a heading, and each job: {table}");
    // The details of each print as well.
    for job in jobs {
        assert!(job.to_string().contains("status"), "{job}");
    }
}

const LOGS: &str = r#"{
  "level": "debug", "links": [{"rel": "next", "href": ""}],
  "logs": [
    {"id": "[1731, 12]", "level": "info", "message": "Starting batch job", "time": "2024-11-06T13:41:02.345Z", "data": null, "path": [], "usage": null},
    {"id": 7, "level": "WARN", "message": {"reason": "deprecated", "argument": "bands"}, "time": 1730900000.25},
    {"id": null, "level": null, "message": null, "code": "Internal"},
    {"level": "critical", "message": "OOM\u001b[0m\nkilled", "links": [{"rel": "about", "href": "https://x.example"}]},
    {"id": "", "level": "debug", "message": ["a", 1]},
    "a line that isn't an object"
  ]
}"#;

#[test]
fn logs_are_read_whole() {
    let (_server, connection) = sending("logs", LOGS);
    let logs = finished(&connection, "with logs").logs(None, None).expect("read");
    assert_eq!(logs.len(), 6, "{logs}");
    let levels: Vec<LogLevel> = logs.iter().map(|entry| entry.level()).collect();
    use LogLevel::{Debug, Error, Info, Warning};
    assert_eq!(levels, [Info, Warning, Error, Error, Debug, Error], "what has no level that is known hides nowhere");
    let said: Vec<&str> = logs.iter().map(|entry| entry.message()).collect();
    let object = r#"{"argument":"bands","reason":"deprecated"}"#;
    assert_eq!(said[..2], ["Starting batch job", object]);
    assert_eq!((said[2], said[4]), ("", r#"["a",1]"#));
    assert_eq!(logs.iter().map(|entry| entry.id()).collect::<Vec<_>>()[..3], ["[1731, 12]", "7", ""]);
    assert!(!logs.is_complete(), "a next page without an address");
    assert!(!logs.to_string().contains('\u{1b}'), "{logs}");
}

/// The results of a Data Space job: a collection whose assets have all that a driver of many
/// versions has put there.
fn results(root: &str, size: usize) -> Value {
    json!({
        "type": "Collection", "stac_version": "1.1.0", "id": "cdse-j-24110613404049f4a0e4ffb5", "title": null, "license": "proprietary",
        "description": "Results for batch job", "stac_extensions": ["https://stac-extensions.github.io/eo/v1.1.0/schema.json", null],
        "extent": {"spatial": {"bbox": [[2.5, 51.0, null, 51.1]]}, "temporal": {"interval": [["2022-06-01T00:00:00Z", null]]}},
        "summaries": {"instruments": []}, "providers": null, "openeo:status": "finished", "federation:backends": ["cdse"],
        "links": [
            {"rel": "item", "href": format!("{root}/nowhere"), "type": "application/geo+json"},
            {"rel": "derived_from", "href": "/eodata/Sentinel-2/MSI/L2A/2022", "title": null}, {"rel": "self"}, null,
        ],
        "assets": {
            "openEO_2022-06-01Z.tif": {
                "href": format!("{root}/openEO.tif"), "type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["data"],
                "bands": [{"name": "B04", "eo:common_name": null}], "file:size": size as f64, "file:checksum": null, "proj:epsg": 32631,
                "raster:bands": [{"name": "B04", "statistics": {"minimum": null, "valid_percent": "100"}}], "file:nodata": ["nan"],
            },
            "metadata": {"href": format!("{root}/out.csv"), "type": null, "roles": null, "title": ["odd"], "file:size": "48"},
        },
    })
}

#[test]
fn results_are_read_whole() {
    let (server, connection) = server(Config { checksums: false, ..Config::quick() });
    let root = server.root();
    server.rewrite("results", move |request, reply| {
        *reply = results(&format!("{root}{}", &request.path()["/openeo/1.2".len()..]), 4_104)
    });
    let results = finished(&connection, "real").results();
    let assets = results.assets().expect("read");
    assert_eq!(assets.iter().map(|asset| asset.size()).collect::<Vec<_>>(), [Some(48), Some(4_104)]);
    assert!(results.gaps().expect("read").is_empty(), "a collection with data of its own needs no items");
    let folder = Folder::new();
    results.download_files(folder.path(), &DownloadOptions::new()).expect("both");
    assert_eq!(folder.names(), ["job-results.json", "metadata.csv", "openEO_2022-06-01Z.tif"]);
}
