//! Resolves the links in a back-end's documents. Pure.
//!
//! Source: RFC 3986, 5.1.3 and 5.2.

use url::Url;

use crate::client::http::Origin;

/// The URL of the link `href` in a document from the URL `document`, of a back-end whose API is at
/// `root`. `None` if it isn't `http` or `https`.
///
/// A back-end behind a proxy that does the TLS for it may write `http:` into links to itself. So a
/// link to the API's own host gets the scheme by which the API is reached.
pub(crate) fn resolve(root: &Url, document: &str, href: &str) -> Option<String> {
    let href = href.trim();
    let bare_host = root.host_str().map(|host| match root.port() {
        Some(port) => format!("{host}:{port}/"),
        None => format!("{host}/"),
    });
    let mut url = match bare_host.filter(|host| href.starts_with(host.as_str())) {
        Some(_) => Url::parse(&format!("{}://{href}", root.scheme())).ok()?,
        None => Url::parse(document).ok()?.join(href).ok()?,
    };
    let is_own = url.host_str() == root.host_str() && [None, Some(443), root.port()].contains(&url.port());
    if root.scheme() == "https" && url.scheme() == "http" && is_own {
        url.set_scheme("https").ok()?;
        url.set_port(root.port()).ok()?;
    }
    Origin::of(url.as_str()).is_some().then(|| url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_relative_to_its_document_and_as_safe_as_the_api() {
        let root = Url::parse("https://h.org/openeo/1.2").expect("a URL");
        let resolve = |href| resolve(&root, "https://h.org/openeo/1.2/jobs/1/results", href);
        for (href, url) in [
            ("logs?page=2", "https://h.org/openeo/1.2/jobs/1/logs?page=2"),
            ("?page=2", "https://h.org/openeo/1.2/jobs/1/results?page=2"),
            ("/other/a.tif", "https://h.org/other/a.tif"),
            ("http://h.org/openeo/1.2/jobs", "https://h.org/openeo/1.2/jobs"),
            ("http://h.org:443/openeo/1.2/jobs", "https://h.org/openeo/1.2/jobs"),
            ("h.org/openeo/1.2/jobs", "https://h.org/openeo/1.2/jobs"),
            ("//h.org/openeo/1.2/jobs", "https://h.org/openeo/1.2/jobs"),
            // Not the API's own: as it says.
            ("http://store.org/a.tif", "http://store.org/a.tif"),
            ("http://h.org:8080/a.tif", "http://h.org:8080/a.tif"),
        ] {
            assert_eq!(resolve(href).as_deref(), Some(url), "{href}");
        }
        for none in ["file:///etc/passwd", "s3://bucket/a.tif", "mailto:a@h.org"] {
            assert_eq!(resolve(none), None, "{none}");
        }
        let root = Url::parse("https://h.org:8443/api").expect("a URL");
        let own = super::resolve(&root, "https://h.org:8443/api/jobs", "http://h.org:8443/api/jobs?page=2");
        assert_eq!(own.as_deref(), Some("https://h.org:8443/api/jobs?page=2"));
    }
}
