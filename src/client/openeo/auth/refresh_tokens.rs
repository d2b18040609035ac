//! Refresh tokens on the disk, for the eyes of their owner.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::openeo::api::error::OpenEoError;
use crate::client::openeo::api::pause::pause;
use crate::time::Deadline;

/// How often a thread looks whether another's lock is gone.
const LOOK: Duration = Duration::from_millis(20);

/// A file of refresh tokens, by issuer and client, in the form of the Python client's
/// `refresh-tokens.json`. Only its owner may read it (mode 0600 on Unix, from the start), and one
/// that others may read is refused.
///
/// A thread that gets a new token for an old one and writes it does so alone, among the threads of
/// all processes: an empty file beside it, `NAME.lock`, is locked meanwhile. So several may share a
/// file, also where a provider takes each refresh token once. No thread waits longer for the lock
/// than a minute. On a file system without locks the last of several writers wins, and the tokens
/// of the others are asked for anew.
#[derive(Clone)]
pub struct RefreshTokens {
    path: PathBuf,
}

/// The right to read and write a file of tokens alone, given back when dropped.
pub(super) struct Lock {
    _file: File,
}

impl RefreshTokens {
    /// The file at `path`, which need not be there yet; its folder must.
    pub fn at(path: impl Into<PathBuf>) -> RefreshTokens {
        RefreshTokens { path: path.into() }
    }

    pub(super) fn get(&self, issuer: &str, client: &str) -> Result<Option<String>, OpenEoError> {
        let all = self.read()?;
        Ok(all.get(key(issuer)).and_then(|of| of.get(client)?.get("refresh_token")?.as_str()).map(str::to_owned))
    }

    /// Writes a token; a caller that has read the file for it before does both under one lock.
    pub(super) fn set(&self, _: &Lock, issuer: &str, client: &str, token: &str) -> Result<(), OpenEoError> {
        let mut all = self.read()?;
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        if !all.get(key(issuer)).is_some_and(Value::is_object) {
            all[key(issuer)] = json!({});
        }
        all[key(issuer)][client] = json!({"date": date, "refresh_token": token});
        self.write(&all).map_err(|error| OpenEoError::written(&self.path, error))
    }

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
                "{} is no file of refresh tokens: remove it, or name another",
                self.path.display()
            ))
        })
    }

    /// Until it is dropped no other thread has it. It is no lock on a file system without locks,
    /// and if another process keeps the lock for longer than `patience`: one that stands still must
    /// not hold up the others for good.
    pub(super) fn lock(&self, patience: Duration) -> Result<Lock, OpenEoError> {
        let failed = |error| OpenEoError::written(&self.path, error);
        let file = private().create(true).truncate(false).open(self.beside(".lock")).map_err(failed)?;
        let deadline = Deadline::start(patience);
        loop {
            match fs4::fs_std::FileExt::try_lock_exclusive(&file) {
                Ok(false) if !deadline.is_past() && pause(LOOK, &|| false) => {}
                Err(error) if error.kind() != std::io::ErrorKind::Unsupported => return Err(failed(error)),
                _ => return Ok(Lock { _file: file }),
            }
        }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        self.path.with_file_name(name)
    }

    /// In one step: a reader sees the old file or the new one, and neither was ever open to others.
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

/// To open files that only their owner can read, from the start.
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
