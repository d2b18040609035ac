//! Password files: lines `server:user:password`, with `\:` for a colon, and `#` comments.
//!
//! Source: `ibmpairs` 3.1.17, `authentication.py`, `get_password_from_file`.

use std::fs;
use std::path::Path;

use crate::client::pairs::PairsError;

/// The most bytes of a password file. It has only a few lines, so a larger file is another one.
const MAX_SIZE: u64 = 1 << 20;

/// Reads the password of `user` on `server` from the file at `path`.
///
/// # Errors
/// [`PairsError::Invalid`] if the file can't be read, isn't text, or has no such line. No error
/// repeats a line.
pub(super) fn from_file(path: &Path, server: &str, user: &str) -> Result<String, PairsError> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| PairsError::Invalid(format!("the password file {shown}: {error}"));
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_SIZE {
        return Err(PairsError::Invalid(format!("{shown} has {size} bytes and isn't a password file")));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    find(&text, server, user)
        .ok_or_else(|| PairsError::Invalid(format!("{shown} has no line `{}:{user}:PASSWORD`", host_of(server))))
}

/// The password of the first line for `server` and `user`.
pub(super) fn find(text: &str, server: &str, user: &str) -> Option<String> {
    let server = host_of(server);
    text.lines().find_map(|line| {
        let [line_server, line_user, password] = fields(line)?;
        (line_server == server && line_user == user).then_some(password)
    })
}

/// The three fields of a line; `None` for a comment, or if there are more or fewer.
fn fields(line: &str) -> Option<[String; 3]> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek(), fields.last_mut()) {
            ('\\', Some(':'), Some(field)) => {
                field.push(':');
                characters.next();
            }
            (':', ..) => fields.push(String::new()),
            (character, _, Some(field)) => field.push(character),
            (_, _, None) => return None,
        }
    }
    fields.try_into().ok()
}

/// The name of a host alone, as the lines have it: without scheme, port and path.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# pairs.res.ibm.com:jane:commented out\n\
        \n\
        pairs.res.ibm.com:john:other\n\
        too:few\n\
        pairs.res.ibm.com:jane:a\\:b\\c\n\
        pairs.res.ibm.com:jane:later\n";

    #[test]
    fn the_first_line_for_server_and_user_counts() {
        assert_eq!(find(FILE, "pairs.res.ibm.com", "jane").as_deref(), Some("a:b\\c"));
        assert_eq!(find(FILE, "https://pairs.res.ibm.com:443/v2", "john").as_deref(), Some("other"));
        assert_eq!(find(FILE, "pairs.res.ibm.com", "jim"), None);
        assert_eq!(find(FILE, "elsewhere", "jane"), None);
    }

    #[test]
    fn a_line_with_a_colon_too_many_is_no_line() {
        assert_eq!(find("h:u:pass:word", "h", "u"), None);
        assert_eq!(find("h:u:", "h", "u").as_deref(), Some(""));
    }

    #[test]
    fn no_error_shows_a_line_of_the_file() {
        let path = std::env::temp_dir().join(format!("fulmar-password-{}", std::process::id()));
        fs::write(&path, "h:u:hunter2\n").expect("written");
        let error = from_file(&path, "h", "someone").expect_err("no such line");
        fs::remove_file(&path).expect("removed");
        assert!(error.to_string().contains("no line `h:someone:PASSWORD`"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
