//! A login with an OIDC provider, and its renewals.

use std::sync::Arc;
use std::time::Duration;

use super::provider::{Grant, Provider};
use super::refresh_tokens::Lock;
use super::renewal::renewal_error;
use super::settings::Oidc;
use crate::client::http::{Renewal, Token};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::error::BoxError;
use crate::sync::Mutex;
use crate::trace::event;

/// A login, with all that is needed to renew it.
pub(super) struct Session {
    pub(super) provider: Provider,
    pub(super) oidc: Oidc,
    pub(super) client: String,
    pub(super) secret: Option<String>,
    refresh: Mutex<Refresh>,
}

/// The refresh token that this process knows.
struct Refresh {
    token: Option<String>,
    /// The token in the file when this process last read or wrote it.
    in_file: Option<String>,
}

/// How long to wait for another process that is renewing a token of the same file.
const PATIENCE: Duration = Duration::from_secs(60);

impl Session {
    pub(super) fn new(connection: &Connection, oidc: &Oidc, grants: &[&str]) -> Result<Session, OpenEoError> {
        let provider = Provider::find(connection, oidc, grants)?;
        let client = provider.client_id(oidc, grants)?;
        let known = match &oidc.store {
            Some(store) => store.get(&provider.issuer, &client)?,
            None => None,
        };
        let (oidc, secret) = (oidc.clone(), oidc.client_secret.clone());
        let refresh = Mutex::new(Refresh { token: known.clone(), in_file: known });
        Ok(Session { provider, oidc, client, secret, refresh })
    }

    /// Uses this refresh token from now on, in place of the one in the file.
    pub(super) fn set_refresh_token(&self, token: &str) {
        self.refresh.lock().token = Some(token.to_owned());
    }

    /// Gets the first token, so that a wrong setting is an error now, and sets up the renewal of
    /// later ones in the same way.
    pub(super) fn start(
        self,
        connection: &Connection,
        grant: impl Fn(&Session, Option<&Renewal>) -> Result<Grant, OpenEoError> + Send + Sync + 'static,
    ) -> Result<(), OpenEoError> {
        let first = grant(&self, None)?;
        self.go_on(connection, first, grant)
    }

    pub(super) fn go_on(
        self,
        connection: &Connection,
        first: Grant,
        next: impl Fn(&Session, Option<&Renewal>) -> Result<Grant, OpenEoError> + Send + Sync + 'static,
    ) -> Result<(), OpenEoError> {
        let prefix = format!("oidc/{}/", self.provider.id);
        let session = Arc::new(self);
        let fetch = move |renewal: &Renewal| -> Result<Token, BoxError> {
            next(&session, Some(renewal)).map(token).map_err(renewal_error)
        };
        connection.set_keys(prefix, token(first), Box::new(fetch))
    }

    pub(super) fn client_credentials(&self, renewal: Option<&Renewal>) -> Result<Grant, OpenEoError> {
        let scope = self.provider.scope(&self.oidc, false);
        self.grant(&[("grant_type", "client_credentials"), ("scope", &scope)], renewal)
    }

    /// Gets a token with the refresh token; `None` if there is none. It holds the file's lock, so
    /// that another process waits and then finds the new refresh token: many providers accept one
    /// only once.
    pub(super) fn by_refresh_token(&self, renewal: Option<&Renewal>) -> Result<Option<Grant>, OpenEoError> {
        let lock = self.lock(renewal);
        let Some(token) = self.newest() else { return Ok(None) };
        let outcome = match self.refresh(&token, renewal, lock.as_ref()) {
            // Another program that doesn't use the lock may just have used the token up.
            Err(error) if is_refusal(&error) => match self.newest().filter(|newer| *newer != token) {
                Some(newer) => self.refresh(&newer, renewal, lock.as_ref()),
                None => Err(error),
            },
            outcome => outcome,
        };
        outcome.map(Some)
    }

    fn refresh(&self, token: &str, renewal: Option<&Renewal>, lock: Option<&Lock>) -> Result<Grant, OpenEoError> {
        let grant = self.ask(&[("grant_type", "refresh_token"), ("refresh_token", token)], renewal)?;
        self.keep(&grant, lock);
        Ok(grant)
    }

    /// The token in the file, if another process has written a new one. Otherwise our own, which is
    /// newer than the file's if we couldn't write it.
    fn newest(&self) -> Option<String> {
        let mut known = self.refresh.lock();
        if let Some(store) = &self.oidc.store {
            match store.get(&self.provider.issuer, &self.client) {
                Ok(found) if found.is_some() && found != known.in_file => {
                    *known = Refresh { token: found.clone(), in_file: found };
                }
                Ok(_) => {}
                Err(_error) => event!(WARN, "a file of tokens could not be read", error = _error.to_string()),
            }
        }
        known.token.clone()
    }

    /// The lock of the file, if there is a file and the lock can be taken.
    fn lock(&self, renewal: Option<&Renewal>) -> Option<Lock> {
        let patience = renewal.and_then(Renewal::remaining).map_or(PATIENCE, |left| left.min(PATIENCE));
        match self.oidc.store.as_ref()?.lock(patience) {
            Ok(lock) => Some(lock),
            Err(_error) => {
                event!(WARN, "a file of tokens could not be locked", error = _error.to_string());
                None
            }
        }
    }

    /// As [`by_refresh_token`](Session::by_refresh_token), but also `None` if the provider refuses
    /// the refresh token, because the caller has another way to log in. If the provider can't be
    /// reached, or is asked too often, that is an error.
    pub(super) fn by_refresh_token_if_good(&self, renewal: Option<&Renewal>) -> Result<Option<Grant>, OpenEoError> {
        match self.by_refresh_token(renewal) {
            Err(error) if is_refusal(&error) => {
                event!(DEBUG, "a refresh token was refused", error = error.to_string());
                self.refresh.lock().token = None;
                Ok(None)
            }
            outcome => outcome,
        }
    }

    /// Posts a form as this client, and keeps the refresh token of the reply.
    pub(super) fn grant(&self, form: &[(&str, &str)], renewal: Option<&Renewal>) -> Result<Grant, OpenEoError> {
        let grant = self.ask(form, renewal)?;
        self.keep(&grant, None);
        Ok(grant)
    }

    fn ask(&self, form: &[(&str, &str)], renewal: Option<&Renewal>) -> Result<Grant, OpenEoError> {
        let mut form = form.to_vec();
        form.push(("client_id", &self.client));
        if let Some(secret) = &self.secret {
            form.push(("client_secret", secret));
        }
        // For these grants there is no other request that could carry the parameters.
        if form.iter().any(|field| matches!(*field, ("grant_type", "client_credentials" | "password"))) {
            self.provider.add_parameters(&mut form);
        }
        self.provider.grant(&form, renewal)
    }

    /// Keeps the refresh token of a reply: a provider may give a new one each time, and refuse the
    /// old one from then on.
    pub(super) fn keep(&self, grant: &Grant, lock: Option<&Lock>) {
        let Some(token) = &grant.refresh_token else { return };
        self.refresh.lock().token = Some(token.clone());
        let Some(store) = &self.oidc.store else { return };
        let set = |lock: &Lock| store.set(lock, &self.provider.issuer, &self.client, token);
        match lock.map_or_else(|| set(&store.lock(PATIENCE)?), set) {
            Ok(()) => self.refresh.lock().in_file = Some(token.clone()),
            Err(_error) => event!(WARN, "a refresh token could not be kept", error = _error.to_string()),
        }
    }
}

/// Whether a provider has refused, and not just been unreachable or asked to wait.
fn is_refusal(error: &OpenEoError) -> bool {
    error.status().is_some_and(|status| status < 500 && status != 429)
}

fn token(grant: Grant) -> Token {
    let token = Token::new(grant.access_token);
    match grant.expires_in {
        Some(life) => token.expires_in(life),
        None => token,
    }
}
