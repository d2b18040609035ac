//! The four ways to log in: user and password, and three kinds of API keys, each of which is
//! exchanged for a token.
//!
//! | key | from | token by |
//! |---|---|---|
//! | legacy | `auth-b2b-twc.ibm.com` | `POST /Auth/GetBearerForClient`, then `POST /connect/token` with the refresh token |
//! | IBM Cloud IAM | `iam.cloud.ibm.com` | `POST /identity/token`, then `GET .../authentication-retrieve` with what that gave |
//! | Environmental Intelligence, begins with `PHX` | `api.ibm.com` | `GET .../authentication-retrieve/api-key` |
//!
//! Source: `ibmpairs` 3.1.17, `authentication.py`, class `OAuth2`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::http::{HttpClient, HttpError, Renewal, RequestBuilder, Token};
use crate::client::pairs::cleartext::Cleartext;
use crate::client::pairs::{PairsError, reply, schema};
use crate::sync::Mutex;

/// The time limit of a request to a token host, which normally answers within seconds.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The most bytes of a token: a longer text isn't one.
const MAX_TOKEN: usize = 64 << 10;

/// Exchanges the key of a client for tokens.
pub(super) struct KeyExchange {
    http: HttpClient,
    kind: KeyKind,
    api_key: String,
    /// The hosts of tokens, which must not get the key unencrypted, either.
    hosts: Vec<Cleartext>,
}

pub(super) enum KeyKind {
    Legacy {
        endpoint: String,
        client_id: String,
        /// The refresh token. Each use gives the next one.
        refresh: Mutex<Option<String>>,
    },
    Iam {
        iam_endpoint: String,
        endpoint: String,
        client_id: String,
        org_id: String,
    },
    Eis {
        endpoint: String,
        client_id: String,
        org_id: String,
    },
}

/// Whether a refusal means that the token has expired: 401 or 403 with `claim expired` from a
/// legacy host, 500 with `Invalid-JWT-Validate` from the others. (`constants.py`,
/// `CLIENT_TOKEN_REFRESH_MESSAGE*`)
pub(super) fn is_expired(status: u16, body: &str) -> bool {
    match status {
        401 | 403 => body.contains("claim expired"),
        500 => body.contains("Invalid-JWT-Validate"),
        _ => false,
    }
}

impl KeyExchange {
    pub(super) fn new(http: HttpClient, kind: KeyKind, api_key: String) -> KeyExchange {
        let hosts = match &kind {
            KeyKind::Legacy { endpoint, .. } | KeyKind::Eis { endpoint, .. } => vec![endpoint],
            KeyKind::Iam { iam_endpoint, endpoint, .. } => vec![iam_endpoint, endpoint],
        };
        let hosts = hosts.into_iter().map(|url| Cleartext::new(url)).collect();
        KeyExchange { http, kind, api_key, hosts }
    }

    pub(super) fn token(&self, renewal: &Renewal) -> Result<Token, PairsError> {
        for host in &self.hosts {
            host.check(&self.http, renewal.is_once())?;
        }
        match &self.kind {
            KeyKind::Legacy { endpoint, client_id, refresh } => self.legacy(renewal, endpoint, client_id, refresh),
            KeyKind::Iam { iam_endpoint, endpoint, client_id, org_id } => {
                self.iam(renewal, iam_endpoint, endpoint, client_id, org_id)
            }
            KeyKind::Eis { endpoint, client_id, org_id } => {
                let request = self.http.get(&format!("{endpoint}/api-key")).secret_header("X-API-Key", &self.api_key);
                self.retrieve(renewal, request, client_id, org_id, "the key's host")
            }
        }
    }

    /// Gets a token from the legacy host: by the refresh token if there is one and the host takes
    /// it, otherwise by the API key. Stores the refresh token for the next time, if one came. No
    /// lock is held during the requests.
    fn legacy(
        &self,
        renewal: &Renewal,
        endpoint: &str,
        client_id: &str,
        refresh: &Mutex<Option<String>>,
    ) -> Result<Token, PairsError> {
        const HOST: &str = "the legacy token host";
        // Take it out, because even a failed request may use it up.
        let known = refresh.lock().take();
        let refreshed = known.and_then(|known| {
            let form = [("grant_type", "refresh_token"), ("client_id", client_id), ("refresh_token", known.as_str())];
            let request = self.http.post(&format!("{endpoint}/connect/token")).form(&form);
            // If the refresh token is refused, or the reply is lost, the key gets another one.
            let grant = self.json(renewal, request, HOST, &[&known]).ok()?;
            self.granted(&grant, HOST).ok()
        });
        let (token, next) = match refreshed {
            Some(granted) => granted,
            None => {
                let body = json!({"apiKey": self.api_key, "clientId": client_id});
                let request = self.http.post(&format!("{endpoint}/Auth/GetBearerForClient")).json(&body);
                self.granted(&self.json(renewal, request, HOST, &[])?, HOST)?
            }
        };
        *refresh.lock() = next;
        Ok(token)
    }

    fn iam(
        &self,
        renewal: &Renewal,
        iam_endpoint: &str,
        endpoint: &str,
        client_id: &str,
        org_id: &str,
    ) -> Result<Token, PairsError> {
        const HOST: &str = "IBM Cloud IAM";
        let form = [("grant_type", "urn:ibm:params:oauth:grant-type:apikey"), ("apikey", self.api_key.as_str())];
        let request = self.http.post(&format!("{iam_endpoint}/identity/token")).form(&form);
        let grant = self.json(renewal, request, HOST, &[])?;
        let iam = grant.get("access_token").and_then(Value::as_str).filter(|token| is_token(token));
        let iam = iam.ok_or_else(|| self.refusal(HOST, &grant))?;
        let request = self.http.get(endpoint).secret_header("Authorization", &format!("Bearer {iam}"));
        self.retrieve(renewal, request, client_id, org_id, "IBM API Connect")
    }

    /// Fetches the token itself, which comes as plain text.
    fn retrieve(
        &self,
        renewal: &Renewal,
        request: RequestBuilder,
        client_id: &str,
        org_id: &str,
        host: &'static str,
    ) -> Result<Token, PairsError> {
        let request = request.query("orgId", org_id).header("X-IBM-Client-Id", client_id);
        let response = limited(request, renewal).send().map_err(|error| self.failure(host, &error, &[]))?;
        let text = response.text().map_err(|error| self.failure(host, &error, &[]))?;
        let token = text.trim().trim_matches('"');
        if !is_token(token) {
            return Err(PairsError::Authentication {
                host,
                message: "what came isn't a token".to_owned(),
                is_retryable: true,
            });
        }
        Ok(Token::new(token))
    }

    fn json(
        &self,
        renewal: &Renewal,
        request: RequestBuilder,
        host: &'static str,
        secrets: &[&str],
    ) -> Result<Value, PairsError> {
        // Asking twice for a token does no harm, so the request may be repeated.
        let request = secrets.iter().fold(request.hide(&self.api_key), |request, secret| request.hide(secret));
        let request = limited(request.idempotent(true), renewal).accept("application/json");
        let response = request.send().map_err(|error| self.failure(host, &error, secrets))?;
        response.json().map_err(|error| self.failure(host, &error, secrets))
    }

    /// Reads a token, its lifetime and the next refresh token from a reply. An error if the reply
    /// is a refusal, although its status is a success.
    pub(super) fn granted(&self, grant: &Value, host: &'static str) -> Result<(Token, Option<String>), PairsError> {
        let token = grant.get("access_token").and_then(Value::as_str).filter(|token| is_token(token));
        let token = Token::new(token.ok_or_else(|| self.refusal(host, grant))?);
        let life = grant.get("expires_in").and_then(schema::number).filter(|seconds| *seconds > 0.0);
        let life = life.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let next = grant.get("refresh_token").and_then(Value::as_str).map(str::to_owned);
        Ok((
            match life {
                Some(life) => token.expires_in(life),
                None => token,
            },
            next,
        ))
    }

    fn refusal(&self, host: &'static str, grant: &Value) -> PairsError {
        let said = grant.get("error").or_else(|| grant.get("errorMessage")).and_then(Value::as_str);
        let message = self.without_secrets(said.unwrap_or("the answer holds no token"), &[]);
        PairsError::Authentication { host, message, is_retryable: said.is_none() }
    }

    /// The error for a refusal of a token host, with the host's message. It doesn't have the
    /// request's error as its source, because that may repeat the message with a key in it.
    fn failure(&self, host: &'static str, error: &HttpError, secrets: &[&str]) -> PairsError {
        let said: Value = serde_json::from_str(error.body()).unwrap_or_default();
        let word = |name: &str| said.get(name).and_then(schema::text);
        let words: Vec<String> = ["errorCode", "errorMessage", "httpMessage", "moreInformation", "error", "message"]
            .iter()
            .filter_map(|name| word(name))
            .collect();
        let text = match error.status() {
            Some(status) if !words.is_empty() => format!("status {status}, {}", words.join(", ")),
            _ => error.to_string(),
        };
        // API Connect answers 500 if it doesn't know the organisation.
        let is_retryable = error.is_retryable();
        PairsError::Authentication { host, message: self.without_secrets(&text, secrets), is_retryable }
    }

    fn without_secrets(&self, text: &str, others: &[&str]) -> String {
        let secrets = others.iter().copied().chain([self.api_key.as_str()]).filter(|secret| !secret.is_empty());
        // Hide secrets before the text is cut: otherwise half a secret could be left at its end.
        reply::said(&secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "***")))
    }
}

fn limited(request: RequestBuilder, renewal: &Renewal) -> RequestBuilder {
    let limit = renewal.remaining().map_or(TIME_LIMIT, |left| left.min(TIME_LIMIT));
    let request = request.timeout(limit);
    if renewal.is_once() { request.once() } else { request }
}

/// Whether a text can be a header's value: a token never has a blank or a line break.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_is_cut_short_ends_in_no_half_of_a_key() {
        let kind = KeyKind::Legacy { endpoint: String::new(), client_id: String::new(), refresh: Mutex::new(None) };
        let http = HttpClient::builder().build().expect("a client");
        let exchange = KeyExchange::new(http, kind, "hunter2secret".to_owned());
        let error = exchange.refusal("h", &json!({"error": format!("{}hunter2secret", "x".repeat(490))}));
        assert!(error.to_string().contains("x***") && !error.to_string().contains("hunter"), "{error}");
    }
}
