//! The settings of a login with an OIDC provider.

use std::fmt;

use super::refresh_tokens::RefreshTokens;

/// The provider to log in with, and the client to log in as. By default it is the back-end's first
/// provider, and a client that the back-end offers.
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

    /// The provider's id at the back-end. Defaults to the first provider of the back-end.
    #[must_use]
    pub fn provider(mut self, id: &str) -> Oidc {
        self.provider = Some(id.to_owned());
        self
    }

    /// The client's id. Defaults to one that the back-end offers for this kind of login, if it
    /// does.
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

    /// Keeps refresh tokens in this file, and tries those first. By default none are stored.
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
