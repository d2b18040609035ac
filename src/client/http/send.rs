//! Sends a request: makes attempts, and in each of them waits for the rate limit, adds credentials
//! and follows redirects.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::AsciiSet;
use url::Url;

use super::auth::{Credentials, Renewal};
use super::client::HttpClient;
use super::error::HttpError;
use super::headers::media_type;
use super::kind::HttpErrorKind;
use super::limit::Refused;
use super::live::Live;
use super::method::Method;
use super::origin::Origin;
use super::payload::Payload;
use super::plan::{self, Plan};
use super::redact::{self, Secrets};
use super::redirect;
use super::response::{self, Response};
use super::retry::retry_after;
use super::tokens;
use super::wait::{Cancelled, is_cancelled, pause};
use super::wire::{Ask, Body, Reply, WANTS_PASSWORD};
use crate::error::BoxError;
use crate::trace::event;

/// How many bytes of an error's body are shown.
const ERROR_BODY: usize = 64 << 10;

/// How many bytes more are read. The last secret in them may be cut, and isn't found then.
const MARGIN: usize = 64 << 10;

/// How long the client reads an error's body. Within it, a silence may last as long as in any body.
const PATIENCE: Duration = Duration::from_secs(10);

/// One step of an attempt: a request to one URL. Each redirect is another step.
struct Step<'a> {
    method: Method,
    url: Url,
    origin: Origin,
    body: Option<&'a Payload>,
}

impl HttpClient {
    /// Makes attempts until one gets a reply, or until the policy gives up.
    pub(super) fn send(&self, plan: &Plan, cancelled: Cancelled<'_>) -> Result<Response, HttpError> {
        self.send_for(plan, cancelled, |live| Response::read(live, plan.max_body, cancelled))
    }

    /// As [`send`](HttpClient::send), but returns what `read` makes of the reply. If `read` fails,
    /// that attempt has failed.
    pub(super) fn send_for<T>(
        &self,
        plan: &Plan,
        cancelled: Cancelled<'_>,
        read: impl Fn(Live) -> Result<T, HttpError>,
    ) -> Result<T, HttpError> {
        let mut failures = 0;
        loop {
            if is_cancelled(cancelled) {
                let text = "it was cancelled before it could be sent";
                let error = HttpError::new(HttpErrorKind::Cancelled, plan.method, &plan.url, text);
                return Err(error.arrived(failures > 0).with_attempts(failures));
            }
            let outcome = self.attempt(plan, &[], cancelled).and_then(&read);
            let error = match outcome {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            failures += 1;
            let attempts = sent(failures, &error);
            self.wait_to_retry(plan, failures, error.with_attempts(attempts), cancelled)?;
        }
    }

    /// Waits before the next attempt. If there is none, returns `error`, or that the wait was
    /// cancelled.
    pub(super) fn wait_to_retry(
        &self,
        plan: &Plan,
        failures: u32,
        error: HttpError,
        cancelled: Cancelled<'_>,
    ) -> Result<(), HttpError> {
        if plan.once {
            return Err(error);
        }
        let retries = &self.shared.retries;
        let Some(delay) = retries.delay(failures, &error, plan.idempotent, &plan.retry_on, self.seed()) else {
            return Err(error);
        };
        // Don't wait if the time limit would pass before the next attempt: return the error now.
        let in_time =
            Instant::now().checked_add(delay).is_some_and(|then| plan.deadline.at().is_none_or(|at| then < at));
        if !in_time {
            return Err(error);
        }
        event!(
            DEBUG,
            "a request is sent again",
            method = error.method(),
            url = error.url(),
            kind = error.kind(),
            failures = failures,
            delay = delay
        );
        if pause(delay, plan.deadline, cancelled) {
            return Ok(());
        }
        let text = "it was cancelled before it could be sent again";
        Err(HttpError::new(HttpErrorKind::Cancelled, plan.method, &plan.url, text)
            .arrived(error.may_have_arrived())
            .with_attempts(error.attempts())
            .with_source(error))
    }

    /// Makes one attempt: sends the request, follows redirects, and renews credentials at most
    /// once. `extra` headers replace the plan's.
    pub(super) fn attempt(
        &self,
        plan: &Plan,
        extra: &[(&str, String)],
        cancelled: Cancelled<'_>,
    ) -> Result<Live, HttpError> {
        let mut processed = false;
        let outcome = self.steps(plan, extra, cancelled, &mut processed);
        // The server has processed the request, even if fetching the result from the redirect's URL
        // failed.
        outcome.map_err(|error| if processed { error.arrived(true) } else { error })
    }

    /// Sends the request and follows redirects. Sets `processed` if the server answered a request
    /// that isn't idempotent, by its method or by the caller's word, with a redirect to the result.
    fn steps(
        &self,
        plan: &Plan,
        extra: &[(&str, String)],
        cancelled: Cancelled<'_>,
        processed: &mut bool,
    ) -> Result<Live, HttpError> {
        let mut step =
            Step { method: plan.method, url: plan.url.clone(), origin: plan.origin.clone(), body: plan.body.as_ref() };
        let mut secrets = plan.secrets.clone();
        let (mut hops, mut renewed) = (0, false);
        loop {
            let auth = if plan.takes_credentials_to(&step.url) { self.auth_for(&step.origin) } else { None };
            let mut credentials = Credentials {
                headers: Vec::new(),
                secrets: std::mem::take(&mut secrets),
                generation: 0,
                deadline: plan.deadline,
                once: plan.once,
            };
            if let Some(auth) = auth {
                auth.apply(&mut credentials)
                    .map_err(|error| unauthorized(&step, "no credentials could be had", error))?;
            }
            secrets = std::mem::take(&mut credentials.secrets);
            self.shared.wire.proxies.hide(&step.url, &mut secrets);
            if let Some(jar) = &self.shared.cookies {
                let cookies = jar.of(&step.url, &step.origin, SystemTime::now());
                cookies.iter().for_each(|(_, value)| secrets.add(value));
                let pairs: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
                if !pairs.is_empty() {
                    credentials.headers.push(("cookie".to_owned(), pairs.join("; ")));
                }
            }

            let permit = self.shared.limiter.acquire(&step.origin, plan.deadline, plan.once, cancelled);
            let permit = permit.map_err(|refused| match refused {
                Refused::Full(retry_after) => {
                    let text = "the client's own rate limit leaves no room for it now";
                    HttpError::new(HttpErrorKind::RateLimited, step.method, &step.url, text)
                        .with_retry_after(Some(retry_after))
                }
                Refused::Cancelled => {
                    let text = "it was cancelled before it could be sent";
                    HttpError::new(HttpErrorKind::Cancelled, step.method, &step.url, text).arrived(false)
                }
            })?;
            let headers = headers(plan, &step, extra, &credentials)?;
            let reply = self.call(plan, &step, &headers, &secrets, cancelled)?;
            let status = reply.status;
            if let Some(jar) = &self.shared.cookies {
                jar.take(&step.url, &step.origin, &reply.headers, SystemTime::now());
            }

            if redirect::is_redirect(status) {
                let location = reply.headers.get(header::LOCATION).map(|value| location_text(value.as_bytes()));
                hops += 1;
                *processed |= !(step.method.is_idempotent() && plan.idempotent) && status < 307;
                step = follow(step, status, location.as_deref(), hops)?;
                // The query of a signed URL is a secret, too.
                plan::hide_query(&step.url, &mut secrets);
                // Read a short body to its end, so that the connection can be used again.
                drain(reply.body, cancelled);
                continue;
            }
            if status < 400 {
                return Ok(Live { reply, url: step.url, method: step.method, secrets, permit });
            }
            if status == 407 {
                // The proxy has sent this reply: the server didn't get the request.
                let text = format!("the proxy {WANTS_PASSWORD}");
                return Err(HttpError::new(HttpErrorKind::Proxy, step.method, &step.url, text));
            }

            let retry_after = response::header(&reply.headers, "retry-after")
                .and_then(|value| retry_after(value, date(&reply.headers)));
            let content_type = response::header(&reply.headers, "content-type").and_then(media_type);
            let body = error_body(reply, cancelled);
            drop(permit);
            if let Some(auth) = auth.filter(|auth| !renewed && auth.is_expired(status, &body)) {
                event!(DEBUG, "credentials are renewed", url = redact::url(&step.url), status = status);
                renewed = true;
                let renewal = Renewal { generation: credentials.generation, deadline: plan.deadline, once: plan.once };
                auth.renew(&renewal).map_err(|error| {
                    unauthorized(&step, "the credentials have expired and could not be renewed", error)
                })?;
                continue;
            }
            let said = redact::plain(&secrets.hide(&words(&body, content_type.as_deref())), redact::WORDS);
            return Err(HttpError::new(HttpErrorKind::Status(status), step.method, &step.url, said)
                .with_reply(shown(&body, &secrets), content_type)
                .with_retry_after(retry_after));
        }
    }

    /// Sends the request of one step, and returns when the head of the reply is there, whatever its
    /// status. The body is still to be read.
    ///
    /// Fails if the time limit has passed, and then sends nothing; otherwise if no sound reply
    /// comes. The error shows none of `secrets`.
    fn call(
        &self,
        plan: &Plan,
        step: &Step<'_>,
        headers: &HeaderMap,
        secrets: &Secrets,
        cancelled: Cancelled<'_>,
    ) -> Result<Reply, HttpError> {
        if plan.deadline.is_past() {
            let text = "the time limit passed before it could be sent";
            return Err(HttpError::new(HttpErrorKind::Timeout, step.method, &step.url, text).arrived(false));
        }
        let ask = Ask {
            method: step.method,
            url: &step.url,
            origin: &step.origin,
            headers,
            body: step.body,
            total: plan.deadline,
            first_byte: plan.first_byte.unwrap_or(self.shared.timeouts.first_byte),
            cancelled,
            // Only if it changes nothing: a second DELETE would find nothing, and the caller must
            // know why. The GET that follows another method's redirect is a request of its own.
            repeatable: step.method.is_safe() && (plan.idempotent || step.method != plan.method),
        };
        self.shared.wire.ask(&ask).map_err(|fault| HttpError::of_fault(fault, step.method, &step.url, secrets))
    }
}

/// How many attempts used the network.
pub(super) fn sent(failures: u32, last: &HttpError) -> u32 {
    match last.kind() {
        HttpErrorKind::Invalid | HttpErrorKind::RateLimited => failures - 1,
        HttpErrorKind::Cancelled if !last.may_have_arrived() => failures - 1,
        _ => failures,
    }
}

fn follow<'a>(step: Step<'a>, status: u16, location: Option<&str>, hops: usize) -> Result<Step<'a>, HttpError> {
    let refused =
        |text: &str| HttpError::new(HttpErrorKind::Redirect, step.method, &step.url, text).arrived(step.body.is_some());
    if hops > redirect::MOST {
        return Err(refused("more than 10 redirects, probably in a circle"));
    }
    let next = redirect::next(step.method, &step.url, step.body.is_some(), status, location).map_err(refused)?;
    let origin = Origin::of_url(&next.url).ok_or_else(|| refused("a redirect to another scheme than http"))?;
    Ok(Step { method: next.method, url: next.url, origin, body: step.body.filter(|_| next.keeps_body) })
}

/// The headers of one step. It leaves out secret ones if the step goes to another origin than that
/// of the plan's URL. Credentials replace all other headers of their name.
fn headers(
    plan: &Plan,
    step: &Step<'_>,
    extra: &[(&str, String)],
    credentials: &Credentials,
) -> Result<HeaderMap, HttpError> {
    let mut headers = HeaderMap::new();
    let own = plan.headers.iter().map(|header| (header.name.as_str(), header.value.as_str(), header.secret));
    let extra = extra.iter().map(|(name, value)| (*name, value.as_str(), false));
    let auth = credentials.headers.iter().map(|(name, value)| (name.as_str(), value.as_str(), true));
    let at_home = step.origin == plan.origin;
    let own = own.filter(|(_, _, secret)| at_home || !secret);
    for (name, value, secret) in own.chain(extra).chain(auth) {
        let invalid = |text: String| HttpError::new(HttpErrorKind::Invalid, step.method, &step.url, text);
        let name = HeaderName::try_from(name).map_err(|_| invalid(format!("{name:?} isn't a name of a header")))?;
        if matches!(name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::HOST | header::CONNECTION) {
            return Err(invalid(format!("the header {name} follows from the request and can't be set")));
        }
        if name == header::CONTENT_TYPE && step.body.is_none() {
            continue;
        }
        // Send the plan's own cookies together with the stored ones; if both have a name, the
        // plan's wins.
        let own = headers.get(&name).filter(|_| name == header::COOKIE).and_then(|own| own.to_str().ok());
        let joined = own.map(|own| cookies(own, value));
        let value = joined.as_deref().unwrap_or(value);
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| invalid(format!("the value of the header {name} has characters that it can't have")))?;
        value.set_sensitive(secret);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The cookies of `own`, and those of `jar` with other names.
fn cookies(own: &str, jar: &str) -> String {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().trim().to_owned();
    let names: Vec<String> = own.split(';').map(name).collect();
    let others = jar.split("; ").filter(|pair| !names.contains(&name(pair)));
    std::iter::once(own.trim_end_matches([';', ' '])).chain(others).collect::<Vec<_>>().join("; ")
}

/// The value of a `Location` as text. Old servers write Latin-1: bytes that aren't UTF-8 are
/// percent-escaped, as browsers do, which such servers understand.
fn location_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => percent_encoding::percent_encode(bytes, &AsciiSet::EMPTY).to_string(),
    }
}

/// The time by the server's clock, because its other dates are by that; our time, if the server
/// doesn't say.
fn date(headers: &HeaderMap) -> SystemTime {
    let date = response::header(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
    date.unwrap_or_else(SystemTime::now)
}

/// Reads the rest of a short body, so that the connection can be used again. If that fails or is of
/// no use, the connection is closed, and nothing else is wrong.
fn drain(body: Body, cancelled: Cancelled<'_>) {
    if body.is_worth_reading(ERROR_BODY as u64) {
        drop(read_some(body, cancelled));
    }
}

/// Reads an error's body. If it breaks off, comes too slowly or the caller cancels, returns the
/// part that came, because the status already says that the request failed.
fn error_body(reply: Reply, cancelled: Cancelled<'_>) -> String {
    let is_packed = response::is_gzip(&reply.headers).unwrap_or(false);
    let bytes = read_some(reply.body, cancelled);
    let bytes = if is_packed { unpacked(&bytes) } else { bytes };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An error's body without secrets. Cuts it behind them: a part of a secret would be shown.
fn shown(body: &str, secrets: &Secrets) -> String {
    let mut shown = secrets.hide(body);
    let mut kept = shown.len().saturating_sub(body.len().saturating_sub(ERROR_BODY));
    while !shown.is_char_boundary(kept) {
        kept -= 1;
    }
    shown.truncate(kept);
    shown
}

fn read_some(mut body: Body, cancelled: Cancelled<'_>) -> Vec<u8> {
    body.hurry(PATIENCE);
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let mut reader = body.unless(cancelled).take((ERROR_BODY + MARGIN) as u64);
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    bytes
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let (mut found, mut piece) = (Vec::new(), [0; 4096]);
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take((ERROR_BODY + MARGIN) as u64);
    while let Ok(count @ 1..) = reader.read(&mut piece) {
        found.extend_from_slice(&piece[..count]);
    }
    found
}

/// The message for a person in an error's body.
fn words(body: &str, content_type: Option<&str>) -> String {
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_str(body) {
        let names = [
            "message",
            "error_description",
            "errorMessage",
            "httpMessage",
            "moreInformation",
            "detail",
            "title",
            "error",
            "code",
            "errorCode",
        ];
        let said: Vec<&str> = names.iter().filter_map(|name| object.get(*name)?.as_str()).take(3).collect();
        if !said.is_empty() {
            return said.join("; ");
        }
    }
    let is_page = content_type.is_some_and(|kind| kind.contains("html")) || body.trim_start().starts_with('<');
    if !is_page {
        return body.to_owned();
    }
    // The title of a page says more than its first tags do. Lower-casing the body would be shorter,
    // but may change its length.
    let title = ["<title>", "<TITLE>"].iter().find_map(|tag| body.split_once(tag));
    match title {
        Some((_, rest)) => format!("a page: {}", rest.split('<').next().unwrap_or_default()),
        None => "a page".to_owned(),
    }
}

fn unauthorized(step: &Step<'_>, text: &str, error: BoxError) -> HttpError {
    let cause = error.downcast_ref::<HttpError>().or_else(|| tokens::http_error(&error));
    let (retryable, after) = cause.map_or((false, None), |cause| (cause.is_retryable(), cause.retry_after()));
    HttpError::new(HttpErrorKind::Unauthorized, step.method, &step.url, text)
        .with_source(error)
        .retryable(retryable)
        .with_retry_after(after)
}
