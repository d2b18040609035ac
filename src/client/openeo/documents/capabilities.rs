//! The capabilities of a back-end.

use serde_json::Value;

use crate::client::openeo::documents::versions::version;

/// The capabilities of a back-end. (openEO API 1.2, `GET /`)
#[derive(Clone, Debug, PartialEq)]
pub struct Capabilities {
    document: Value,
}

impl Capabilities {
    pub(crate) fn new(document: Value) -> Capabilities {
        Capabilities { document }
    }

    /// The document as it came.
    pub fn as_json(&self) -> &Value {
        &self.document
    }

    /// The version of the API: major, minor, patch; zeros if the back-end doesn't say.
    pub fn api_version(&self) -> (u32, u32, u32) {
        self.text("api_version").and_then(version).unwrap_or_default()
    }

    /// The back-end's name for people.
    pub fn title(&self) -> Option<&str> {
        self.text("title")
    }

    /// The currency in which the back-end counts costs and budgets, if it says.
    pub fn currency(&self) -> Option<&str> {
        self.document.get("billing")?.get("currency")?.as_str()
    }

    /// Whether the back-end has an endpoint: `supports("GET", "/jobs/{job_id}/estimate")`. Names in
    /// braces may differ.
    pub fn supports(&self, method: &str, path: &str) -> bool {
        let endpoints = self.document.get("endpoints").and_then(Value::as_array);
        endpoints.into_iter().flatten().any(|endpoint| {
            let methods = endpoint.get("methods").and_then(Value::as_array);
            endpoint.get("path").and_then(Value::as_str).is_some_and(|found| same_path(found, path))
                && methods.into_iter().flatten().any(|found| found.as_str() == Some(method))
        })
    }

    /// Whether the back-end accepts JSON Web Tokens as bearer tokens, without a prefix. (openEO API
    /// 1.3, `authentication/jwt`)
    pub(crate) fn takes_jwt(&self) -> bool {
        let classes = self.document.get("conformsTo").and_then(Value::as_array).into_iter().flatten();
        classes.filter_map(Value::as_str).any(|class| {
            let class = class.trim_end_matches('/');
            class.contains("://api.openeo.org/") && class.ends_with("/authentication/jwt")
        })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.document.get(name).and_then(Value::as_str)
    }
}

fn same_path(a: &str, b: &str) -> bool {
    let is_name = |part: &str| part.starts_with('{') && part.ends_with('}');
    let (mut a, mut b) = (a.trim_end_matches('/').split('/'), b.trim_end_matches('/').split('/'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || (is_name(a) && is_name(b)) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_are_found_whatever_their_parameters_are_called() {
        let endpoints = json!([{"path": "/jobs/{id}/estimate", "methods": ["GET"]}, {"path": 7}, {"path": "/me"}]);
        let capabilities = Capabilities::new(json!({"api_version": "1.2.0", "endpoints": endpoints}));
        assert!(capabilities.supports("GET", "/jobs/{job_id}/estimate"));
        assert!(!capabilities.supports("POST", "/jobs/{job_id}/estimate"));
        assert!(!capabilities.supports("GET", "/jobs/{job_id}"));
        assert!(!capabilities.supports("GET", "/me"));
        assert_eq!(capabilities.api_version(), (1, 2, 0));
    }
}
