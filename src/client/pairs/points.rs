//! The values of point queries, as JSON or as CSV.
//!
//! Source: replies captured in the test data of `ibmpairs` 3.1.17, `query.py`: `QueryResponseData`,
//! and `async_download` for what its file holds.

use serde_json::Value;

use crate::client::pairs::PairsError;
use crate::client::pairs::reply::{Fields, unexpected, without_mark};

/// The columns that are read; other columns are only in the text.
const COLUMNS: [&str; 12] = [
    "layerId",
    "layerName",
    "dataset",
    "timestamp",
    "longitude",
    "latitude",
    "region",
    "value",
    "unit",
    "property",
    "aggregation",
    "alias",
];

/// The values of a point query, in the form that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct PointData {
    form: Form,
    length_known: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Values(Vec<PointValue>),
    Csv(String),
}

/// One value of a point query. A field that the server left out, or that could not be read, is
/// `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PointValue {
    /// The layer's number.
    pub layer_id: Option<i64>,
    /// The layer's name.
    pub layer_name: Option<String>,
    /// The data set's name.
    pub dataset: Option<String>,
    /// The value's time, in milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The longitude, in degrees east.
    pub longitude: Option<f64>,
    /// The latitude, in degrees north.
    pub latitude: Option<f64>,
    /// The region, if one was asked for.
    pub region: Option<String>,
    /// The value, as the server writes it: mostly a number.
    pub value: Option<String>,
    /// The unit of the value.
    pub unit: Option<String>,
    /// The layer's property.
    pub property: Option<String>,
    /// How the values of several times were combined.
    pub aggregation: Option<String>,
    /// The layer's name within the query.
    pub alias: Option<String>,
    /// A line for each field that could not be read and is `None` above.
    pub unreadable: Vec<String>,
}

impl PointData {
    /// Values that came as JSON, where a missing end is always noticed.
    pub(super) fn of_values(values: Vec<PointValue>) -> PointData {
        PointData { form: Form::Values(values), length_known: true }
    }

    /// Values that came as CSV. Fails if the first line names no column of point data, or if the
    /// length isn't known and the text doesn't end with a complete line.
    pub(super) fn csv(text: &str, length_known: bool) -> Result<PointData, PairsError> {
        if !is_csv(text) {
            return Err(unexpected("values of points", text));
        }
        if !length_known && !text.ends_with(['\n', '\r']) {
            let what = "the server didn't say how much there is, and it ends within a line";
            return Err(PairsError::Incomplete(what.to_owned()));
        }
        Ok(PointData { form: Form::Csv(text.to_owned()), length_known })
    }

    /// The text as it came, if it is CSV. [`values`](PointData::values) reads it.
    pub fn as_csv(&self) -> Option<&str> {
        match &self.form {
            Form::Csv(text) => Some(text),
            Form::Values(_) => None,
        }
    }

    /// Whether these are certainly all values. Some servers don't say how long CSV is; if the
    /// connection then breaks between two lines, the text looks complete.
    pub fn length_known(&self) -> bool {
        self.length_known
    }

    /// The values, from JSON or CSV. If one can't be read, it still has its place in the list, and
    /// [`unreadable`](PointValue::unreadable) says what is wrong with it.
    ///
    /// # Errors
    /// [`PairsError::Reply`] if the first line of CSV can't be read.
    pub fn values(&self) -> Result<Vec<PointValue>, PairsError> {
        let text = match &self.form {
            Form::Values(values) => return Ok(values.clone()),
            Form::Csv(text) => text,
        };
        let broken = |error: csv::Error| PairsError::reply(format!("the CSV of a point query is broken: {error}"));
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(without_mark(text).as_bytes());
        let header = reader.headers().map_err(broken)?.clone();
        let row = |row: csv::StringRecord| {
            let fields = header.iter().zip(row.iter()).filter(|(_, field)| !field.is_empty());
            let mut value = PointValue::read(&fields.map(|(name, field)| (name, Value::from(field))).collect());
            if row.len() != header.len() {
                let line = row.position().map_or(0, csv::Position::line);
                value.unreadable.push(format!("line {line} has {} fields, not {}", row.len(), header.len()));
            }
            value
        };
        reader.records().map(|record| Ok(row(record.map_err(broken)?))).collect()
    }

    /// The text that the Python client writes to a file: CSV as it came, or a JSON list with its
    /// own names.
    pub fn to_file_text(&self) -> String {
        match &self.form {
            Form::Csv(text) => text.clone(),
            Form::Values(_) => format!("{:#}", self.to_value()),
        }
    }

    /// The values as the Python client's dictionaries; CSV as text.
    pub(super) fn to_value(&self) -> Value {
        match &self.form {
            Form::Csv(text) => text.as_str().into(),
            Form::Values(values) => values.iter().map(PointValue::to_dict).collect(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        match &self.form {
            Form::Csv(text) => text.is_empty(),
            Form::Values(values) => values.is_empty(),
        }
    }

    /// The ending of its file's name.
    pub fn extension(&self) -> &'static str {
        match &self.form {
            Form::Csv(_) => "csv",
            Form::Values(_) => "json",
        }
    }
}

impl PointValue {
    /// Reads one value. It can't fail: a field that can't be read is `None`, and `unreadable` says
    /// why. Names may be those of the server or of the Python client.
    pub(super) fn read(value: &Value) -> PointValue {
        let mut fields = Fields::of(value, dict_name);
        PointValue {
            layer_id: fields.integer("layerId"),
            layer_name: fields.text("layerName"),
            dataset: fields.text("dataset"),
            timestamp: fields.integer("timestamp"),
            longitude: fields.number("longitude"),
            latitude: fields.number("latitude"),
            region: fields.text("region"),
            value: fields.text("value"),
            unit: fields.text("unit"),
            property: fields.text("property"),
            aggregation: fields.text("aggregation"),
            alias: fields.text("alias"),
            unreadable: fields.unreadable(),
        }
    }

    /// The value as the Python client's dictionary.
    fn to_dict(&self) -> Value {
        let text = |value: &Option<String>| value.clone().map(Value::from);
        let values = [
            self.layer_id.map(Value::from),
            text(&self.layer_name),
            text(&self.dataset),
            self.timestamp.map(Value::from),
            self.longitude.map(Value::from),
            self.latitude.map(Value::from),
            text(&self.region),
            text(&self.value),
            text(&self.unit),
            text(&self.property),
            text(&self.aggregation),
            text(&self.alias),
        ];
        let named = COLUMNS.iter().zip(values).filter_map(|(name, value)| Some((dict_name(name), value?)));
        Value::Object(named.collect())
    }
}

/// Whether a text begins as the CSV of a point query does. An HTML page, or an error in prose,
/// doesn't.
pub(super) fn is_csv(text: &str) -> bool {
    let first = without_mark(text).lines().next().unwrap_or_default();
    let mut names = first.split(',').map(|name| name.trim().trim_matches('"'));
    names.any(|name| COLUMNS.iter().any(|column| column.eq_ignore_ascii_case(name)))
}

/// `layerId` as `layer_id`.
fn dict_name(wire: &str) -> String {
    let mut name = String::new();
    for character in wire.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}
