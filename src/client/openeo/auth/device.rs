//! Login of a person with a browser, while the program waits. (RFC 8628)

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::pkce::Pkce;
use super::provider::{Grant, oauth_error};
use super::session::Session;
use super::settings::Oidc;
use crate::client::http::Renewal;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pause::pause;
use crate::client::openeo::documents::text::plain;

/// How long a code is good for, if the provider doesn't say.
const LIFE: Duration = Duration::from_secs(300);

/// The longest lifetime of a code that we accept.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

/// The time between two requests, if the provider doesn't say, and by how much it grows if the
/// provider says `slow_down`.
const INTERVAL: Duration = Duration::from_secs(5);

/// The longest time between two requests while the provider can't be reached, unless it asked for
/// more.
const RARELY: Duration = Duration::from_secs(60);

/// What to tell the person who logs in. Prints as one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DevicePrompt {
    /// The page to open.
    pub url: String,
    /// The code to enter there.
    pub code: String,
    /// A page for which no code has to be entered, if the provider has one.
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

const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const DEVICE_PKCE: &str = "urn:ietf:params:oauth:grant-type:device_code+pkce";

impl Connection {
    /// Logs in a person with a browser: calls `prompt` with the page to open and the code to enter,
    /// and waits until the person has done so. Tries a [remembered](Oidc::remember) refresh token
    /// first.
    ///
    /// # Timing
    /// Waits at most as long as the provider's code is valid, mostly some minutes.
    /// # Errors
    /// [`OpenEoError::Authentication`] if the person refuses, or takes too long.
    pub fn authenticate_oidc_device(&self, oidc: &Oidc, prompt: impl FnOnce(&DevicePrompt)) -> Result<(), OpenEoError> {
        let session = Session::new(self, oidc, &[DEVICE_PKCE, DEVICE])?;
        let again = |session: &Session, renewal: Option<&Renewal>| {
            session
                .by_refresh_token(renewal)?
                .ok_or_else(|| session.provider.failed("the login has expired: log in again", None))
        };
        if let Some(grant) = session.by_refresh_token_if_good(None)? {
            return session.go_on(self, grant, again);
        }
        let grant = log_in(&session, prompt)?;
        session.keep(&grant, None);
        session.go_on(self, grant, again)
    }
}

/// Asks the provider for a code, shows it by `prompt`, and then asks for tokens until the person
/// has logged in. Blocks this thread, at most as long as the code is good. Stores nothing.
///
/// Fails with `OpenEoError::Authentication` if the provider has no such login or refuses, if the
/// person refuses or takes too long, or if the operation that waits here is cancelled.
fn log_in(session: &Session, prompt: impl FnOnce(&DevicePrompt)) -> Result<Grant, OpenEoError> {
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
    provider.add_parameters(&mut form);
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
    let expires_in = seconds("expires_in").filter(|life| !life.is_zero()).unwrap_or(LIFE).min(LONGEST_LIFE);
    let url_with_code = text("verification_uri_complete").map(|url| plain(url, 1_000));
    prompt(&DevicePrompt { url: plain(url, 1_000), code: plain(code, 100), url_with_code, expires_in });

    let mut form = vec![("grant_type", DEVICE), ("device_code", device_code)];
    form.extend([("client_id", session.client.as_str()), ("code_verifier", &pkce.verifier)]);
    if let Some(secret) = &session.secret {
        form.push(("client_secret", secret));
    }
    let mut interval = seconds("interval").unwrap_or(INTERVAL).max(Duration::from_millis(100));
    let too_late = |source| provider.failed("the login was not completed before the code expired", source);
    // Ask at least once, however short the code's lifetime is.
    let mut wait = interval.min(expires_in.mul_f64(0.9));
    loop {
        if began.elapsed().saturating_add(wait) > expires_in {
            return Err(too_late(None));
        }
        if !pause(wait, &|| false) {
            return Err(provider.failed("waiting for the login was cancelled", None));
        }
        let error = match provider.post(&provider.token_endpoint, &form, None) {
            Ok(reply) => return provider.read(&reply),
            Err(error) => error,
        };
        let said = oauth_error(&error);
        match next_interval(said.as_deref(), error.is_retryable(), interval) {
            Some(next) => (interval, wait) = (next, next),
            None => {
                return Err(match said.as_deref() {
                    Some("access_denied") => provider.failed("the login was refused", Some(error)),
                    Some("expired_token") => too_late(Some(error)),
                    _ => provider.refused(error),
                });
            }
        }
    }
}

/// How long to wait after this answer before the next request; `None` if the answer is final. (RFC
/// 8628, 3.5)
fn next_interval(said: Option<&str>, passes: bool, interval: Duration) -> Option<Duration> {
    match said {
        Some("authorization_pending") => Some(interval),
        Some("slow_down") => Some(interval.saturating_add(INTERVAL)),
        Some("access_denied" | "expired_token") => None,
        // After a connection failed, wait longer each time, but never less than the interval.
        _ if passes => Some(interval.saturating_mul(2).min(RARELY).max(interval)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_the_providers_and_only_gets_slower() {
        let second = Duration::from_secs(1);
        assert_eq!(next_interval(Some("authorization_pending"), false, second), Some(second));
        assert_eq!(next_interval(Some("slow_down"), false, second), Some(6 * second));
        assert_eq!(next_interval(Some("slow_down"), false, Duration::MAX), Some(Duration::MAX));
        assert_eq!(next_interval(None, true, second), Some(2 * second), "a connection that failed");
        assert_eq!(next_interval(Some("temporarily_unavailable"), true, 40 * second), Some(60 * second));
        assert_eq!(next_interval(None, true, 90 * second), Some(90 * second), "not faster than it wants");
        for end in [Some("expired_token"), Some("access_denied"), Some("invalid_grant"), None] {
            assert_eq!(next_interval(end, false, second), None, "{end:?}");
        }
    }
}
