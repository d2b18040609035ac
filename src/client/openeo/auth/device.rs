//! A person logs in with a browser, while the program waits. (RFC 8628)

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::oidc::Session;
use super::pkce::Pkce;
use super::provider::{Grant, oauth_error};
use crate::client::openeo::error::OpenEoError;
use crate::client::openeo::pause::pause;
use crate::client::openeo::text::plain;

/// How long a code is good for, if the provider doesn't say.
const LIFE: Duration = Duration::from_secs(300);

/// How often to ask, if the provider doesn't say, and by how much rarer if it says `slow_down`.
const INTERVAL: Duration = Duration::from_secs(5);

/// What to tell the person who is to log in. Prints as one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DevicePrompt {
    /// Where to go.
    pub url: String,
    /// What to enter there.
    pub code: String,
    /// Where to go with nothing to enter, if the provider has that.
    pub url_with_code: Option<String>,
    /// How long the code is good for.
    pub expires_in: Duration,
}

impl fmt::Display for DevicePrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url_with_code {
            Some(url) => write!(f, "Visit {url} to authenticate."),
            None => write!(f, "Visit {} and enter user code {} to authenticate.", self.url, self.code),
        }
    }
}

pub(super) fn log_in(session: &Session, prompt: impl FnOnce(&DevicePrompt)) -> Result<Grant, OpenEoError> {
    let provider = &session.provider;
    let Some(endpoint) = &provider.device_endpoint else {
        return Err(provider.failed("it has no device flow: log in another way", None));
    };
    let pkce = Pkce::new()?;
    let scope = provider.scope(&session.oidc, true);
    let mut form = vec![("client_id", session.client.as_str()), ("scope", &scope)];
    form.extend([("code_challenge", pkce.challenge.as_str()), ("code_challenge_method", "S256")]);
    if let Some(secret) = &session.secret {
        form.push(("client_secret", secret));
    }
    let reply = provider.post(endpoint, &form, None).map_err(|error| provider.refused(error))?;

    let began = Instant::now();
    let text = |name: &str| reply.get(name).and_then(Value::as_str);
    let seconds =
        |name: &str| reply.get(name).and_then(Value::as_f64).and_then(|s| Duration::try_from_secs_f64(s).ok());
    // Google calls it `verification_url`.
    let url = text("verification_uri").or(text("verification_url"));
    let (Some(url), Some(code), Some(device_code)) = (url, text("user_code"), text("device_code")) else {
        return Err(provider.failed("its reply has no code or no address for it", None));
    };
    let expires_in = seconds("expires_in").unwrap_or(LIFE);
    let url_with_code = text("verification_uri_complete").map(|url| plain(url, 1_000));
    prompt(&DevicePrompt { url: plain(url, 1_000), code: plain(code, 100), url_with_code, expires_in });

    let mut form = vec![("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", device_code)];
    form.extend([("client_id", session.client.as_str()), ("code_verifier", &pkce.verifier)]);
    if let Some(secret) = &session.secret {
        form.push(("client_secret", secret));
    }
    let mut interval = seconds("interval").unwrap_or(INTERVAL).max(Duration::from_millis(100));
    loop {
        if began.elapsed().saturating_add(interval) > expires_in {
            return Err(provider.failed("nobody logged in before the code expired", None));
        }
        if !pause(interval, &|| false) {
            return Err(provider.failed("waiting for the login was cancelled", None));
        }
        let error = match provider.post(&provider.token_endpoint, &form, None) {
            Ok(reply) => return provider.read(&reply),
            Err(error) => error,
        };
        match oauth_error(&error).as_deref() {
            Some("authorization_pending") => {}
            Some("slow_down") => interval += INTERVAL,
            Some("access_denied") => return Err(provider.failed("the login was refused", Some(error))),
            Some("expired_token") => {
                return Err(provider.failed("nobody logged in before the code expired", Some(error)));
            }
            // A connection that failed is tried again at a slower pace. (RFC 8628, 3.5)
            None if error.is_retryable() => interval = interval.saturating_mul(2).min(expires_in / 4),
            _ => return Err(provider.refused(error)),
        }
    }
}
