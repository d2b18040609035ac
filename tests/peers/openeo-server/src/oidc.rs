//! Who may call: a login with a password, and an OIDC issuer with four grants.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_server::{Reply, Request, lock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Shared;

/// Where the issuer is.
pub(crate) const ISSUER: &str = "oidc";

#[derive(Default)]
pub(crate) struct Tokens {
    count: u64,
    /// Whose a token is, and until when.
    access: HashMap<String, (String, Instant)>,
    refresh: HashMap<String, String>,
    /// Device codes: the challenge, and how often they were asked about.
    devices: HashMap<String, (String, u32)>,
}

impl Tokens {
    fn give(&mut self, prefix: &str, user: &str, life: Duration) -> String {
        self.count += 1;
        let token = format!("token-{}-{user}", self.count);
        self.access.insert(format!("{prefix}{token}"), (user.to_owned(), Instant::now() + life));
        token
    }

    pub(crate) fn expire(&mut self) {
        self.access.clear();
    }

    /// The user of a bearer token that is good.
    pub(crate) fn user(&self, bearer: &str) -> Option<String> {
        self.access.get(bearer).filter(|(_, until)| Instant::now() < *until).map(|(user, _)| user.clone())
    }
}

/// The user, or the refusal.
pub(crate) fn user(shared: &Shared, request: &Request) -> Result<String, Reply> {
    let Some(bearer) = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) else {
        return Err(refusal(401, "AuthenticationRequired", "Unauthorized."));
    };
    lock(&shared.tokens).user(bearer).ok_or_else(|| {
        shared.bump("expired");
        refusal(shared.config.expired_status, "TokenInvalid", "Authorization token has expired or is invalid.")
    })
}

pub(crate) fn basic(shared: &Shared, request: &Request) -> Reply {
    let header = request.header("authorization").and_then(|value| value.strip_prefix("Basic "));
    let decoded = header.and_then(|text| String::from_utf8(STANDARD.decode(text).ok()?).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) if password == format!("{user}123") => {
            let token = lock(&shared.tokens).give("basic//", user, shared.config.token_life);
            Reply::json(200, &json!({"access_token": token}))
        }
        Some(_) => refusal(403, "CredentialsInvalid", "Credentials are not correct."),
        None => refusal(401, "AuthenticationRequired", "Unauthorized."),
    }
}

/// What stands in `/credentials/oidc`.
pub(crate) fn providers(shared: &Shared) -> Value {
    let grants = ["urn:ietf:params:oauth:grant-type:device_code+pkce", "refresh_token"];
    json!({"providers": [{
        "id": "local",
        "issuer": format!("{}/{ISSUER}", shared.origin),
        "title": "Local",
        "scopes": ["openid", "email"],
        "default_clients": [{"id": "default-client", "grant_types": grants}],
    }]})
}

/// A call to the issuer, below its path.
pub(crate) fn answer(shared: &Shared, request: &Request, path: &[&str]) -> Option<Reply> {
    let base = format!("{}/{ISSUER}", shared.origin);
    match (request.method.as_str(), path) {
        ("GET", [".well-known", "openid-configuration"]) => Some(Reply::json(
            200,
            &json!({
                "issuer": base,
                "token_endpoint": format!("{base}/token"),
                "device_authorization_endpoint": format!("{base}/device"),
            }),
        )),
        ("POST", ["device"]) => Some(device(shared, request, &base)),
        ("POST", ["token"]) => Some(token(shared, request)),
        _ => None,
    }
}

fn device(shared: &Shared, request: &Request, base: &str) -> Reply {
    let Some(challenge) = request.form("code_challenge") else { return oauth_error("invalid_request") };
    let mut tokens = lock(&shared.tokens);
    tokens.count += 1;
    let code = format!("device-code-{}", tokens.count);
    tokens.devices.insert(code.clone(), (challenge, 0));
    Reply::json(
        200,
        &json!({
            "device_code": code, "user_code": "ABCD-EFGH", "verification_uri": format!("{base}/go"),
            "expires_in": 600, "interval": 0.1,
        }),
    )
}

fn token(shared: &Shared, request: &Request) -> Reply {
    let form = |name: &str| request.form(name).unwrap_or_default();
    let mut tokens = lock(&shared.tokens);
    let user = match form("grant_type").as_str() {
        "client_credentials" if form("client_secret") == "sec" => form("client_id"),
        "password" if form("password") == format!("{}123", form("username")) => form("username"),
        "refresh_token" => match tokens.refresh.remove(&form("refresh_token")) {
            Some(user) => user,
            None => return oauth_error("invalid_grant"),
        },
        "urn:ietf:params:oauth:grant-type:device_code" => {
            let Some((challenge, asked)) = tokens.devices.get_mut(&form("device_code")) else {
                return oauth_error("expired_token");
            };
            *asked += 1;
            let said = &shared.config.device_says;
            if let Some(error) = said.get(*asked as usize - 1) {
                return oauth_error(error);
            }
            if *asked as usize <= said.len() + shared.config.pending as usize {
                return oauth_error("authorization_pending");
            }
            if *challenge != URL_SAFE_NO_PAD.encode(Sha256::digest(form("code_verifier"))) {
                return oauth_error("invalid_grant");
            }
            "person".to_owned()
        }
        _ => return oauth_error("invalid_client"),
    };
    let life = shared.config.claimed_life.unwrap_or(shared.config.token_life.as_secs_f64());
    let access_token = tokens.give("oidc/local/", &user, shared.config.token_life);
    let mut reply = json!({
        "access_token": access_token, "token_type": "Bearer", "expires_in": life,
    });
    if form("grant_type") != "client_credentials" {
        // Good for once.
        let refresh = format!("refresh-{}", tokens.count);
        tokens.refresh.insert(refresh.clone(), user);
        reply["refresh_token"] = json!(refresh);
    }
    Reply::json(200, &reply)
}

fn oauth_error(error: &str) -> Reply {
    Reply::json(400, &json!({"error": error, "error_description": "as it says"}))
}

pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, &json!({"code": code, "message": message, "id": "r-1"}))
}
