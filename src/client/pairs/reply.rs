//! Reads a PAIRS server's replies with caution: types may be loose as in the Python client, ids and
//! sizes are checked, and no reply causes a panic.
//!
//! Source: replies captured in the test data of `ibmpairs` 3.1.17, and `query.py`: `QueryResponse`,
//! `QueryResponseData`, `QueryJob`, `QueryJobs`, `QueryHistory`, `QueryJobLayer` and `Info`.

use serde_json::{Map, Value};

use crate::client::http::json;
use crate::client::pairs::points::{PointData, PointValue};
use crate::client::pairs::{PairsError, Query, StatusCode, id, schema};

/// The answer to a submission.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Submission {
    /// The query became a job with this id.
    Job(String),
    /// The values of a point query, at once.
    Points(PointData),
    /// The costs of the query, for a dry run.
    Estimate(Estimate),
}

/// The estimated costs of a query: the answer to a dry run. A number that the server left out is
/// `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// How much of the allowance it would use, in [`usage_unit`](Estimate::usage_unit).
    pub usage: Option<f64>,
    /// The unit of `usage` and `max_usage`.
    pub usage_unit: Option<String>,
    /// The whole allowance.
    pub max_usage: Option<f64>,
    /// The size of the result, in megabytes.
    pub size: Option<f64>,
    /// The largest size that is allowed, in megabytes.
    pub max_size: Option<f64>,
    /// How many values the result would have.
    pub count: Option<i64>,
    /// From how many values on a query for points becomes a job.
    pub interactive_max_count: Option<i64>,
    /// The largest number of values that is allowed.
    pub max_count: Option<i64>,
}

/// The state of one query: the answer to a poll.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueryJob {
    /// Its id; in the form of one plain name.
    pub id: String,
    /// The code of its state.
    pub code: StatusCode,
    /// The server's text for that, as it came.
    pub status: String,
    /// When it was submitted, in milliseconds since 1970 by the server's clock.
    pub start: Option<i64>,
    /// The query's name.
    pub nickname: Option<String>,
    /// How much of it is done, from 0 to 1.
    pub progress: Option<f32>,
    /// Whether it is a favourite.
    pub favorite: bool,
    /// Whether there is something to download.
    pub ready: bool,
    /// South, west, north and east edge of its box in degrees; all zero if it has none.
    pub square: Option<[f64; 4]>,
    /// The server's message, mostly why it failed.
    pub message: Option<String>,
}

/// One page of the list of queries, newest first.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueryJobs {
    /// How many pages there are; 0 if there is none, or if the server doesn't say.
    pub pages: u64,
    /// The queries of this page.
    pub jobs: Vec<QueryJob>,
    /// A line for each entry of the page that could not be read as a query, and one if the page is
    /// full and the server doesn't say how many there are. If there are any, a query that isn't in
    /// `jobs` may be one of them.
    pub unreadable: Vec<String>,
}

/// The history of a query, with what was submitted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueryHistory {
    /// The query's id.
    pub job: Option<String>,
    /// Whether it asked for a box, points or a polygon.
    pub kind: Option<String>,
    /// When it was submitted, as the server writes it: mostly milliseconds since 1970.
    pub date: Option<String>,
    /// The query that was submitted, without folder and file name: a program that runs it again
    /// chooses those.
    pub query: Option<Query>,
    /// The size of the result, in bytes.
    pub size_total: Option<i64>,
    /// The size of the result before it was packed, in bytes.
    pub size_raw: Option<i64>,
    /// The size of the archive, in bytes.
    pub size_zip: Option<i64>,
    /// How many values the result has.
    pub count_total: Option<i64>,
}

/// One layer of two merged queries.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MergedLayer {
    /// Its name.
    pub name: Option<String>,
    /// The data layer's name.
    pub datalayer: Option<String>,
    /// The data layer's number.
    pub datalayer_id: Option<String>,
    /// The data set's name.
    pub dataset: Option<String>,
    /// The data set's number.
    pub dataset_id: Option<String>,
    /// Its time, as the server writes it.
    pub timestamp: Option<String>,
    /// `raster` or `vector`.
    pub kind: Option<String>,
    /// Its least value.
    pub min: Option<f64>,
    /// Its greatest value.
    pub max: Option<f64>,
    /// The URL of the map server that shows it.
    pub geoserver_url: Option<String>,
    /// The workspace on the map server.
    pub geoserver_ws: Option<String>,
    /// The style in which it is shown.
    pub style: Option<String>,
    /// A line for each field that could not be read and is `None` above.
    pub unreadable: Vec<String>,
}

impl Submission {
    /// Reads the answer to a submission. CSV counts as such only if it was asked for, and need not
    /// be whole if it isn't known how long the answer is.
    ///
    /// # Errors
    /// [`PairsError::Incomplete`] for CSV that was cut; [`PairsError::Reply`] if it is neither a
    /// job, nor values, nor an estimate, or if the id can't be one.
    pub(super) fn parse(text: &str, csv: bool, length_known: bool) -> Result<Submission, PairsError> {
        let object = match json(text) {
            Some(Value::Object(object)) => object,
            _ if csv => return PointData::csv(text, length_known).map(Submission::Points),
            _ => return Err(unexpected("the answer to a submission", text)),
        };
        if let Some(id) = object.get("id").filter(|id| !id.is_null()) {
            return checked_id(id).map(Submission::Job);
        }
        match (object.get("info"), object.get("data")) {
            (Some(Value::Object(info)), _) => Ok(Submission::Estimate(Estimate::read(info))),
            (_, Some(Value::Array(values))) => {
                let mut values: Vec<PointValue> = values.iter().map(PointValue::read).collect();
                if json::not_numbers(text.as_bytes()) > 0 {
                    // It isn't known any more which of the nulls were `NaN` or `Infinity`.
                    for value in values.iter_mut().filter(|value| value.value.is_none()) {
                        value
                            .unreadable
                            .push("`value` is null, or no number that JSON knows (NaN, Infinity)".to_owned());
                    }
                }
                Ok(Submission::Points(PointData::of_values(values)))
            }
            (_, Some(Value::String(text))) => PointData::csv(text, true).map(Submission::Points),
            _ => Err(unexpected("the answer to a submission", text)),
        }
    }
}

impl Submission {
    /// A text for what the answer is.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Submission::Job(_) => "a job",
            Submission::Points(_) => "points",
            Submission::Estimate(_) => "an estimate",
        }
    }
}

impl Estimate {
    fn read(info: &Map<String, Value>) -> Estimate {
        let of = |wire: &str, other: &str| info.get(wire).or_else(|| info.get(other));
        Estimate {
            usage: of("usage", "usage").and_then(schema::number),
            usage_unit: of("usage_unit", "usageUnit").and_then(schema::text),
            max_usage: of("max_usage", "maxUsage").and_then(schema::number),
            size: of("size", "size").and_then(schema::number),
            max_size: of("max_size", "maxSize").and_then(schema::number),
            count: of("count", "count").and_then(schema::integer),
            interactive_max_count: of("interactive_max_count", "interactiveMaxCount").and_then(schema::integer),
            max_count: of("max_count", "maxCount").and_then(schema::integer),
        }
    }
}

impl QueryJob {
    /// Reads the reply to a poll. Fails with `PairsError::Reply` if the text isn't a JSON object,
    /// or if `read` fails.
    pub(super) fn parse(text: &str) -> Result<QueryJob, PairsError> {
        match json(text) {
            Some(Value::Object(job)) => QueryJob::read(&job),
            _ => Err(unexpected("a query's status", text)),
        }
    }

    /// Reads a query's state, by the names of the server or of the Python client. Fails with
    /// `PairsError::Reply` if the id can't be one, or if there is no `statusCode`. Another field
    /// that is missing or can't be read gets its default.
    fn read(job: &Map<String, Value>) -> Result<QueryJob, PairsError> {
        let of = |wire: &str, dict: &str| job.get(wire).or_else(|| job.get(dict));
        let id = checked_id(job.get("id").unwrap_or(&Value::Null))?;
        let code = of("statusCode", "status_code").and_then(schema::integer);
        let code = code.ok_or_else(|| PairsError::reply(format!("the status of {id} has no `statusCode`")))?;
        let percent = of("exPercent", "ex_percent").and_then(schema::number);
        let edges = [("swLat", "sw_lat"), ("swLon", "sw_lon"), ("neLat", "ne_lat"), ("neLon", "ne_lon")];
        let edge = |(wire, dict)| of(wire, dict).and_then(schema::number);
        let square: Option<Vec<f64>> = edges.into_iter().map(edge).collect();
        let code = StatusCode::new(code);
        Ok(QueryJob {
            code,
            status: of("status", "status").and_then(schema::text).map_or_else(|| code.to_string(), |text| said(&text)),
            start: of("start", "start").and_then(schema::integer),
            nickname: of("nickname", "nickname").and_then(schema::text),
            progress: percent.map(|percent| (percent / 100.0).clamp(0.0, 1.0) as f32),
            favorite: of("flag", "flag").and_then(schema::boolean).unwrap_or(false),
            ready: of("ready", "ready").and_then(schema::boolean).unwrap_or(false),
            square: square.and_then(|edges| edges.try_into().ok()),
            message: of("message", "message").and_then(schema::text).map(|text| said(&text)),
            id,
        })
    }
}

impl QueryJobs {
    /// Reads a page of the list. An entry that can't be read gets a line in `unreadable`. Fails
    /// with `PairsError::Reply` if the text isn't a JSON object with a list of queries.
    pub(super) fn parse(text: &str) -> Result<QueryJobs, PairsError> {
        let Some(Value::Object(page)) = json(text) else {
            return Err(unexpected("a list of queries", text));
        };
        let list = page.get("queryJobList").or_else(|| page.get("query_job_list"));
        let jobs = list.and_then(Value::as_array).ok_or_else(|| unexpected("a list of queries", text))?;
        let (mut read, mut unreadable) = (Vec::new(), Vec::new());
        // If an entry can't be read, go on with the others.
        for job in jobs {
            match job.as_object().map_or_else(|| Err(unexpected("a query", &job.to_string())), QueryJob::read) {
                Ok(job) => read.push(job),
                Err(error) => unreadable.push(error.to_string()),
            }
        }
        let pages = page.get("totPages").or_else(|| page.get("tot_pages")).and_then(schema::integer).unwrap_or(0);
        Ok(QueryJobs { pages: u64::try_from(pages).unwrap_or(0), jobs: read, unreadable })
    }
}

impl QueryHistory {
    /// Reads the reply with a query's history. The query in it is `None` if it can't be read as
    /// one. Fails with `PairsError::Reply` if the text isn't a JSON object, or if its id can't be
    /// one.
    pub(super) fn parse(text: &str) -> Result<QueryHistory, PairsError> {
        let Some(Value::Object(history)) = json(text) else {
            return Err(unexpected("a query's history", text));
        };
        let of = |names: &[&str]| names.iter().find_map(|name| history.get(*name)).filter(|value| !value.is_null());
        let query = match of(&["apiJson", "api_json"]) {
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => Query::from_value(value.clone()).ok(),
            None => None,
        };
        // Drop folder and file name: a server must not choose where files go on this machine.
        let query = query.map(Query::without_place);
        let size = |names: &[&str]| of(names).and_then(schema::integer);
        Ok(QueryHistory {
            job: of(&["queryjob", "queryJob", "query_job"]).map(checked_id).transpose()?,
            kind: of(&["type"]).and_then(schema::text),
            date: of(&["date"]).and_then(schema::text),
            query,
            size_total: size(&["sizeTotal", "size_total"]),
            size_raw: size(&["sizeRaw", "size_raw"]),
            size_zip: size(&["sizeZip", "size_zip"]),
            count_total: size(&["countTotal", "count_total"]),
        })
    }
}

impl MergedLayer {
    pub(super) fn parse_all(text: &str) -> Result<Vec<MergedLayer>, PairsError> {
        let Some(Value::Array(layers)) = json(text) else {
            return Err(unexpected("the layers of merged queries", text));
        };
        Ok(layers.iter().map(MergedLayer::read).collect())
    }

    /// Reads one layer. It can't fail: a field that can't be read is `None`, and `unreadable` says
    /// why.
    fn read(layer: &Value) -> MergedLayer {
        let mut fields = Fields::of(layer, |name| name.to_owned());
        MergedLayer {
            name: fields.text("name"),
            datalayer: fields.text("datalayer"),
            datalayer_id: fields.text("datalayer_id"),
            dataset: fields.text("dataset"),
            dataset_id: fields.text("dataset_id"),
            timestamp: fields.text("timestamp"),
            kind: fields.text("type"),
            min: fields.number("min"),
            max: fields.number("max"),
            geoserver_url: fields.text("geoserver_url"),
            geoserver_ws: fields.text("geoserver_ws"),
            style: fields.text("style"),
            unreadable: fields.unreadable(),
        }
    }
}

/// The fields of one thing out of many: what can't be read of it is named, and loses nothing else.
pub(super) struct Fields<'a> {
    object: Option<&'a Map<String, Value>>,
    other_name: fn(&str) -> String,
    unreadable: Vec<String>,
}

impl<'a> Fields<'a> {
    /// Reads an object whose fields may also have the name that `other_name` makes of theirs.
    pub(super) fn of(value: &'a Value, other_name: fn(&str) -> String) -> Fields<'a> {
        let object = value.as_object();
        let unreadable =
            if object.is_some() { Vec::new() } else { vec![format!("`{}` isn't an object", quoted(value))] };
        Fields { object, other_name, unreadable }
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.typed(name, "text", schema::text)
    }

    pub(super) fn number(&mut self, name: &str) -> Option<f64> {
        self.typed(name, "a finite number", schema::number)
    }

    pub(super) fn integer(&mut self, name: &str) -> Option<i64> {
        self.typed(name, "a whole number", schema::integer)
    }

    /// A line for each field that could not be read; called last.
    pub(super) fn unreadable(self) -> Vec<String> {
        self.unreadable
    }

    fn typed<T>(&mut self, name: &str, kind: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let object = self.object?;
        let value =
            object.get(name).or_else(|| object.get(&(self.other_name)(name))).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            self.unreadable.push(format!("`{name}` is `{}`, not {kind}", quoted(value)));
        }
        read
    }
}

/// The beginning of a value, for an error.
fn quoted(value: &Value) -> String {
    said(&value.to_string().chars().take(80).collect::<String>())
}

/// The text as JSON, if it is valid.
pub(super) fn json(text: &str) -> Option<Value> {
    json::from_slice(text.as_bytes()).ok()
}

/// A text without the byte order mark that some servers begin with.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn checked_id(value: &Value) -> Result<String, PairsError> {
    let text = schema::text(value).ok_or_else(|| PairsError::reply("an id is not text"))?;
    match id::check(&text) {
        Ok(id) => Ok(id.to_owned()),
        Err(error) => Err(PairsError::reply(error.to_string())),
    }
}

/// The error for an unexpected reply: what was expected, and the beginning of the reply.
pub(super) fn unexpected(expected: &str, text: &str) -> PairsError {
    let came = said(&text.chars().take(160).collect::<String>());
    PairsError::reply(format!("expected {expected}, got `{came}`"))
}

/// A server's text, made safe to be shown: short, on one line, without control characters.
pub(super) fn said(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(500).map(plain).collect()
}
