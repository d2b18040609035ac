//! Ids, checked before they become part of a URL or of a path.
//!
//! Real ones are ten digits, `_` and eight digits (`constants.py`, `QUERY_ID_PATTERN`). Servers
//! that are no IBM hosts may number otherwise, so this asks only for what can do no harm.

use crate::client::pairs::PairsError;

/// Far longer than any id, in bytes; shorter than any file system's limit for a name.
const MAX_LENGTH: usize = 128;

/// The id, if it is one plain name: letters, digits, `_` and `-`.
pub(super) fn check(id: &str) -> Result<&str, PairsError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.is_empty() || id.len() > MAX_LENGTH || !id.bytes().all(plain) {
        let shown: String = id.chars().take(40).flat_map(char::escape_default).collect();
        return Err(PairsError::Invalid(format!(
            "`{shown}` can't be a query's id: up to {MAX_LENGTH} letters, digits, `_` and `-`"
        )));
    }
    Ok(id)
}
