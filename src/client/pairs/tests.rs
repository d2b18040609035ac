//! Queries and replies, on captured exchanges and on what a broken or hostile server may say.

use serde_json::{Value, json};

use super::*;
use crate::client::random::for_all;

const STATUS: &str = r#"{"id":"1795302000_00000001","status":"Running","start":1795304047712,"pql":null,
    "folder":"1795304047712","swLat":30.0,"swLon":-100.0,"neLat":30.5,"neLon":-99.6,"nickname":null,"exPercent":50.4,
    "flag":false,"hadoopId":"1535736177095_390855","ready":false,"rtStatus":"Running","pdStatus":null,"statusCode":10}"#;
const POINTS: &str = r#"{"data":[{"layerId":"92","layerName":"Temperature","dataset":"Weather Forecast",
    "timestamp":1527811200000,"longitude":-97.0,"latitude":48.7,"value":"288.73","property":""}]}"#;
const CSV: &str =
    "layerId,timestamp,longitude,latitude,value,region,property,alias\n92,1527811200000,-97.0,48.7,288.73,,,\n";
const INFO: &str = r#"{"info":{"usage":12345,"usage_unit":"bytes","max_usage":1000000000.0,"size":2,"max_size":2.2,
    "count":2,"interactive_max_count":100,"max_count":1000}}"#;
const HISTORY: &str = r#"{"id":1,"user":{"id":0,"login":""},"type":"square","date":1795304047712,"apiString":null,
    "queryjob":"1795302000_00000001","apiJson":"{\"layers\": [{\"id\": \"92\"}], \"spatial\": {\"type\": \"square\"}}",
    "sizeTotal":null,"sizeRaw":null,"sizeZip":17320,"countTotal":null}"#;
const MERGED: &str = r#"[{"name":"l","datalayer":"d","datalayer_id":"92","dataset":"ds","dataset_id":0,"timestamp":0,
    "type":"raster","min":0.1,"max":0.1,"geoserver_url":"","geoserver_ws":"","style":""}]"#;
const QUERY: &str = r#"{"name":"n","layers":[{"id":92,"type":"raster","filterOnly":"true","alias":"92.0>1",
    "temporal":{"intervals":[{"snapshot":"2018-11-01T00:00:00"}]},"dimensions":[{"name":"h","value":3,"options":["a"]}],
    "properties":{"a":{"b":1}}}],"spatial":{"type":"square","coordinates":["30",-100,30.5,-99.6]},
    "temporal":{"intervals":[{"snapshot":"2018-11-01T00:00:00"}]},"outputType":"tiff","outputLevel":"20","batch":false,
    "upload":{"provider":"ibm","token":"hunter2"},"processor":[{"order":1,"type":"t","options":[{"name":"a","value":"b"}]}],
    "dryRun":0,"newFashioned":{"x":[1]}}"#;

fn list() -> String {
    format!(r#"{{"totPages":3,"queryJobList":[{STATUS}]}}"#)
}

#[test]
fn both_spellings_give_one_query() {
    let query: Query = QUERY.parse().expect("a query");
    let dict = query.to_dict();
    assert_eq!(dict["output_type"], "tiff");
    assert_eq!(dict["layers"][0]["filter_only"], true);
    assert_eq!(Query::from_value(dict).expect("its own dictionary"), query);
    let again = Query::from_value(query.to_submit()).expect("its own body");
    assert_eq!(again.to_submit(), query.to_submit());
}

#[test]
fn loose_types_become_the_wires() {
    let query: Query = QUERY.parse().expect("a query");
    let body = query.to_submit();
    assert_eq!(body["layers"][0]["id"], "92");
    assert_eq!(body["layers"][0]["filterOnly"], true);
    assert_eq!(body["layers"][0]["dimensions"][0]["value"], "3");
    assert_eq!(body["spatial"]["coordinates"], json!([30.0, -100.0, 30.5, -99.6]));
    assert_eq!((&body["outputLevel"], &body["batch"], &body["dryRun"]), (&json!(20), &json!("false"), &json!(false)));
}

#[test]
fn what_is_unknown_is_kept_and_what_is_null_is_left_out() {
    let query: Query =
        r#"{"newFashioned":{"x":[1]},"description":null,"layers":[{"id":"1","odd":7}]}"#.parse().expect("a query");
    assert_eq!(query.to_submit(), json!({"newFashioned": {"x": [1]}, "layers": [{"id": "1", "odd": 7}]}));
}

#[test]
fn what_the_python_client_prints_can_be_read_and_is_not_submitted() {
    let text = r#"{"download_file_name":"1722427200_15201227","download_folder":"/tmp/x","download_status":"SUCCEEDED",
        "id":"1722427200_15201227","layers":[{"id":"49429","type":"raster"}],"merge_response":{},
        "spatial":{"coordinates":[35.6,-87.6,51.6,-71.6],"type":"square"},"status_response":{"flag":false,"status_code":20},
        "submit_response":{"id":"1722427200_15201227"},"output_level":20}"#;
    let query: Query = text.parse().expect("a query");
    assert_eq!(query.id(), Some("1722427200_15201227"));
    assert_eq!(query.download_folder(), Some(std::path::Path::new("/tmp/x")));
    assert_eq!(query.to_dict(), serde_json::from_str::<Value>(text).expect("JSON"));
    let submitted = query.to_submit();
    let names: Vec<&str> = submitted.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["layers", "outputLevel", "spatial"]);
}

#[test]
fn a_field_of_another_type_is_named() {
    for (text, named) in [
        (r#"{"layers":7}"#, "`layers` is not a list"),
        (
            r#"{"layers":[{"id":"1","dimensions":[{"options":["a",{}]}]}]}"#,
            "`layers[0].dimensions[0].options[1]` is not text",
        ),
        (r#"{"spatial":{"coordinates":["north"]}}"#, "`spatial.coordinates[0]` is not a finite number"),
        (r#"{"spatial":{"coordinates":["NaN"]}}"#, "finite"),
        (r#"{"dry_run":"perhaps"}"#, "`dry_run` is not true or false"),
        (r#"{"id":"../../etc"}"#, "can't be a query's id"),
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
    ] {
        let error = text.parse::<Query>().expect_err(text).to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn points_are_answered_at_once_unless_batch_says_otherwise() {
    let points =
        |batch: Value| Query::from_value(json!({"spatial": {"type": "Point"}, "batch": batch, "outputType": "tiff"}));
    for (batch, at_once) in [
        (json!(null), true),
        (json!(false), true),
        (json!("False"), true),
        (json!(""), true),
        (json!("true"), false),
        (json!(true), false),
    ] {
        let query = points(batch.clone()).expect("a query");
        assert_eq!(query.is_interactive(), at_once, "{batch}");
        assert_eq!(query.to_submit()["outputType"], if at_once { "json" } else { "tiff" });
    }
    assert!(!Query::from_value(json!({"spatial": {"type": "square"}})).expect("a query").is_interactive());
}

#[test]
fn dates_are_replaced_everywhere_and_aliases_follow() {
    let query: Query = QUERY.parse().expect("a query");
    let moved = query.replace_dates("2023-01-02T05:06:07Z", "2023-01-03").expect("dates");
    let interval = json!({"start": "2023-01-02", "end": "2023-01-03"});
    assert_eq!(moved.to_submit()["temporal"]["intervals"], json!([interval]));
    assert_eq!(moved.to_submit()["layers"][0]["temporal"]["intervals"], json!([interval]));
    assert_eq!(moved.to_submit()["layers"][0]["alias"], "92.1672635967000>1672704000000");
    assert_eq!(query, QUERY.parse().expect("a query"), "the original is left alone");

    let bare = Query::builder().layer("92").square(0.0, 0.0, 1.0, 1.0).build().expect("a query");
    let moved = bare.replace_dates("2023-01-02", "2023-01-02").expect("dates");
    assert_eq!(moved.to_submit()["temporal"]["intervals"][0]["start"], "2023-01-02");
    assert!(bare.replace_dates("yesterday", "2023-01-02").expect_err("no date").to_string().contains("`yesterday`"));
}

#[test]
fn a_builder_wants_a_layer_and_a_place() {
    assert!(
        Query::builder().square(0.0, 0.0, 1.0, 1.0).build().expect_err("no layer").to_string().contains("`layers`")
    );
    assert!(Query::builder().layer(92).build().expect_err("no place").to_string().contains("`spatial`"));
    let nowhere = Query::builder().layer(92).square(f64::NAN, 0.0, 1.0, 1.0).build();
    assert!(nowhere.expect_err("no number").to_string().contains("coordinates[0]"));
}

#[test]
fn a_query_shows_no_secret() {
    let query: Query = QUERY.parse().expect("a query");
    assert!(
        !format!("{query:?} {:?}", Query::builder().field("upload", query.to_submit()["upload"].clone()))
            .contains("hunter2")
    );
}

#[test]
fn captured_replies_are_read() {
    let job = QueryJob::parse(STATUS).expect("a status");
    assert_eq!((job.code.code(), job.code.phase(), job.status.as_str()), (10, Phase::Running, "Running"));
    assert_eq!((job.progress, job.square), (Some(0.504), Some([30.0, -100.0, 30.5, -99.6])));
    assert_eq!(QueryJobs::parse(&list()).expect("a list"), QueryJobs { pages: 3, jobs: vec![job], unreadable: vec![] });

    let history = QueryHistory::parse(HISTORY).expect("a history");
    assert_eq!(history.job.as_deref(), Some("1795302000_00000001"));
    assert_eq!(history.query.expect("a query").to_submit()["layers"][0]["id"], "92");
    assert_eq!(history.size_zip, Some(17_320));

    let places = json!({"spatial": {"type": "square"}, "download_folder": "/etc", "download_file_name": "passwd"});
    for api_json in [places.clone(), places.to_string().into()] {
        let history = QueryHistory::parse(&json!({"apiJson": api_json}).to_string()).expect("a history");
        let query = history.query.expect("a query");
        let named = (query.download_folder(), query.download_file_name());
        assert_eq!(named, (None, None), "where files go here is not for a server to say");
    }

    let merged = MergedLayer::parse_all(MERGED).expect("layers");
    assert_eq!((merged[0].datalayer_id.as_deref(), merged[0].dataset_id.as_deref()), (Some("92"), Some("0")));

    let id = Submission::parse(r#"{"id":"1544202000_23976938"}"#, false, true).expect("an id");
    assert_eq!(id, Submission::Job("1544202000_23976938".to_owned()));
    let Submission::Estimate(estimate) = Submission::parse(INFO, false, true).expect("an estimate") else {
        panic!("an estimate")
    };
    assert_eq!((estimate.usage, estimate.max_count, estimate.max_size), (Some(12_345.0), Some(1_000), Some(2.2)));
}

#[test]
fn json_and_csv_hold_the_same_values() {
    let Submission::Points(json) = Submission::parse(POINTS, false, true).expect("values") else { panic!("values") };
    let Submission::Points(csv) = Submission::parse(CSV, true, true).expect("values") else { panic!("values") };
    let (json_value, csv_value) = (&json.values().expect("read")[0], &csv.values().expect("read")[0]);
    assert_eq!(
        (json_value.layer_id, json_value.timestamp, &json_value.value),
        (csv_value.layer_id, csv_value.timestamp, &csv_value.value)
    );
    assert_eq!(json_value.longitude, Some(-97.0));
    let file: Value = serde_json::from_str(&json.to_file_text()).expect("JSON");
    assert_eq!(file[0]["layer_id"], 92);
    assert_eq!(file[0]["property"], "", "as the Python client writes it");
    assert_eq!(csv.to_file_text(), CSV);
}

#[test]
fn what_can_not_be_read_loses_nothing_beside_it_and_is_named() {
    let text =
        format!(r#"{{"totPages":1,"queryJobList":[{{"id":"1"}},null,{STATUS},{{"id":"a/b","statusCode":20}}]}}"#);
    let list = QueryJobs::parse(&text).expect("a list");
    let ids: Vec<_> = list.jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!((ids, list.unreadable.len()), (vec!["1795302000_00000001"], 3));
    assert!(list.unreadable[0].contains("no `statusCode`") && list.unreadable[2].contains("`a/b`"), "{list:?}");

    let text = r#"{"data":[{"value":"1","timestamp":"soon","latitude":true},7,{"value":"2","timestamp":"3"}]}"#;
    let Ok(Submission::Points(points)) = Submission::parse(text, false, true) else { panic!("values") };
    let values = points.values().expect("values");
    assert_eq!((values[0].value.as_deref(), values[0].timestamp, values[2].timestamp), (Some("1"), None, Some(3)));
    let named = [
        "`timestamp` is `\"soon\"`, not a whole number",
        "`latitude` is `true`, not a finite number",
        "`7` isn't an object",
    ];
    assert_eq!(
        (&values[0].unreadable[..], &values[1].unreadable[..]),
        (&named.map(String::from)[..2], &[named[2].into()][..])
    );
    assert!(values[2].unreadable.is_empty());

    let csv = PointData::csv("layerId,timestamp,value\n1,soon,2\n1,2\n1,2,3\n", true).expect("CSV");
    let values = csv.values().expect("values");
    assert_eq!(values[0].unreadable, ["`timestamp` is `\"soon\"`, not a whole number"]);
    assert_eq!(
        (values[1].timestamp, &values[1].unreadable[..]),
        (Some(2), &["line 3 has 2 fields, not 3".to_owned()][..])
    );
    assert_eq!((values[2].value.as_deref(), values[2].unreadable.len()), (Some("3"), 0));

    let layers = MergedLayer::parse_all(r#"[{"name":"l","min":"low"},null]"#).expect("layers");
    assert_eq!((layers[0].name.as_deref(), layers[0].unreadable.len(), layers[1].unreadable.len()), (Some("l"), 1, 1));
}

#[test]
fn csv_of_unknown_length_that_ends_within_a_line_was_cut() {
    let header = CSV.find('\n').expect("a line") + 1;
    for (cut, is_whole) in
        [(CSV.len(), true), (CSV.len() - 1, false), (header, true), (header + 5, false), (header - 1, false)]
    {
        let text = &CSV[..cut];
        match Submission::parse(text, true, false) {
            Ok(Submission::Points(points)) => assert!(is_whole && !points.length_known(), "{text:?}"),
            Err(PairsError::Incomplete(_)) => assert!(!is_whole, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
        let Ok(Submission::Points(points)) = Submission::parse(text, true, true) else {
            panic!("as the server has it")
        };
        assert!(points.length_known());
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_an_answer() {
    let marked = |text: &str| format!("\u{feff}{text}");
    assert_eq!(QueryJob::parse(&marked(STATUS)).expect("a status"), QueryJob::parse(STATUS).expect("a status"));
    assert_eq!(QueryJobs::parse(&marked(&list())).expect("a list"), QueryJobs::parse(&list()).expect("a list"));
    let values = |text: &str, csv| match Submission::parse(text, csv, true) {
        Ok(Submission::Points(points)) => points.values().expect("values"),
        other => panic!("{other:?}"),
    };
    assert_eq!(values(&marked(POINTS), false), values(POINTS, false));
    assert_eq!(values(&marked(CSV), true), values(CSV, true));
    assert_eq!(values(&marked(CSV), true)[0].layer_id, Some(92));
}

#[test]
fn what_is_no_answer_is_shown_and_refused() {
    let html = "<html><body><h1>503 Service Unavailable</h1></body></html>";
    for csv in [false, true] {
        let error = Submission::parse(html, csv, true).expect_err("a page").to_string();
        assert!(error.contains("503 Service Unavailable"), "{error}");
    }
    for text in
        [html, "", "null", "[]", "7", r#"{"id":"a"}"#, r#"{"statusCode":20}"#, r#"{"id":"a/b","statusCode":20}"#]
    {
        assert!(matches!(QueryJob::parse(text), Err(PairsError::Reply(_))), "{text}");
    }
    for id in ["../x", "a/b", "", ".", "a b", "\u{0}", &"9".repeat(129)] {
        let text = json!({"id": id}).to_string();
        assert!(matches!(Submission::parse(&text, false, true), Err(PairsError::Reply(_))), "{text}");
    }
}

#[test]
fn a_status_is_known_by_its_number_alone() {
    for text in ["Succeeded", "Succeeded(20)", "Fertig"] {
        let reply = json!({"id": "1", "status": text, "statusCode": "20"}).to_string();
        assert_eq!(QueryJob::parse(&reply).expect("a status").code.phase(), Phase::Succeeded);
    }
    let unknown = QueryJob::parse(r#"{"id":"1","statusCode":-7}"#).expect("a status");
    assert_eq!((unknown.code.phase(), unknown.status.as_str()), (Phase::Unknown, "unknown status -7"));
}

const TEXTS: &[&str] =
    &["", "x", "true", "1e999", "-0", "../..", "2023-01-01", "\u{0}\u{7f}é", "92.1>2", "point", "NaN"];
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "id", "layers", "spatial", "temporal", "intervals", "coordinates", "type", "data", "info", "statusCode", "status",
    "queryJobList", "totPages", "apiJson", "queryjob", "layerId", "value", "timestamp", "exPercent", "swLat", "flag", "dryRun",
    "dry_run", "batch", "download_folder", "alias", "start", "usage", "x",
];

/// Everything that reads what comes from outside. Whatever it takes in must keep its own promises.
fn read_everything(text: &str) {
    for csv in [false, true] {
        match Submission::parse(text, csv, true) {
            Ok(Submission::Job(id)) => assert!(id::check(&id).is_ok()),
            Ok(Submission::Points(points)) => {
                let _ = points.values();
                if points.extension() == "json" {
                    serde_json::from_str::<Value>(&points.to_file_text()).expect("a JSON file");
                }
            }
            Ok(Submission::Estimate(_)) | Err(_) => {}
        }
    }
    if let Ok(job) = QueryJob::parse(text) {
        assert!(id::check(&job.id).is_ok());
        assert!(job.progress.is_none_or(|share| (0.0..=1.0).contains(&share)));
        assert!(job.status.chars().count() <= 500 && !job.status.contains('\n'));
    }
    for job in QueryJobs::parse(text).into_iter().flat_map(|page| page.jobs) {
        assert!(id::check(&job.id).is_ok());
    }
    let _ = (
        QueryHistory::parse(text),
        MergedLayer::parse_all(text),
        password::find(text, "h", "u"),
        crate::client::date::parse(text),
    );
    if let Ok(query) = text.parse::<Query>() {
        let again = Query::from_value(query.to_dict()).expect("what was read once is read again");
        assert_eq!(again, query);
        let _ = query.replace_dates("2023-01-01", "2023-01-02").expect("dates fit any query");
    }
}

#[test]
fn nothing_that_a_server_or_a_file_says_panics() {
    let list = list();
    let samples = [STATUS, POINTS, CSV, INFO, HISTORY, MERGED, QUERY, &list, "a:b:c\\:d\n#"];
    for_all(6_000, |random| {
        let text = match random.below(3) {
            0 => random.json(NAMES, TEXTS, 6).to_string(),
            _ => {
                let sample = random.one_of(&samples);
                random.damaged(sample)
            }
        };
        read_everything(&text);
    });
    read_everything(&"[".repeat(1_000_000));
    read_everything(&format!("{{\"data\":{}", "[".repeat(100_000)));
}

#[test]
fn what_a_file_holds_is_told_the_same_however_it_was_damaged() {
    let folder = std::env::temp_dir().join(format!("fulmar-pairs-content-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for_all(600, |random| {
        let sample = random.one_of(&[POINTS, CSV, INFO, "{\"a\":[NaN,-Infinity]}", "<html>", "PK\u{3}\u{4}"]);
        let text = random.damaged(sample);
        let path = folder.join(random.next().to_string());
        std::fs::write(&path, &text).expect("written");
        let content = content::content_of(&path).expect("read");
        std::fs::remove_file(&path).expect("removed");
        let strict: Result<serde::de::IgnoredAny, _> = serde_json::from_str(text.trim_start_matches('\u{feff}'));
        match content {
            Ok(content::Content::Json { not_numbers: 0 }) => assert!(strict.is_ok(), "{text:?}"),
            Ok(content::Content::Json { .. }) => assert!(strict.is_err() && text.contains(['N', 'I']), "{text:?}"),
            Ok(content::Content::Csv) => assert!(points::is_csv(&text), "{text:?}"),
            Ok(content::Content::Zip) => assert!(text.starts_with("PK"), "{text:?}"),
            Err(why) => assert!(!why.is_empty()),
        }
    });
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn whatever_a_token_host_grants_fits_a_header() {
    use crate::client::http::HttpClient;
    let http = HttpClient::builder().build().expect("a client");
    let kind = auth::KeyKind::Legacy {
        endpoint: String::new(),
        client_id: String::new(),
        refresh: crate::sync::Mutex::new(None),
    };
    let exchange = auth::KeyExchange::new(http, kind, "hunter2".to_owned());
    for_all(2_000, |random| {
        let mut grant =
            json!({"access_token": "a.b.c", "expires_in": 3600, "refresh_token": "r", "error": "hunter2 is bad"});
        for _ in 0..=random.below(2) {
            let name = random.one_of(&["access_token", "expires_in", "refresh_token", "error"]).to_owned();
            grant[name] = random.json(NAMES, TEXTS, 2);
        }
        let granted = exchange.granted(&grant, "a host").map(drop);
        let token = grant["access_token"]
            .as_str()
            .is_some_and(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(granted.is_ok(), token, "{grant}");
        if let Err(error) = granted {
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    });
}
