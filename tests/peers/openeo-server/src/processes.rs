//! What the server has to offer, what users store with it, and graphs of sums that it computes at
//! once.

use std::collections::BTreeMap;

use http_server::{Reply, Request, lock};
use serde_json::{Map, Value, json};

use crate::Shared;
use crate::api::{body, page};
use crate::oidc::refusal;

/// What the server computes.
const SUMS: [&str; 4] = ["add", "divide", "multiply", "subtract"];

/// Processes of users, by user and id.
#[derive(Default)]
pub(crate) struct Stored(BTreeMap<(String, String), Value>);

/// What anybody may ask.
pub(crate) fn offered(shared: &Shared, request: &Request, path: &[&str]) -> Option<Reply> {
    let number = |name: &str| json!({"name": name, "description": "A number.", "schema": {"type": "number"}});
    Some(match path {
        ["collections"] => page(shared, request, "collections", collections()),
        ["collections", id @ ..] => match collections().into_iter().find(|collection| collection["id"] == id.join("/"))
        {
            Some(collection) => Reply::json(200, &collection),
            None => refusal(404, "CollectionNotFound", "The collection does not exist."),
        },
        ["processes"] | ["processes", "backend"] => {
            let process = |id: &&str| {
                json!({
                    "id": id, "summary": format!("To {id} two numbers"), "description": "Of two numbers.",
                    "parameters": [number("x"), number("y")], "returns": {"description": "A number.", "schema": {"type": "number"}},
                })
            };
            page(shared, request, "processes", SUMS.iter().map(process).collect())
        }
        ["processes", _] => refusal(404, "ProcessNamespaceNotFound", "The namespace does not exist."),
        ["file_formats"] => {
            let tiff = json!({
                "title": "GeoTIFF", "gis_data_types": ["raster"], "parameters": {"tile_size": {"type": "integer", "description": "Size."}},
            });
            Reply::json(
                200,
                &json!({"input": {"GeoJSON": {"gis_data_types": ["vector"], "parameters": {}}}, "output": {"GTiff": tiff}}),
            )
        }
        ["udf_runtimes"] => Reply::json(
            200,
            &json!({"Python": {
                "title": "Python", "type": "language", "default": "3.11",
                "versions": {"3.8": {"libraries": {}}, "3.11": {"libraries": {"numpy": {"version": "1.26"}}}},
            }}),
        ),
        _ => return None,
    })
}

fn collections() -> Vec<Value> {
    let collection = |id: &str, title: Value, bands: &[&str]| {
        json!({
            "stac_version": "1.0.0", "type": "Collection", "id": id, "title": title, "description": format!("Images of {id}."),
            "license": "proprietary", "links": [],
            "extent": {"spatial": {"bbox": [[-180, -56, 180, 83]]}, "temporal": {"interval": [["2015-07-06T00:00:00Z", null]]}},
            "cube:dimensions": {
                "x": {"type": "spatial", "axis": "x"}, "t": {"type": "temporal"}, "bands": {"type": "bands", "values": bands},
            },
        })
    };
    vec![
        collection("SENTINEL2_L2A", json!("Sentinel-2"), &["B04", "B08"]),
        collection("SENTINEL1_GRD", Value::Null, &["VV", "VH"]),
        collection("CORINE", json!("Land cover"), &[]),
        // As Earth Engine calls them.
        collection("LANDSAT/LC08/C02/T1_L2", json!("Landsat"), &[]),
    ]
}

/// A user's own processes.
pub(crate) fn stored(shared: &Shared, request: &Request, user: &str, method: &str, id: Option<&str>) -> Reply {
    let mut stored = lock(&shared.processes);
    let key = (user.to_owned(), id.unwrap_or_default().to_owned());
    let missing = || refusal(404, "ProcessGraphNotFound", "Process graph does not exist.");
    match (method, id) {
        ("GET", None) => {
            let own = stored.0.iter().filter(|((owner, _), _)| owner == user).map(|((_, id), process)| {
                let fields = process.as_object().into_iter().flatten().filter(|(name, _)| *name != "process_graph");
                let mut listed: Map<String, Value> =
                    fields.map(|(name, value)| (name.clone(), value.clone())).collect();
                listed.insert("id".to_owned(), json!(id));
                Value::Object(listed)
            });
            let own = own.collect();
            drop(stored);
            page(shared, request, "processes", own)
        }
        ("GET", Some(id)) => match stored.0.get(&key) {
            Some(process) => {
                let mut process = process.clone();
                process["id"] = json!(id);
                Reply::json(200, &process)
            }
            None => missing(),
        },
        ("PUT", Some(id)) => {
            let process = body(request);
            if !process["process_graph"].is_object() {
                return refusal(400, "ProcessGraphMissing", "No valid process graph specified.");
            }
            if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return refusal(400, "ProcessGraphIdInvalid", "An id is letters, digits and underscores.");
            }
            stored.0.insert(key, process);
            Reply::new(200, "application/json", Vec::new())
        }
        ("DELETE", Some(_)) => match stored.0.remove(&key) {
            Some(_) => Reply::new(204, "application/json", Vec::new()),
            None => missing(),
        },
        _ => refusal(405, "MethodNotAllowed", "Not here."),
    }
}

/// A graph, computed at once. One that loads a collection gives the bytes of the first asset.
pub(crate) fn result(shared: &Shared, request: &Request, user: &str) -> Reply {
    let graph = body(request)["process"]["process_graph"].take();
    let loads = graph.as_object().into_iter().flatten().any(|(_, node)| node["process_id"] == "load_collection");
    if loads {
        let (key, kind, size) = &shared.config.assets[0];
        return billed(Reply::new(200, kind, crate::jobs::content("sync", key, *size)));
    }
    match computed(shared, user, &graph, &Value::Null) {
        Ok(value) => billed(Reply::json(200, &value)),
        Err(text) => refusal(400, "ProcessGraphInvalid", &text),
    }
}

fn billed(reply: Reply) -> Reply {
    reply.header("OpenEO-Costs", "2.5").header("OpenEO-Identifier", "r-000001")
}

fn computed(shared: &Shared, user: &str, graph: &Value, arguments: &Value) -> Result<Value, String> {
    let nodes = graph.as_object().ok_or("there is no graph")?;
    let result = nodes.iter().find(|(_, node)| node["result"] == true).ok_or("there is no result")?.0;
    node(shared, user, graph, result, arguments)
}

fn node(shared: &Shared, user: &str, graph: &Value, name: &str, parameters: &Value) -> Result<Value, String> {
    let found = &graph[name];
    let process = found["process_id"].as_str().ok_or_else(|| format!("there is no node {name}"))?;
    let mut arguments = Map::new();
    for (argument, value) in found["arguments"].as_object().into_iter().flatten() {
        let value = match (value["from_node"].as_str(), value["from_parameter"].as_str()) {
            (Some(from), _) => node(shared, user, graph, from, parameters)?,
            (_, Some(parameter)) => parameters.get(parameter).cloned().ok_or(format!("{parameter} has no value"))?,
            _ => value.clone(),
        };
        arguments.insert(argument.clone(), value);
    }
    if !SUMS.contains(&process) || found["namespace"] == "user" {
        let stored = lock(&shared.processes).0.get(&(user.to_owned(), process.to_owned())).cloned();
        let stored = stored.ok_or_else(|| format!("there is no process {process}"))?;
        for parameter in stored["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            arguments.entry(name).or_insert_with(|| parameter["default"].clone());
        }
        return computed(shared, user, &stored["process_graph"], &Value::Object(arguments));
    }
    let number =
        |name: &str| arguments.get(name).and_then(Value::as_f64).ok_or_else(|| format!("{name} isn't a number"));
    let (x, y) = (number("x")?, number("y")?);
    let value = match process {
        "add" => x + y,
        "subtract" => x - y,
        "multiply" => x * y,
        _ => x / y,
    };
    Ok(if value.fract() == 0.0 { json!(value as i64) } else { json!(value) })
}
