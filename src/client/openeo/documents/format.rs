//! The file formats of a back-end.

use std::fmt;

use serde_json::Value;

use super::listing::{fields, text, texts};
use super::table::Table;

/// The formats that a back-end reads and writes. Prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct FileFormats {
    document: Value,
}

/// One format of files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileFormat<'a> {
    name: &'a str,
    document: &'a Value,
}

impl FileFormats {
    pub(crate) fn new(document: Value) -> FileFormats {
        FileFormats { document }
    }

    /// The document as it came.
    pub fn as_json(&self) -> &Value {
        &self.document
    }

    /// The formats that it reads, by name.
    pub fn input(&self) -> Vec<FileFormat<'_>> {
        self.of("input")
    }

    /// The formats that it writes, by name.
    pub fn output(&self) -> Vec<FileFormat<'_>> {
        self.of("output")
    }

    /// The format with this name, if the back-end reads it. Upper and lower case are the same.
    pub fn find_input(&self, name: &str) -> Option<FileFormat<'_>> {
        self.input().into_iter().find(|format| format.name.eq_ignore_ascii_case(name))
    }

    /// The format with this name, if the back-end writes it. Upper and lower case are the same.
    pub fn find_output(&self, name: &str) -> Option<FileFormat<'_>> {
        self.output().into_iter().find(|format| format.name.eq_ignore_ascii_case(name))
    }

    fn of(&self, direction: &str) -> Vec<FileFormat<'_>> {
        fields(&self.document, direction).map(|(name, document)| FileFormat { name, document }).collect()
    }
}

impl<'a> FileFormat<'a> {
    /// Its name, for `save_result`: `GTiff`.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its title.
    pub fn title(&self) -> Option<&'a str> {
        text(self.document, "title")
    }

    /// The kinds of data that it can have: `raster`, `vector`, `table`, `pointcloud`, `other`.
    pub fn data_types(&self) -> Vec<&'a str> {
        texts(self.document, "gis_data_types").collect()
    }

    /// The names of its options.
    pub fn options(&self) -> Vec<&'a str> {
        fields(self.document, "parameters").map(|(name, _)| name.as_str()).collect()
    }
}

impl fmt::Display for FileFormats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["format", "for", "data", "options", "title"]);
        for (direction, formats) in [("input", self.input()), ("output", self.output())] {
            for format in formats {
                let (data, options) = (format.data_types().join(", "), format.options().join(", "));
                table.row(&[format.name(), direction, &data, &options, format.title().unwrap_or_default()]);
            }
        }
        table.fmt(f)
    }
}
