//! Process graphs, which say what a job computes: read from JSON, or built step by step. Pure.
//!
//! Source: openEO API 1.2, "Process Graphs".

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::client::openeo::api::error::OpenEoError;

/// A process graph, complete after every step: it always has one result.
///
/// ```
/// use fulmar::client::openeo::ProcessGraph;
/// use serde_json::json;
///
/// let graph = ProcessGraph::load_collection("SENTINEL2_L2A")
///     .spatial_extent([3.5, 51.0, 3.6, 51.1])
///     .temporal_extent("2022-06-01", "2022-07-01")
///     .bands(["B04", "B08"])
///     .process("ndvi", json!({}))
///     .save_result("GTiff");
/// assert_eq!(graph.as_json()["ndvi1"]["arguments"]["data"], json!({"from_node": "loadcollection1"}));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessGraph {
    nodes: Map<String, Value>,
    result: String,
}

impl ProcessGraph {
    /// Starts with a whole collection of the back-end: call
    /// [`spatial_extent`](ProcessGraph::spatial_extent),
    /// [`temporal_extent`](ProcessGraph::temporal_extent) and [`bands`](ProcessGraph::bands) next,
    /// to load only a part.
    pub fn load_collection(id: &str) -> ProcessGraph {
        let arguments = json!({"id": id, "spatial_extent": null, "temporal_extent": null});
        ProcessGraph::start("load_collection", arguments)
    }

    /// Starts with any process.
    pub fn start(process: &str, arguments: Value) -> ProcessGraph {
        let mut graph = ProcessGraph { nodes: Map::new(), result: String::new() };
        graph.append(process, arguments);
        graph
    }

    /// Reads a graph from JSON: `{"node": {"process_id": .., "arguments": ..}, ..}`, also inside of
    /// `process_graph` or `process`.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] names the node and what is wrong: it has no process, refers to a
    /// node that doesn't exist, or refers to itself in a circle. Also if the graph has no result,
    /// or several.
    pub fn from_json(document: Value) -> Result<ProcessGraph, OpenEoError> {
        let mut document = document;
        for wrapping in ["process", "process_graph"] {
            if document.get(wrapping).is_some_and(|inner| inner.is_object() && inner.get("process_id").is_none()) {
                document = document[wrapping].take();
            }
        }
        let Value::Object(nodes) = document else { return invalid("it isn't a JSON object of nodes") };
        let mut results = Vec::new();
        for (name, node) in &nodes {
            if node.get("process_id").and_then(Value::as_str).is_none() {
                return invalid(&format!("node {name:?} has no `process_id`"));
            }
            if !node.get("arguments").is_none_or(Value::is_object) {
                return invalid(&format!("the `arguments` of node {name:?} aren't an object"));
            }
            if let Some(missing) = references(node).find(|to| !nodes.contains_key(to)) {
                return invalid(&format!("node {name:?} refers to {missing:?}, which isn't there"));
            }
            if node.get("result") == Some(&Value::Bool(true)) {
                results.push(name.clone());
            }
        }
        if let Some(name) = circle(&nodes) {
            return invalid(&format!("node {name:?} refers to itself, by way of others or not"));
        }
        match results.as_slice() {
            [result] => Ok(ProcessGraph { result: result.clone(), nodes }),
            [] => invalid("no node has `\"result\": true`: give it to the node whose result you want"),
            _ => invalid(&format!("several nodes have `\"result\": true`, and only one may: {}", results.join(", "))),
        }
    }

    /// Limits the area: west, south, east and north in degrees of WGS 84, a
    /// [`BoundingBox`](crate::client::openeo::BoundingBox), a
    /// [`Parameter`](crate::client::openeo::Parameter), or any other JSON that the back-end
    /// accepts. Directly after [`load_collection`](ProcessGraph::load_collection) it sets what to
    /// load; later it adds the process `filter_bbox`.
    #[must_use]
    pub fn spatial_extent(self, extent: impl Into<Value>) -> ProcessGraph {
        let extent = match extent.into() {
            Value::Array(edges) if edges.len() == 4 => {
                json!({"west": edges[0], "south": edges[1], "east": edges[2], "north": edges[3]})
            }
            extent => extent,
        };
        self.narrow("spatial_extent", "filter_bbox", "extent", extent)
    }

    /// Limits the time, as [`temporal_extent`](ProcessGraph::temporal_extent): to a
    /// [`Period`](crate::client::openeo::Period), a
    /// [`Parameter`](crate::client::openeo::Parameter), or two dates or times as JSON.
    #[must_use]
    pub fn temporal_interval(self, interval: impl Into<Value>) -> ProcessGraph {
        self.narrow("temporal_extent", "filter_temporal", "extent", interval.into())
    }

    /// Limits the time: from the first day or time, which is included, to the last, which is
    /// excluded, as RFC 3339 writes them: `2022-06-01`. Directly after
    /// [`load_collection`](ProcessGraph::load_collection) it sets what to load; later it adds the
    /// process `filter_temporal`.
    #[must_use]
    pub fn temporal_extent(self, from: &str, to: &str) -> ProcessGraph {
        self.temporal_interval(json!([from, to]))
    }

    /// Limits the bands to these. Directly after [`load_collection`](ProcessGraph::load_collection)
    /// it sets what to load; later it adds the process `filter_bands`.
    #[must_use]
    pub fn bands<'a>(self, bands: impl IntoIterator<Item = &'a str>) -> ProcessGraph {
        let bands: Vec<&str> = bands.into_iter().collect();
        self.narrow("bands", "filter_bands", "bands", json!(bands))
    }

    /// Adds any process. Its argument `data` is the result so far, unless `arguments` have a `data`
    /// or refer to a node ([`here`](ProcessGraph::here)).
    #[must_use]
    pub fn process(mut self, process: &str, arguments: Value) -> ProcessGraph {
        let mut arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        let said = arguments.contains_key("data") || references(&Value::Object(arguments.clone())).next().is_some();
        if !said {
            arguments.insert("data".to_owned(), self.here());
        }
        self.append(process, Value::Object(arguments));
        self
    }

    /// A reference to the result so far, for arguments: `{"from_node": "ndvi1"}`.
    pub fn here(&self) -> Value {
        json!({"from_node": self.result})
    }

    /// Saves the result in files of this format: `GTiff`, `netCDF`, or another one of the back-end.
    #[must_use]
    pub fn save_result(self, format: &str) -> ProcessGraph {
        self.process("save_result", json!({"format": format, "options": {}}))
    }

    /// Whether the graph ends with `save_result`.
    pub fn is_saved(&self) -> bool {
        self.nodes.get(&self.result).and_then(|node| node.get("process_id")).and_then(Value::as_str)
            == Some("save_result")
    }

    /// The nodes, as a back-end expects them.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.nodes
    }

    /// Adds a field to the node of the result.
    pub(crate) fn with_field(mut self, name: &str, value: Value) -> ProcessGraph {
        if let Some(node) = self.nodes.get_mut(&self.result) {
            node[name] = value;
        }
        self
    }

    /// Limits the data so far, for `spatial_extent` and its likes. If the last node loads a
    /// collection, sets its `argument`, so that the back-end loads only that part. Otherwise adds
    /// the filter `process`, whose argument is `name`.
    fn narrow(mut self, argument: &str, process: &str, name: &str, value: Value) -> ProcessGraph {
        if let Some(node) = self.nodes.get_mut(&self.result) {
            if node["process_id"] == "load_collection" && node["arguments"].is_object() {
                node["arguments"][argument] = value;
                return self;
            }
        }
        let mut arguments = Map::new();
        arguments.insert(name.to_owned(), value);
        self.process(process, Value::Object(arguments))
    }

    /// Adds a node with a new name, and makes it the result.
    fn append(&mut self, process: &str, arguments: Value) {
        let stem: String = process.chars().filter(char::is_ascii_alphanumeric).collect();
        let is_free = |name: &String| !self.nodes.contains_key(name);
        let name = (1..).map(|number: u64| format!("{stem}{number}")).find(is_free).unwrap_or(stem.clone());
        if let Some(last) = self.nodes.get_mut(&self.result).and_then(Value::as_object_mut) {
            last.remove("result");
        }
        self.nodes.insert(name.clone(), json!({"process_id": process, "arguments": arguments, "result": true}));
        self.result = name;
    }
}

fn invalid<T>(why: &str) -> Result<T, OpenEoError> {
    Err(OpenEoError::Invalid(format!("this isn't a process graph: {why}")))
}

/// The names of all nodes to which a value refers. It skips graphs inside of arguments, such as
/// that of `reduce_dimension`, because these have nodes of their own.
fn references(value: &Value) -> Box<dyn Iterator<Item = String> + '_> {
    match value {
        Value::Object(object) if object.contains_key("process_graph") => Box::new(std::iter::empty()),
        Value::Object(object) => {
            let own = object.get("from_node").and_then(Value::as_str).map(str::to_owned);
            Box::new(own.into_iter().chain(object.values().flat_map(references)))
        }
        Value::Array(items) => Box::new(items.iter().flat_map(references)),
        _ => Box::new(std::iter::empty()),
    }
}

/// A node that refers to itself in a circle, if there is one. It repeatedly removes the nodes that
/// refer to no remaining node; if that ends before all are removed, those left are in a circle or
/// depend on one.
fn circle(nodes: &Map<String, Value>) -> Option<String> {
    let mut left: BTreeSet<&String> = nodes.keys().collect();
    loop {
        let free: Vec<&String> =
            left.iter().copied().filter(|name| !references(&nodes[*name]).any(|to| left.contains(&to))).collect();
        if free.is_empty() {
            return left.first().map(|name| (*name).clone());
        }
        for name in free {
            left.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_steps_has_one_result_and_new_names() {
        let graph =
            ProcessGraph::load_collection("S2").process("ndvi", json!({})).process("ndvi", json!({"nir": "B8"}));
        let nodes = graph.as_json();
        assert_eq!(nodes["ndvi2"]["arguments"], json!({"data": {"from_node": "ndvi1"}, "nir": "B8"}));
        assert_eq!(nodes.values().filter(|node| node["result"] == true).count(), 1);
        assert_eq!(ProcessGraph::from_json(json!(nodes)).expect("sound"), graph);
    }

    #[test]
    fn an_extent_after_the_loading_is_a_filter() {
        let graph = ProcessGraph::load_collection("S2").process("ndvi", json!({})).spatial_extent([1.0, 2.0, 3.0, 4.0]);
        assert_eq!(graph.as_json()["filterbbox1"]["arguments"]["extent"]["north"], 4.0);
        assert_eq!(graph.as_json()["loadcollection1"]["arguments"]["spatial_extent"], Value::Null);
    }

    #[test]
    fn arguments_that_refer_to_a_node_get_no_data() {
        let graph = ProcessGraph::start("constant", json!({"x": 3}));
        let here = graph.here();
        let graph = graph.process("add", json!({"x": here, "y": 5}));
        assert_eq!(graph.as_json()["add1"]["arguments"], json!({"x": {"from_node": "constant1"}, "y": 5}));
    }

    #[test]
    fn a_graph_is_read_however_it_is_wrapped() {
        let bare = json!({"lc": {"process_id": "add", "arguments": {"x": 3, "y": 5}, "result": true}});
        let graph = ProcessGraph::from_json(bare.clone()).expect("bare");
        for wrapped in [json!({"process_graph": bare}), json!({"process": {"process_graph": bare}, "title": "t"})] {
            assert_eq!(ProcessGraph::from_json(wrapped).expect("wrapped"), graph);
        }
        assert!(!graph.is_saved());
        assert!(graph.save_result("GTiff").is_saved());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let node = |arguments: Value| json!({"process_id": "p", "arguments": arguments, "result": true});
        let other = |arguments: Value| json!({"process_id": "p", "arguments": arguments});
        for (document, expected) in [
            (json!([]), "isn't a JSON object"),
            (json!({}), "no node has"),
            (json!({"a": 3}), "no `process_id`"),
            (json!({"a": {"process_id": "p", "arguments": [], "result": true}}), "aren't an object"),
            (json!({"a": node(json!({"x": [{"from_node": "b"}]}))}), "\"b\", which isn't there"),
            (json!({"a": node(json!({})), "b": node(json!({}))}), "several nodes"),
            (
                json!({"a": node(json!({"x": {"from_node": "b"}})), "b": other(json!({"x": {"from_node": "a"}}))}),
                "itself",
            ),
        ] {
            let error = ProcessGraph::from_json(document).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let inner = json!({"reducer": {"process_graph": {"m": {"process_id": "mean", "arguments": {"data": {"from_node": "elsewhere"}}}}}});
        assert!(ProcessGraph::from_json(json!({"a": node(inner)})).is_ok(), "a graph within has its own nodes");
    }
}
