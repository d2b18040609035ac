//! Reads values for parameters from a table: each row is one call.
//!
//! Source: `openeo` 0.53.0, `extra/job_management/process_based.py`, `ProcessBasedJobCreator`.

use std::io::Read;

use serde_json::{Map, Value};

use super::parameter::Parameter;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::plain;

/// Reads CSV, with the names of parameters in its first line, into one object of values a row. A
/// column that isn't a parameter's is left out, so that a table may hold more; a cell is read as
/// the parameter's schema wants it ([`Parameter::value_of`]), and an empty one is the parameter's
/// default.
///
/// # Errors
/// [`OpenEoError::Invalid`] for what isn't CSV, for a cell that isn't a value of its parameter, and
/// for one that is empty and has no default; it names the line.
///
/// ```
/// use fulmar::client::openeo::{Parameter, ProcessGraph, parameters_from_csv};
/// use serde_json::json;
///
/// let parameters = [Parameter::number("x"), Parameter::number("y").default_value(json!(5))];
/// let rows = parameters_from_csv("name,x,y\nfirst,3,\nsecond,4,6\n".as_bytes(), &parameters)?;
/// let graph = ProcessGraph::start("add", json!({"x": parameters[0].here(), "y": parameters[1].here()}));
/// assert_eq!(graph.fill(&rows[0])?.as_json()["add1"]["arguments"], json!({"x": 3, "y": 5}));
/// # Ok::<(), fulmar::client::openeo::OpenEoError>(())
/// ```
pub fn parameters_from_csv(table: impl Read, parameters: &[Parameter]) -> Result<Vec<Value>, OpenEoError> {
    let broken = |error: csv::Error| OpenEoError::Invalid(format!("the table of parameters is broken: {error}"));
    let mut reader = csv::Reader::from_reader(table);
    let mut header = reader.headers().map_err(broken)?.clone();
    if let Some(first) = header.get(0).and_then(|first| first.strip_prefix('\u{feff}')) {
        header = std::iter::once(first).chain(header.iter().skip(1)).collect();
    }
    let row = |record: csv::StringRecord| {
        let line = record.position().map_or(0, csv::Position::line);
        let mut values = Map::new();
        for parameter in parameters {
            let cell = header.iter().position(|name| name == parameter.name()).and_then(|column| record.get(column));
            let value = parameter.value_of(cell.unwrap_or_default()).map_err(|error| at(line, error))?;
            match (value, parameter.default()) {
                (Some(value), _) => values.insert(parameter.name().to_owned(), value),
                (None, Some(default)) => values.insert(parameter.name().to_owned(), default.clone()),
                // By the API, an optional parameter without a default is null.
                (None, None) if parameter.is_optional() => values.insert(parameter.name().to_owned(), Value::Null),
                (None, None) => {
                    let name = plain(parameter.name(), 80);
                    return Err(OpenEoError::Invalid(format!(
                        "line {line} of the table has no value for the parameter `{name}`, which has no default"
                    )));
                }
            };
        }
        Ok(Value::Object(values))
    };
    reader.into_records().map(|record| row(record.map_err(broken)?)).collect()
}

fn at(line: u64, error: OpenEoError) -> OpenEoError {
    match error {
        OpenEoError::Invalid(text) => OpenEoError::Invalid(format!("line {line} of the table: {text}")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_is_an_object_of_values() {
        let parameters = [
            Parameter::bounding_box("area"),
            Parameter::string("band").default_value(json!("B04")),
            Parameter::integer("n").optional(),
        ];
        let table = "\u{feff}area,n,comment\n\"{\"\"west\"\": 1}\",7,x\n\"{\"\"west\"\": 2}\",,\n";
        let rows = parameters_from_csv(table.as_bytes(), &parameters).expect("rows");
        assert_eq!(
            rows,
            [
                json!({"area": {"west": 1}, "band": "B04", "n": 7}),
                json!({"area": {"west": 2}, "band": "B04", "n": null})
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let parameters = [Parameter::integer("n")];
        for (table, named) in [
            ("n\n1\nx\n", "line 3 of the table: `x` isn't a value for the parameter `n`"),
            ("m\n1\n", "line 2 of the table has no value for the parameter `n`"),
            ("n\n1,2\n", "broken"),
        ] {
            let error = parameters_from_csv(table.as_bytes(), &parameters).expect_err(named);
            assert!(matches!(&error, OpenEoError::Invalid(text) if text.contains(named)), "{error}");
        }
    }
}
