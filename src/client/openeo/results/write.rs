//! Writes documents to the disk, completely or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::client::openeo::api::error::OpenEoError;

/// Replaces a file by JSON in one step: a reader sees the old file or the new one.
pub(crate) fn write_json(path: &Path, document: &Value) -> Result<(), OpenEoError> {
    let (new, mut file) = create_beside(path).map_err(|error| OpenEoError::written(path, error))?;
    let mut write = || {
        file.write_all(format!("{document:#}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&new);
        OpenEoError::written(path, error)
    })
}

/// Creates a temporary file with a new name: another thread may be writing the same document, or a
/// process may have died while it did.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    for number in 0..1_000 {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new-{number}"));
        let new = path.with_file_name(name);
        match OpenOptions::new().write(true).create_new(true).open(&new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (new, file)),
        }
    }
    Err(io::Error::other("1,000 unfinished files are beside it: remove them"))
}
