//! An OIDC provider: how it is chosen, its endpoints, and the forms that the client posts there.

use serde_json::Value;
use url::Url;

use super::renewal::paced;
use super::settings::Oidc;
use crate::client::http::{HttpClient, HttpError, Renewal};
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::documents::text::plain;

/// An OIDC provider of a back-end: its name there, the issuer of its tokens, its endpoints and
/// scopes.
pub(super) struct Provider {
    pub(super) id: String,
    pub(super) issuer: String,
    scopes: Vec<String>,
    /// The scopes that the provider knows; empty if it doesn't say.
    supported: Vec<String>,
    /// Further fields that the back-end wants in the form that asks for access. (openEO API 1.3,
    /// `authorization_parameters`)
    pub(super) parameters: Vec<(String, String)>,
    default_clients: Vec<(String, Vec<String>)>,
    pub(super) token_endpoint: String,
    pub(super) device_endpoint: Option<String>,
    http: HttpClient,
}

/// The reply of a token endpoint.
pub(super) struct Grant {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in: Option<std::time::Duration>,
}

impl Provider {
    /// Finds the provider among those that the back-end trusts, and reads its endpoints. If `oidc`
    /// names none, it takes the first. If `oidc` has no client either, it takes the first provider
    /// for which the back-end offers a client for one of `grants`.
    pub(super) fn find(connection: &Connection, oidc: &Oidc, grants: &[&str]) -> Result<Provider, OpenEoError> {
        let document = connection.get_json("/credentials/oidc")?;
        let all: Vec<&Value> = document.get("providers").and_then(Value::as_array).into_iter().flatten().collect();
        let id_of = |entry: &Value| text(entry, "id").unwrap_or_default();
        let found = match &oidc.provider {
            Some(id) => all.iter().find(|entry| id_of(entry) == *id),
            None if oidc.client_id.is_none() => {
                all.iter().find(|entry| offered_client(&clients(entry), grants).is_some()).or(all.first())
            }
            None => all.first(),
        };
        let entry = *found.ok_or_else(|| {
            let known = all.iter().map(|entry| plain(&id_of(entry), 40)).collect::<Vec<_>>().join(", ");
            OpenEoError::Invalid(match &oidc.provider {
                Some(id) => format!("the back-end has no identity provider {id:?}, but: {known}"),
                None => "the back-end has no identity provider".to_owned(),
            })
        })?;
        let id = id_of(entry);
        let failed =
            |message: String, source| OpenEoError::Authentication { provider: plain(&id, 40), message, source };
        let issuer = issuer_of(entry, connection.root_url()).map_err(|why| failed(why.into(), None))?;

        let http = connection.http().clone();
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let configuration: Value = http
            .get(&url)
            .without_auth()
            .send()
            .and_then(|reply| reply.json())
            .map_err(|error| failed("its configuration could not be had".into(), Some(error)))?;
        // If the server answers for another issuer, it may want to get that issuer's tokens.
        // (OpenID Connect Discovery 1.0, 4.3)
        let answers_for = text(&configuration, "issuer").unwrap_or_default();
        if answers_for.trim_end_matches('/') != issuer.trim_end_matches('/') {
            return Err(failed(format!("it answers for another issuer, {}", plain(&answers_for, 200)), None));
        }
        let endpoint = |name: &str| text(&configuration, name).filter(|url| is_as_safe(url, &issuer));
        let token_endpoint = endpoint("token_endpoint")
            .ok_or_else(|| failed("it names no token endpoint as safe as itself".into(), None))?;
        let device_endpoint = endpoint("device_authorization_endpoint");
        let default_clients = clients(entry);
        let (scopes, supported) = (texts(entry, "scopes"), texts(&configuration, "scopes_supported"));
        let parameters = parameters(entry);
        Ok(Provider {
            id,
            issuer,
            scopes,
            supported,
            parameters,
            default_clients,
            token_endpoint,
            device_endpoint,
            http,
        })
    }

    /// The client id that the caller gave, or one that the back-end offers for one of `grants`.
    pub(super) fn client_id(&self, oidc: &Oidc, grants: &[&str]) -> Result<String, OpenEoError> {
        let offered = || offered_client(&self.default_clients, grants).cloned();
        oidc.client_id.clone().or_else(offered).ok_or_else(|| {
            OpenEoError::Invalid("the back-end offers no client of its own for this: give a `client_id`".into())
        })
    }

    /// The scopes to ask for: `openid`, those of the user or otherwise of the back-end, and, if
    /// `refresh`, `offline_access`, for which a provider gives a refresh token. Some providers
    /// refuse scopes that they don't know. So a back-end's scope is left out if the provider lists
    /// its scopes without it, and `offline_access` is asked for only if the provider lists it.
    pub(super) fn scope(&self, oidc: &Oidc, refresh: bool) -> String {
        let is_known = |scope: &String| self.supported.contains(scope);
        let mut scopes = vec!["openid".to_owned()];
        let wanted: Vec<&String> = if oidc.scopes.is_empty() {
            self.scopes.iter().filter(|scope| self.supported.is_empty() || is_known(scope)).collect()
        } else {
            oidc.scopes.iter().collect()
        };
        let offline = Some("offline_access".to_owned()).filter(|offline| refresh && is_known(offline));
        for scope in wanted.into_iter().cloned().chain(offline) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        scopes.join(" ")
    }

    /// Adds the back-end's parameters to the form, except those whose names it already has.
    pub(super) fn add_parameters<'a>(&'a self, form: &mut Vec<(&'a str, &'a str)>) {
        for (name, value) in &self.parameters {
            if form.iter().all(|(known, _)| known != name) {
                form.push((name, value));
            }
        }
    }

    /// Posts a form. If it is for a renewal, it waits only as long as that may.
    pub(super) fn post(&self, url: &str, form: &[(&str, &str)], renewal: Option<&Renewal>) -> Result<Value, HttpError> {
        let request = self.http.post(url).without_auth().accept("application/json").form(form);
        // If a reply is lost, the request may have used up its code or refresh token, so don't
        // repeat it. All other grants just give another token.
        let grant = form.iter().find(|(name, _)| *name == "grant_type").map(|(_, value)| *value);
        let request = request.idempotent(matches!(grant, Some("client_credentials" | "password")));
        let mut request = paced(request, renewal);
        for (name, value) in form {
            if matches!(*name, "device_code" | "code_verifier") {
                request = request.hide(value);
            }
        }
        request.send()?.json()
    }

    /// Asks the token endpoint for a token.
    pub(super) fn grant(&self, form: &[(&str, &str)], renewal: Option<&Renewal>) -> Result<Grant, OpenEoError> {
        let reply = self.post(&self.token_endpoint, form, renewal).map_err(|error| self.refused(error))?;
        self.read(&reply)
    }

    pub(super) fn read(&self, reply: &Value) -> Result<Grant, OpenEoError> {
        let is_word = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let access_token = text(reply, "access_token")
            .filter(is_word)
            .ok_or_else(|| self.failed("its reply has no `access_token`", None))?;
        let expires_in = reply.get("expires_in").and_then(|value| {
            // Some providers send the number as a string.
            value.as_f64().or_else(|| value.as_str()?.parse().ok())
        });
        // A lifetime of zero or less counts as unknown: then the token is used until the back-end
        // refuses it.
        let expires_in = expires_in.filter(|seconds| *seconds > 0.0);
        let expires_in = expires_in.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
        Ok(Grant { access_token, refresh_token: text(reply, "refresh_token"), expires_in })
    }

    /// The error for a refusal of the provider. Its source has the provider's message; the text
    /// also has the error's code.
    pub(super) fn refused(&self, error: HttpError) -> OpenEoError {
        let message = match (oauth_error(&error), error.status()) {
            (Some(reason), _) => format!("it refused ({})", plain(&reason, 60)),
            (None, Some(status)) => format!("it answered with status {status}"),
            (None, None) => "it could not be asked".to_owned(),
        };
        self.failed(&message, Some(error))
    }

    pub(super) fn failed(&self, message: &str, source: Option<HttpError>) -> OpenEoError {
        OpenEoError::Authentication { provider: plain(&self.id, 40), message: message.to_owned(), source }
    }
}

/// `error` of an OAuth2 error's body: `authorization_pending`. (RFC 6749, 5.2)
pub(super) fn oauth_error(error: &HttpError) -> Option<String> {
    text(&serde_json::from_str(error.body()).ok()?, "error")
}

/// The issuer of the tokens. Fails if a back-end at `https` names an issuer at `http`, because
/// secrets would go there unencrypted.
fn issuer_of(entry: &Value, root: &str) -> Result<String, &'static str> {
    let issuer = text(entry, "issuer").ok_or("the back-end doesn't say who issues its tokens")?;
    if is_as_safe(&issuer, root) {
        Ok(issuer)
    } else {
        Err("the back-end names an issuer that is not as safe as itself")
    }
}

fn is_as_safe(url: &str, issuer: &str) -> bool {
    let scheme = |url: &str| Url::parse(url).ok().filter(Url::has_host).map(|url| url.scheme().to_owned());
    let schemes = (scheme(url), scheme(issuer));
    matches!(
        (schemes.0.as_deref(), schemes.1.as_deref()),
        (Some("https"), Some("http" | "https")) | (Some("http"), Some("http"))
    )
}

/// The clients that a back-end offers for a provider: their ids and grants.
fn clients(entry: &Value) -> Vec<(String, Vec<String>)> {
    let clients = entry.get("default_clients").and_then(Value::as_array).into_iter().flatten();
    clients.filter_map(|client| Some((text(client, "id")?, texts(client, "grant_types")))).collect()
}

/// The id of the first client for one of `grants`.
fn offered_client<'a>(clients: &'a [(String, Vec<String>)], grants: &[&str]) -> Option<&'a String> {
    let is_for = |client: &&(String, Vec<String>)| client.1.iter().any(|grant| grants.contains(&grant.as_str()));
    clients.iter().find(is_for).map(|(id, _)| id)
}

/// The back-end's own parameters, as text.
fn parameters(entry: &Value) -> Vec<(String, String)> {
    let all = entry.get("authorization_parameters").and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    all.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    let items = value.get(name).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_as_safe_as_the_back_end() {
        let entry = |issuer: &str| serde_json::json!({"id": "egi", "issuer": issuer});
        assert!(issuer_of(&entry("http://a.org"), "https://b.org/openeo").is_err());
        assert!(issuer_of(&serde_json::json!({}), "https://b.org/openeo").is_err());
        assert_eq!(issuer_of(&entry("https://a.org/"), "https://b.org/openeo"), Ok("https://a.org/".to_owned()));
        assert!(issuer_of(&entry("http://127.0.0.1:8"), "http://127.0.0.1:9").is_ok());
    }

    #[test]
    fn an_endpoint_is_as_safe_as_its_issuer() {
        assert!(is_as_safe("https://a.org/token", "https://a.org"));
        assert!(is_as_safe("http://127.0.0.1:8/token", "http://127.0.0.1:8"));
        assert!(!is_as_safe("http://a.org/token", "https://a.org"));
        assert!(!is_as_safe("file:///etc/passwd", "http://a.org"));
        assert!(!is_as_safe("nonsense", "http://a.org"));
    }
}
