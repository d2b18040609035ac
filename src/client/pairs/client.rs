//! The calls of a PAIRS server, one by one.
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

/// The largest list or point answer that is read into memory, in bytes.
const MAX_REPLY: u64 = 64 << 20;

/// The largest answer of a token host, in bytes.
const MAX_TOKEN_REPLY: u64 = 1 << 20;

/// A PAIRS server, and the credentials for it. Cheap to clone; clones share connections, tokens and
/// rate limits.
///
/// Every call blocks until it is answered, and is for use from any number of threads at once. Calls
/// that change nothing are repeated if the network or the server fails for a moment; a submission
/// never is.
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
    /// `geospatial-TENANT`, for hosts that want it.
    client_id: Option<String>,
    /// Whether tokens are bought anew when they expire.
    renews: bool,
    allowance: Allowance,
}

impl Client {
    /// Starts with a host: `pairs.res.ibm.com`, `api.ibm.com`, or any URL at which the API begins,
    /// such as `http://127.0.0.1:9090/v2`. IBM's own hosts get the path of their API; without a
    /// scheme it is `https`.
    pub fn builder(host: &str) -> ClientBuilder {
        ClientBuilder::new(host)
    }

    /// Starts with the legacy host, `https://pairs.res.ibm.com/v2`.
    pub fn legacy() -> ClientBuilder {
        ClientBuilder::new(host::LEGACY)
    }

    /// The URL at which the API begins.
    pub fn host(&self) -> &str {
        &self.0.base
    }

    /// Submits a query: `POST /query`. Points are answered at once, unless there are too many;
    /// anything else becomes a job.
    ///
    /// # Errors
    /// [`PairsError::Http`] if the server refuses or can't be reached. If the error's
    /// [`may_have_arrived`](HttpError::may_have_arrived) is true, the job may exist: look for it in
    /// the [list](Client::list) before you submit again. [`batch_query`](super::batch_query) does.
    pub fn submit(&self, query: &Query) -> Result<Submission, PairsError> {
        self.calls().submit(query, false)
    }

    /// [Submits](Client::submit) a query whose points are to be answered as CSV, whatever its
    /// `outputType` says.
    ///
    /// # Errors
    /// As [`submit`](Client::submit).
    pub fn submit_compact_csv(&self, query: &Query) -> Result<Submission, PairsError> {
        self.calls().submit(query, true)
    }

    /// Asks what a query would cost: `POST /query` with `dryRun`. Nothing is created.
    ///
    /// # Errors
    /// [`PairsError::Reply`] if the answer is no estimate, else as [`submit`](Client::submit).
    pub fn dry_run(&self, query: &Query) -> Result<Estimate, PairsError> {
        let mut query = query.clone();
        query.set_dry_run();
        match self.calls().submit(&query, false)? {
            Submission::Estimate(estimate) => Ok(estimate),
            other => Err(PairsError::reply(format!("expected the answer to a dry run, got {}", other.describe()))),
        }
    }

    /// How a query is doing: `GET /queryjobs/{id}`.
    ///
    /// # Errors
    /// [`PairsError::Http`] with status 404 if there is no such query.
    pub fn status(&self, id: &str) -> Result<QueryJob, PairsError> {
        self.calls().status(id)
    }

    /// What was asked once: `GET /queryhistories/full/queryjob/{id}`.
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
    /// [`PairsError::Http`] and [`PairsError::Reply`].
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

    /// Downloads what a query has produced, to `{folder}/{id}.zip`, unpacked to `{folder}/{id}/`;
    /// bare JSON and CSV to `{folder}/{id}.json` and `.csv`. The folder is created. What stands
    /// there from an earlier time is replaced.
    ///
    /// # Errors
    /// [`PairsError::Http`] with status 404 if it isn't ready, [`PairsError::Download`] if what
    /// came is no data, [`PairsError::Archive`] if it isn't unpacked.
    pub fn download(&self, id: &str, folder: impl AsRef<Path>) -> Result<Files, PairsError> {
        self.download_as(id, folder, id)
    }

    /// [Downloads](Client::download) to files that are called `name` in place of the id, without an
    /// ending.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if the name is no plain one, else as [`download`](Client::download).
    pub fn download_as(&self, id: &str, folder: impl AsRef<Path>, name: &str) -> Result<Files, PairsError> {
        download::fetch(&self.calls(), id, folder.as_ref(), name, self.allowance(), &mut |_, _| {}, &|| false)
    }

    /// A request for anything else below the API's root, such as the catalogue: with the client's
    /// credentials, which go nowhere else, its time limits and its retries. `path` begins with `/`.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if the host was named with `http://` and sends on to `https`, which
    /// is asked once for each client; [`PairsError::Http`] if that can't be found out.
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

    /// Whether a refusal says no more than that the token has expired, and another call gets a new
    /// one: nothing was done.
    pub(super) fn has_outlived_token(&self, error: &HttpError) -> bool {
        self.0.renews && error.status().is_some_and(|status| is_expired(status, error.body()))
    }

    pub(super) fn calls(&self) -> Calls<'_> {
        Calls { client: &self.0, once: false }
    }

    /// Calls that are tried once and wait for nothing but the answer.
    pub(super) fn once(&self) -> Calls<'_> {
        Calls { client: &self.0, once: true }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &host::shown(&self.0.base)).finish_non_exhaustive()
    }
}

/// The calls of a client, patient or not.
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
            // The answer to a redirect's GET: it says nothing of the submission.
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
        // Both are shown when the query has failed.
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
        let (page, size) = (page.to_string(), size.to_string());
        let request =
            self.request(Method::Get, "/queryjobs/list")?.query("flag", if favorites { "true" } else { "false" });
        let response = self.send(request.query("page", &page).query("size", &size))?;
        let date = response.header("date").map(str::to_owned);
        Ok((read(&response, QueryJobs::parse)?, date))
    }

    pub(super) fn download(&self, id: &str) -> Result<RequestBuilder, PairsError> {
        Ok(self.request(Method::Get, &format!("/queryjobs/{}/download", id::check(id)?))?.accept("*/*"))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, PairsError> {
        let Inner { base, http, cleartext, .. } = self.client;
        if let Some(cleartext) = cleartext {
            cleartext.check(http, self.once)?;
        }
        // IBM's host has more APIs than this one.
        let request = http.request(method, &format!("{base}{path}")).auth_below(base).accept("application/json");
        let request = match &self.client.client_id {
            Some(id) => request.header("x-ibm-client-id", id),
            None => request,
        };
        // A passing one, mostly. A submission isn't repeated, whatever its status.
        let request = request.retry_on(&[500]);
        Ok(if self.once { request.once() } else { request })
    }

    fn send(&self, request: RequestBuilder) -> Result<Response, PairsError> {
        request.send().map_err(|error| self.error(error))
    }

    /// The error of a call. One for lack of a token doesn't show what kind of failure that was.
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

/// Reads an answer. One that makes no sense is quoted without the secrets of its request, which a
/// server may repeat.
fn read<T>(response: &Response, parse: impl Fn(&str) -> Result<T, PairsError>) -> Result<T, PairsError> {
    let text = response.text()?;
    parse(text).map_err(|error| match error {
        // Hidden before it is cut, so that no half of a secret is left.
        PairsError::Reply(_) => match parse(&response.hide(text)) {
            Err(error) => error,
            Ok(_) => PairsError::reply("it repeats what it was sent"),
        },
        error => error,
    })
}

/// A URL without what may be secret in it.
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
    /// For the hosts of tokens: the same but for credentials and rate limits.
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

    /// User and password, for each call. Of the six ways to log in, the last that was set counts.
    pub fn basic(mut self, user: &str, password: &str) -> ClientBuilder {
        self.identity = Identity::Basic { user: user.to_owned(), password: password.to_owned() };
        self
    }

    /// A user whose password stands in a file, in a line `server:user:password`, with `\:` for a
    /// colon.
    pub fn password_file(mut self, user: &str, path: impl Into<PathBuf>) -> ClientBuilder {
        self.identity = Identity::PasswordFile { user: user.to_owned(), path: path.into() };
        self
    }

    /// A token that was got elsewhere. It isn't renewed.
    pub fn token(mut self, token: &str) -> ClientBuilder {
        self.identity = Identity::Token(token.to_owned());
        self
    }

    /// A key that buys tokens: of the legacy host if the API is, of Environmental Intelligence if
    /// it begins with `PHX`, else of IBM Cloud IAM. The latter two need
    /// [`tenant_id`](ClientBuilder::tenant_id) and [`org_id`](ClientBuilder::org_id).
    pub fn api_key(mut self, key: &str) -> ClientBuilder {
        self.identity = Identity::ApiKey(key.to_owned());
        self
    }

    /// A user whose [key](ClientBuilder::api_key) stands in a file of the form of a
    /// [password file](ClientBuilder::password_file).
    pub fn api_key_file(mut self, user: &str, path: impl Into<PathBuf>) -> ClientBuilder {
        self.identity = Identity::ApiKeyFile { user: user.to_owned(), path: path.into() };
        self
    }

    /// The tenant, with or without `saascore-` or `geospatial-` before it. Goes along with every
    /// call as `x-ibm-client-id`, unless the API is the legacy one.
    pub fn tenant_id(mut self, tenant: &str) -> ClientBuilder {
        self.tenant = Some(host::tenant(tenant).to_owned());
        self
    }

    /// The client's own name, where it is no tenant's. Defaults to `ibm-pairs` for legacy keys,
    /// else to the tenant's.
    pub fn client_id(mut self, client_id: &str) -> ClientBuilder {
        self.client_id = Some(client_id.to_owned());
        self
    }

    /// The organisation that a key belongs to.
    pub fn org_id(mut self, org_id: &str) -> ClientBuilder {
        self.org_id = Some(org_id.to_owned());
        self
    }

    /// Where tokens come from. Defaults to `https://auth-b2b-twc.ibm.com` for legacy keys, else to
    /// `https://api.ibm.com/saascore/run/authentication-retrieve`.
    pub fn auth_endpoint(mut self, url: &str) -> ClientBuilder {
        self.endpoint = Some(url.to_owned());
        self
    }

    /// IBM Cloud IAM. Defaults to `https://iam.cloud.ibm.com`.
    pub fn iam_endpoint(mut self, url: &str) -> ClientBuilder {
        self.iam_endpoint = Some(url.to_owned());
        self
    }

    /// Whether this is the legacy API. Defaults to whether its URL ends in `/v2`.
    pub fn is_legacy(mut self, legacy: bool) -> ClientBuilder {
        self.legacy = Some(legacy);
        self
    }

    /// How many requests a second are sent, and how many at once, whatever the number of threads.
    /// No limit by default.
    pub fn rate_limit(mut self, limit: RateLimit) -> ClientBuilder {
        self.http = self.http.rate_limit(limit);
        self
    }

    /// How often a call that changes nothing is tried, and with which pauses. Defaults to the HTTP
    /// client's own policy. A batch has its own attempts.
    pub fn retry(self, policy: RetryPolicy) -> ClientBuilder {
        self.http(|http| http.retry(policy))
    }

    /// Trusts the certificates in this PEM text beside the system's: for a server of your own.
    pub fn root_certificate(self, pem: &[u8]) -> ClientBuilder {
        self.http(|http| http.root_certificate(pem))
    }

    /// Takes any certificate of any server, for the calls and for the tokens: `verify = False` of
    /// the Python client. Every machine between here and the server can then read the credentials
    /// and change the data; to trust a server of your own, name its certificate by
    /// [`root_certificate`](ClientBuilder::root_certificate). Defaults to no.
    pub fn danger_accept_invalid_certificates(self, accepted: bool) -> ClientBuilder {
        self.http(|http| http.danger_accept_invalid_certificates(accepted))
    }

    /// The most bytes that a download may have, as it comes. Defaults to no limit.
    pub fn max_bytes(mut self, bytes: u64) -> ClientBuilder {
        self.allowance.max_bytes = bytes;
        self
    }

    /// What the archive that a query has produced may take unpacked. Defaults to 10,000 entries, 16
    /// GiB, and, beyond 64 MiB, 250 times its own size. A raster with the same value everywhere
    /// comes up to 1,000 times smaller than it is, and more than 64 MiB of such want a higher
    /// ratio.
    pub fn archive_limits(mut self, limits: Limits) -> ClientBuilder {
        self.allowance.archive = limits;
        self
    }

    /// Any other setting of the HTTP clients, that for calls and that for tokens: time limits, user
    /// agent, proxy. Credentials are this builder's affair.
    pub fn http(mut self, set: impl Fn(HttpClientBuilder) -> HttpClientBuilder) -> ClientBuilder {
        self.http = set(self.http);
        self.tokens = set(self.tokens);
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if a setting is missing or makes no sense, the host's URL holds a
    /// user, a query or a fragment, or a password file has no line for this host.
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
