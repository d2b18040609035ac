//! The calls of the API, each behind the fault that may strike it.

use std::borrow::Cow;

use http_server::{Answer, Reply, Request, lock};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::Shared;
use crate::faults::{Blow, Fault};
use crate::jobs::content;
use crate::oidc::{self, refusal};
use crate::processes;

/// Where the API is.
pub(crate) const ROOT: &str = "/openeo/1.2";

pub(crate) fn answer(shared: &Shared, request: &Request) -> Answer {
    let path = request.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let kind = kind(request, &path);
    shared.bump(kind);
    let title = match path.as_slice() {
        _ if request.query("page").is_some() => request.query("page").map(|page| format!("page={page}")),
        ["openeo", "1.2", "jobs", id, ..] => {
            lock(&shared.jobs).accounts().into_iter().find(|job| job.id == *id).map(|job| job.title)
        }
        _ => body(request).get("title").and_then(Value::as_str).map(str::to_owned),
    };
    let blow = by_chance(shared, request, kind, title.as_deref());
    match blow {
        Some(Blow::Refused(status)) => return Answer::Reply(gateway(status)),
        Some(Blow::Reset { done: false }) => return Answer::Reset,
        Some(Blow::Delayed(delay)) => shared.delay(delay),
        _ => {}
    }
    let fault = lock(&shared.plans).strike(kind, title.as_deref());
    match fault {
        Some(Fault::Hang) => shared.hang(),
        Some(Fault::Cut) => return Answer::Cut,
        Some(Fault::Status(status)) => return Answer::Reply(gateway(status)),
        Some(Fault::Forgotten) => return Answer::Reply(Reply::new(202, "application/json", Vec::new())),
        Some(Fault::Refused(status, code)) => return Answer::Reply(refusal(status, code, "Not so.")),
        Some(Fault::NotFound) => return Answer::Reply(not_found("?")),
        Some(Fault::TooManyJobs) => return Answer::Reply(too_many()),
        Some(Fault::Expired) => return Answer::Reply(expired()),
        Some(Fault::Redirect(status)) => {
            let to = format!("{}/neighbour/{}", shared.origin, path.last().copied().unwrap_or_default());
            return Answer::Reply(Reply::new(status, "text/plain", Vec::new()).header("Location", to));
        }
        _ => {}
    }
    let mut reply = reply(shared, request, &path);
    reply.ahead = shared.config.clock;
    if reply.status < 400 {
        for (_, change) in lock(&shared.rewrites).iter().filter(|(of, _)| *of == kind) {
            if let Ok(mut document) = serde_json::from_slice(&reply.body) {
                change(request, &mut document);
                reply.body = document.to_string().into_bytes();
            }
        }
    }
    match blow {
        Some(Blow::Lost) => return Answer::Cut,
        Some(Blow::Reset { .. }) => return Answer::Reset,
        Some(Blow::Cut) if reply.body.is_empty() => return Answer::Cut,
        Some(Blow::Cut) => reply.cut_at = Some(reply.body.len() / 2),
        _ => {}
    }
    match fault {
        Some(Fault::LostReply) => return Answer::Cut,
        Some(Fault::DoneBut(status)) => return Answer::Reply(gateway(status)),
        Some(Fault::CutAt(bytes)) => reply.cut_at = Some(bytes.min(reply.body.len())),
        Some(Fault::CutThenExpire(bytes)) => {
            reply.cut_at = Some(bytes.min(reply.body.len()));
            lock(&shared.tokens).expire();
        }
        Some(Fault::Damaged) => {
            if let Some(last) = reply.body.last_mut() {
                *last = !*last;
            }
        }
        _ => {}
    }
    Answer::Reply(reply)
}

/// What strikes a call of somebody who has logged in.
fn by_chance(shared: &Shared, request: &Request, kind: &str, title: Option<&str>) -> Option<Blow> {
    let chaos =
        shared.config.chaos.as_ref().filter(|_| request.header("authorization").is_some() && kind != "login")?;
    let call = format!("{kind} {} {}", request.path(), title.unwrap_or_default());
    let blow = lock(&shared.turns).strike(chaos, &call)?;
    shared.bump("by chance");
    Some(blow)
}

/// The store's answer, which knows fewer faults.
pub(crate) fn answer_of_store(shared: &Shared, request: &Request) -> Answer {
    let path = request.segments();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    shared.bump("asset");
    let mut reply = store(shared, request, &path);
    match lock(&shared.plans).strike("asset", None) {
        Some(Fault::Cut | Fault::LostReply) => return Answer::Cut,
        Some(Fault::Status(status)) => reply = gateway(status),
        Some(Fault::CutAt(bytes)) => reply.cut_at = Some(bytes.min(reply.body.len())),
        _ => {}
    }
    Answer::Reply(reply)
}

fn kind(request: &Request, path: &[&str]) -> &'static str {
    match (request.method.as_str(), path) {
        ("POST", ["openeo", "1.2", "jobs"]) => "create",
        ("GET", ["openeo", "1.2", "jobs"]) => "list",
        ("GET", ["openeo", "1.2", "jobs", _]) => "describe",
        ("PATCH", ["openeo", "1.2", "jobs", _]) => "patch",
        ("DELETE", ["openeo", "1.2", "jobs", _]) => "delete",
        ("POST", ["openeo", "1.2", "jobs", _, "results"]) => "start",
        ("GET", ["openeo", "1.2", "jobs", _, "results"]) => "results",
        ("DELETE", ["openeo", "1.2", "jobs", _, "results"]) => "stop",
        (_, ["openeo", "1.2", "jobs", _, "results", _]) => "asset",
        ("GET", ["openeo", "1.2", "jobs", _, "logs"]) => "logs",
        ("GET", ["openeo", "1.2", "jobs", _, "estimate"]) => "estimate",
        ("POST", ["openeo", "1.2", "validation"]) => "validation",
        ("POST", ["openeo", "1.2", "result"]) => "result",
        (_, ["openeo", "1.2", "process_graphs", ..]) => "processes",
        ("GET", ["openeo", "1.2", "credentials", "basic"]) => "login",
        (_, [oidc::ISSUER, "token"]) => "token",
        (_, [oidc::ISSUER, ..]) => "issuer",
        (_, ["openeo", "1.2"]) => "capabilities",
        (_, [".well-known", "openeo"]) => "versions",
        (_, ["openeo", "1.2", "credentials", "oidc"]) => "providers",
        _ => "other",
    }
}

fn reply(shared: &Shared, request: &Request, path: &[&str]) -> Reply {
    let root = format!("{}{ROOT}", shared.origin);
    match path {
        [".well-known", "openeo"] => {
            let version = json!({"url": root, "api_version": "1.2.0", "production": true});
            return Reply::json(200, &json!({ "versions": [version] }));
        }
        [oidc::ISSUER, rest @ ..] => {
            return oidc::answer(shared, request, rest).unwrap_or_else(|| refusal(404, "NotFound", "not here"));
        }
        ["neighbour", ..] => {
            if request.header("authorization").is_some() {
                shared.bump("leaked credentials");
            }
            return Reply::new(200, "text/plain", b"of a neighbour".to_vec());
        }
        ["openeo", "1.2"] => return Reply::json(200, &capabilities(shared)),
        ["openeo", "1.2", "credentials", "basic"] => return oidc::basic(shared, request),
        ["openeo", "1.2", "credentials", "oidc"] => return Reply::json(200, &oidc::providers(shared)),
        _ => {}
    }
    let ["openeo", "1.2", path @ ..] = path else { return refusal(404, "NotFound", "Resource not found.") };
    if let Some(reply) = processes::offered(shared, request, path) {
        return reply;
    }
    let user = match oidc::user(shared, request) {
        Ok(user) => user,
        Err(refusal) => return refusal,
    };
    match (request.method.as_str(), path) {
        ("GET", ["me"]) => Reply::json(200, &json!({ "user_id": user })),
        ("POST", ["validation"]) => Reply::json(200, &json!({"errors": faults_of(&body(request))})),
        ("POST", ["result"]) => processes::result(shared, request, &user),
        (method, ["process_graphs"]) => processes::stored(shared, request, &user, method, None),
        (method, ["process_graphs", id]) => processes::stored(shared, request, &user, method, Some(id)),
        ("POST", ["jobs"]) => create(shared, request, &user, &root),
        ("GET", ["jobs"]) => {
            let jobs: Vec<Value> = lock(&shared.jobs).of(&user).map(|job| job.listed()).collect();
            page(shared, request, "jobs", jobs)
        }
        (method, ["jobs", id, rest @ ..]) => of_job(shared, request, &user, method, id, rest),
        _ => refusal(404, "NotFound", "Resource not found."),
    }
}

fn of_job(shared: &Shared, request: &Request, user: &str, method: &str, id: &str, rest: &[&str]) -> Reply {
    let mut jobs = lock(&shared.jobs);
    let Some(job) = jobs.get(id, user) else { return not_found(id) };
    match (method, rest) {
        ("GET", []) => Reply::json(200, &job.details()),
        ("PATCH", []) => match job.status() {
            "queued" | "running" => {
                refusal(400, "JobLocked", "Job is locked due to a queued or running batch computation.")
            }
            _ => {
                jobs.change(id, body(request));
                Reply::new(204, "application/json", Vec::new())
            }
        },
        ("DELETE", []) => {
            jobs.delete(id);
            Reply::new(204, "application/json", Vec::new())
        }
        ("POST", ["results"]) => {
            let busy = jobs.of(user).filter(|job| matches!(job.status(), "queued" | "running")).count();
            if shared.config.concurrent_limit.is_some_and(|limit| busy >= limit) {
                shared.bump("too many jobs");
                return too_many();
            }
            jobs.start(id, &shared.config);
            Reply::new(202, "application/json", Vec::new())
        }
        ("DELETE", ["results"]) => {
            jobs.stop(id);
            Reply::new(204, "application/json", Vec::new())
        }
        ("GET", ["results"]) => match job.status() {
            "finished" => Reply::json(200, &results(shared, id, job.title(), jobs.links)),
            "error" => refusal(424, "JobError", "The job failed."),
            _ => refusal(400, "JobNotFinished", "Batch job has not finished computing the results yet."),
        },
        ("GET" | "HEAD", ["results", key]) => file(shared, request, id, key),
        ("GET", ["estimate"]) if shared.config.estimates.is_some() => {
            Reply::json(200, &json!({ "costs": shared.config.estimates }))
        }
        ("GET", ["logs"]) => {
            let order = ["debug", "info", "warning", "error"];
            let rank = |level: &str| order.iter().position(|known| *known == level).unwrap_or(0);
            let least = request.query("level").map_or(0, |level| rank(&level));
            let after = request.query("offset").and_then(|offset| offset.parse::<usize>().ok()).map_or(0, |id| id + 1);
            let logs = job.logs().into_iter().skip(after);
            let mut logs: Vec<Value> =
                logs.filter(|entry| rank(entry["level"].as_str().unwrap_or_default()) >= least).collect();
            for entry in &mut logs {
                entry["id"] = shared.config.log_id.map_or(entry["id"].take(), Value::from);
            }
            page(shared, request, "logs", logs)
        }
        _ => refusal(501, "FeatureUnsupported", "Feature not supported."),
    }
}

fn create(shared: &Shared, request: &Request, user: &str, root: &str) -> Reply {
    let Value::Object(fields) = body(request) else { return refusal(400, "InvalidRequest", "no object") };
    if fields.get("process").and_then(|process| process.get("process_graph")).is_none_or(|graph| !graph.is_object()) {
        return refusal(400, "ProcessGraphMissing", "No valid process graph specified.");
    }
    let id = lock(&shared.jobs).create(user, fields);
    // As one real back-end has it: no URI.
    let location = format!("{}/jobs/{id}", root.trim_start_matches("http://"));
    Reply::new(201, "application/json", Vec::new()).header("OpenEO-Identifier", &id).header("Location", location)
}

/// One page of a list, and where the next is.
pub(crate) fn page(shared: &Shared, request: &Request, field: &str, items: Vec<Value>) -> Reply {
    let size = shared.config.page.unwrap_or(usize::MAX);
    let number: usize = request.query("page").and_then(|page| page.parse().ok()).unwrap_or(0);
    let from = number.saturating_mul(size).min(items.len());
    let to = from.saturating_add(size).min(items.len());
    let mut links = Vec::new();
    if to < items.len() {
        let next = format!("{}{}?page={}", shared.origin, request.path(), number + 1);
        links.push(json!({"rel": "next", "href": shared.config.next.as_ref().unwrap_or(&next)}));
    }
    let mut reply = Map::new();
    reply.insert(field.to_owned(), json!(items[from..to]));
    reply.insert("links".to_owned(), json!(links));
    Reply::json(200, &Value::Object(reply))
}

fn results(shared: &Shared, id: &str, title: &str, links: u64) -> Value {
    let mut assets = Map::new();
    for (key, kind, size) in &shared.config.assets {
        let bytes = content(id, key, *size);
        let name = encoded(key);
        let href = if shared.config.signed {
            format!("{}/{id}/{name}?signature=s{links}", shared.store)
        } else {
            format!("{}{ROOT}/jobs/{id}/results/{name}", shared.origin)
        };
        let mut asset = json!({"href": href, "type": kind, "roles": ["data"], "file:size": bytes.len()});
        if shared.config.checksums {
            let sum = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            asset["file:checksum"] = json!(format!("1220{sum}"));
        }
        match shared.config.other_checksum {
            Some("sha512") => {
                let sum = Sha512::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                asset["file:checksum"] = json!(format!("1340{sum}"));
            }
            Some(text) => asset["file:checksum"] = json!(text),
            None => {}
        }
        assets.insert(key.clone(), asset);
    }
    json!({
        "stac_version": "1.0.0", "type": "Collection", "id": id, "title": title, "license": "proprietary",
        "openeo:status": "finished", "links": [], "assets": assets,
    })
}

/// The store knows signatures, and nobody's credentials.
fn store(shared: &Shared, request: &Request, path: &[&str]) -> Reply {
    if request.header("authorization").is_some() {
        shared.bump("leaked credentials");
        return Reply::new(400, "text/plain", b"credentials for a stranger".to_vec());
    }
    let good = format!("s{}", lock(&shared.jobs).links);
    if request.query("signature") != Some(good) {
        shared.bump("expired link");
        return Reply::new(403, "application/xml", b"<Error><Code>AccessDenied</Code></Error>".to_vec());
    }
    match path {
        [id, key] => file(shared, request, id, key),
        _ => Reply::new(404, "text/plain", Vec::new()),
    }
}

fn file(shared: &Shared, request: &Request, id: &str, key: &str) -> Reply {
    let Some((_, kind, size)) = shared.config.assets.iter().find(|(known, _, _)| known == key) else {
        return refusal(404, "NotFound", "no such asset");
    };
    let bytes = content(id, key, *size);
    let etag = format!("\"{id}-{}\"", bytes.len());
    let announced = if shared.config.ranges || shared.config.lies_about_ranges { "bytes" } else { "none" };
    let whole = |bytes: Vec<u8>| Reply::new(200, kind, bytes).header("ETag", &etag).header("Accept-Ranges", announced);
    let from = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        .filter(|from| *from < bytes.len() && shared.config.ranges && !shared.config.lies_about_ranges)
        .filter(|_| request.header("if-range").is_none_or(|tag| tag == etag));
    match from {
        None => whole(bytes),
        Some(from) => {
            shared.bump("range");
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            let mut reply = whole(bytes[from..].to_vec()).header("Content-Range", range);
            reply.status = 206;
            reply
        }
    }
}

/// What is wrong with a graph: here, that a process has a strange name.
fn faults_of(body: &Value) -> Vec<Value> {
    let graph = body.get("process_graph").and_then(Value::as_object).into_iter().flatten();
    let unknown = |node: &Value| node["process_id"].as_str().is_none_or(|name| name.starts_with("unknown"));
    graph
        .filter(|(_, node)| unknown(node))
        .map(|(name, _)| json!({"code": "ProcessUnsupported", "message": format!("The process of {name} is not supported.")}))
        .collect()
}

fn capabilities(shared: &Shared) -> Value {
    let endpoint = |path: &str, methods: &[&str]| json!({"path": path, "methods": methods});
    let mut told = json!({
        "api_version": "1.2.0", "backend_version": "0", "stac_version": "1.0.0", "type": "Catalog", "id": "local",
        "title": "A local openEO back-end", "description": "For tests.", "production": false, "links": [],
        "endpoints": [
            endpoint("/credentials/basic", &["GET"]), endpoint("/credentials/oidc", &["GET"]), endpoint("/me", &["GET"]),
            endpoint("/validation", &["POST"]), endpoint("/result", &["POST"]), endpoint("/collections", &["GET"]),
            endpoint("/collections/{collection_id}", &["GET"]), endpoint("/processes", &["GET"]),
            endpoint("/processes/{namespace}", &["GET"]), endpoint("/file_formats", &["GET"]),
            endpoint("/udf_runtimes", &["GET"]), endpoint("/process_graphs", &["GET"]),
            endpoint("/process_graphs/{process_graph_id}", &["GET", "PUT", "DELETE"]), endpoint("/jobs", &["GET", "POST"]),
            endpoint("/jobs/{job_id}", &["GET", "PATCH", "DELETE"]), endpoint("/jobs/{job_id}/logs", &["GET"]),
            endpoint("/jobs/{job_id}/results", &["GET", "POST", "DELETE"]),
        ],
    });
    if let (Some(_), Some(endpoints)) = (shared.config.estimates, told["endpoints"].as_array_mut()) {
        endpoints.push(endpoint("/jobs/{job_id}/estimate", &["GET"]));
    }
    told
}

pub(crate) fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap_or_default()
}

fn not_found(id: &str) -> Reply {
    refusal(404, "JobNotFound", &format!("The batch job '{id}' does not exist."))
}

fn too_many() -> Reply {
    refusal(400, "ConcurrentJobLimit", "The maximum number of concurrently running jobs was reached.")
}

fn expired() -> Reply {
    refusal(410, "ResultLinkExpired", "The link to the batch job result has expired.")
}

/// What stands before a server that is in trouble.
fn gateway(status: u16) -> Reply {
    Reply::new(status, "text/html", b"<html><head><title>Bad Gateway</title></head></html>".to_vec())
}

/// One segment of a path.
fn encoded(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let escape = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Cow::Owned(text.bytes().map(escape).collect())
}
