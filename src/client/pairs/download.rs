//! Downloads the result of a query, and recognises by its content whether it is an archive, which
//! is unpacked, or JSON or CSV.
//!
//! Source: `ibmpairs` 3.1.17, `query.py`, `async_download`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::client::http::archive::{self, ArchiveError, Limits};
use crate::client::http::{Download, check_file_name};
use crate::client::pairs::PairsError;
use crate::client::pairs::client::Calls;
use crate::client::pairs::content::{Content, content_of, ends_with_a_line};

/// The ending of a download's file until its type is known.
const UNKNOWN: &str = "download";

/// Files that a query has produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Files {
    /// The archive as it came, if it was one.
    pub archive: Option<PathBuf>,
    /// The folder that the archive was unpacked to.
    pub folder: Option<PathBuf>,
    /// The files in that folder, or the single file if it wasn't an archive.
    pub files: Vec<PathBuf>,
    /// How many bytes were downloaded.
    pub bytes: u64,
    /// Whether CSV may lack its last lines, because the server didn't say how long it is, and it
    /// ends with a complete line. In archives and JSON a missing end is always noticed.
    pub may_lack_lines: bool,
    /// How many numbers in a JSON file JSON doesn't have: `NaN`, `Infinity`. The file has them as
    /// they came, so strict readers refuse it; [`QueryResult::data`](super::QueryResult) has null
    /// in their place.
    pub not_numbers: u64,
}

/// The limits of a download.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) max_bytes: u64,
    pub(super) archive: Limits,
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance { max_bytes: u64::MAX, archive: Limits::default() }
    }
}

/// Downloads to `{folder}/{name}.zip` and unpacks to `{folder}/{name}/`, or to
/// `{folder}/{name}.json` or `.csv`.
pub(super) fn fetch(
    calls: &Calls<'_>,
    id: &str,
    folder: &Path,
    name: &str,
    allowance: Allowance,
    progress: &mut dyn FnMut(u64, Option<u64>),
    cancelled: &dyn Fn() -> bool,
) -> Result<Files, PairsError> {
    check_file_name(name).map_err(|error| PairsError::Invalid(error.to_string()))?;
    let download = unknown(folder, name).max_bytes(allowance.max_bytes).progress(progress).cancelled(cancelled);
    let downloaded = calls.download(id)?.download(&download).map_err(|error| calls.error(error))?;
    let path = downloaded.path;
    let files = sort_out(&path, downloaded.length_known, id, folder, name, &allowance.archive);
    if files.is_err() {
        // Remove a file that could not be used: the next attempt downloads a new one.
        let _ = fs::remove_file(&path);
    }
    files.map(|files| Files { bytes: downloaded.bytes, ..files })
}

/// Removes the parts of failed downloads, when there will be no further attempt.
pub(super) fn discard(folder: &Path, name: &str) {
    // Ignore an error: the caller already has that of the download, which matters more.
    let _ = unknown(folder, name).discard();
}

/// Removes the temporary folders of this name that processes left if they were killed while
/// unpacking. Call it only if no other process is using the name.
#[cfg(feature = "sqlite")]
pub(super) fn discard_of_the_dead(folder: &Path, name: &str) {
    let own = [".unpacking-", ".unpacked~", ".replaced~"].map(|suffix| format!("{name}{suffix}"));
    // Ignore errors: the download itself is complete.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        if found.to_str().is_some_and(|found| own.iter().any(|own| found.starts_with(own))) {
            let _ = remove(&entry.path());
        }
    }
}

fn unknown<'a>(folder: &Path, name: &str) -> Download<'a> {
    Download::new(folder, format!("{name}.{UNKNOWN}"))
}

/// Recognises the download at `path` by its content, and puts it in its place: unpacks an archive
/// and renames it to `.zip`, and renames other files to `.json` or `.csv`. The caller sets `bytes`
/// of the result.
///
/// Fails if the content is none of these, or is CSV that was cut, or if the archive can't be
/// unpacked. An archive that is too large or has unsafe names is kept as `.zip` all the same.
fn sort_out(
    path: &Path,
    length_known: bool,
    id: &str,
    folder: &Path,
    name: &str,
    limits: &Limits,
) -> Result<Files, PairsError> {
    let useless = |reason: &str| PairsError::Download { id: id.to_owned(), reason: reason.to_owned() };
    let content = content_of(path).map_err(|error| PairsError::file(path, error))?.map_err(useless)?;
    let named = |extension: &str| folder.join(format!("{name}.{extension}"));
    let rename = |to: &Path| fs::rename(path, to).map_err(|error| PairsError::file(to, error));
    match content {
        Content::Zip => {
            let (target, archive) = (folder.join(name), named("zip"));
            let files = match unpack(path, &target, id, limits) {
                // Keep the archive: it is complete and was paid for, and can be unpacked with other
                // limits or another program.
                Err(PairsError::Archive { id, source: ArchiveError::TooLarge { limit, .. } }) => {
                    rename(&archive)?;
                    return Err(PairsError::Archive { id, source: ArchiveError::TooLarge { archive, limit } });
                }
                Err(PairsError::Archive { id, source: ArchiveError::Refused { name, fault, .. } }) => {
                    rename(&archive)?;
                    return Err(PairsError::Archive { id, source: ArchiveError::Refused { archive, name, fault } });
                }
                files => files?,
            };
            rename(&archive)?;
            Ok(Files { archive: Some(archive), folder: Some(target), files, ..Files::default() })
        }
        Content::Json { not_numbers } => {
            let file = named("json");
            rename(&file)?;
            Ok(Files { files: vec![file], not_numbers, ..Files::default() })
        }
        Content::Csv => {
            let ends = ends_with_a_line(path).map_err(|error| PairsError::file(path, error))?;
            if !length_known && !ends {
                return Err(useless("it ends within a line, and the server didn't say how long it is"));
            }
            let file = named("csv");
            rename(&file)?;
            Ok(Files { files: vec![file], may_lack_lines: !length_known, ..Files::default() })
        }
    }
}

/// Unpacks the archive to the folder `target`, and returns the paths of the files. If the folder
/// exists, from an earlier download, it stays until the new one is complete, and is then replaced.
fn unpack(archive: &Path, target: &Path, id: &str, limits: &Limits) -> Result<Vec<PathBuf>, PairsError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |error| PairsError::file(&path, error)
    };
    // A new folder can be unpacked directly. To replace one, unpack beside it. A folder with this
    // ending is left from a process that was killed, because only this client uses the ending.
    let fresh = if target.exists() { with_suffix(target, ".unpacked~") } else { target.to_owned() };
    if fresh != target {
        remove(&fresh).map_err(file(&fresh))?;
    }
    let files =
        archive::unpack(archive, &fresh, limits).map_err(|source| PairsError::Archive { id: id.to_owned(), source })?;
    if fresh == target {
        return Ok(files);
    }
    let old = with_suffix(target, ".replaced~");
    remove(&old).map_err(file(&old))?;
    fs::rename(target, &old).map_err(file(target))?;
    fs::rename(&fresh, target).map_err(file(target))?;
    remove(&old).map_err(file(&old))?;
    let moved = |path: PathBuf| path.strip_prefix(&fresh).map(|inner| target.join(inner)).unwrap_or(path);
    Ok(files.into_iter().map(moved).collect())
}

/// Removes the file or folder at `path`, if there is one. If it is a link, removes the link, and
/// not its target.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}
