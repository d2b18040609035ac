//! A login with an OIDC provider, and staying logged in.

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

/// A login, and what it takes to renew it.
pub(super) struct Session {
    pub(super) provider: Provider,
    pub(super) oidc: Oidc,
    pub(super) client: String,
    pub(super) secret: Option<String>,
    refresh: Mutex<Refresh>,
}

/// The refresh token, as far as it is known here.
struct Refresh {
    token: Option<String>,
    /// What was in the file when it was read or written last.
    in_file: Option<String>,
}

/// How long to wait for another process that renews a token of the same file.
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

    /// Goes on from this refresh token, whatever the file has.
    pub(super) fn set_refresh_token(&self, token: &str) {
        self.refresh.lock().token = Some(token.to_owned());
    }

    /// Gets the first token, so that what is wrong is told now, and has later ones got in the same
    /// way.
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

    /// `None`, if there is no refresh token. Another process with the same file waits meanwhile,
    /// and finds the new one there: many providers take a refresh token once.
    pub(super) fn by_refresh_token(&self, renewal: Option<&Renewal>) -> Result<Option<Grant>, OpenEoError> {
        let lock = self.lock(renewal);
        let Some(token) = self.newest() else { return Ok(None) };
        let outcome = match self.refresh(&token, renewal, lock.as_ref()) {
            // A program that takes no lock may have used it up just now.
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

    /// The token in the file, if another process has put another there; else the one that is known
    /// here, which is newer than the file's if it couldn't be written.
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

    /// The lock of the file, if there is one to be had.
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

    /// `None` also if the provider takes the refresh token no more: there is another way to log in.
    /// That the provider can't be reached, or is asked too often, is an error.
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

    /// Posts a form as this client, and keeps the refresh token that comes of it.
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
        // These grants have no other request that could carry them.
        if form.iter().any(|field| matches!(*field, ("grant_type", "client_credentials" | "password"))) {
            self.provider.add_parameters(&mut form);
        }
        self.provider.grant(&form, renewal)
    }

    /// Providers may give a new refresh token each time, and take the old one no more.
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

/// Whether a provider has said no, as opposed to nothing, or "later".
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
