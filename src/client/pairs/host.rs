//! The URL of a host's API.
//!
//! Source: `ibmpairs` 3.1.17, `common.py` (`ensure_protocol`, `ensure_api_path`) and `constants.py`
//! (`CLIENT_*URL*`).

/// The legacy host.
pub(super) const LEGACY: &str = "https://pairs.res.ibm.com/v2";

/// The URL of the API on `host`. It adds `https://` if there is no scheme. To IBM's own hosts it
/// adds the API's path if that is missing, and replaces `http`, because they only have `https`. Any
/// other host stays as it is.
pub(super) fn base(host: &str) -> String {
    let host = host.trim().trim_end_matches('/');
    let with_scheme = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
    let rest = with_scheme.split_once("://").map_or("", |(_, rest)| rest);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let missing = match authority {
        "pairs.res.ibm.com" if !path.contains("v2") => "/v2",
        "api.ibm.com" if !path.contains("core/v3") && !path.contains("core/v4") => match path {
            "" => "/geospatial/run/na/core/v3",
            "geospatial" => "/run/na/core/v3",
            "geospatial/run" => "/na/core/v3",
            path if path.ends_with("core") => "/v3",
            _ => "/core/v3",
        },
        _ => "",
    };
    match authority {
        "pairs.res.ibm.com" | "api.ibm.com" => format!("https://{rest}{missing}"),
        _ => with_scheme,
    }
}

/// The URL without the parts that may be secret: user, password, query and fragment.
pub(super) fn shown(base: &str) -> String {
    let (scheme, rest) = base.split_once("://").unwrap_or(("", base));
    // Search the last `@`, because a password may contain one.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{rest}")
}

/// A text for what is wrong with the URL; `None` if it is valid.
pub(super) fn fault(base: &str) -> Option<&'static str> {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    if rest.contains('@') {
        return Some("holds a user: name one on the client's builder");
    }
    rest.contains(['?', '#']).then_some("has a query or a fragment: name where the API begins, and no more")
}

/// Whether it is the URL of the legacy API, whose calls have no `x-ibm-client-id`.
pub(super) fn is_legacy(base: &str) -> bool {
    base.ends_with("/v2")
}

/// The tenant without a prefix. (`common.py`, `get_tenant_id`)
pub(super) fn tenant(id: &str) -> &str {
    ["saascore-", "geospatial-"].iter().find_map(|prefix| id.strip_prefix(prefix)).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_with_more_in_it_is_refused_and_not_shown() {
        for (base, expected) in [
            ("https://me:hunter2@h/v2", "https://h/v2"),
            ("https://me:a/b@c@h:1/v2", "https://h:1/v2"),
            ("https://h/v2?apikey=hunter2", "https://h/v2"),
            ("https://h/v2#hunter2", "https://h/v2"),
        ] {
            assert!(fault(base).is_some(), "{base}");
            assert_eq!(shown(base), expected);
            let error = crate::client::pairs::Client::builder(base).build().expect_err("refused").to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
        assert_eq!((fault("http://127.0.0.1:9090/v2"), shown("http://[::1]/v2")), (None, "http://[::1]/v2".to_owned()));
    }

    #[test]
    fn ibms_hosts_get_their_path_and_others_are_left_alone() {
        for (host, expected) in [
            ("pairs.res.ibm.com", "https://pairs.res.ibm.com/v2"),
            ("https://pairs.res.ibm.com/v2/", "https://pairs.res.ibm.com/v2"),
            ("http://pairs.res.ibm.com", "https://pairs.res.ibm.com/v2"),
            ("api.ibm.com", "https://api.ibm.com/geospatial/run/na/core/v3"),
            ("https://api.ibm.com/geospatial/run/na/core", "https://api.ibm.com/geospatial/run/na/core/v3"),
            ("https://api.ibm.com/geospatial/run/na/core/v4", "https://api.ibm.com/geospatial/run/na/core/v4"),
            ("http://127.0.0.1:9090/v2", "http://127.0.0.1:9090/v2"),
            ("http://127.0.0.1:9090", "http://127.0.0.1:9090"),
            ("https://pairs.res.ibm.com.evil.example/x", "https://pairs.res.ibm.com.evil.example/x"),
        ] {
            assert_eq!(base(host), expected, "{host}");
        }
        assert!(
            is_legacy("https://pairs.res.ibm.com/v2") && !is_legacy("https://api.ibm.com/geospatial/run/na/core/v3")
        );
        assert_eq!((tenant("geospatial-x"), tenant("saascore-x"), tenant("x")), ("x", "x", "x"));
    }
}
