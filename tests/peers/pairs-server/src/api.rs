//! The calls of the API, each behind the faults that may strike it.

use std::time::Duration;

use http_server::{Answer, Reply, Request, lock};
use serde_json::{Value, json};

use crate::faults::hash;
use crate::{Auth, Shared, job, tokens};

/// One call, by what it does.
enum Call<'a> {
    Submit,
    Status(&'a str),
    Favorite(&'a str),
    Download(&'a str),
    Merge(&'a str, &'a str),
    List,
    History(&'a str),
}

impl<'a> Call<'a> {
    /// Any prefix is accepted: `/v2`, `/geospatial/run/na/core/v3`, ..
    fn of(request: &'a Request) -> Option<Call<'a>> {
        let path = request.path();
        let get = request.method == "GET";
        if request.method == "POST" && path.ends_with("/query") {
            return Some(Call::Submit);
        }
        if let Some((_, id)) = path.split_once("/queryhistories/full/queryjob/") {
            return get.then_some(Call::History(id));
        }
        let (_, rest) = path.split_once("/queryjobs/")?;
        let parts: Vec<&str> = rest.split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["list"]) => Some(Call::List),
            ("GET", ["download", id] | [id, "download"]) => Some(Call::Download(id)),
            ("PUT", [one, "merge", other]) => Some(Call::Merge(one, other)),
            ("GET", [id]) => Some(Call::Status(id)),
            ("PUT", [id]) => Some(Call::Favorite(id)),
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Call::Submit => "submit",
            Call::Status(_) => "status",
            Call::Favorite(_) => "favorite",
            Call::Download(_) => "download",
            Call::Merge(..) => "merge",
            Call::List => "list",
            Call::History(_) => "history",
        }
    }
}

pub(crate) fn answer(shared: &Shared, request: &Request) -> Answer {
    if tokens::is_theirs(request.path()) {
        if shared.strikes("fault tokens", 0, shared.config.faults.tokens_unavailable) {
            return Answer::Reply(retry_after(shared, Reply::new(503, "text/plain", b"later".to_vec())));
        }
        return Answer::Reply(tokens::answer(shared, request));
    }
    let Some(call) = Call::of(request) else {
        return Answer::Reply(not_found());
    };
    shared.bump(call.name());
    let faults = &shared.config.faults;
    let key = key(shared, &call, request);
    if shared.strikes("fault drop", key, faults.drop) {
        return Answer::Cut;
    }
    if shared.strikes("fault 503", key, faults.unavailable) {
        let page = "<html><body><h1>503 Service Unavailable</h1></body></html>";
        return Answer::Reply(retry_after(shared, Reply::new(503, "text/html", page.into())));
    }
    if shared.is_too_much() {
        shared.bump("fault 429");
        let body =
            json!({"httpCode": "429", "httpMessage": "Too Many Requests", "moreInformation": "Rate Limit exceeded"});
        return Answer::Reply(retry_after(shared, Reply::json(429, &body)));
    }
    if let Some(refusal) = refusal(shared, request) {
        return Answer::Reply(refusal);
    }
    match call {
        Call::Submit => submit(shared, request, key),
        Call::Status(id) => {
            if shared.strikes("fault html status", key, faults.html_status) {
                return Answer::Reply(Reply::new(200, "text/html", b"<html>gateway</html>".to_vec()));
            }
            Answer::Reply(lock(&shared.jobs).get(id).map_or_else(not_found, |job| Reply::json(200, &job.status())))
        }
        Call::Favorite(id) => {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            Answer::Reply(match (lock(&shared.jobs).get_mut(id), body["flag"].as_bool()) {
                (Some(job), Some(flag)) => {
                    job.flag = flag;
                    Reply::json(200, &job.status())
                }
                (None, _) => not_found(),
                (_, None) => message(400, "Error: 400 Bad Request."),
            })
        }
        Call::Download(id) => Answer::Reply(download(shared, request, id, key)),
        Call::Merge(one, other) => Answer::Reply(merge(shared, one, other)),
        Call::List => {
            let number =
                |name: &str, default| request.query(name).and_then(|text| text.parse().ok()).unwrap_or(default);
            let favorites = request.query("flag").as_deref() == Some("true");
            Answer::Reply(Reply::json(200, &lock(&shared.jobs).page(favorites, number("page", 1), number("size", 10))))
        }
        Call::History(id) => {
            Answer::Reply(lock(&shared.jobs).get(id).map_or_else(not_found, |job| Reply::json(200, &job.history())))
        }
    }
}

/// What stands for a call where faults are decided: the query, whatever its id.
fn key(shared: &Shared, call: &Call<'_>, request: &Request) -> u64 {
    let of_query = match call {
        Call::Submit => hash(&request.body),
        Call::List => 0,
        Call::Status(id) | Call::Favorite(id) | Call::Download(id) | Call::Merge(id, _) | Call::History(id) => {
            lock(&shared.jobs).get(id).map_or(0, |job| job.key)
        }
    };
    of_query ^ hash(call.name().as_bytes())
}

fn submit(shared: &Shared, request: &Request, key: u64) -> Answer {
    let query: Value = match serde_json::from_slice(&request.body) {
        Ok(query @ Value::Object(_)) => query,
        _ => return Answer::Reply(message(400, "Error: 400 Bad Request. Unable to parse JSON.")),
    };
    let is_empty = |name: &str| query[name].is_null() || query[name] == json!([]) || query[name] == json!({});
    if is_empty("layers") || is_empty("spatial") {
        return Answer::Reply(message(400, "Error: 400 Bad Request. layers and spatial are required."));
    }
    let name = query["name"].as_str().unwrap_or("").to_owned();
    if let Some(status) = name.strip_prefix("sim:http=").and_then(|text| text.get(..3)?.parse().ok()) {
        return Answer::Reply(message(status, &format!("Error: {status} simulated.")));
    }
    if query["dryRun"] == true {
        let info = json!({
            "usage": 12345, "usage_unit": "bytes", "max_usage": 1e9, "size": 2, "max_size": 2.2, "count": 2,
            "interactive_max_count": 100, "max_count": 1000,
        });
        return Answer::Reply(Reply::json(200, &json!({"info": info})));
    }
    let is_batch = query["batch"].as_str().is_some_and(|batch| batch.eq_ignore_ascii_case("true"));
    if query["spatial"]["type"] == "point" && !is_batch && !name.contains("bulk") {
        shared.bump("point");
        let wants_csv = request.header("accept").is_some_and(|accept| accept.contains("csv"));
        return Answer::Reply(if wants_csv || query["outputType"] == "csv" {
            Reply::new(200, "text/csv", job::points_csv(&query).into_bytes())
        } else {
            Reply::json(200, &job::points_json(&query))
        });
    }
    let option = |wanted: &str| {
        let options = name.strip_prefix("sim:").into_iter().flat_map(|options| options.split(';'));
        options.filter_map(|option| option.split_once('=')).find(|(found, _)| *found == wanted).map(|(_, value)| value)
    };
    let (config, faults) = (&shared.config, &shared.config.faults);
    let run =
        option("dur").and_then(|text| text.parse().ok()).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let code = option("code").and_then(|text| text.parse().ok()).unwrap_or_else(|| faults.final_code(key));
    let not_ready = option("notready").and_then(|text| text.parse().ok()).unwrap_or(faults.not_ready);
    let is_lost = shared.strikes("fault lost reply", key, faults.lost_reply);
    let mut jobs = lock(&shared.jobs);
    let job = jobs.create(query.clone(), hash(&request.body), code, run.unwrap_or(config.run), not_ready);
    job.reply_was_lost = is_lost;
    if is_lost { Answer::Cut } else { Answer::Reply(Reply::json(200, &json!({"id": job.id}))) }
}

fn download(shared: &Shared, request: &Request, id: &str, key: u64) -> Reply {
    let faults = &shared.config.faults;
    let mut jobs = lock(&shared.jobs);
    let Some(job) = jobs.get_mut(id) else {
        return not_found();
    };
    let code = job.current_code();
    if code != 20 {
        let text = format!("Query {id} is {}, nothing to download.", job::name_of(code));
        return message(if code < 20 { 404 } else { 400 }, &text);
    }
    if job.not_ready > 0 {
        job.not_ready -= 1;
        shared.bump("fault not ready");
        return message(404, "Error: 404 Not Found. Result not packaged yet.");
    }
    if shared.strikes("fault html download", key, faults.html_download) {
        return Reply::new(200, "text/html", b"<html>proxy login</html>".to_vec());
    }
    let result = job.clone();
    drop(jobs);
    // Made outside the lock: a large one takes its time.
    let (body, content_type) = result.result(shared.config.raster);
    let is_cut = shared.strikes("fault cut", key, faults.cut);
    let from = request
        .header("range")
        .filter(|_| shared.config.ranges)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let whole = body.len();
    let etag = format!("\"{:016x}\"", hash(id.as_bytes()));
    let reply = match from {
        Some(from) if from >= whole => {
            return Reply::new(416, content_type, Vec::new()).header("Content-Range", format!("bytes */{whole}"));
        }
        Some(from) => {
            let range = format!("bytes {from}-{}/{whole}", whole - 1);
            Reply::new(206, content_type, body[from..].to_vec()).header("Content-Range", range)
        }
        None => Reply::new(200, content_type, body),
    };
    let mut reply = reply.header("Content-Disposition", format!("attachment; filename=\"{id}.zip\""));
    if shared.config.ranges {
        reply = reply.header("Accept-Ranges", "bytes").header("ETag", etag);
    }
    reply.cut_at = is_cut.then_some(reply.body.len() / 2);
    if let Some(job) = lock(&shared.jobs).get_mut(id) {
        job.bytes += reply.cut_at.unwrap_or(reply.body.len()) as u64;
        job.served += u32::from(!is_cut);
    }
    reply
}

fn merge(shared: &Shared, one: &str, other: &str) -> Reply {
    let jobs = lock(&shared.jobs);
    let (Some(one), Some(other)) = (jobs.get(one), jobs.get(other)) else {
        return not_found();
    };
    if one.current_code() != 20 || other.current_code() != 20 {
        return not_found();
    }
    if one.query["spatial"] != other.query["spatial"] {
        return message(412, "Error: 412 Precondition Failed.");
    }
    let layer = json!({
        "name": "l", "datalayer": "d", "datalayer_id": "92", "dataset": "ds", "dataset_id": 0, "timestamp": 0,
        "type": "raster", "min": 0.1, "max": 0.1, "geoserver_url": "", "geoserver_ws": "", "style": "",
    });
    Reply::json(200, &json!([layer, layer]))
}

/// Why this caller may not call, if so.
fn refusal(shared: &Shared, request: &Request) -> Option<Reply> {
    let config = &shared.config;
    let authorization = request.header("authorization").unwrap_or("");
    let unauthorised = |text: &str| {
        let body = match config.legacy {
            true => json!({"message": "Error: 401 Unauthorized."}),
            false => json!({"httpCode": "401", "httpMessage": "Unauthorized", "moreInformation": text}),
        };
        Reply::json(401, &body)
    };
    let no_subscription = "Cannot find valid subscription for the incoming API request.";
    if let Some(basic) = authorization.strip_prefix("Basic ").filter(|_| config.auth != Auth::Bearer) {
        let password = base64(basic).and_then(|text| text.split_once(':').map(|(_, password)| password.to_owned()));
        if password.is_none_or(|password| password.is_empty() || password.starts_with("bad")) {
            return Some(unauthorised(no_subscription));
        }
    } else if let Some(token) = authorization.strip_prefix("Bearer ").filter(|_| config.auth != Auth::Basic) {
        match tokens::is_valid(shared, token) {
            Some(true) => {}
            None => return Some(unauthorised(no_subscription)),
            Some(false) => {
                shared.bump("token expired");
                return Some(if config.legacy {
                    let when = "Mon, 12 Jul 2021 13:14:14 GMT";
                    let text = format!("jwt signature verification failed: 'exp' claim expired at {when}");
                    Reply::json(403, &json!({"error": text}))
                } else {
                    let (code, what) = ("500", "Invalid-JWT-Validate");
                    let more = "JWT validation failed";
                    Reply::json(500, &json!({"httpCode": code, "httpMessage": what, "moreInformation": more}))
                });
            }
        }
    } else if config.auth != Auth::Any || !authorization.is_empty() {
        return Some(unauthorised(no_subscription));
    }
    if config.require_client_id && request.header("x-ibm-client-id").is_none_or(|id| !id.starts_with("geospatial-")) {
        return Some(unauthorised("Invalid client id or secret."));
    }
    None
}

fn retry_after(shared: &Shared, reply: Reply) -> Reply {
    match shared.config.faults.retry_after {
        Some(seconds) => reply.header("Retry-After", seconds),
        None => reply,
    }
}

fn message(status: u16, text: &str) -> Reply {
    Reply::json(status, &json!({"message": text}))
}

fn not_found() -> Reply {
    message(404, "Error: 404 Not Found.")
}

/// What standard base64 stands for, if that is text.
fn base64(text: &str) -> Option<String> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    String::from_utf8(bytes).ok()
}
