//! The credentials of a connection, and which replies mean that they have expired.

use std::sync::{Arc, Weak};

use serde_json::Value;

use super::error::OpenEoError;
use crate::client::http::{Authenticate, Credentials, Origin, Renewal, Token, Tokens};
use crate::error::BoxError;
use crate::sync::Mutex;

/// A function that gets the next token.
pub(crate) type Fetch = Box<dyn Fn(&Renewal) -> Result<Token, BoxError> + Send + Sync>;

/// The credentials of a connection: none at first, and replaced each time that the user logs in.
pub(crate) struct SessionCredentials {
    held: Mutex<Option<(Origin, Arc<dyn Authenticate>)>>,
}

impl SessionCredentials {
    pub(crate) fn none() -> SessionCredentials {
        SessionCredentials { held: Mutex::new(None) }
    }

    /// Sets bearer tokens for the API at `root`: the token `first`, and `fetch`, which gets the
    /// next one. A back-end that accepts JSON Web Tokens gets those without the prefix.
    pub(crate) fn set(
        &self,
        root: &str,
        prefix: String,
        takes_jwt: bool,
        first: Token,
        fetch: Fetch,
    ) -> Result<(), OpenEoError> {
        let first = Mutex::new(Some(first));
        let fetch: Fetch = Box::new(move |renewal| match first.lock().take() {
            Some(token) => Ok(token),
            None => fetch(renewal),
        });
        let tokens = Tokens::new(root, fetch)?.expired_when(is_expired).headers(move |token| {
            let prefix = if takes_jwt && is_jwt(token) { "" } else { prefix.as_str() };
            vec![("Authorization".to_owned(), format!("Bearer {prefix}{token}"))]
        });
        self.replace(root, Arc::new(tokens))
    }

    fn replace(&self, root: &str, auth: Arc<dyn Authenticate>) -> Result<(), OpenEoError> {
        let origin = Origin::of(root).ok_or_else(|| OpenEoError::Invalid("the API's URL has no host".into()))?;
        *self.held.lock() = Some((origin, auth));
        Ok(())
    }
}

/// Whether a token has the form of a signed JSON Web Token: three parts in base64url. (RFC 7519,
/// RFC 7515)
fn is_jwt(token: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    token.split('.').count() == 3 && token.split('.').all(is_part)
}

/// Whether a reply says that the token has expired. After any other refusal, a new token wouldn't
/// help.
fn is_expired(status: u16, body: &str) -> bool {
    let code = || serde_json::from_str::<Value>(body).ok()?.get("code")?.as_str().map(str::to_owned);
    match status {
        401 | 403 => match code().as_deref() {
            Some(code) => code == "TokenInvalid",
            // A gateway in front of the back-end answers without openEO's codes.
            None => status == 401,
        },
        _ => false,
    }
}

/// What the HTTP client holds of the keys. Weak, because the keys hold the function that gets the
/// next token, and that function holds a client: otherwise neither would ever be dropped.
impl Authenticate for Weak<SessionCredentials> {
    fn belongs_to(&self, origin: &Origin) -> bool {
        self.upgrade().is_some_and(|keys| keys.held.lock().as_ref().is_some_and(|(own, _)| own == origin))
    }

    fn apply(&self, credentials: &mut Credentials) -> Result<(), BoxError> {
        current(self).map_or(Ok(()), |auth| auth.apply(credentials))
    }

    fn is_expired(&self, status: u16, body: &str) -> bool {
        current(self).is_some_and(|auth| auth.is_expired(status, body))
    }

    fn renew(&self, renewal: &Renewal) -> Result<(), BoxError> {
        current(self).map_or(Ok(()), |auth| auth.renew(renewal))
    }
}

fn current(keys: &Weak<SessionCredentials>) -> Option<Arc<dyn Authenticate>> {
    keys.upgrade()?.held.lock().as_ref().map(|(_, auth)| Arc::clone(auth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_has_three_parts() {
        assert!(is_jwt("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJlZ2kifQ.c2lnbmF0dXJl_-"));
        for other in ["", "a.b", "a.b.c.d", "a..c", "a.b.c=", "token-1"] {
            assert!(!is_jwt(other), "{other}");
        }
    }

    #[test]
    fn only_an_invalid_token_is_worth_a_new_one() {
        assert!(is_expired(403, r#"{"code": "TokenInvalid", "message": "m"}"#));
        assert!(is_expired(401, r#"{"code": "TokenInvalid", "message": "m"}"#));
        assert!(is_expired(401, "<html>"));
        assert!(!is_expired(403, "<html>"));
        assert!(!is_expired(403, r#"{"code": "PermissionsInsufficient", "message": "m"}"#));
        assert!(!is_expired(401, r#"{"code": "AuthenticationRequired", "message": "m"}"#));
        assert!(!is_expired(404, r#"{"code": "TokenInvalid", "message": "m"}"#));
    }
}
