//! Whether a download can ask for the rest of a file, and whether the reply is that rest. (RFC
//! 9110, 13 and 14)

use ::http::HeaderMap;
use sha2::{Digest, Sha256};

use super::super::headers::{content_range, number, strong_etag};
use super::super::plan::{Plan, is_credential_name};
use super::super::response::header;
use super::part::Validator;

/// Whether a reply with status 206 is exactly the rest of the file of which the part is the
/// beginning.
pub(super) fn is_the_rest(
    headers: &HeaderMap,
    done: u64,
    validator: &Validator,
    total: u64,
) -> Result<(), &'static str> {
    let range =
        header(headers, "content-range").and_then(content_range).ok_or("a partial reply that doesn't say of what")?;
    if range.first != done || range.total.is_some_and(|now| now != total) || range.last >= total {
        return Err("the server sent another range than the one asked for");
    }
    let length = header(headers, "content-length").map(number);
    if length.is_some_and(|length| length != (range.last - range.first).checked_add(1)) {
        return Err("the server sent a range of another length than it says");
    }
    // Some servers ignore `If-Range`, and send the rest of whatever is there now.
    let name = if validator.is_etag { "etag" } else { "last-modified" };
    if header(headers, name).is_some_and(|version| version.trim() != validator.value.trim()) {
        return Err("the file on the server has changed meanwhile");
    }
    Ok(())
}

/// Identifies the file's version by its `ETag` or date, so that a later request can ask for the
/// rest of the same version. A date counts only if it is at least a second old, because a file may
/// change twice within a second.
pub(super) fn validator(headers: &HeaderMap) -> Option<Validator> {
    if header(headers, "accept-ranges").is_some_and(|ranges| ranges.trim().eq_ignore_ascii_case("none")) {
        return None;
    }
    if let Some(tag) = header(headers, "etag") {
        let value = strong_etag(tag)?.to_owned();
        return Some(Validator { value, is_etag: true });
    }
    let modified = header(headers, "last-modified")?;
    let at = httpdate::parse_http_date(modified).ok()?;
    let now = httpdate::parse_http_date(header(headers, "date")?).ok()?;
    let age = now.duration_since(at).ok()?;
    (age.as_secs() >= 1).then(|| Validator { value: modified.to_owned(), is_etag: false })
}

/// A hash that tells URLs apart without showing them. It includes the query, because two files that
/// differ only there may have the same validator and length. It leaves out the parameters of a
/// signature, because those change from day to day.
pub(super) fn fingerprint(plan: &Plan) -> String {
    let mut url = plan.url.clone();
    let is_sas = url.query_pairs().any(|(name, _)| name == "sig");
    let lasting = |name: &str| !is_credential_name(name) && !is_of_signature(name, is_sas);
    let query: Vec<_> = plan.url.query_pairs().filter(|(name, _)| lasting(name)).collect();
    url.set_query(None);
    url.set_fragment(None);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Sha256::digest(url.as_str()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a parameter of this name belongs to a signature: of S3 and compatible services, of
/// CloudFront, or, if `is_sas`, of Azure.
fn is_of_signature(name: &str, is_sas: bool) -> bool {
    const SAS: &[&str] =
        &["se", "ske", "skoid", "sks", "skt", "sktid", "skv", "sip", "sp", "spr", "sr", "st", "sv", "sdd", "ss", "srt"];
    let name = name.to_ascii_lowercase();
    let is_listed = ["expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"].contains(&name.as_str());
    is_listed || name.starts_with("x-amz-") || name.starts_with("x-goog-") || is_sas && SAS.contains(&name.as_str())
}
