//! Processes that users store on a back-end.
//!
//! Source: openEO API 1.2, "User-Defined Processes"; `openeo` 0.53.0, `rest/udp.py`,
//! `build_process_dict`.

use serde_json::{Map, Value, json};

use super::parameter::Parameter;
use crate::client::http::Method;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::listing::{Listed, Listing};
use crate::client::openeo::documents::text::{plain, segment};
use crate::client::openeo::jobs::graph::ProcessGraph;
use crate::client::openeo::processes::process::Process;

/// A process to store: a graph, with a description of its parameters.
///
/// ```
/// # let server = openeo_server::Server::start(openeo_server::Config::quick())?;
/// # let connection = fulmar::client::openeo::Connection::connect(&server.url())?;
/// # connection.authenticate_basic("u", "u123")?;
/// use fulmar::client::openeo::{NewProcess, Parameter, ProcessGraph};
/// use serde_json::json;
///
/// let f = Parameter::number("f").description("Degrees Fahrenheit.");
/// let graph = ProcessGraph::start("subtract", json!({"x": &f.here(), "y": 32}));
/// let graph = graph.process("divide", json!({"x": {"from_node": "subtract1"}, "y": 1.8}));
/// let process = NewProcess::new(graph).parameter(f).summary("Fahrenheit to Celsius");
/// connection.save_user_defined_process("fahrenheit_to_celsius", &process)?;
///
/// let call = ProcessGraph::call("fahrenheit_to_celsius", "user", json!({"f": 70}));
/// # let _ = call;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a process is stored by `Connection::save_user_defined_process`"]
pub struct NewProcess {
    fields: Map<String, Value>,
    parameters: Vec<Parameter>,
    free: Vec<String>,
}

impl NewProcess {
    /// A process without parameters and descriptions.
    pub fn new(graph: ProcessGraph) -> NewProcess {
        let mut fields = Map::new();
        fields.insert("process_graph".to_owned(), json!(graph.as_json()));
        NewProcess { fields, parameters: Vec::new(), free: graph.parameters() }
    }

    /// Adds a parameter, after those before. Each parameter of the graph must be added.
    pub fn parameter(mut self, parameter: Parameter) -> NewProcess {
        self.parameters.push(parameter);
        self
    }

    /// What it does, in a line.
    pub fn summary(self, summary: &str) -> NewProcess {
        self.field("summary", json!(summary))
    }

    /// What it does, in CommonMark.
    pub fn description(self, description: &str) -> NewProcess {
        self.field("description", json!(description))
    }

    /// What it returns, and its JSON schema.
    pub fn returns(self, description: &str, schema: Value) -> NewProcess {
        self.field("returns", json!({"description": description, "schema": schema}))
    }

    /// Whether others may use it, on back-ends that support this. Defaults to no.
    pub fn public(self, public: bool) -> NewProcess {
        self.field("public", json!(public))
    }

    /// Any other property: `categories`, `examples`, `links`.
    pub fn field(mut self, name: &str, value: Value) -> NewProcess {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// The JSON of the request.
    pub fn as_json(&self) -> Value {
        let mut body = self.fields.clone();
        if !self.parameters.is_empty() {
            body.insert("parameters".to_owned(), self.parameters.iter().map(Parameter::to_json).collect());
        }
        Value::Object(body)
    }

    fn check(&self) -> Result<(), OpenEoError> {
        let is_said = |name: &&String| self.parameters.iter().any(|parameter| parameter.name() == *name);
        match self.free.iter().find(|name| !is_said(name)) {
            None => Ok(()),
            Some(name) => Err(OpenEoError::Invalid(format!(
                "the graph has a parameter `{}` that the process doesn't: say it by `parameter`",
                plain(name, 80)
            ))),
        }
    }
}

impl Connection {
    /// Stores a process for the user under an id, and replaces one with that id.
    /// (`PUT /process_graphs/{id}`)
    ///
    /// # Errors
    /// The back-end's error, if it refuses the id or the graph; [`OpenEoError::Invalid`] if the
    /// graph has a parameter that wasn't added.
    pub fn save_user_defined_process(&self, id: &str, process: &NewProcess) -> Result<(), OpenEoError> {
        process.check()?;
        self.send(self.request(Method::Put, &path(id)).json(&process.as_json())).map(drop)
    }

    /// All processes that the user has stored, from all pages of the list.
    ///
    /// # Errors
    /// The back-end's error, or [`OpenEoError::Reply`] if the reply isn't such a list.
    pub fn list_user_defined_processes(&self) -> Result<Listing<Process>, OpenEoError> {
        self.listing("/process_graphs", "processes")
    }

    /// All details of a process that the user has stored, with its graph.
    ///
    /// # Errors
    /// The back-end's error. If there is no such process, [`OpenEoError::is_not_found`] is true of
    /// it.
    pub fn describe_user_defined_process(&self, id: &str) -> Result<Process, OpenEoError> {
        Ok(Process::new(self.object(&path(id))?))
    }

    /// Removes a process of the user. Jobs that use it may fail from then on.
    ///
    /// # Errors
    /// The back-end's. That there is none isn't an error, if an earlier attempt of this very call
    /// had an unclear answer.
    pub fn delete_user_defined_process(&self, id: &str) -> Result<(), OpenEoError> {
        match self.send(self.request(Method::Delete, &path(id))) {
            Err(error) if error.is_not_found() && error.http().is_some_and(|http| http.attempts() > 1) => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

fn path(id: &str) -> String {
    format!("/process_graphs/{}", segment(id))
}
