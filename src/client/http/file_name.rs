//! Which file names from a server are safe to use. Pure: it never looks at the disk.

use super::redact::is_reordering;
use crate::error::{Error, Result};

/// The suffix of a file that is being downloaded.
pub(super) const PART: &str = ".part";

/// The suffix of the file that says how to resume a download.
pub(super) const STATE: &str = ".part.resume";

/// The most bytes of a name: the limit of file systems, less the suffixes that a download appends.
const LONGEST: usize = 230;

/// The most bytes of a name that is made here: the callers append endings.
#[cfg(any(feature = "openeo", all(feature = "pairs", feature = "sqlite")))]
const LONGEST_MADE: usize = 120;

/// Names that Windows reserves for devices, with any ending.
const RESERVED: &[&str] = &["con", "prn", "aux", "nul", "conin$", "conout$", "com", "lpt"];

/// Checks that `name` is a plain file name on every system: not a path, not `..`, not a device, and
/// not one of the names that a download uses itself.
///
/// # Errors
/// [`Error::Invalid`] says what is wrong with the name.
/// # Examples
/// ```
/// use fulmar::client::http::check_file_name;
///
/// assert!(check_file_name("Global weather-07_12_2021T00_00_00.tiff").is_ok());
/// for name in ["", "..", "a/b", "C:\\x", "/etc/passwd", "NUL.txt", "a\0b", "result.zip.part"] {
///     assert!(check_file_name(name).is_err(), "{name:?}");
/// }
/// ```
pub fn check_file_name(name: &str) -> Result<()> {
    let lower = name.to_lowercase();
    let wrong = component_fault(name).or_else(|| {
        (lower.ends_with(PART) || lower.ends_with(STATE)).then_some("has the ending of unfinished downloads")
    });
    match wrong {
        None => Ok(()),
        Some(wrong) => Err(Error::Invalid(format!(
            "{:?} {wrong}, so it can't be a file's name: give another",
            name.chars().take(100).collect::<String>()
        ))),
    }
}

/// Makes a name for a folder or file from any text: keeps letters, digits, `-`, `_` and `.`, and
/// replaces each run of other characters by `_`. Two texts may give the same name.
#[cfg(any(feature = "openeo", all(feature = "pairs", feature = "sqlite")))]
pub(crate) fn sound_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '.') {
            name.push(c);
        } else if !name.ends_with('_') {
            name.push('_');
        }
        if name.len() > LONGEST_MADE {
            break;
        }
    }
    while name.len() > LONGEST_MADE {
        name.pop();
    }
    let name = name.trim_start_matches(['.', '_']).trim_end_matches(['.', '_']);
    let name = if name.is_empty() { "unnamed" } else { name };
    if check_file_name(name).is_ok() { name.to_owned() } else { format!("_{name}_") }
}

/// What is wrong with one component of a path; `None` if it is safe.
pub(super) fn component_fault(name: &str) -> Option<&'static str> {
    let mut chars = name.chars();
    let drive = chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':');
    if name.is_empty() {
        Some("is empty")
    } else if name == "." || name == ".." {
        Some("names a folder")
    } else if name.len() > LONGEST {
        Some("is too long")
    } else if name.contains(['/', '\\']) || drive {
        Some("is a path")
    } else if name.chars().any(|c| c.is_control() || is_reordering(c)) {
        Some("has characters that can't be seen")
    } else if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        Some("begins with a space or ends with a space or a full stop")
    } else if is_reserved(name) {
        Some("is a device")
    } else if cfg!(windows) && name.contains(['<', '>', ':', '"', '|', '?', '*']) {
        Some("has characters that Windows refuses")
    } else {
        None
    }
}

fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    RESERVED.iter().any(|reserved| match stem.strip_prefix(reserved) {
        Some("") => !matches!(*reserved, "com" | "lpt"),
        // `COM1` to `LPT9`, also with the superscript digits of Latin-1.
        Some(digit) => {
            matches!(*reserved, "com" | "lpt")
                && digit.chars().count() == 1
                && digit.contains(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '¹', '²', '³'])
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_pass() {
        for name in ["a", ".hidden", "a..b", "com", "company.txt", "com10", "nullable", "12:30:00.tif", "données.csv"]
        {
            if !(cfg!(windows) && name.contains(':')) {
                assert!(check_file_name(name).is_ok(), "{name:?}");
            }
        }
    }

    #[test]
    fn others_do_not() {
        let long = "x".repeat(LONGEST + 1);
        for name in [
            ".",
            "..",
            "../a",
            "a/..",
            "/",
            "\\\\host\\x",
            "c:",
            "C:x",
            "con",
            "CON.txt",
            "Com1",
            "lpt².txt",
            "nul .txt",
            "a.",
            "a ",
            " a",
            "a\nb",
            "a\u{202e}b",
            "a\u{61c}b",
            "a\u{2028}b",
            "a\u{2060}b",
            "x.PART",
            "x.part.resume",
            &long,
        ] {
            assert!(check_file_name(name).is_err(), "{name:?}");
        }
    }
}
