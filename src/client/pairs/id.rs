//! Checks ids before they become part of a URL or of a path.
//!
//! IBM's ids are ten digits, `_` and eight digits (`constants.py`, `QUERY_ID_PATTERN`). Other
//! servers may have others, so this only checks that an id is safe.

use crate::client::pairs::PairsError;

/// The most bytes of an id: far more than any has, and less than any file system's limit for a
/// name.
const MAX_LENGTH: usize = 128;

/// Returns the id, if it has only letters, digits, `_` and `-`.
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
