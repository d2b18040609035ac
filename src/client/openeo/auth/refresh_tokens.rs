//! Refresh tokens in a file that only its owner can read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pause::pause;
use crate::time::Deadline;

/// How often a thread looks whether another has released the lock.
const LOOK: Duration = Duration::from_millis(20);

/// A file of refresh tokens, by issuer and client, in the form of the Python client's
/// `refresh-tokens.json`. Only its owner can read it (mode 0600 on Unix, from the start). If others
/// can read it, using it is an error.
///
/// A thread that replaces an old token by a new one holds a lock on an empty file beside it,
/// `NAME.lock`, so that no other thread of any process does so at the same time. So several
/// programs may share a file, even if the provider accepts each refresh token only once. No thread
/// waits longer than a minute for the lock. On a file system without locks, the last of several
/// writers wins, and the other programs have to log in again.
#[derive(Clone)]
pub struct RefreshTokens {
    path: PathBuf,
}

/// The lock of a file of tokens, released when dropped.
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file isn't enough: a process that another thread has just started has a copy
        // of it until it runs its program, and with the copy the lock.
        let _ = fs4::fs_std::FileExt::unlock(&self.file);
    }
}

impl RefreshTokens {
    /// The file at `path`. It need not exist yet, but its folder must.
    pub fn at(path: impl Into<PathBuf>) -> RefreshTokens {
        RefreshTokens { path: path.into() }
    }

    pub(super) fn get(&self, issuer: &str, client: &str) -> Result<Option<String>, OpenEoError> {
        let all = self.read()?;
        Ok(all.get(key(issuer)).and_then(|of| of.get(client)?.get("refresh_token")?.as_str()).map(str::to_owned))
    }

    /// Writes a token. A caller that reads the file first holds the lock for both.
    pub(super) fn set(&self, _: &Lock, issuer: &str, client: &str, token: &str) -> Result<(), OpenEoError> {
        let mut all = self.read()?;
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        if !all.get(key(issuer)).is_some_and(Value::is_object) {
            all[key(issuer)] = json!({});
        }
        all[key(issuer)][client] = json!({"date": date, "refresh_token": token});
        self.write(&all).map_err(|error| OpenEoError::written(&self.path, error))
    }

    /// The whole file as a JSON object; an empty object if there is no file. Fails if the file
    /// can't be read, can be read by other users, or holds something else.
    fn read(&self) -> Result<Value, OpenEoError> {
        let unreadable = |source| OpenEoError::File { path: self.path.clone(), verb: "read", source };
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(json!({})),
            Err(error) => return Err(unreadable(error)),
        };
        if is_open_to_others(&self.path).map_err(unreadable)? {
            return Err(OpenEoError::Invalid(format!(
                "{} holds secrets and can be read by others: `chmod 600` it, or remove it",
                self.path.display()
            )));
        }
        let all: Option<Value> = serde_json::from_str(&text).ok();
        all.filter(Value::is_object).ok_or_else(|| {
            OpenEoError::Invalid(format!(
                "{} isn't a file of refresh tokens: remove it, or name another",
                self.path.display()
            ))
        })
    }

    /// Waits for the lock, for at most `patience`. If another process holds it for longer, or the
    /// file system has no locks, the caller goes on without one: a process that hangs must not
    /// block the others for ever.
    pub(super) fn lock(&self, patience: Duration) -> Result<Lock, OpenEoError> {
        let failed = |error| OpenEoError::written(&self.path, error);
        let file = private().create(true).truncate(false).open(self.beside(".lock")).map_err(failed)?;
        let deadline = Deadline::start(patience);
        loop {
            match fs4::fs_std::FileExt::try_lock_exclusive(&file) {
                Ok(false) if !deadline.is_past() && pause(LOOK, &|| false) => {}
                Err(error) if error.kind() != std::io::ErrorKind::Unsupported => return Err(failed(error)),
                _ => return Ok(Lock { file }),
            }
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        self.path.with_file_name(name)
    }

    /// Replaces the file in one step, so that a reader sees either the old or the new one, and no
    /// other user can read either.
    fn write(&self, all: &Value) -> std::io::Result<()> {
        let new = self.beside(&format!(".{}.new", std::process::id()));
        let _ = std::fs::remove_file(&new);
        let mut file = private().create_new(true).open(&new)?;
        let written = file
            .write_all(format!("{all:#}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&new, &self.path));
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written
    }
}

impl fmt::Debug for RefreshTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTokens").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Options that create a file which only its owner can read, from the start.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn key(issuer: &str) -> &str {
    issuer.trim_end_matches('/')
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> std::io::Result<bool> {
    Ok(std::os::unix::fs::PermissionsExt::mode(&path.metadata()?.permissions()) & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_path: &Path) -> std::io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_never_given_back_holds_up_no_login_for_good() {
        let path = std::env::temp_dir().join(format!("fulmar-lock-{}.json", std::process::id()));
        let tokens = RefreshTokens::at(&path);
        let held = tokens.lock(Duration::ZERO).expect("free");
        tokens.lock(Duration::from_millis(1)).expect("after its patience");
        tokens.set(&held, "issuer/", "client", "token").expect("written");
        assert_eq!(tokens.get("issuer", "client").expect("read").as_deref(), Some("token"));
        for left in [path, tokens.beside(".lock")] {
            std::fs::remove_file(left).expect("there");
        }
    }
}
