//! Logins with an OIDC provider, without a browser.

use super::provider::Provider;
use super::session::Session;
use super::settings::Oidc;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;

impl Connection {
    /// Logs in as a service, without a person, with the client's id and secret.
    ///
    /// # Errors
    /// [`OpenEoError::Authentication`] if the provider refuses; the back-end's error if it has no
    /// providers.
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
    /// [`OpenEoError::Authentication`] if the provider refuses; the back-end's error if it has no
    /// providers.
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

    /// Logs in with a refresh token: `token`, or otherwise the one that is
    /// [remembered](Oidc::remember).
    ///
    /// # Errors
    /// [`OpenEoError::Authentication`] if there is no refresh token, or if the provider refuses;
    /// the back-end's error if it has no providers.
    pub fn authenticate_oidc_refresh_token(&self, oidc: &Oidc, token: Option<&str>) -> Result<(), OpenEoError> {
        let session = Session::new(self, oidc, &["refresh_token"])?;
        if let Some(token) = token {
            session.set_refresh_token(token);
        }
        session.start(self, |session, renewal| {
            session
                .by_refresh_token(renewal)?
                .ok_or_else(|| session.provider.failed("there is no refresh token: log in another way once", None))
        })
    }

    /// Uses an access token that you got elsewhere. It can't be renewed.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if the token can't be a header's value; another error if the
    /// back-end doesn't know the provider.
    pub fn authenticate_oidc_access_token(&self, oidc: &Oidc, token: &str) -> Result<(), OpenEoError> {
        let id = match &oidc.provider {
            Some(id) => id.clone(),
            None => Provider::find(self, oidc, &[])?.id,
        };
        self.set_given_token(&format!("oidc/{id}/"), token)
    }
}
