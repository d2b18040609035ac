//! Refresh tokens on the disk, for the eyes of their owner.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::client::openeo::error::OpenEoError;
use crate::sync::Mutex;

/// A file of refresh tokens, by issuer and client, in the form of the Python client's `refresh-tokens.json`. Only its owner may
/// read it (mode 0600 on Unix), and one that others may read is refused.
///
/// Handles of one file in one process take turns; of two processes that write at once, one's tokens are lost, and asked
/// for anew.
#[derive(Clone)]
pub struct RefreshTokens {
    path: PathBuf,
    turn: Arc<Mutex<()>>,
}

impl RefreshTokens {
    /// The file at `path`, which need not be there yet; its folder must.
    pub fn at(path: impl Into<PathBuf>) -> RefreshTokens {
        RefreshTokens { path: path.into(), turn: Arc::new(Mutex::new(())) }
    }

    pub(super) fn get(&self, issuer: &str, client: &str) -> Result<Option<String>, OpenEoError> {
        let _turn = self.turn.lock();
        let all = self.read()?;
        Ok(all.get(key(issuer)).and_then(|of| of.get(client)?.get("refresh_token")?.as_str()).map(str::to_owned))
    }

    pub(super) fn set(&self, issuer: &str, client: &str, token: &str) -> Result<(), OpenEoError> {
        let _turn = self.turn.lock();
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

    /// In one step: a reader sees the old file or the new one, and neither was ever open to others.
    fn write(&self, all: &Value) -> std::io::Result<()> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = self.path.with_file_name(name);
        let _ = std::fs::remove_file(&new);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
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
