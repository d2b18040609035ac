//! What isn't batch jobs, against the reference driver: it computes, stores and lists, for this client and for the Python client,
//! and both must send and get the same.

use std::process::Command;

use fulmar::client::http::HttpClient;
use fulmar::client::openeo::{
    BoundingBox, Connection, ExecuteOptions, NewProcess, OpenEoError, Parameter, ProcessGraph, parameters_from_csv,
};
use serde_json::{Value, json};

use super::{Contract, Peer, folder, free_port, home, reference, scripts};

/// The driver, with the back-end of its own tests.
struct Driver {
    port: u16,
    _peer: Peer,
}

impl Driver {
    fn start() -> Driver {
        let port = free_port();
        let mut command = Command::new(home().join("driver/bin/python"));
        command.arg(scripts().join("driver.py")).arg(port.to_string()).env("PYTHONDONTWRITEBYTECODE", "1");
        Driver { port, _peer: Peer::start(&mut command, "Running on") }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn connect(&self) -> Connection {
        let connection = Connection::connect(&self.url()).expect("connected");
        connection.authenticate_basic("u", "u123").expect("logged in");
        connection
    }

    /// The bodies that came since this was asked before.
    fn seen(&self) -> Vec<Value> {
        let client = HttpClient::builder().build().expect("a client");
        let reply = client.get(&format!("{}/__seen", self.url())).send().expect("told");
        reply.json().expect("JSON")
    }
}

fn celsius() -> NewProcess {
    let f = Parameter::number("f").description("Degrees Fahrenheit.");
    let graph = ProcessGraph::start("subtract", json!({"x": f.here(), "y": 32}));
    let graph = graph.process("divide", json!({"x": {"from_node": "subtract1"}, "y": 1.8}));
    NewProcess::new(graph)
        .parameter(f)
        .parameter(Parameter::integer("n").default_value(json!(2)))
        .parameter(Parameter::string("s").default_value(Value::Null))
        .parameter(Parameter::boolean("b").default_value(json!(true)))
        .parameter(Parameter::array("a").default_value(json!([])))
        .parameter(Parameter::object("o").default_value(json!({})))
        .parameter(Parameter::bounding_box("area").default_value(Value::Null))
        .parameter(Parameter::temporal_interval("month").default_value(Value::Null))
        .summary("To Celsius")
        .description("Of Fahrenheit.")
        .public(false)
}

fn sum() -> ProcessGraph {
    let graph = json!({"lc": {"process_id": "add", "arguments": {"x": 3, "y": 5}, "result": true}});
    ProcessGraph::from_json(graph).expect("sound")
}

fn image() -> ProcessGraph {
    ProcessGraph::load_collection("S2_FOOBAR").save_result("GTiff")
}

#[test]
#[ignore = "tests/run brings it: the reference driver and the Python client"]
fn what_both_clients_store_compute_and_fetch_is_the_same() {
    let (driver, out) = (Driver::start(), folder("driver"));
    let connection = driver.connect();
    let options = ExecuteOptions::new();
    driver.seen();

    connection.save_user_defined_process("celsius", &celsius()).expect("stored");
    let call = |arguments: Value| ProcessGraph::call("celsius", "user", arguments).clone();
    let computed = |graph| connection.execute(graph, &options).expect("computed").json().expect("JSON");
    assert_eq!(computed(sum()), 8);
    let named =
        json!({"call1": {"process_id": "celsius", "namespace": "user", "arguments": {"f": 77}, "result": true}});
    assert_eq!(computed(ProcessGraph::from_json(named).expect("sound")), 25.0);
    let ours = connection.download(image(), out.join("ours.tif"), &options).expect("downloaded");
    let stored = connection.describe_user_defined_process("celsius").expect("described");
    let listed = connection.list_user_defined_processes().expect("listed");
    let sent = driver.seen();

    let told = reference(&["store", &driver.url(), "celsius"]);
    assert_eq!(stored.as_json(), &told["one"]);
    assert_eq!(listed.iter().map(|process| process.as_json().clone()).collect::<Value>(), told["list"]);
    let theirs = out.join("theirs.tif");
    let values = reference(&["compute", &driver.url(), "celsius", &theirs.display().to_string()]);
    assert_eq!(values, json!([8, 25.0]));
    let (ours, theirs) = (std::fs::read(ours).expect("a file"), std::fs::read(theirs).expect("a file"));
    assert!(!ours.is_empty() && ours == theirs, "{} and {} bytes", ours.len(), theirs.len());

    let is_compared = |body: &Value| body[1].as_str().is_some_and(|path| !path.ends_with("/validation"));
    let of = |bodies: Vec<Value>| bodies.into_iter().filter(is_compared).collect::<Vec<_>>();
    assert_eq!(of(sent), of(driver.seen()), "what was sent, request by request");

    // The Python client has deleted it.
    let error = connection.describe_user_defined_process("celsius").expect_err("gone");
    assert!(error.is_not_found(), "{error:?}");
    let error = connection.execute(call(json!({"f": 1})), &options).expect_err("gone");
    assert!(matches!(error, OpenEoError::Api(_)), "{error:?}");
    std::fs::remove_dir_all(out).expect("removed");
}

#[test]
#[ignore = "tests/run brings it: the reference driver and the Python client"]
fn what_both_clients_find_is_the_same() {
    let driver = Driver::start();
    let connection = Connection::connect(&driver.url()).expect("connected");
    let told = reference(&["discover", &driver.url(), "S2_FOOBAR"]);
    let collections = connection.list_collections().expect("listed");
    assert_eq!(collections.iter().map(|one| one.as_json().clone()).collect::<Value>(), told["collections"]);
    assert!(collections.len() > 5 && collections.is_complete());
    let collection = connection.describe_collection("S2_FOOBAR").expect("described");
    assert_eq!(collection.as_json(), &told["collection"]);
    assert_eq!(collection.bands(), ["B02", "B03", "B04", "B08"]);
    let processes = connection.list_processes(None).expect("listed");
    assert_eq!(processes.iter().map(|one| one.as_json().clone()).collect::<Value>(), told["processes"]);
    assert!(processes.len() > 100, "{}", processes.len());
    let add = connection.describe_process("add", None).expect("described");
    assert_eq!(add.as_json(), &told["process"]);
    assert_eq!(add.parameters().iter().map(Parameter::name).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(connection.list_file_formats().expect("listed").as_json(), &told["file_formats"]);
    assert_eq!(connection.list_udf_runtimes().expect("listed").as_json(), &told["udf_runtimes"]);
    for table in
        [collections.to_string(), processes.to_string(), connection.list_file_formats().expect("listed").to_string()]
    {
        assert!(table.lines().count() > 5 && table.lines().all(|line| !line.trim().is_empty()), "{table}");
    }
}

#[test]
#[ignore = "tests/run brings it: the Python client"]
fn tiles_are_those_of_the_python_client_bit_for_bit() {
    let areas = [
        ([3.0, 51.0, 4.0, 52.0], 4326, 0.1),
        ([-7.3, 50.0, 4.1, 52.5], 4326, 0.7),
        ([0.0, 0.0, 0.3, 0.3], 4326, 0.1),
        ([1.0 / 3.0, -0.1, 2.0 / 3.0, 0.7], 4326, 1.0 / 7.0),
        ([500_000.5, 5_600_000.25, 545_123.75, 5_633_333.0], 32631, 10_000.0),
        ([-20_037_508.34, -1.0, -19_000_000.0, 1e6], 3857, 123_456.789),
        // Across the antimeridian, said in two ways.
        ([178.0, 0.0, -177.0, 2.0], 4326, 1.0),
        ([178.0, 0.0, 183.0, 2.0], 4326, 1.0),
    ];
    let asked: Value = areas
        .iter()
        .map(|([west, south, east, north], crs, size)| {
            json!([{"west": west, "south": south, "east": east, "north": north, "crs": crs}, size])
        })
        .collect();
    let theirs = reference(&["split", &asked.to_string()]);
    for (at, (edges, crs, size)) in areas.into_iter().enumerate() {
        let tiles = BoundingBox::from(edges).epsg(crs).split_by_size(size).expect("tiles");
        let bits = |tile: &BoundingBox| [tile.west, tile.south, tile.east, tile.north].map(f64::to_bits);
        let ours: Value = tiles.iter().map(|tile| json!(bits(tile))).collect();
        assert!(ours == theirs[at], "{edges:?} by {size}: {ours} and {}", theirs[at]);
        assert!(tiles.len() > 5);
    }
}

#[test]
#[ignore = "tests/run brings it: the reference driver and the contract proxy"]
fn computing_storing_and_finding_keep_to_the_contract() {
    let driver = Driver::start();
    let contract = Contract::before(&format!("{}/openeo/1.2", driver.url()));
    let connection = Connection::connect(&contract.url()).expect("connected");
    connection.authenticate_basic("u", "u123").expect("logged in");
    connection.save_user_defined_process("celsius", &celsius()).expect("stored");
    assert_eq!(connection.list_user_defined_processes().expect("listed").len(), 1);
    let parameters = connection.describe_user_defined_process("celsius").expect("described").parameters();
    let rows = parameters_from_csv("place,f\nhere,77\nthere,41\n".as_bytes(), &parameters[..2]).expect("rows");
    let computed = |row: &Value| {
        let graph = ProcessGraph::call("celsius", "user", row.clone());
        connection.execute(graph, &ExecuteOptions::new()).expect("computed").json().expect("JSON")
    };
    // The proxy writes numbers in its own way.
    assert_eq!(rows.iter().map(computed).collect::<Value>(), json!([25, 5]));
    let out = folder("contract-driver");
    connection.download(image(), out.join("a.tif"), &ExecuteOptions::new()).expect("downloaded");
    connection.list_collections().expect("listed");
    connection.describe_collection("S2_FOOBAR").expect("described");
    connection.list_processes(None).expect("listed");
    connection.list_file_formats().expect("listed");
    connection.list_udf_runtimes().expect("listed");
    connection.delete_user_defined_process("celsius").expect("deleted");
    assert_eq!(contract.violations(), [""; 0]);
    std::fs::remove_dir_all(out).expect("removed");
}
