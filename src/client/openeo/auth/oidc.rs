//! Logging in with an OIDC provider, and staying so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::provider::{Grant, Provider};
use super::refresh_tokens::{Lock, RefreshTokens};
use crate::client::http::{Renewal, Token};
use crate::client::openeo::Connection;
use crate::client::openeo::error::OpenEoError;
use crate::error::BoxError;
use crate::sync::Mutex;
use crate::trace::event;

/// Which provider, and as which client. All of it has defaults: the back-end's first provider, and a client that it offers.
///
/// ```
/// use fulmar::client::openeo::Oidc;
///
/// let oidc = Oidc::new().provider("egi").client("my-service").secret("a secret");
/// assert!(!format!("{oidc:?}").contains("a secret"));
/// ```
#[derive(Clone, Default)]
pub struct Oidc {
    pub(super) provider: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) store: Option<RefreshTokens>,
}

impl Oidc {
    /// The defaults.
    pub fn new() -> Oidc {
        Oidc::default()
    }

    /// The provider's id at the back-end. Defaults to the first that the back-end names.
    #[must_use]
    pub fn provider(mut self, id: &str) -> Oidc {
        self.provider = Some(id.to_owned());
        self
    }

    /// The client's id. Defaults to one that the back-end offers for the purpose, if it does.
    #[must_use]
    pub fn client(mut self, id: &str) -> Oidc {
        self.client_id = Some(id.to_owned());
        self
    }

    /// The client's secret. Defaults to none.
    #[must_use]
    pub fn secret(mut self, secret: &str) -> Oidc {
        self.client_secret = Some(secret.to_owned());
        self
    }

    /// The scopes to ask for besides `openid`. Defaults to those that the back-end names.
    #[must_use]
    pub fn scopes<'a>(mut self, scopes: impl IntoIterator<Item = &'a str>) -> Oidc {
        self.scopes = scopes.into_iter().map(str::to_owned).collect();
        self
    }

    /// Keeps refresh tokens on the disk, and looks there first. Defaults to nothing on the disk.
    #[must_use]
    pub fn remember(mut self, store: RefreshTokens) -> Oidc {
        self.store = Some(store);
        self
    }
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc")
            .field("provider", &self.provider)
            .field("client_id", &self.client_id)
            .field("client_secret", &self.client_secret.as_ref().map(|_| "***"))
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const DEVICE_PKCE: &str = "urn:ietf:params:oauth:grant-type:device_code+pkce";

impl Connection {
    /// Logs in as a service, without a person: the client's id and secret are all it takes.
    ///
    /// # Errors
    /// [`OpenEoError::Authentication`], if the provider refuses; the back-end's, if it has no providers.
    pub fn authenticate_oidc_client_credentials(&self, oidc: &Oidc) -> Result<(), OpenEoError> {
        let session = Session::new(self, oidc, &["client_credentials"])?;
        if session.secret.is_none() {
            return Err(OpenEoError::Invalid("client credentials are an id and a secret: give both".into()));
        }
        session.start(self, |session, renewal| session.client_credentials(renewal))
    }

    /// Logs in with user and password at the provider. Few providers allow it.
    ///
    /// # Errors
    /// As for [client credentials](Connection::authenticate_oidc_client_credentials).
    pub fn authenticate_oidc_password(&self, oidc: &Oidc, user: &str, password: &str) -> Result<(), OpenEoError> {
        let session = Session::new(self, oidc, &["password"])?;
        let (user, password) = (user.to_owned(), password.to_owned());
        session.start(self, move |session, renewal| {
            if let Some(grant) = session.by_refresh_token_if_good(renewal)? {
                return Ok(grant);
            }
            let scope = session.provider.scope(&session.oidc, session.oidc.store.is_some());
            let form = [("grant_type", "password"), ("username", &user), ("password", &password), ("scope", &scope)];
            session.grant(&form, renewal)
        })
    }

    /// Logs in with a refresh token: the one given, or the one that is [remembered](Oidc::remember).
    ///
    /// # Errors
    /// As for [client credentials](Connection::authenticate_oidc_client_credentials), and if there is no refresh token.
    pub fn authenticate_oidc_refresh_token(&self, oidc: &Oidc, token: Option<&str>) -> Result<(), OpenEoError> {
        let session = Session::new(self, oidc, &["refresh_token"])?;
        if let Some(token) = token {
            session.refresh.lock().token = Some(token.to_owned());
        }
        session.start(self, |session, renewal| {
            session
                .by_refresh_token(renewal)?
                .ok_or_else(|| session.provider.failed("there is no refresh token: log in another way once", None))
        })
    }

    /// An access token that was got elsewhere. It can't be renewed.
    ///
    /// # Errors
    /// If the back-end doesn't know the provider.
    pub fn authenticate_oidc_access_token(&self, oidc: &Oidc, token: &str) -> Result<(), OpenEoError> {
        let id = match &oidc.provider {
            Some(id) => id.clone(),
            None => Provider::find(self, oidc)?.id,
        };
        self.authenticate_bearer(&format!("oidc/{id}/{token}"))
    }

    /// Logs in a person, who is told by `prompt` where to go and which code to enter; waits until that is done. Tries a
    /// [remembered](Oidc::remember) refresh token first.
    ///
    /// # Timing
    /// As long as the provider's code is good, mostly some minutes.
    /// # Errors
    /// [`OpenEoError::Authentication`], if the person refuses, or takes too long.
    pub fn authenticate_oidc_device(
        &self,
        oidc: &Oidc,
        prompt: impl FnOnce(&super::DevicePrompt),
    ) -> Result<(), OpenEoError> {
        let session = Session::new(self, oidc, &[DEVICE_PKCE, DEVICE])?;
        let again = |session: &Session, renewal: Option<&Renewal>| {
            session
                .by_refresh_token(renewal)?
                .ok_or_else(|| session.provider.failed("the login has expired: log in again", None))
        };
        if let Some(grant) = session.by_refresh_token_if_good(None)? {
            return session.go_on(self, grant, again);
        }
        let grant = super::device::log_in(&session, prompt)?;
        session.keep(&grant, None);
        session.go_on(self, grant, again)
    }
}

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

/// How long to wait for somebody else who is renewing a token of the same file.
const PATIENCE: Duration = Duration::from_secs(60);

impl Session {
    fn new(connection: &Connection, oidc: &Oidc, grants: &[&str]) -> Result<Session, OpenEoError> {
        let provider = Provider::find(connection, oidc)?;
        let client = provider.client_id(oidc, grants)?;
        let known = match &oidc.store {
            Some(store) => store.get(&provider.issuer, &client)?,
            None => None,
        };
        let (oidc, secret) = (oidc.clone(), oidc.client_secret.clone());
        let refresh = Mutex::new(Refresh { token: known.clone(), in_file: known });
        Ok(Session { provider, oidc, client, secret, refresh })
    }

    /// Gets the first token, so that what is wrong is told now, and has later ones got in the same way.
    fn start(
        self,
        connection: &Connection,
        grant: impl Fn(&Session, Option<&Renewal>) -> Result<Grant, OpenEoError> + Send + Sync + 'static,
    ) -> Result<(), OpenEoError> {
        let first = grant(&self, None)?;
        self.go_on(connection, first, grant)
    }

    fn go_on(
        self,
        connection: &Connection,
        first: Grant,
        next: impl Fn(&Session, Option<&Renewal>) -> Result<Grant, OpenEoError> + Send + Sync + 'static,
    ) -> Result<(), OpenEoError> {
        let prefix = format!("oidc/{}/", self.provider.id);
        let session = Arc::new(self);
        let fetch = move |renewal: &Renewal| -> Result<Token, BoxError> {
            next(&session, Some(renewal)).map(token).map_err(super::renewal_error)
        };
        connection.shared.keys.set(&connection.shared.root, prefix, token(first), Box::new(fetch))
    }

    fn client_credentials(&self, renewal: Option<&Renewal>) -> Result<Grant, OpenEoError> {
        let scope = self.provider.scope(&self.oidc, false);
        self.grant(&[("grant_type", "client_credentials"), ("scope", &scope)], renewal)
    }

    /// `None`, if there is no refresh token. Whoever else has the same file waits meanwhile, and finds the new one there: many
    /// providers take a refresh token once.
    fn by_refresh_token(&self, renewal: Option<&Renewal>) -> Result<Option<Grant>, OpenEoError> {
        let lock = self.lock(renewal);
        let Some(token) = self.newest() else { return Ok(None) };
        let outcome = match self.refresh(&token, renewal, lock.as_ref()) {
            // Somebody who knows of no lock may have used it up just now.
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

    /// The token in the file, if somebody has put another there; else the one that is known here, which is newer than the
    /// file's if it couldn't be written.
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

    /// `None` also if the provider takes the refresh token no more: there is another way to log in. That the provider can't be
    /// reached, or is asked too often, is an error.
    fn by_refresh_token_if_good(&self, renewal: Option<&Renewal>) -> Result<Option<Grant>, OpenEoError> {
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
    fn grant(&self, form: &[(&str, &str)], renewal: Option<&Renewal>) -> Result<Grant, OpenEoError> {
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
        self.provider.grant(&form, renewal)
    }

    /// Providers may give a new refresh token each time, and take the old one no more.
    fn keep(&self, grant: &Grant, lock: Option<&Lock>) {
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
