//! Login with user and password, for which the back-end gives a token of its own.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::renewal::{paced, renewal_error};
use crate::client::http::{HttpClient, Renewal, Token};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;

impl Connection {
    /// Logs in with user and password. The connection keeps them, to get another token when this
    /// one expires.
    ///
    /// # Errors
    /// The back-end's error if the credentials are wrong, or if it has no such login.
    pub fn authenticate_basic(&self, user: &str, password: &str) -> Result<(), OpenEoError> {
        let login = Arc::new(Login {
            http: self.http().clone(),
            url: format!("{}/credentials/basic", self.root_url()),
            header: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            password: password.to_owned(),
        });
        let first = login.token(None)?;
        let fetch = Box::new(move |renewal: &Renewal| login.token(Some(renewal)).map_err(renewal_error));
        self.set_keys("basic//".to_owned(), first, fetch)
    }

    /// Uses a token that you got elsewhere, in the form that the back-end expects, with its prefix
    /// (`basic//..`, `oidc/egi/..`). It can't be renewed.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] if the token can't be a header's value.
    pub fn authenticate_bearer(&self, token: &str) -> Result<(), OpenEoError> {
        self.set_given_token("", token)
    }

    /// Sets a token that can't be renewed.
    pub(super) fn set_given_token(&self, prefix: &str, token: &str) -> Result<(), OpenEoError> {
        if !is_token(token) {
            return Err(OpenEoError::Invalid("a bearer token is a word of visible ASCII characters".into()));
        }
        let gone = "the token was given, so it can't be renewed: authenticate again";
        self.set_keys(prefix.to_owned(), Token::new(token), Box::new(move |_| Err(gone.into())))
    }
}

struct Login {
    http: HttpClient,
    url: String,
    header: String,
    password: String,
}

impl Login {
    fn token(&self, renewal: Option<&Renewal>) -> Result<Token, OpenEoError> {
        let request = self.http.get(&self.url).without_auth().secret_header("Authorization", &self.header);
        let request = paced(request.hide(&self.password), renewal);
        let reply: Value = request.send()?.json()?;
        let token = reply.get("access_token").and_then(Value::as_str).filter(|token| is_token(token));
        token.map(Token::new).ok_or_else(|| OpenEoError::reply("a login without an `access_token`"))
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
