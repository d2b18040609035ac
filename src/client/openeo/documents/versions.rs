//! Chooses the version of a back-end's API. Pure.
//!
//! Source: openEO API 1.2, `GET /.well-known/openeo`.

use serde_json::Value;

/// The URL of the highest version that this client speaks and that is in production, or of the
/// highest of all if none is; `None` if the document names none. `resolve` resolves a link in it;
/// `scheme` is that of the document's URL.
pub(crate) fn best_version(document: &Value, scheme: &str, resolve: impl Fn(&str) -> Option<String>) -> Option<String> {
    let usable = |entry: &Value| {
        let url = resolve(entry.get("url")?.as_str()?)?;
        let version = version(entry.get("api_version")?.as_str()?)?;
        // Don't follow a document that came over https to an API over http.
        let is_as_safe = scheme != "https" || url.starts_with("https:");
        let production = entry.get("production").and_then(Value::as_bool).unwrap_or(true);
        (is_spoken(version) && is_as_safe).then_some((production, version, url))
    };
    let found = document.get("versions")?.as_array()?.iter().filter_map(usable);
    found.max_by_key(|(production, version, _)| (*production, *version)).map(|(_, _, url)| url)
}

/// Whether this client speaks that version.
pub(crate) fn is_spoken(version: (u32, u32, u32)) -> bool {
    version.0 == 1
}

/// `1.2.0`, also with a suffix such as `-rc.1`.
pub(crate) fn version(text: &str) -> Option<(u32, u32, u32)> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    parts.next().is_none().then_some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn best(asked: &str, versions: Value) -> Option<String> {
        let resolve = |href: &str| href.starts_with("http").then(|| href.to_owned());
        best_version(&json!({ "versions": versions }), asked.split(':').next().expect("a scheme"), resolve)
    }

    #[test]
    fn the_highest_production_version_wins() {
        let entry = |url: &str, version: &str, production: bool| json!({"url": url, "api_version": version, "production": production});
        let all = json!([
            entry("https://h.org/v1.0/", "1.0.0", true),
            entry("https://h.org/v1.10/", "1.10.1", true),
            entry("https://h.org/v1.9/", "1.9.0", true),
            entry("https://h.org/dev/", "1.11.0-rc.1", false),
            entry("https://h.org/v2/", "2.0.0", true),
            entry("https://h.org/v0.4/", "0.4.2", true),
        ]);
        assert_eq!(best("https://h.org/", all).as_deref(), Some("https://h.org/v1.10/"));
        let one = json!([entry("https://h.org/dev/", "1.1.0", false)]);
        assert_eq!(best("https://h.org/", one).as_deref(), Some("https://h.org/dev/"), "better than none");
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let odd = json!([
            {"url": "http://h.org/", "api_version": "1.2.0"},
            {"url": "file:///etc/passwd", "api_version": "1.2.0"},
            {"url": "https://h.org/x", "api_version": "one"},
            {"url": 7, "api_version": "1.2.0"},
            {"api_version": "1.2.0"},
            3,
        ]);
        assert_eq!(best("https://h.org/", odd), None, "downgrades, files and nonsense");
        assert_eq!(best("https://h.org/", json!("none")), None);
        assert_eq!(version("1.2.0.4"), None);
        assert_eq!(version("1.2"), Some((1, 2, 0)));
    }
}
