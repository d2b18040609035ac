//! A query: which layers, which place, which time, and in which format.
//!
//! Source: `ibmpairs` 3.1.17, `query.py`: class `Query` and its `from_dict`, `to_dict`,
//! `to_dict_query_post`, `is_bulk` and `replace_dates`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::client::date;
use crate::client::pairs::{PairsError, id, schema};

/// Fields that describe one run of a query and are never submitted: the Python client's own names.
const RUN: &[&str] = &["submit_response", "status_response", "download_status", "merge_response", "merge_status"];

/// One query, from JSON as users of the Python client have it, or put together with
/// [`Query::builder`].
///
/// Both spellings are read: what is submitted (`outputType`) and what the Python client's `to_dict`
/// writes (`output_type`, with `id`, `download_folder` and `download_file_name`). A field that
/// isn't known is kept and submitted as it came.
///
/// ```
/// use fulmar::client::pairs::Query;
/// use serde_json::json;
///
/// let query: Query = r#"{
///     "layers": [{"id": "49429", "type": "raster"}],
///     "spatial": {"type": "square", "coordinates": ["35.6523", "-87.62", "51.6523", "-71.62"]},
///     "temporal": {"intervals": [{"start": "2023-01-01T00:00:00Z", "end": "2023-01-01T00:00:00Z"}]}
/// }"#.parse()?;
///
/// let next_day = query.replace_dates("2023-01-02", "2023-01-02")?;
/// assert_eq!(next_day.to_submit()["temporal"], json!({"intervals": [{"start": "2023-01-02", "end": "2023-01-02"}]}));
/// assert_eq!(next_day.to_submit()["spatial"]["coordinates"][0], 35.6523);
/// # Ok::<(), fulmar::client::pairs::PairsError>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Query {
    /// The fields that are submitted, in the wire's spelling.
    body: Map<String, Value>,
    id: Option<String>,
    folder: Option<PathBuf>,
    file_name: Option<String>,
    /// The fields of [`RUN`], as they came.
    run: Map<String, Value>,
}

impl Query {
    /// Starts an empty query.
    ///
    /// ```
    /// use fulmar::client::pairs::{Layer, Query};
    ///
    /// let query = Query::builder()
    ///     .layer(Layer::new("92").aggregation("Mean"))
    ///     .square(30.0, -100.0, 30.5, -99.6)
    ///     .snapshot("2018-11-01T00:00:00")
    ///     .build()?;
    /// assert!(!query.is_interactive());
    /// # Ok::<(), fulmar::client::pairs::PairsError>(())
    /// ```
    pub fn builder() -> QueryBuilder {
        QueryBuilder::default()
    }

    /// Reads a query from a JSON object in either spelling.
    ///
    /// # Errors
    /// [`PairsError::Query`] names the field with a wrong type, or says that the value isn't an
    /// object.
    pub fn from_value(value: Value) -> Result<Query, PairsError> {
        let Value::Object(mut object) = value else {
            return Err(PairsError::Query("it is not a JSON object".to_owned()));
        };
        let mut text = |name: &str| match object.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                schema::text(&value).map(Some).ok_or_else(|| PairsError::Query(format!("`{name}` is not text")))
            }
        };
        let (id, folder, file_name) = (text("id")?, text("download_folder")?, text("download_file_name")?);
        if let Some(id) = &id {
            id::check(id)?;
        }
        let run = RUN.iter().filter_map(|name| object.remove_entry(*name)).filter(|(_, value)| !value.is_null());
        let run = run.collect();
        let body = schema::to_wire(object, schema::QUERY, "")?;
        Ok(Query { body, id, folder: folder.map(PathBuf::from), file_name, run })
    }

    /// The JSON that is submitted: in the wire's spelling, without fields that only the client
    /// uses.
    ///
    /// A point query that is answered at once only has the formats JSON and CSV. As in the Python
    /// client, any other `outputType` becomes `json`.
    pub fn to_submit(&self) -> Value {
        let mut body = self.body.clone();
        let known = |kind: &str| ["json", "csv"].iter().any(|known| kind.eq_ignore_ascii_case(known));
        if self.is_interactive() && self.output_type().is_some_and(|kind| !known(kind)) {
            body.insert("outputType".to_owned(), "json".into());
        }
        Value::Object(body)
    }

    /// The Python client's dictionary: its spelling, with `id`, `download_folder` and
    /// `download_file_name`.
    pub fn to_dict(&self) -> Value {
        let mut dict = schema::to_dict(&self.body, schema::QUERY);
        dict.extend(self.run.clone());
        let folder = self.folder.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        let own = [("id", &self.id), ("download_folder", &folder), ("download_file_name", &self.file_name)];
        for (name, value) in own {
            dict.extend(value.iter().map(|value| (name.to_owned(), Value::from(value.as_str()))));
        }
        Value::Object(dict)
    }

    /// The same query for other dates, as the Python client's `replace_dates`: each interval of the
    /// query and of its layers becomes `start` to `end`, days as `2023-01-02`; a query without any
    /// gets one. Takes days, and days with a time of which only the day counts; a layer's alias
    /// that ends in `ID.MILLISECONDS>MILLISECONDS` follows, in UTC.
    ///
    /// Unlike there a snapshot gives way to the new interval instead of standing beside it, and a
    /// query without a name isn't called `no_name`.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] names what isn't a date.
    pub fn replace_dates(&self, start: &str, end: &str) -> Result<Query, PairsError> {
        let mut query = self.clone();
        let parse = |text: &str| {
            let invalid =
                || PairsError::Invalid(format!("`{text}` isn't a date: write 2023-01-31, or 2023-01-31T12:00:00Z"));
            date::parse(text).ok_or_else(invalid)
        };
        let (start, end) = (parse(start)?, parse(end)?);
        let interval = json!({"start": date::day(start), "end": date::day(end)});
        for layer in query.body.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(intervals) = layer.pointer_mut("/temporal/intervals").and_then(Value::as_array_mut) {
                intervals.iter_mut().for_each(|each| *each = interval.clone());
            }
            let prefix = layer.get("id").and_then(Value::as_str).map(|id| format!("{id}."));
            if let (Some(prefix), Some(alias)) = (prefix, layer.get_mut("alias")) {
                if alias.as_str().is_some_and(|alias| names_its_dates(alias, &prefix)) {
                    *alias = format!("{prefix}{}>{}", start * 1_000, end * 1_000).into();
                }
            }
        }
        let temporal = query.body.entry("temporal").or_insert_with(|| json!({"intervals": [interval.clone()]}));
        if let Some(intervals) = temporal.get_mut("intervals").and_then(Value::as_array_mut) {
            intervals.iter_mut().for_each(|each| *each = interval.clone());
        }
        Ok(query)
    }

    /// The name that the server shows as `nickname`.
    pub fn name(&self) -> Option<&str> {
        self.field("name").and_then(Value::as_str)
    }

    /// The id that the server gave it, once it was submitted.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The same query, as one that was submitted before and got this id.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if the text can't be an id.
    pub fn with_id(mut self, id: &str) -> Result<Query, PairsError> {
        self.id = Some(id::check(id)?.to_owned());
        Ok(self)
    }

    /// The folder for its files, if the query has one.
    pub fn download_folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The name of its files, without an ending, if the query has one.
    pub fn download_file_name(&self) -> Option<&str> {
        self.file_name.as_deref()
    }

    /// A field of what is submitted, by the wire's name.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.body.get(name)
    }

    /// The format of its result: `json`, `csv`, ..
    pub fn output_type(&self) -> Option<&str> {
        self.field("outputType").and_then(Value::as_str)
    }

    /// Whether it only asks for the costs.
    pub fn is_dry_run(&self) -> bool {
        self.field("dryRun").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether the server answers it at once: it asks for points, without `batch`. If there are too
    /// many points, the server makes it a job all the same.
    pub fn is_interactive(&self) -> bool {
        let batch = self.field("batch").and_then(Value::as_str).unwrap_or("");
        self.is_point() && (batch.is_empty() || batch.eq_ignore_ascii_case("false"))
    }

    /// Whether it asks for points, rather than for an area.
    pub fn is_point(&self) -> bool {
        let kind = self.field("spatial").and_then(|spatial| spatial.get("type")).and_then(Value::as_str);
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case("point"))
    }

    /// Without the folder and the name of its files.
    pub(super) fn without_place(self) -> Query {
        Query { folder: None, file_name: None, ..self }
    }

    /// The same query with another name on the server, and with this folder for its files, unless
    /// it has one.
    #[cfg(feature = "sqlite")]
    pub(super) fn placed(mut self, name: &str, folder: Option<PathBuf>) -> Query {
        self.body.insert("name".to_owned(), name.into());
        self.folder = self.folder.or(folder);
        self
    }

    pub(super) fn set_id(&mut self, id: &str) {
        self.id = Some(id.to_owned());
    }

    pub(super) fn set_dry_run(&mut self) {
        self.body.insert("dryRun".to_owned(), true.into());
    }
}

/// Whether an alias is `ID.DIGITS>DIGITS`, with up to 13 digits each.
fn names_its_dates(alias: &str, prefix: &str) -> bool {
    let stamp = |text: &str| (1..=13).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let dates = alias.rfind(prefix).and_then(|at| alias.get(at + prefix.len()..));
    dates.and_then(|dates| dates.split_once('>')).is_some_and(|(start, end)| stamp(start) && stamp(end))
}

impl FromStr for Query {
    type Err = PairsError;

    /// Reads a query from JSON text, nested at most 128 deep.
    fn from_str(text: &str) -> Result<Query, PairsError> {
        let value =
            serde_json::from_str(text).map_err(|error| PairsError::Query(format!("it is not JSON: {error}")))?;
        Query::from_value(value)
    }
}

/// Shows no values, because a log must not have an upload's token, or other secrets of a query.
impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.field("layers").and_then(Value::as_array).map_or(0, Vec::len);
        f.debug_struct("Query")
            .field("name", &self.name())
            .field("id", &self.id)
            .field("layers", &layers)
            .field("interactive", &self.is_interactive())
            .finish_non_exhaustive()
    }
}

/// Puts a [`Query`] together. Each setter replaces what an earlier one of its kind set, except
/// those that add.
#[derive(Clone, Default)]
#[must_use]
pub struct QueryBuilder {
    body: Map<String, Value>,
    layers: Vec<Value>,
    intervals: Vec<Value>,
    folder: Option<PathBuf>,
    file_name: Option<String>,
}

impl QueryBuilder {
    /// Adds a layer: its number, or a [`Layer`].
    pub fn layer(mut self, layer: impl Into<Layer>) -> QueryBuilder {
        self.layers.push(Value::Object(layer.into().0));
        self
    }

    /// Asks for a box: south, west, north and east edge in degrees.
    pub fn square(self, south: f64, west: f64, north: f64, east: f64) -> QueryBuilder {
        self.spatial(json!({"type": "square", "coordinates": [south, west, north, east]}))
    }

    /// Asks for points, each as latitude and longitude in degrees. Answered at once, unless there
    /// are too many.
    pub fn points(self, points: &[(f64, f64)]) -> QueryBuilder {
        let coordinates: Vec<f64> = points.iter().flat_map(|&(latitude, longitude)| [latitude, longitude]).collect();
        self.spatial(json!({"type": "point", "coordinates": coordinates}))
    }

    /// Asks for an area of interest that the server knows by this number.
    pub fn aoi(self, aoi: u64) -> QueryBuilder {
        self.spatial(json!({"type": "poly", "aoi": aoi.to_string()}))
    }

    /// Asks for a polygon, as well-known text.
    pub fn polygon(self, wkt: &str) -> QueryBuilder {
        self.spatial(json!({"type": "poly", "polygon": {"wkt": wkt}}))
    }

    /// Asks for the place in this `spatial` object.
    pub fn spatial(self, spatial: Value) -> QueryBuilder {
        self.field("spatial", spatial)
    }

    /// Adds one point in time, as `2018-11-01T00:00:00`.
    pub fn snapshot(mut self, at: &str) -> QueryBuilder {
        self.intervals.push(json!({"snapshot": at}));
        self
    }

    /// Adds the time from `start` to `end`, each as `2018-11-01T00:00:00`.
    pub fn interval(mut self, start: &str, end: &str) -> QueryBuilder {
        self.intervals.push(json!({"start": start, "end": end}));
        self
    }

    /// The name that the server shows as `nickname`, and that names the file of a point query. None
    /// by default.
    pub fn name(self, name: &str) -> QueryBuilder {
        self.field("name", name.into())
    }

    /// The form of the result: `csv`, `json`, .. The server's choice by default.
    pub fn output_type(self, kind: &str) -> QueryBuilder {
        self.field("outputType", kind.into())
    }

    /// Whether a query for points becomes a job instead of being answered at once. Defaults to
    /// false.
    pub fn batch(self, batch: bool) -> QueryBuilder {
        self.field("batch", batch.to_string().into())
    }

    /// Whether to ask only for the costs. Defaults to false.
    pub fn dry_run(self, dry_run: bool) -> QueryBuilder {
        self.field("dryRun", dry_run.into())
    }

    /// Any other field, by the wire's name: `description`, `processor`, `upload`, ..
    pub fn field(mut self, name: &str, value: Value) -> QueryBuilder {
        self.body.insert(name.to_owned(), value);
        self
    }

    /// The folder for its files. It wins over that of a batch.
    pub fn download_folder(mut self, folder: impl Into<PathBuf>) -> QueryBuilder {
        self.folder = Some(folder.into());
        self
    }

    /// The name of its files, without an ending. Defaults to the id, or, for points that are
    /// answered at once, to the query's name.
    pub fn download_file_name(mut self, name: &str) -> QueryBuilder {
        self.file_name = Some(name.to_owned());
        self
    }

    /// Makes the query.
    ///
    /// # Errors
    /// [`PairsError::Query`] if it has no layer or no place, or a field with a wrong type.
    pub fn build(self) -> Result<Query, PairsError> {
        let QueryBuilder { mut body, layers, intervals, folder, file_name } = self;
        if !layers.is_empty() {
            body.insert("layers".to_owned(), Value::Array(layers));
        }
        if !intervals.is_empty() {
            body.insert("temporal".to_owned(), json!({"intervals": intervals}));
        }
        for (name, remedy) in [("layers", "name a layer"), ("spatial", "say where: a square, points, a polygon")] {
            if !body.contains_key(name) {
                return Err(PairsError::Query(format!("it has no `{name}`: {remedy}")));
            }
        }
        let query = Query::from_value(Value::Object(body))?;
        Ok(Query { folder, file_name, ..query })
    }
}

/// Shows no values, because a query may have an upload's token.
impl fmt::Debug for QueryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryBuilder").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

/// One layer of a [`Query`]. Each setter replaces what was set before, except those that add.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer(Map<String, Value>);

impl Layer {
    /// The layer with this number.
    pub fn new(id: impl ToString) -> Layer {
        Layer(Map::new()).field("id", id.to_string().into())
    }

    /// `raster` or `vector`. The server's choice by default.
    #[must_use]
    pub fn kind(self, kind: &str) -> Layer {
        self.field("type", kind.into())
    }

    /// How values of several times are combined: `Mean`, `Max`, .. Not at all by default.
    #[must_use]
    pub fn aggregation(self, aggregation: &str) -> Layer {
        self.field("aggregation", aggregation.into())
    }

    /// The name that it has in expressions of other layers.
    #[must_use]
    pub fn alias(self, alias: &str) -> Layer {
        self.field("alias", alias.into())
    }

    /// An expression that is computed for each cell, from the aliases of other layers.
    #[must_use]
    pub fn expression(self, expression: &str) -> Layer {
        self.field("expression", expression.into())
    }

    /// Adds the value that a dimension of the layer must have.
    #[must_use]
    pub fn dimension(mut self, name: &str, value: &str) -> Layer {
        let dimension = json!({"name": name, "value": value});
        if let Value::Array(dimensions) = self.0.entry("dimensions").or_insert_with(|| json!([])) {
            dimensions.push(dimension);
        }
        self
    }

    /// Any other field, by the wire's name: `filter`, `filterOnly`, `temporal`, `output`, ..
    #[must_use]
    pub fn field(mut self, name: &str, value: Value) -> Layer {
        self.0.insert(name.to_owned(), value);
        self
    }
}

impl From<&str> for Layer {
    fn from(id: &str) -> Layer {
        Layer::new(id)
    }
}

impl From<u64> for Layer {
    fn from(id: u64) -> Layer {
        Layer::new(id)
    }
}
