//! The hosts that hand out tokens: legacy, IBM Cloud IAM with its exchange, and keys that begin with `PHX`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use http_server::{Reply, Request, lock};
use serde_json::{Value, json};

use crate::Shared;
use crate::faults::mix;

#[derive(Default)]
pub(crate) struct Tokens {
    ends: HashMap<String, Instant>,
    refreshes: HashSet<String>,
    count: u64,
}

impl Tokens {
    pub(crate) fn expire(&mut self) {
        let now = Instant::now();
        self.ends.values_mut().for_each(|end| *end = now);
    }

    fn issue(&mut self, life: Duration) -> String {
        self.count += 1;
        let token = format!("eyJhbGciOiJSUzI1NiJ9.{:016x}.secretsignature{}", mix(self.count), self.count);
        self.ends.insert(token.clone(), Instant::now() + life);
        token
    }

    fn oauth(&mut self, life: Duration) -> Value {
        let refresh = format!("rt-secret-{:016x}", mix(self.count ^ 0xff));
        self.refreshes.insert(refresh.clone());
        json!({
            "access_token": self.issue(life), "expires_in": life.as_secs(), "token_type": "Bearer", "refresh_token": refresh,
            "scope": "access:A B C D",
        })
    }
}

/// Whether a token is good: `None` if nobody ever gave it out.
pub(crate) fn is_valid(shared: &Shared, token: &str) -> Option<bool> {
    lock(&shared.tokens).ends.get(token).map(|end| *end > Instant::now())
}

/// Whether a path is that of a token host.
pub(crate) fn is_theirs(path: &str) -> bool {
    const ENDS: [&str; 5] = [
        "/Auth/GetBearerForClient",
        "/connect/token",
        "/identity/token",
        "/authentication-retrieve",
        "/authentication-retrieve/api-key",
    ];
    ENDS.iter().any(|end| path.ends_with(end))
}

/// The answer of a token host.
pub(crate) fn answer(shared: &Shared, request: &Request) -> Reply {
    let life = shared.config.faults.token_life.unwrap_or(Duration::from_secs(3_600));
    let path = request.path();
    let mut tokens = lock(&shared.tokens);
    if path.ends_with("/Auth/GetBearerForClient") {
        shared.bump("auth legacy");
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let client = body["clientId"] == "ibm-pairs";
        let key = body["apiKey"].as_str().is_some_and(|key| !key.is_empty() && !key.starts_with("bad"));
        return Reply::json(
            200,
            &match (client, key) {
                (true, true) => tokens.oauth(life),
                // Errors are 200 as well.
                (true, false) => json!({"error": "invalid_grant"}),
                (false, _) => json!({"error": "invalid_client"}),
            },
        );
    }
    let form = |name: &str| request.form(name);
    if path.ends_with("/connect/token") {
        shared.bump("auth refresh");
        let known = form("grant_type").as_deref() == Some("refresh_token")
            && form("refresh_token").is_some_and(|refresh| tokens.refreshes.remove(&refresh));
        let reply = if known { tokens.oauth(life) } else { json!({"error": "invalid_grant"}) };
        return Reply::json(200, &reply);
    }
    if path.ends_with("/identity/token") {
        shared.bump("auth iam");
        let grant = form("grant_type").as_deref() == Some("urn:ibm:params:oauth:grant-type:apikey");
        if grant && form("apikey").is_some_and(|key| !key.is_empty() && !key.starts_with("bad")) {
            let mut reply = tokens.oauth(life);
            reply["refresh_token"] = "not_supported".into();
            return Reply::json(200, &reply);
        }
        let error = json!({
            "errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found.",
            "context": {"requestId": "r"},
        });
        return Reply::json(400, &error);
    }
    shared.bump("auth exchange");
    let refused = || {
        let text = "Invalid client id or secret.";
        Reply::json(401, &json!({"httpCode": "401", "httpMessage": "Unauthorized", "moreInformation": text}))
    };
    if request.header("x-ibm-client-id").is_none_or(|id| !id.starts_with("saascore-")) {
        return refused();
    }
    if request.query("orgId").is_none_or(|organisation| organisation.starts_with("bad")) {
        let text = "Unable to retrieve organization. Status code: 404.";
        let error = json!({
            "httpCode": "500", "httpMessage": "External Dependency (process-guut-response)", "moreInformation": text,
        });
        return Reply::json(500, &error);
    }
    let known = if path.ends_with("/api-key") {
        request.header("x-api-key").is_some_and(|key| key.starts_with("PHX"))
    } else {
        let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        bearer.is_some_and(|token| tokens.ends.contains_key(token))
    };
    if known { Reply::new(200, "text/plain", tokens.issue(life).into_bytes()) } else { refused() }
}
