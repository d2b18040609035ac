//! The description of a process, by a back-end or a user.

use std::fmt;

use serde_json::Value;

use super::parameter::Parameter;
use crate::client::openeo::documents::listing::{Listed, text, texts};
use crate::client::openeo::documents::table::Table;

/// A process that graphs can call, of the back-end or of a user, in its details or in a list.
/// Prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    document: Value,
}

impl Process {
    /// The document as it came.
    pub fn as_json(&self) -> &Value {
        &self.document
    }

    /// Its id, by which graphs call it.
    pub fn id(&self) -> &str {
        text(&self.document, "id").unwrap_or_default()
    }

    /// What it does, in a line.
    pub fn summary(&self) -> Option<&str> {
        text(&self.document, "summary")
    }

    /// What it does, in CommonMark.
    pub fn description(&self) -> Option<&str> {
        text(&self.document, "description")
    }

    /// Its parameters, in order, without those that have no name.
    pub fn parameters(&self) -> Vec<Parameter> {
        let parameters = self.document.get("parameters").and_then(Value::as_array).into_iter().flatten();
        parameters.filter_map(|parameter| Parameter::from_json(parameter.clone()).ok()).collect()
    }

    /// What it returns: `description` and `schema`.
    pub fn returns(&self) -> Option<&Value> {
        self.document.get("returns").filter(|returns| !returns.is_null())
    }

    /// Its process graph, if this description has it. A process that a user stored always has one,
    /// but a list leaves it out.
    pub fn process_graph(&self) -> Option<&Value> {
        self.document.get("process_graph").filter(|graph| !graph.is_null())
    }

    /// Its categories.
    pub fn categories(&self) -> Vec<&str> {
        texts(&self.document, "categories").collect()
    }

    /// Whether it is deprecated, and will be removed.
    pub fn is_deprecated(&self) -> bool {
        self.document.get("deprecated") == Some(&Value::Bool(true))
    }

    /// Whether it is experimental, and may change.
    pub fn is_experimental(&self) -> bool {
        self.document.get("experimental") == Some(&Value::Bool(true))
    }

    /// `x, y, [z]`: those in brackets may be left out.
    fn shown_parameters(&self) -> String {
        let name = |parameter: &Parameter| match parameter.is_optional() {
            true => format!("[{}]", parameter.name()),
            false => parameter.name().to_owned(),
        };
        self.parameters().iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

impl Listed for Process {
    const HEADING: &'static [&'static str] = &["id", "parameters", "summary"];

    fn new(document: Value) -> Process {
        Process { document }
    }

    fn name(&self) -> &str {
        self.id()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.id().to_owned(), self.shown_parameters(), self.summary().unwrap_or_default().to_owned()]
    }
}

impl fmt::Display for Process {
    /// Writes a table: a line for the summary, the description, each parameter, and what the
    /// process returns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["process", self.id()]);
        for (name, value) in [("summary", self.summary()), ("description", self.description())] {
            if let Some(value) = value {
                table.row(&[name, value]);
            }
        }
        for parameter in self.parameters() {
            let document = parameter.to_json();
            let optional = if parameter.is_optional() { " (optional)" } else { "" };
            let words = text(&document, "description").unwrap_or_default();
            table.row(&[&format!("parameter: {}{optional}", parameter.name()), words]);
        }
        if let Some(words) = self.returns().and_then(|returns| text(returns, "description")) {
            table.row(&["returns", words]);
        }
        table.fmt(f)
    }
}
