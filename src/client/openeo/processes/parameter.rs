//! A parameter of a process, and the values that it accepts. Pure.
//!
//! Source: openEO API 1.2, "process parameters"; `openeo` 0.53.0, `api/process.py`, whose documents
//! these are, byte for byte.

use serde_json::{Map, Value, json};

use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::plain;

/// A parameter of a process. In a graph it is a placeholder for its value.
///
/// ```
/// use fulmar::client::openeo::{Parameter, ProcessGraph};
/// use serde_json::json;
///
/// let area = Parameter::bounding_box("area");
/// let month = Parameter::temporal_interval("month").default_value(json!(["2022-06-01", "2022-07-01"]));
/// let graph = ProcessGraph::load_collection("SENTINEL2_L2A").spatial_extent(&area).temporal_interval(&month);
/// assert_eq!(graph.parameters(), ["area", "month"]);
///
/// let filled = graph.fill(&json!({"area": {"west": 3.5, "south": 51.0, "east": 3.6, "north": 51.1}, "month": null}))?;
/// assert_eq!(filled.as_json()["loadcollection1"]["arguments"]["spatial_extent"]["west"], 3.5);
/// # Ok::<(), fulmar::client::openeo::OpenEoError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    document: Map<String, Value>,
    name: String,
}

impl Parameter {
    /// A parameter whose values have this JSON schema. A call must give it a value, unless it has a
    /// [default](Parameter::default_value) or is [optional](Parameter::optional).
    pub fn new(name: &str, description: &str, schema: Value) -> Parameter {
        let mut document = Map::new();
        document.insert("name".to_owned(), json!(name));
        document.insert("description".to_owned(), json!(description));
        document.insert("schema".to_owned(), schema);
        Parameter { document, name: name.to_owned() }
    }

    /// Text.
    pub fn string(name: &str) -> Parameter {
        Parameter::new(name, name, json!({"type": "string"}))
    }

    /// A whole number.
    pub fn integer(name: &str) -> Parameter {
        Parameter::new(name, name, json!({"type": "integer"}))
    }

    /// A number.
    pub fn number(name: &str) -> Parameter {
        Parameter::new(name, name, json!({"type": "number"}))
    }

    /// True or false.
    pub fn boolean(name: &str) -> Parameter {
        Parameter::new(name, name, json!({"type": "boolean"}))
    }

    /// A list.
    pub fn array(name: &str) -> Parameter {
        Parameter::new(name, name, json!({"type": "array"}))
    }

    /// An object.
    pub fn object(name: &str) -> Parameter {
        Parameter::new(name, name, json!({"type": "object"}))
    }

    /// A [`BoundingBox`](crate::client::openeo::BoundingBox).
    pub fn bounding_box(name: &str) -> Parameter {
        let description = "Spatial extent specified as a bounding box with 'west', 'south', 'east' and 'north' fields.";
        let edge = |text: &str| json!({"type": "number", "description": text});
        let crs = "Coordinate reference system of the extent, specified as as [EPSG code](http://www.epsg-registry.org/) or \
                   [WKT2 CRS string](http://docs.opengeospatial.org/is/18-010r7/18-010r7.html). Defaults to `4326` (EPSG \
                   code 4326) unless the client explicitly requests a different coordinate reference system.";
        let schema = json!({
            "type": "object", "subtype": "bounding-box", "required": ["west", "south", "east", "north"],
            "properties": {
                "west": edge("West (lower left corner, coordinate axis 1)."),
                "south": edge("South (lower left corner, coordinate axis 2)."),
                "east": edge("East (upper right corner, coordinate axis 1)."),
                "north": edge("North (upper right corner, coordinate axis 2)."),
                "crs": {
                    "description": crs,
                    "anyOf": [
                        {"type": "integer", "subtype": "epsg-code", "title": "EPSG Code", "minimum": 1000},
                        {"type": "string", "subtype": "wkt2-definition", "title": "WKT2 definition"},
                    ],
                    "default": 4326,
                },
            },
        });
        Parameter::new(name, description, schema)
    }

    /// Two dates or times, of which the second is excluded, such as a
    /// [`Period`](crate::client::openeo::Period).
    pub fn temporal_interval(name: &str) -> Parameter {
        let description = "Temporal extent specified as two-element array with start and end date/date-time.";
        let items = json!({"anyOf": [
            {"type": "string", "subtype": "date-time", "format": "date-time"},
            {"type": "string", "subtype": "date", "format": "date"},
            {"type": "null"},
        ]});
        let schema = json!({
            "type": "array", "subtype": "temporal-interval", "uniqueItems": true, "minItems": 2, "maxItems": 2, "items": items,
        });
        Parameter::new(name, description, schema)
    }

    /// The description, in CommonMark.
    #[must_use]
    pub fn description(mut self, description: &str) -> Parameter {
        self.document.insert("description".to_owned(), json!(description));
        self
    }

    /// The value that is used if a call gives none.
    #[must_use]
    pub fn default_value(mut self, value: Value) -> Parameter {
        self.document.insert("optional".to_owned(), json!(true));
        self.document.insert("default".to_owned(), value);
        self
    }

    /// Allows a call to leave it out. Then it has its [default](Parameter::default_value), or null.
    #[must_use]
    pub fn optional(mut self) -> Parameter {
        self.document.insert("optional".to_owned(), json!(true));
        self
    }

    /// Reads a parameter from JSON: `{"name": .., "schema": .., ..}`.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if it has no name.
    pub fn from_json(document: Value) -> Result<Parameter, OpenEoError> {
        match document {
            Value::Object(document) => match document.get("name").and_then(Value::as_str).map(str::to_owned) {
                Some(name) => Ok(Parameter { document, name }),
                None => {
                    Err(OpenEoError::Invalid("a parameter of a process has no text `name`: give it one".to_owned()))
                }
            },
            _ => Err(OpenEoError::Invalid("a parameter of a process isn't an object".to_owned())),
        }
    }

    /// The JSON for the description of a process.
    pub fn to_json(&self) -> Value {
        Value::Object(self.document.clone())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a call may leave it out.
    pub fn is_optional(&self) -> bool {
        self.document.get("optional") == Some(&Value::Bool(true)) || self.document.contains_key("default")
    }

    /// Its value if a call gives none.
    pub fn default(&self) -> Option<&Value> {
        self.document.get("default")
    }

    /// The placeholder in a graph: `{"from_parameter": "area"}`.
    pub fn here(&self) -> Value {
        json!({"from_parameter": self.name})
    }

    /// Reads the cell of a table as a value of this parameter: as text if the schema wants text,
    /// otherwise as JSON. Without a schema it is JSON if it can be parsed, otherwise text. An empty
    /// cell is `None`.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] names the parameter if the value has none of its types.
    pub fn value_of(&self, cell: &str) -> Result<Option<Value>, OpenEoError> {
        let types = types_of(self.document.get("schema").unwrap_or(&Value::Null));
        let has = |kind: &str| types.iter().any(|found| found == kind);
        if cell.is_empty() {
            return Ok(None);
        }
        let json: Option<Value> = serde_json::from_str(cell).ok();
        let is_of_its_types = |value: &Value| {
            has(match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
                Value::String(_) => "string",
                Value::Number(number) if number.is_f64() => "number",
                Value::Number(_) => return has("integer") || has("number"),
            })
        };
        // Tables also write `TRUE` and `False`.
        let truth = [("true", true), ("false", false)].into_iter().find(|(word, _)| cell.eq_ignore_ascii_case(word));
        match (json, truth) {
            (Some(value), _) if types.is_empty() => Ok(Some(value)),
            (Some(value), _) if !value.is_string() && is_of_its_types(&value) => Ok(Some(value)),
            (_, Some((_, truth))) if has("boolean") => Ok(Some(Value::Bool(truth))),
            _ if types.is_empty() || has("string") => Ok(Some(cell.into())),
            _ => Err(OpenEoError::Invalid(format!(
                "`{}` isn't a value for the parameter `{}`, which is of type {}",
                plain(cell, 80),
                plain(&self.name, 80),
                types.join(" or "),
            ))),
        }
    }
}

/// The types that a JSON schema names, with those of its alternatives.
fn types_of(schema: &Value) -> Vec<String> {
    match schema {
        Value::Array(alternatives) => alternatives.iter().flat_map(types_of).collect(),
        Value::Object(object) => {
            let own = match object.get("type") {
                Some(Value::String(kind)) => vec![kind.clone()],
                Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            let others = ["anyOf", "oneOf", "allOf"].iter().filter_map(|name| object.get(*name)).flat_map(types_of);
            own.into_iter().chain(others).collect()
        }
        _ => Vec::new(),
    }
}

/// The parameter's placeholder, for arguments of a process.
impl From<&Parameter> for Value {
    fn from(parameter: &Parameter) -> Value {
        parameter.here()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_read_as_the_schema_wants_it() {
        let free = Parameter::new("p", "", json!({}));
        let either = Parameter::new("p", "", json!([{"type": "integer"}, {"anyOf": [{"type": ["string", "null"]}]}]));
        for (parameter, cell, expected) in [
            (Parameter::string("p"), "007", json!("007")),
            (Parameter::string("p"), "true", json!("true")),
            (Parameter::string("p"), "\"q\"", json!("\"q\"")),
            (Parameter::integer("p"), "7", json!(7)),
            (Parameter::number("p"), "7.5", json!(7.5)),
            (Parameter::number("p"), " 7", json!(7)),
            (Parameter::boolean("p"), "TRUE", json!(true)),
            (Parameter::array("p"), "[1, 2]", json!([1, 2])),
            (Parameter::object("p"), "{\"a\": 1}", json!({"a": 1})),
            (free.clone(), "{\"a\": 1}", json!({"a": 1})),
            (free.clone(), "plain text", json!("plain text")),
            (either.clone(), "7", json!(7)),
            (either.clone(), "B04", json!("B04")),
            (either, "null", Value::Null),
        ] {
            assert_eq!(parameter.value_of(cell).expect(cell), Some(expected), "{cell}");
        }
        assert_eq!(free.value_of("").expect("nothing"), None);
        for (parameter, cell) in [
            (Parameter::integer("p"), "7.5"),
            (Parameter::number("p"), "seven"),
            (Parameter::number("p"), "NaN"),
            (Parameter::array("p"), "7"),
            (Parameter::object("p"), "[]"),
            (Parameter::boolean("p"), "1"),
        ] {
            let error = parameter.value_of(cell).expect_err(cell);
            assert!(
                matches!(&error, OpenEoError::Invalid(text) if text.contains("`p`") && text.contains(cell)),
                "{error}"
            );
        }
    }
}
