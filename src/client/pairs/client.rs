//! The client of a PAIRS server, with a method for each call.
//!
//! Source: `ibmpairs` 3.1.17: `client.py`, `query.py`, `constants.py`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use url::{Position, Url};

use crate::client::http::archive::Limits;
use crate::client::http::{
    Basic, Bearer, HttpClient, HttpClientBuilder, HttpError, HttpErrorKind, Method, RateLimit, Renewal, RequestBuilder,
    Response, RetryPolicy, Tokens, failure_of,
};
use crate::client::pairs::auth::{KeyExchange, KeyKind, is_expired};
use crate::client::pairs::cleartext::Cleartext;
use crate::client::pairs::download::{self, Allowance, Files};
use crate::client::pairs::{
    Estimate, MergedLayer, PairsError, Query, QueryHistory, QueryJob, QueryJobs, Submission, host, id, password,
};
use crate::error::BoxError;
use crate::sync::Mutex;

/// The most bytes of a list or of point values that are read into memory.
const MAX_REPLY: u64 = 64 << 20;

/// The most bytes of a token host's reply.
const MAX_TOKEN_REPLY: u64 = 1 << 20;

/// A client of a PAIRS server, with credentials. It is cheap to clone; clones share connections,
/// tokens and rate limits.
///
/// A call blocks until the server has answered. Any number of threads can make calls at once. If
/// the network or the server fails temporarily, calls that change nothing are repeated, but a
/// submission never is.
///
/// ```no_run
/// use fulmar::client::pairs::{Client, Query, Submission};
///
/// let client = Client::builder("https://pairs.res.ibm.com").basic("me", "a password").build()?;
/// let query = Query::builder().layer(92).points(&[(48.7, -97.0)]).snapshot("2018-11-01T00:00:00").build()?;
/// if let Submission::Points(points) = client.submit(&query)? {
///     println!("{:?}", points.values()?);
/// }
/// # Ok::<(), fulmar::client::pairs::PairsError>(())
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    base: String,
    http: HttpClient,
    /// For clients with credentials.
    cleartext: Option<Cleartext>,
    /// `geospatial-TENANT`, for hosts that need it.
    client_id: Option<String>,
    /// Whether a token is renewed when it expires.
    renews: bool,
    allowance: Allowance,
}

impl Client {
    /// A builder for a host: `pairs.res.ibm.com`, `api.ibm.com`, or the URL of any other server's
    /// API, such as `http://127.0.0.1:9090/v2`. To IBM's own hosts it adds the path of their API.
    /// Without a scheme it is `https`.
    pub fn builder(host: &str) -> ClientBuilder {
        ClientBuilder::new(host)
    }

    /// A builder for the legacy host, `https://pairs.res.ibm.com/v2`.
    pub fn legacy() -> ClientBuilder {
        ClientBuilder::new(host::LEGACY)
    }

    /// The URL of the API.
    pub fn host(&self) -> &str {
        &self.0.base
    }

    /// Submits a query: `POST /query`. The server returns the values of points at once, unless
    /// there are too many; any other query becomes a job.
    ///
    /// # Errors
    /// [`PairsError::Http`] if the server refuses or can't be reached. If the error's
    /// [`may_have_arrived`](HttpError::may_have_arrived) is true, the job may exist: look for it in
    /// the [list](Client::list) before you submit again, as [`batch_query`](super::batch_query)
    /// does.
    pub fn submit(&self, query: &Query) -> Result<Submission, PairsError> {
        self.calls().submit(query, false)
    }

    /// [Submits](Client::submit) a query, and asks for points as CSV instead of its `outputType`.
    ///
    /// # Errors
    /// [`PairsError::Http`] if the server refuses or can't be reached, as for
    /// [`submit`](Client::submit).
    pub fn submit_compact_csv(&self, query: &Query) -> Result<Submission, PairsError> {
        self.calls().submit(query, true)
    }

    /// Asks what a query would cost: `POST /query` with `dryRun`. Nothing is created.
    ///
    /// # Errors
    /// [`PairsError::Reply`] if the answer isn't an estimate, otherwise the errors of
    /// [`submit`](Client::submit).
    pub fn dry_run(&self, query: &Query) -> Result<Estimate, PairsError> {
        let mut query = query.clone();
        query.set_dry_run();
        match self.calls().submit(&query, false)? {
            Submission::Estimate(estimate) => Ok(estimate),
            other => Err(PairsError::reply(format!("expected the answer to a dry run, got {}", other.describe()))),
        }
    }

    /// Asks for the state of a query: `GET /queryjobs/{id}`.
    ///
    /// # Errors
    /// [`PairsError::Http`] with status 404 if there is no such query.
    pub fn status(&self, id: &str) -> Result<QueryJob, PairsError> {
        self.calls().status(id)
    }

    /// Asks for the history of a query, with what was submitted:
    /// `GET /queryhistories/full/queryjob/{id}`.
    ///
    /// # Errors
    /// [`PairsError::Http`] with status 404 if there is no such query.
    pub fn history(&self, id: &str) -> Result<QueryHistory, PairsError> {
        self.calls().history(id)
    }

    /// A page of the user's own queries, newest first: `GET /queryjobs/list`. Pages are counted
    /// from 1.
    ///
    /// # Errors
    /// [`PairsError::Http`] if the server refuses or can't be reached, [`PairsError::Reply`] if its
    /// answer isn't such a list.
    pub fn list(&self, favorites: bool, page: u32, size: u32) -> Result<QueryJobs, PairsError> {
        self.calls().list(favorites, page, size).map(|(jobs, _)| jobs)
    }

    /// Makes a query a favourite, or no longer: `PUT /queryjobs/{id}`.
    ///
    /// # Errors
    /// [`PairsError::Http`] with status 404 if there is no such query.
    pub fn favorite(&self, id: &str, favorite: bool) -> Result<(), PairsError> {
        let calls = self.calls();
        let path = format!("/queryjobs/{}", id::check(id)?);
        calls.send(calls.request(Method::Put, &path)?.json(&json!({"flag": favorite}))).map(drop)
    }

    /// Merges the result of `other` into that of `base`, on the server: `PUT
    /// /queryjobs/{base}/merge/{other}`.
    ///
    /// # Errors
    /// [`PairsError::Merge`] says which of the two is to blame: they must be the user's own,
    /// succeeded, and for the same box.
    pub fn merge(&self, base: &str, other: &str) -> Result<Vec<MergedLayer>, PairsError> {
        let calls = self.calls();
        let path = format!("/queryjobs/{}/merge/{}", id::check(base)?, id::check(other)?);
        match calls.send(calls.request(Method::Put, &path)?) {
            Ok(response) => read(&response, MergedLayer::parse_all),
            Err(PairsError::Http(error)) => Err(refused_merge(base, other, error)),
            Err(error) => Err(error),
        }
    }

    /// Downloads the result of a query: an archive to `{folder}/{id}.zip`, unpacked to
    /// `{folder}/{id}/`, or JSON or CSV to `{folder}/{id}.json` or `.csv`. Creates the folder, and
    /// replaces files of an earlier download.
    ///
    /// # Errors
    /// [`PairsError::Http`] with status 404 if the result isn't ready, [`PairsError::Download`] if
    /// the file isn't data, [`PairsError::Archive`] if the archive can't be unpacked.
    pub fn download(&self, id: &str, folder: impl AsRef<Path>) -> Result<Files, PairsError> {
        self.download_as(id, folder, id)
    }

    /// [Downloads](Client::download) to files with `name` in place of the id. Give `name` without
    /// an ending.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if the name isn't a plain file name, otherwise the errors of
    /// [`download`](Client::download).
    pub fn download_as(&self, id: &str, folder: impl AsRef<Path>, name: &str) -> Result<Files, PairsError> {
        download::fetch(&self.calls(), id, folder.as_ref(), name, self.allowance(), &mut |_, _| {}, &|| false)
    }

    /// A request to any other path of the API, such as the catalogue. It has the client's
    /// credentials, which are sent only to the API, its time limits and its retries. `path` begins
    /// with `/`.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if the host was given with `http://` and redirects to `https`, which
    /// the client checks once; [`PairsError::Http`] if that check fails.
    ///
    /// ```
    /// # let server = pairs_server::Server::start(pairs_server::Config::default())?;
    /// # let client = fulmar::client::pairs::Client::builder(&server.url()).basic("me", "a password").build()?;
    /// use fulmar::client::http::Method;
    ///
    /// let request = client.request(Method::Get, "/queryjobs/list")?.query("page", "1").query("size", "10");
    /// let list: serde_json::Value = request.send()?.json()?;
    /// assert_eq!(list["queryJobList"], serde_json::json!([]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, PairsError> {
        self.calls().request(method, path)
    }

    pub(super) fn allowance(&self) -> Allowance {
        self.0.allowance
    }

    /// Whether a refusal only says that the token has expired. Then the server has done nothing,
    /// and another call gets a new token.
    pub(super) fn has_outlived_token(&self, error: &HttpError) -> bool {
        self.0.renews && error.status().is_some_and(|status| is_expired(status, error.body()))
    }

    pub(super) fn calls(&self) -> Calls<'_> {
        Calls { client: &self.0, once: false }
    }

    /// The calls, each of which is tried once and waits only for the answer.
    pub(super) fn once(&self) -> Calls<'_> {
        Calls { client: &self.0, once: true }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &host::shown(&self.0.base)).finish_non_exhaustive()
    }
}

/// The calls of a client, with or without waits and retries.
pub(super) struct Calls<'a> {
    client: &'a Inner,
    once: bool,
}

impl Calls<'_> {
    pub(super) fn submit(&self, query: &Query, compact_csv: bool) -> Result<Submission, PairsError> {
        let csv = compact_csv
            || (query.is_point() && query.output_type().is_some_and(|kind| kind.eq_ignore_ascii_case("csv")));
        let accept = if compact_csv { "text/csv" } else { "application/json" };
        let response = self.send(self.request(Method::Post, "/query")?.accept(accept).json(&query.to_submit()))?;
        if response.method() != Method::Post {
            // This is the reply to the `GET` of a redirect, and says nothing of the submission.
            return Err(PairsError::SentOn { to: place(response.url()) });
        }
        read(&response, |text| Submission::parse(text, csv, response.length_known()))
    }

    pub(super) fn status(&self, id: &str) -> Result<QueryJob, PairsError> {
        let path = format!("/queryjobs/{}", id::check(id)?);
        let response = self.send(self.request(Method::Get, &path)?)?;
        let mut job = read(&response, QueryJob::parse)?;
        if job.id != id {
            return Err(PairsError::reply(format!("asked for query {id}, got {}", response.hide(&job.id))));
        }
        // Hide secrets in both texts, which are shown if the query has failed.
        job.status = response.hide(&job.status);
        job.message = job.message.map(|message| response.hide(&message));
        Ok(job)
    }

    pub(super) fn history(&self, id: &str) -> Result<QueryHistory, PairsError> {
        let path = format!("/queryhistories/full/queryjob/{}", id::check(id)?);
        read(&self.send(self.request(Method::Get, &path)?)?, QueryHistory::parse)
    }

    /// A page of the list, and the server's `Date`.
    pub(super) fn list(
        &self,
        favorites: bool,
        page: u32,
        size: u32,
    ) -> Result<(QueryJobs, Option<String>), PairsError> {
        let request =
            self.request(Method::Get, "/queryjobs/list")?.query("flag", if favorites { "true" } else { "false" });
        let response = self.send(request.query("page", &page.to_string()).query("size", &size.to_string()))?;
        let date = response.header("date").map(str::to_owned);
        let mut list = read(&response, QueryJobs::parse)?;
        if list.pages == 0 && list.jobs.len() + list.unreadable.len() >= size as usize {
            list.unreadable.push("the server doesn't say whether more pages follow (no totPages)".to_owned());
        }
        Ok((list, date))
    }

    pub(super) fn download(&self, id: &str) -> Result<RequestBuilder, PairsError> {
        Ok(self.request(Method::Get, &format!("/queryjobs/{}/download", id::check(id)?))?.accept("*/*"))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, PairsError> {
        let Inner { base, http, cleartext, .. } = self.client;
        if let Some(cleartext) = cleartext {
            cleartext.check(http, self.once)?;
        }
        // Send credentials only below the API's root, because IBM's host has other APIs, too.
        let request = http.request(method, &format!("{base}{path}")).auth_below(base).accept("application/json");
        let request = match &self.client.client_id {
            Some(id) => request.header("x-ibm-client-id", id),
            None => request,
        };
        // A status of 500 is mostly temporary here. This doesn't repeat submissions, which aren't
        // idempotent.
        let request = request.retry_on(&[500]);
        Ok(if self.once { request.once() } else { request })
    }

    fn send(&self, request: RequestBuilder) -> Result<Response, PairsError> {
        request.send().map_err(|error| self.error(error))
    }

    /// The error of a call. If the call failed because the client could not get a token, it is
    /// [`PairsError::Credentials`], which says whether another attempt may help.
    pub(super) fn error(&self, source: HttpError) -> PairsError {
        match source.kind() {
            HttpErrorKind::Unauthorized => {
                let is_retryable =
                    failure_of::<PairsError>(&source).map_or(source.is_retryable(), PairsError::is_retryable);
                PairsError::Credentials { is_retryable, source }
            }
            _ => PairsError::Http(source),
        }
    }
}

/// Reads an answer. If it can't be read, the error quotes it without the secrets of the request,
/// which a server may repeat.
fn read<T>(response: &Response, parse: impl Fn(&str) -> Result<T, PairsError>) -> Result<T, PairsError> {
    let text = response.text()?;
    parse(text).map_err(|error| match error {
        // Hide secrets before the text is cut: otherwise half a secret could be left.
        PairsError::Reply(_) => match parse(&response.hide(text)) {
            Err(error) => error,
            Ok(_) => PairsError::reply("it repeats what it was sent"),
        },
        error => error,
    })
}

/// A URL without the parts that may be secret.
fn place(url: &str) -> String {
    Url::parse(url).map(|url| url[..Position::AfterPath].to_owned()).unwrap_or_default()
}

fn refused_merge(base: &str, other: &str, error: HttpError) -> PairsError {
    let reason = match error.status() {
        Some(401) => "one of them belongs to another user",
        Some(404) => "one of them doesn't exist or hasn't succeeded",
        Some(412) => "they are for different boxes",
        _ => return error.into(),
    };
    PairsError::Merge { base: base.to_owned(), other: other.to_owned(), reason, source: error }
}

/// Settings of a [`Client`].
#[must_use]
pub struct ClientBuilder {
    base: String,
    identity: Identity,
    client_id: Option<String>,
    tenant: Option<String>,
    org_id: Option<String>,
    endpoint: Option<String>,
    iam_endpoint: Option<String>,
    legacy: Option<bool>,
    allowance: Allowance,
    http: HttpClientBuilder,
    /// The client for the hosts of tokens, with the same settings but without credentials and rate
    /// limits.
    tokens: HttpClientBuilder,
}

enum Identity {
    None,
    Basic { user: String, password: String },
    PasswordFile { user: String, path: PathBuf },
    Token(String),
    ApiKey(String),
    ApiKeyFile { user: String, path: PathBuf },
}

impl ClientBuilder {
    fn new(host: &str) -> ClientBuilder {
        ClientBuilder {
            base: host::base(host),
            identity: Identity::None,
            client_id: None,
            tenant: None,
            org_id: None,
            endpoint: None,
            iam_endpoint: None,
            legacy: None,
            allowance: Allowance::default(),
            http: HttpClient::builder().max_body(MAX_REPLY),
            tokens: HttpClient::builder().max_body(MAX_TOKEN_REPLY),
        }
    }

    /// Logs in with user and password, which are sent with each call. If several ways to log in are
    /// set, the last one counts.
    pub fn basic(mut self, user: &str, password: &str) -> ClientBuilder {
        self.identity = Identity::Basic { user: user.to_owned(), password: password.to_owned() };
        self
    }

    /// Logs in with a user and the password in a file, in a line `server:user:password`, with `\:`
    /// for a colon.
    pub fn password_file(mut self, user: &str, path: impl Into<PathBuf>) -> ClientBuilder {
        self.identity = Identity::PasswordFile { user: user.to_owned(), path: path.into() };
        self
    }

    /// Logs in with a token that you got elsewhere. It isn't renewed.
    pub fn token(mut self, token: &str) -> ClientBuilder {
        self.identity = Identity::Token(token.to_owned());
        self
    }

    /// Logs in with an API key, for which the client gets tokens. The key is one of the legacy host
    /// if the API is the legacy one, of Environmental Intelligence if it begins with `PHX`, and
    /// otherwise of IBM Cloud IAM. The last two also need [`tenant_id`](ClientBuilder::tenant_id)
    /// and [`org_id`](ClientBuilder::org_id).
    pub fn api_key(mut self, key: &str) -> ClientBuilder {
        self.identity = Identity::ApiKey(key.to_owned());
        self
    }

    /// Logs in with a user's [key](ClientBuilder::api_key) in a file that has the form of a
    /// [password file](ClientBuilder::password_file).
    pub fn api_key_file(mut self, user: &str, path: impl Into<PathBuf>) -> ClientBuilder {
        self.identity = Identity::ApiKeyFile { user: user.to_owned(), path: path.into() };
        self
    }

    /// The tenant, with or without `saascore-` or `geospatial-` before it. Every call sends it as
    /// `x-ibm-client-id`, unless the API is the legacy one.
    pub fn tenant_id(mut self, tenant: &str) -> ClientBuilder {
        self.tenant = Some(host::tenant(tenant).to_owned());
        self
    }

    /// The client's id. Defaults to `ibm-pairs` for legacy keys, otherwise to one made from the
    /// tenant.
    pub fn client_id(mut self, client_id: &str) -> ClientBuilder {
        self.client_id = Some(client_id.to_owned());
        self
    }

    /// The organisation that a key belongs to.
    pub fn org_id(mut self, org_id: &str) -> ClientBuilder {
        self.org_id = Some(org_id.to_owned());
        self
    }

    /// The URL of the token host. Defaults to `https://auth-b2b-twc.ibm.com` for legacy keys,
    /// otherwise to `https://api.ibm.com/saascore/run/authentication-retrieve`.
    pub fn auth_endpoint(mut self, url: &str) -> ClientBuilder {
        self.endpoint = Some(url.to_owned());
        self
    }

    /// The URL of IBM Cloud IAM. Defaults to `https://iam.cloud.ibm.com`.
    pub fn iam_endpoint(mut self, url: &str) -> ClientBuilder {
        self.iam_endpoint = Some(url.to_owned());
        self
    }

    /// Whether this is the legacy API. Defaults to whether its URL ends in `/v2`.
    pub fn is_legacy(mut self, legacy: bool) -> ClientBuilder {
        self.legacy = Some(legacy);
        self
    }

    /// How many requests the client sends per second, and how many at once, with all threads
    /// together. No limit by default.
    pub fn rate_limit(mut self, limit: RateLimit) -> ClientBuilder {
        self.http = self.http.rate_limit(limit);
        self
    }

    /// How often a call that changes nothing is tried, and with which delays. Defaults to the HTTP
    /// client's own policy. A batch has its own attempts.
    pub fn retry(self, policy: RetryPolicy) -> ClientBuilder {
        self.http(|http| http.retry(policy))
    }

    /// Trusts the certificates in this PEM text in addition to the system's: for a server of your
    /// own.
    pub fn root_certificate(self, pem: &[u8]) -> ClientBuilder {
        self.http(|http| http.root_certificate(pem))
    }

    /// Whether to accept any certificate, for the calls and for the tokens, like `verify = False`
    /// of the Python client. Then every machine on the way to the server can read the credentials
    /// and change the data. To trust a server of your own, give its certificate to
    /// [`root_certificate`](ClientBuilder::root_certificate) instead. Defaults to no.
    pub fn danger_accept_invalid_certificates(self, accepted: bool) -> ClientBuilder {
        self.http(|http| http.danger_accept_invalid_certificates(accepted))
    }

    /// The most bytes of a download, before it is unpacked. Defaults to no limit.
    pub fn max_bytes(mut self, bytes: u64) -> ClientBuilder {
        self.allowance.max_bytes = bytes;
        self
    }

    /// Limits on the archive of a query's result, when it is unpacked. Defaults to 10,000 entries,
    /// 16 GiB, and, beyond 64 MiB, 250 times the archive's size. A raster with the same value
    /// everywhere is compressed to as little as a thousandth; if it has more than 64 MiB, set a
    /// higher ratio.
    pub fn archive_limits(mut self, limits: Limits) -> ClientBuilder {
        self.allowance.archive = limits;
        self
    }

    /// Changes other settings of both HTTP clients, the one for calls and the one for tokens: time
    /// limits, user agent, proxy. For credentials use this builder's methods.
    pub fn http(mut self, set: impl Fn(HttpClientBuilder) -> HttpClientBuilder) -> ClientBuilder {
        self.http = set(self.http);
        self.tokens = set(self.tokens);
        self
    }

    /// Makes the client, without a request to the server.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if a setting is missing or invalid, if the host's URL has a user, a
    /// query or a fragment, or if a password file has no line for this host.
    pub fn build(self) -> Result<Client, PairsError> {
        let invalid = |error: crate::error::Error| PairsError::Invalid(error.to_string());
        if let Some(fault) = host::fault(&self.base) {
            return Err(PairsError::Invalid(format!("the host {} {fault}", host::shown(&self.base))));
        }
        let legacy = self.legacy.unwrap_or_else(|| host::is_legacy(&self.base));
        let mut http = self.http;
        let cleartext = (!matches!(self.identity, Identity::None)).then(|| Cleartext::new(&self.base));
        let key = match self.identity {
            Identity::None => None,
            Identity::Basic { user, password } => {
                http = http.auth(Basic::new(&self.base, &user, &password));
                None
            }
            Identity::PasswordFile { user, path } => {
                let password = password::from_file(&path, &self.base, &user)?;
                http = http.auth(Basic::new(&self.base, &user, &password));
                None
            }
            Identity::Token(token) => {
                http = http.auth(Bearer::new(&self.base, &token));
                None
            }
            Identity::ApiKey(key) => Some(key),
            Identity::ApiKeyFile { user, path } => Some(password::from_file(&path, &self.base, &user)?),
        };
        let tenant = self.tenant.or_else(|| self.client_id.as_deref().map(|id| host::tenant(id).to_owned()));
        let renews = key.is_some();
        if let Some(api_key) = key {
            let needed = |value: &Option<String>, name: &str| {
                let missing =
                    || PairsError::Invalid(format!("an API key needs `{name}`: set it on the client's builder"));
                value.clone().ok_or_else(missing)
            };
            let endpoint = |default: &str| self.endpoint.clone().unwrap_or_else(|| default.to_owned());
            let retrieve = || endpoint("https://api.ibm.com/saascore/run/authentication-retrieve");
            let kind = if legacy {
                KeyKind::Legacy {
                    endpoint: endpoint("https://auth-b2b-twc.ibm.com"),
                    client_id: self.client_id.clone().unwrap_or_else(|| "ibm-pairs".to_owned()),
                    refresh: Mutex::new(None),
                }
            } else {
                let client_id = format!("saascore-{}", needed(&tenant, "tenant_id")?);
                let org_id = needed(&self.org_id, "org_id")?;
                if api_key.starts_with("PHX") {
                    KeyKind::Eis { endpoint: retrieve(), client_id, org_id }
                } else {
                    let iam_endpoint = self.iam_endpoint.unwrap_or_else(|| "https://iam.cloud.ibm.com".to_owned());
                    KeyKind::Iam { iam_endpoint, endpoint: retrieve(), client_id, org_id }
                }
            };
            let exchange = KeyExchange::new(self.tokens.build().map_err(invalid)?, kind, api_key);
            let fetch = move |renewal: &Renewal| exchange.token(renewal).map_err(BoxError::from);
            let tokens = Tokens::new(&self.base, fetch).map_err(invalid)?;
            http = http.auth(tokens.expired_when(is_expired));
        }
        let client_id = tenant.filter(|_| !legacy).map(|tenant| format!("geospatial-{tenant}"));
        Ok(Client(Arc::new(Inner {
            base: self.base,
            http: http.build().map_err(invalid)?,
            cleartext,
            client_id,
            renews,
            allowance: self.allowance,
        })))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("host", &host::shown(&self.base)).finish_non_exhaustive()
    }
}
