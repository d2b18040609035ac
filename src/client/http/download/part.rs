//! The file that a download grows in, until it gets its final name.
//!
//! `NAME.part` is locked while a thread writes to it, so that no other thread or process does. Only
//! the holder of the lock touches it or `NAME.part.resume`, removes them, or renames the part. A
//! lock says nothing about names: the thread that gets it looks whether the name still means the
//! file that it locked, and opens again if not. A process that dies gives its locks back.
//!
//! `NAME.part.resume` says what the part is the beginning of. It is written only after the part is
//! on the disk, so that what it promises is there even if the machine stops; a part without it is
//! started over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::file_name::{PART, STATE};
use super::super::headers::strong_etag;

/// How much of such a file is read.
const LONGEST_STATE: u64 = 16 << 10;

/// What tells that a part and the server's file still are the same thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validator {
    /// A strong `ETag`, or else the value of `Last-Modified`.
    pub(super) value: String,
    pub(super) is_etag: bool,
}

/// What a part is the beginning of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// A hash of the URL without its signature, which changes, and must not be found on a disk.
    pub(super) url: String,
    pub(super) validator: Validator,
    pub(super) length: u64,
    pub(super) total: u64,
}

/// Why there is no part to write to.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Another download is writing it.
    Busy,
    Io(io::Error),
}

/// A locked part. Dropped without [`keep`](Part::keep) or [`finish`](Part::finish), it is removed.
pub(super) struct Part {
    file: File,
    part: PathBuf,
    state: PathBuf,
    target: PathBuf,
    settled: bool,
}

impl Part {
    /// Opens or creates the part of `name` in `folder`, which exists.
    pub(super) fn open(folder: &Path, name: &str) -> Result<Part, OpenError> {
        let (target, part, state) = paths(folder, name);
        // Again and again only if others rename and remove at the same time; each turn means that
        // one of them got on.
        for _ in 0..1_000 {
            match fs::symlink_metadata(&part) {
                Ok(found) if !found.is_file() => {
                    let text = format!("{} is there and is no plain file: remove it", part.display());
                    return Err(OpenError::Io(io::Error::new(io::ErrorKind::AlreadyExists, text)));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::Io(error)),
                _ => {}
            }
            let mut options = OpenOptions::new();
            let file =
                options.read(true).write(true).create(true).truncate(false).open(&part).map_err(OpenError::Io)?;
            match fs4::fs_std::FileExt::try_lock_exclusive(&file) {
                Ok(true) => {}
                Ok(false) => return Err(OpenError::Busy),
                // A file system without locks: nothing else can be done there.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) => return Err(OpenError::Io(error)),
            }
            if !is_same(&file, &part) {
                continue;
            }
            // A process that died in `place`, or another program, has left the part a second name,
            // mostly the final one. What stands under that must not be written to.
            if is_linked(&file).map_err(OpenError::Io)? {
                remove(&part).map_err(OpenError::Io)?;
                continue;
            }
            return Ok(Part { file, part, state, target, settled: false });
        }
        Err(OpenError::Busy)
    }

    /// A part over any file, for tests of disks that fail.
    #[cfg(test)]
    pub(super) fn over(file: File, folder: &Path, name: &str) -> Part {
        let (target, part, state) = paths(folder, name);
        Part { file, part, state, target, settled: false }
    }

    /// What the part is the beginning of, if that is known and the part has as much as was
    /// promised.
    pub(super) fn saved(&self) -> Option<Saved> {
        let mut text = String::new();
        fs::symlink_metadata(&self.state).ok().filter(fs::Metadata::is_file)?;
        File::open(&self.state).ok()?.take(LONGEST_STATE).read_to_string(&mut text).ok()?;
        let saved = parse(&text)?;
        (self.file.metadata().ok()?.len() >= saved.length).then_some(saved)
    }

    /// Goes on behind the first `length` bytes.
    pub(super) fn resume_at(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length)).map(drop)
    }

    /// Throws away what is there.
    pub(super) fn start_over(&mut self) -> io::Result<()> {
        remove(&self.state)?;
        self.resume_at(0)
    }

    /// Hands what has been written to `look`, piece by piece.
    pub(super) fn read_again(&mut self, length: u64, mut look: impl FnMut(&[u8])) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut left = length;
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let count = self.file.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            look(&buffer[..count]);
            left -= count as u64;
        }
        Ok(())
    }

    /// Leaves the part for another time.
    pub(super) fn keep(mut self, saved: &Saved) -> io::Result<()> {
        self.file.set_len(saved.length)?;
        self.file.sync_all()?;
        // A new file, never one that another program laid there.
        remove(&self.state)?;
        let mut state = OpenOptions::new().write(true).create_new(true).open(&self.state)?;
        state.write_all(written(saved).as_bytes())?;
        state.sync_all()?;
        self.settled = true;
        Ok(())
    }

    /// Gives the part its final name, when it is on the disk. With `replace` false, a file that is
    /// there by now stays.
    pub(super) fn finish(mut self, replace: bool) -> io::Result<PathBuf> {
        self.file.sync_all()?;
        remove(&self.state)?;
        if replace {
            fs::rename(&self.part, &self.target)?;
        } else {
            place(&self.part, &self.target)?;
        }
        self.settled = true;
        sync_folder(&self.target);
        Ok(self.target.clone())
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.settled {
            // The state first: a part without it is harmless. A drop has no way to tell of an
            // error.
            let _ = remove(&self.state);
            let _ = remove(&self.part);
        }
    }
}

/// Removes what an earlier download of `name` left, unless one is under way.
pub(super) fn discard(folder: &Path, name: &str) -> Result<(), OpenError> {
    let (_, part, state) = paths(folder, name);
    if !part.exists() && !state.exists() {
        return Ok(());
    }
    Part::open(folder, name).map(drop)
}

fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf, PathBuf) {
    (folder.join(name), folder.join(format!("{name}{PART}")), folder.join(format!("{name}{STATE}")))
}

/// Renames, but never over a file that is there.
fn place(part: &Path, target: &Path) -> io::Result<()> {
    // Where `is_linked` can't tell, a part must never have two names.
    let linked = if cfg!(unix) { fs::hard_link(part, target) } else { Err(io::ErrorKind::Unsupported.into()) };
    match linked {
        Ok(()) => {
            // The file is in place under its name. If it keeps the other one, too, `open` takes
            // that away.
            let _ = remove(part);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // A file system without links: two looks instead of one.
        Err(_) if target.symlink_metadata().is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(part, target),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a rename last. Where a folder can't be synced, the system does it in its own time.
pub(in super::super) fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |found: &fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(a), Ok(b)) if identity(&a) == identity(&b))
}

#[cfg(not(unix))]
fn is_same(file: &File, path: &Path) -> bool {
    let identity = |found: &fs::Metadata| (found.len(), found.created().ok());
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(a), Ok(b)) if identity(&a) == identity(&b))
}

/// Whether it has another name besides the one that it was opened by.
#[cfg(unix)]
fn is_linked(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.nlink() > 1)
}

#[cfg(not(unix))]
fn is_linked(_: &File) -> io::Result<bool> {
    Ok(false)
}

fn written(saved: &Saved) -> String {
    json!({
        "url": saved.url,
        "validator": saved.validator.value,
        "etag": saved.validator.is_etag,
        "length": saved.length,
        "total": saved.total,
    })
    .to_string()
}

fn parse(text: &str) -> Option<Saved> {
    let value: Value = serde_json::from_str(text).ok()?;
    let saved = Saved {
        url: value.get("url")?.as_str()?.to_owned(),
        validator: Validator {
            value: value.get("validator")?.as_str()?.to_owned(),
            is_etag: value.get("etag")?.as_bool()?,
        },
        length: value.get("length")?.as_u64()?,
        total: value.get("total")?.as_u64()?,
    };
    let value = saved.validator.value.as_str();
    // It goes into a header.
    let is_sound = value.is_ascii()
        && if saved.validator.is_etag {
            strong_etag(value).is_some()
        } else {
            httpdate::parse_http_date(value).is_ok()
        };
    (is_sound && saved.length > 0 && saved.length <= saved.total).then_some(saved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_makes_no_sense_is_not() {
        let validator = Validator { value: "\"a\"".into(), is_etag: true };
        let saved = Saved { url: "ab".into(), validator, length: 5, total: 9 };
        assert_eq!(parse(&written(&saved)), Some(saved.clone()));
        for wrong in [
            "",
            "{}",
            "[]",
            "null",
            "{\"url\":1}",
            &written(&Saved { length: 10, ..saved.clone() }),
            &written(&Saved { length: 0, ..saved.clone() }),
            &written(&saved)[..20],
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for (value, is_etag) in
            [("\"a\"", false), ("a", true), ("W/\"a\"", true), ("\"a\r\nX: y\"", true), ("\"é\"", true)]
        {
            let validator = Validator { value: value.into(), is_etag };
            assert_eq!(parse(&written(&Saved { validator, ..saved.clone() })), None, "{value:?}");
        }
    }
}
