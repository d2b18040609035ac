//! The runtimes in which a back-end runs users' own code.

use std::fmt;

use serde_json::Value;

use super::listing::{fields, text};
use super::table::Table;

/// The runtimes for user-defined functions. Prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct UdfRuntimes {
    document: Value,
}

/// One runtime, of a language or of a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UdfRuntime<'a> {
    name: &'a str,
    document: &'a Value,
}

impl UdfRuntimes {
    pub(crate) fn new(document: Value) -> UdfRuntimes {
        UdfRuntimes { document }
    }

    /// The document as it came.
    pub fn as_json(&self) -> &Value {
        &self.document
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = UdfRuntime<'_>> {
        self.document.as_object().into_iter().flatten().map(|(name, document)| UdfRuntime { name, document })
    }

    /// The runtime with this name, in upper or lower case.
    pub fn find(&self, name: &str) -> Option<UdfRuntime<'_>> {
        self.iter().find(|runtime| runtime.name().eq_ignore_ascii_case(name))
    }
}

impl<'a> UdfRuntime<'a> {
    /// Its name, for `run_udf`: `Python`.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its title.
    pub fn title(&self) -> Option<&'a str> {
        text(self.document, "title")
    }

    /// `language` or `docker`.
    pub fn kind(&self) -> Option<&'a str> {
        text(self.document, "type")
    }

    /// The version, or the tag, that is used if a call names none.
    pub fn default_version(&self) -> Option<&'a str> {
        text(self.document, "default")
    }

    /// The versions of a language, or the tags of a container.
    pub fn versions(&self) -> Vec<&'a str> {
        let tags = self.document.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        fields(self.document, "versions").map(|(version, _)| version.as_str()).chain(tags).collect()
    }

    /// The libraries of a version, each with its own version.
    pub fn libraries(&self, version: &str) -> Vec<(&'a str, &'a str)> {
        let version = fields(self.document, "versions").find(|(name, _)| *name == version).map(|(_, found)| found);
        let libraries = version.into_iter().flat_map(|version| fields(version, "libraries"));
        libraries.map(|(name, library)| (name.as_str(), text(library, "version").unwrap_or_default())).collect()
    }
}

impl fmt::Display for UdfRuntimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["runtime", "type", "version", "libraries"]);
        for runtime in self.iter() {
            for version in runtime.versions() {
                let default = if runtime.default_version() == Some(version) { " (default)" } else { "" };
                let libraries = runtime.libraries(version);
                let libraries: Vec<_> = libraries.iter().map(|(name, version)| format!("{name} {version}")).collect();
                let kind = runtime.kind().unwrap_or_default();
                table.row(&[runtime.name(), kind, &format!("{version}{default}"), &libraries.join(", ")]);
            }
        }
        table.fmt(f)
    }
}
