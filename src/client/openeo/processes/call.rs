//! Fills the parameters of a graph, and calls stored processes. Pure.

use serde_json::{Map, Value, json};

use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::plain;
use crate::client::openeo::jobs::graph::ProcessGraph;

/// The names of the parameters with which openEO's processes call the graphs in their arguments.
/// Inside of such a graph, these names mean its own parameters.
const OF_CALLBACKS: [&str; 7] = ["context", "data", "index", "label", "value", "x", "y"];

impl ProcessGraph {
    /// Starts with a stored process. `namespace` says whose: the user's if it is `None` or
    /// `"user"`, the back-end's if it is `"backend"`, that of another user or collection that the
    /// back-end knows by this name, or the one at the URL of a description.
    ///
    /// ```
    /// use fulmar::client::openeo::ProcessGraph;
    /// use serde_json::json;
    ///
    /// let graph = ProcessGraph::call("evi", "https://h.example/evi.json", json!({"month": ["2022-06-01", "2022-07-01"]}));
    /// assert_eq!(graph.as_json()["evi1"]["namespace"], "https://h.example/evi.json");
    /// ```
    pub fn call<'a>(process: &str, namespace: impl Into<Option<&'a str>>, arguments: Value) -> ProcessGraph {
        let graph = ProcessGraph::start(process, arguments);
        match namespace.into() {
            Some(namespace) => graph.with_field("namespace", json!(namespace)),
            None => graph,
        }
    }

    /// The names of the parameters without a value, each once. It leaves out those with which a
    /// process calls a graph in its arguments, such as `data` of a reducer.
    pub fn parameters(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut visit = |name: &str, is_within: bool| {
            if !(is_within && OF_CALLBACKS.contains(&name)) {
                names.push(name.to_owned());
            }
            None
        };
        for node in self.as_json().values() {
            replaced(node, false, &mut visit);
        }
        names.sort();
        names.dedup();
        names
    }

    /// The graph with `values` in place of its parameters: an object with a value for each name.
    /// Parameters that it doesn't name stay; [`parameters`](ProcessGraph::parameters) lists them.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if `values` isn't an object, if a name isn't a parameter, or if a
    /// name is also used inside of a graph in an argument, for its own parameter (`x`, `data`, ..).
    pub fn fill(&self, values: &Value) -> Result<ProcessGraph, OpenEoError> {
        let Value::Object(values) = values else {
            return Err(OpenEoError::Invalid(
                "the values of parameters must be a JSON object, with a member for each parameter's name".to_owned(),
            ));
        };
        let mut used = Vec::new();
        let mut doubtful = None;
        let mut visit = |name: &str, is_within: bool| {
            let value = values.get(name)?;
            if is_within && OF_CALLBACKS.contains(&name) {
                doubtful.get_or_insert_with(|| name.to_owned());
                return None;
            }
            used.push(name.to_owned());
            Some(value.clone())
        };
        let nodes: Map<String, Value> =
            self.as_json().iter().map(|(id, node)| (id.clone(), replaced(node, false, &mut visit))).collect();
        if let Some(name) = doubtful {
            return Err(OpenEoError::Invalid(format!(
                "the parameter `{name}` is used in a graph within, where it may be that graph's own: give it another name"
            )));
        }
        if let Some(unknown) = values.keys().find(|name| !used.contains(name)) {
            return Err(OpenEoError::Invalid(format!(
                "the graph has no parameter `{}`, but: {}",
                plain(unknown, 80),
                plain(&self.parameters().join(", "), 400),
            )));
        }
        ProcessGraph::from_json(Value::Object(nodes))
    }
}

/// A copy of `value` in which each parameter is replaced by what `visit` returns for its name,
/// unless that is `None`. `visit` also gets whether the parameter is inside of a graph in an
/// argument.
fn replaced(value: &Value, is_within: bool, visit: &mut impl FnMut(&str, bool) -> Option<Value>) -> Value {
    match value {
        Value::Object(object) => {
            if let Some(name) = object.get("from_parameter").and_then(Value::as_str) {
                return visit(name, is_within).unwrap_or_else(|| value.clone());
            }
            let each = |(name, inner): (&String, &Value)| {
                (name.clone(), replaced(inner, is_within || name == "process_graph", visit))
            };
            object.iter().map(each).collect()
        }
        Value::Array(items) => items.iter().map(|item| replaced(item, is_within, visit)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> ProcessGraph {
        let mean = json!({"process_id": "mean", "arguments": {"data": {"from_parameter": "data"}, "w": {"from_parameter": "weight"}}});
        ProcessGraph::load_collection("S2")
            .process(
                "reduce_dimension",
                json!({"reducer": {"process_graph": {"m": mean}}, "dimension": {"from_parameter": "d"}}),
            )
            .process("add", json!({"y": [{"from_parameter": "weight"}]}))
    }

    #[test]
    fn parameters_are_filled_wherever_they_stand_and_those_of_graphs_within_are_left() {
        assert_eq!(graph().parameters(), ["d", "weight"]);
        let filled = graph().fill(&json!({"weight": {"a": 3}, "d": "t"})).expect("filled");
        let nodes = filled.as_json();
        let inner = &nodes["reducedimension1"]["arguments"]["reducer"]["process_graph"]["m"]["arguments"];
        assert_eq!(inner, &json!({"data": {"from_parameter": "data"}, "w": {"a": 3}}));
        assert_eq!((&nodes["add1"]["arguments"]["y"], filled.parameters().len()), (&json!([{"a": 3}]), 0));
        assert_eq!(graph().fill(&json!({"d": "t"})).expect("a part").parameters(), ["weight"]);
    }

    #[test]
    fn a_value_that_has_no_place_is_no_slip_that_goes_unseen() {
        for (values, named) in [
            (json!({"wieght": 3}), "no parameter `wieght`, but: d, weight"),
            (json!({"data": 3}), "another name"),
            (json!(3), "must be a JSON object"),
        ] {
            let error = graph().fill(&values).expect_err(named);
            assert!(matches!(&error, OpenEoError::Invalid(text) if text.contains(named)), "{error}");
        }
    }

    #[test]
    fn a_call_names_whose_process_it_is() {
        assert_eq!(
            json!(ProcessGraph::call("evi", "user", json!({"a": 1})).as_json()),
            json!({"evi1": {"process_id": "evi", "arguments": {"a": 1}, "namespace": "user", "result": true}})
        );
        assert_eq!(ProcessGraph::call("evi", None, json!({})).as_json()["evi1"].get("namespace"), None);
    }
}
