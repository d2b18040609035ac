//! The fields of a query as a table: what each is called on the wire and in the Python client's
//! dictionaries, and its type.
//!
//! One walk over the table reads both spellings and the loose types that the Python client accepts
//! (numbers as text, text as numbers); another writes the second spelling. A field that isn't in
//! the table is kept as it came.
//!
//! Source: `ibmpairs` 3.1.17, `query.py`: `from_dict`, `to_dict` and `to_dict_query_post` of
//! `Query`, `Layer`, `Spatial`, `Temporal` and the classes inside them; `common.py`: `check_str`,
//! `check_int`, `check_float`, `check_bool`.

use serde_json::{Map, Value};

use crate::client::pairs::PairsError;

pub(super) struct Field {
    /// Its name in what is submitted.
    wire: &'static str,
    /// Its name in the Python client's dictionaries.
    dict: &'static str,
    kind: Kind,
}

enum Kind {
    Text,
    Integer,
    Number,
    Bool,
    Any,
    Texts,
    Integers,
    Numbers,
    Object(&'static [Field]),
    Objects(&'static [Field]),
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { wire: name, dict: name, kind }
}

const fn renamed(wire: &'static str, dict: &'static str, kind: Kind) -> Field {
    Field { wire, dict, kind }
}

pub(super) const QUERY: &[Field] = &[
    field("name", Kind::Text),
    field("layers", Kind::Objects(LAYER)),
    field("temporal", Kind::Object(TEMPORAL)),
    field("spatial", Kind::Object(SPATIAL)),
    renamed("outputType", "output_type", Kind::Text),
    renamed("outputLevel", "output_level", Kind::Integer),
    field("description", Kind::Text),
    field("publish", Kind::Bool),
    field("notification", Kind::Object(NOTIFICATION)),
    field("upload", Kind::Object(UPLOAD)),
    field("batch", Kind::Text),
    field("processor", Kind::Objects(PROCESSOR)),
    field("debug", Kind::Bool),
    renamed("autoIngest", "auto_ingest", Kind::Bool),
    renamed("dryRun", "dry_run", Kind::Bool),
];

const LAYER: &[Field] = &[
    field("id", Kind::Text),
    field("type", Kind::Text),
    field("temporal", Kind::Object(TEMPORAL)),
    field("alias", Kind::Text),
    renamed("filterOnly", "filter_only", Kind::Bool),
    field("aggregation", Kind::Text),
    field("filter", Kind::Object(FILTER)),
    field("dimensions", Kind::Objects(DIMENSION)),
    field("expression", Kind::Text),
    field("output", Kind::Bool),
    field("datalayer", Kind::Text),
    field("properties", Kind::Any),
];

const FILTER: &[Field] = &[field("value", Kind::Text), field("operator", Kind::Text), field("expression", Kind::Text)];

const DIMENSION: &[Field] = &[
    field("name", Kind::Text),
    field("value", Kind::Text),
    field("operator", Kind::Text),
    field("options", Kind::Texts),
];

const TEMPORAL: &[Field] = &[field("intervals", Kind::Objects(INTERVAL)), field("years", Kind::Integers)];

const INTERVAL: &[Field] = &[field("snapshot", Kind::Text), field("start", Kind::Text), field("end", Kind::Text)];

const SPATIAL: &[Field] = &[
    field("type", Kind::Text),
    field("aoi", Kind::Text),
    field("polygon", Kind::Object(POLYGON)),
    field("coordinates", Kind::Numbers),
    field("aggregation", Kind::Any),
    field("geojson", Kind::Any),
];

const POLYGON: &[Field] = &[field("wkt", Kind::Text)];

const NOTIFICATION: &[Field] = &[field("type", Kind::Text), field("host", Kind::Text), field("queue", Kind::Text)];

const UPLOAD: &[Field] = &[
    field("provider", Kind::Text),
    field("endpoint", Kind::Text),
    field("bucket", Kind::Text),
    field("token", Kind::Text),
];

const PROCESSOR: &[Field] =
    &[field("order", Kind::Integer), field("type", Kind::Text), field("options", Kind::Objects(OPTION))];

const OPTION: &[Field] = &[field("name", Kind::Text), field("value", Kind::Text)];

/// Reads either spelling into the one of the wire, with the table's types. What is `null` is left
/// out.
///
/// # Errors
/// [`PairsError::Query`] names the field whose value can't be of its type.
pub(super) fn to_wire(
    object: Map<String, Value>,
    table: &[Field],
    path: &str,
) -> Result<Map<String, Value>, PairsError> {
    let mut wire = Map::new();
    for (name, value) in object {
        if value.is_null() {
            continue;
        }
        match table.iter().find(|field| field.wire == name || field.dict == name) {
            None => {
                wire.insert(name, value);
            }
            // Where both spellings are given, the wire's wins, as in the Python client.
            Some(field) if name != field.wire && wire.contains_key(field.wire) => {}
            Some(field) => {
                wire.insert(field.wire.to_owned(), typed(value, &field.kind, &format!("{path}{name}"))?);
            }
        }
    }
    Ok(wire)
}

/// Writes the spelling of the Python client's dictionaries.
pub(super) fn to_dict(wire: &Map<String, Value>, table: &[Field]) -> Map<String, Value> {
    wire.iter()
        .map(|(name, value)| match table.iter().find(|field| field.wire == name) {
            None => (name.clone(), value.clone()),
            Some(field) => (field.dict.to_owned(), renamed_inside(value, &field.kind)),
        })
        .collect()
}

fn renamed_inside(value: &Value, kind: &Kind) -> Value {
    match (kind, value) {
        (Kind::Object(table), Value::Object(object)) => Value::Object(to_dict(object, table)),
        (Kind::Objects(table), Value::Array(items)) => {
            let each = |item: &Value| item.as_object().map_or_else(|| item.clone(), |o| to_dict(o, table).into());
            items.iter().map(each).collect()
        }
        _ => value.clone(),
    }
}

/// The value in the type that the table has for it: a number may come as text, say, and leaves as a
/// number. Goes down into lists and objects. Fails with `PairsError::Query` if the value can't be
/// of that type; `path` names the field in the error.
fn typed(value: Value, kind: &Kind, path: &str) -> Result<Value, PairsError> {
    let typed = match kind {
        Kind::Any => Some(value),
        Kind::Text => text(&value).map(Value::String),
        Kind::Integer => integer(&value).map(Value::from),
        Kind::Number => number(&value).map(Value::from),
        Kind::Bool => boolean(&value).map(Value::Bool),
        Kind::Texts => return each(value, &Kind::Text, path),
        Kind::Integers => return each(value, &Kind::Integer, path),
        Kind::Numbers => return each(value, &Kind::Number, path),
        Kind::Object(table) => match value {
            Value::Object(object) => return to_wire(object, table, &format!("{path}.")).map(Value::Object),
            _ => None,
        },
        Kind::Objects(table) => return each(value, &Kind::Object(table), path),
    };
    typed.ok_or_else(|| PairsError::Query(format!("`{path}` is not {}", kind.describe())))
}

fn each(value: Value, kind: &Kind, path: &str) -> Result<Value, PairsError> {
    let Value::Array(items) = value else {
        return Err(PairsError::Query(format!("`{path}` is not a list")));
    };
    let typed = |(index, item)| typed(item, kind, &format!("{path}[{index}]"));
    items.into_iter().enumerate().map(typed).collect::<Result<_, _>>().map(Value::Array)
}

impl Kind {
    fn describe(&self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Integer => "a whole number",
            Kind::Number => "a finite number",
            Kind::Bool => "true or false",
            Kind::Object(_) => "an object",
            Kind::Any | Kind::Texts | Kind::Integers | Kind::Numbers | Kind::Objects(_) => "a list",
        }
    }
}

/// Text, or a number or truth value written as text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// A whole number, or text that is one.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        _ => value.as_i64(),
    }
}

/// A finite number, or text that is one.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        _ => value.as_f64(),
    }
    .filter(|number: &f64| number.is_finite())
}

/// A truth value, `0`, `1`, or text that says either.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}
