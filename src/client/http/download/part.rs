//! The partial file into which a download writes, until the file is complete and gets its final
//! name.
//!
//! A thread that writes to `NAME.part` holds a lock on it, so that no other thread or process
//! writes. Only the holder of the lock writes, removes or renames `NAME.part` and
//! `NAME.part.resume`. The lock belongs to the file and not to its name. So a thread that has got
//! the lock checks whether the name still leads to the file that it locked, and if not, opens it
//! again. If a process dies, the system releases its locks.
//!
//! `NAME.part.resume` says of which remote file the part is the beginning. It is written only after
//! the part is on the disk, so that all the bytes that it promises are there even if the machine
//! stops. A part without it is started over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::file_name::{PART, STATE};
use super::super::headers::strong_etag;

/// How many bytes of a `.part.resume` file are read.
const LONGEST_STATE: u64 = 16 << 10;

/// Identifies a version of the server's file, to find out whether a part still belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validator {
    /// A strong `ETag`, or else the value of `Last-Modified`.
    pub(super) value: String,
    pub(super) is_etag: bool,
}

/// The content of `NAME.part.resume`: of which remote file a part is the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// A hash of the URL. It leaves out the URL's signature, which changes; and a hash, because a
    /// URL may hold secrets, which must not be on the disk.
    pub(super) url: String,
    pub(super) validator: Validator,
    pub(super) length: u64,
    pub(super) total: u64,
}

/// Why [`PartFile::open`] failed.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Another download is writing it.
    Busy,
    Io(io::Error),
}

/// A locked part. Dropped without [`keep`](PartFile::keep) or [`finish`](PartFile::finish), it is
/// removed.
pub(super) struct PartFile {
    file: File,
    part: PathBuf,
    state: PathBuf,
    target: PathBuf,
    settled: bool,
}

impl PartFile {
    /// Opens or creates the part of `name` in `folder`, which exists.
    pub(super) fn open(folder: &Path, name: &str) -> Result<PartFile, OpenError> {
        let (target, part, state) = paths(folder, name);
        // This repeats only if other processes rename or remove the file at the same time, and each
        // turn means that one of them made progress.
        for _ in 0..1_000 {
            match fs::symlink_metadata(&part) {
                Ok(found) if !found.is_file() => {
                    let text = format!("{} is there and isn't a plain file: remove it", part.display());
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
                Err(error) if has_no_locks(&error) => {}
                Err(error) => return Err(OpenError::Io(error)),
            }
            if !is_same(&file, &part) {
                continue;
            }
            // The part has a second name, mostly the final one: a process died in `place`, or
            // another program linked it. Writing to it would change that file, so start with a new
            // one.
            if is_linked(&file).map_err(OpenError::Io)? {
                remove(&part).map_err(OpenError::Io)?;
                continue;
            }
            return Ok(PartFile { file, part, state, target, settled: false });
        }
        Err(OpenError::Busy)
    }

    /// A part over any file, for tests of disks that fail.
    #[cfg(test)]
    pub(super) fn over(file: File, folder: &Path, name: &str) -> PartFile {
        let (target, part, state) = paths(folder, name);
        PartFile { file, part, state, target, settled: false }
    }

    /// The content of `NAME.part.resume`, if it is there and the part is at least as long as it
    /// promises.
    pub(super) fn saved(&self) -> Option<Saved> {
        let mut text = String::new();
        fs::symlink_metadata(&self.state).ok().filter(fs::Metadata::is_file)?;
        File::open(&self.state).ok()?.take(LONGEST_STATE).read_to_string(&mut text).ok()?;
        let saved = parse(&text)?;
        (self.file.metadata().ok()?.len() >= saved.length).then_some(saved)
    }

    /// Cuts the part to its first `length` bytes, and writes behind them from now on.
    pub(super) fn resume_at(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length)).map(drop)
    }

    /// Empties the part.
    pub(super) fn start_over(&mut self) -> io::Result<()> {
        remove(&self.state)?;
        self.resume_at(0)
    }

    /// Reads the first `length` bytes of the part and calls `look` with each piece.
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

    /// Keeps the part on the disk, so that a later download can go on with it.
    pub(super) fn keep(mut self, saved: &Saved) -> io::Result<()> {
        self.file.set_len(saved.length)?;
        self.file.sync_all()?;
        // Write a new file, and never into one that another program put there.
        remove(&self.state)?;
        let mut state = OpenOptions::new().write(true).create_new(true).open(&self.state)?;
        state.write_all(written(saved).as_bytes())?;
        state.sync_all()?;
        self.settled = true;
        Ok(())
    }

    /// Waits until the part is on the disk, and gives it its final name. If `replace` is false and
    /// a file with that name exists, that file stays, and this is an error.
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

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.settled {
            // Remove the state first: a part without it is harmless. Ignore errors, because a drop
            // can't return one.
            let _ = remove(&self.state);
            let _ = remove(&self.part);
        }
        // Closing the file isn't enough: a process that another thread has just started has a copy
        // of it until it runs its program, and with the copy the lock.
        let _ = fs4::fs_std::FileExt::unlock(&self.file);
    }
}

/// Removes the part of an earlier download of `name`, unless a download is writing to it.
pub(super) fn discard(folder: &Path, name: &str) -> Result<(), OpenError> {
    let (_, part, state) = paths(folder, name);
    if !part.exists() && !state.exists() {
        return Ok(());
    }
    PartFile::open(folder, name).map(drop)
}

/// Whether an error says that the file system has no locks: then the caller goes on without one.
fn has_no_locks(error: &io::Error) -> bool {
    // What NFS says if its server, or this machine, runs no lock daemon.
    #[cfg(target_os = "linux")]
    if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NOLCK) {
        return true;
    }
    error.kind() == io::ErrorKind::Unsupported
}

fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf, PathBuf) {
    (folder.join(name), folder.join(format!("{name}{PART}")), folder.join(format!("{name}{STATE}")))
}

/// Renames `part` to `target`, but never replaces a file that exists.
fn place(part: &Path, target: &Path) -> io::Result<()> {
    // Only on Unix: elsewhere `is_linked` can't tell whether a part has two names.
    let linked = if cfg!(unix) { fs::hard_link(part, target) } else { Err(io::ErrorKind::Unsupported.into()) };
    match linked {
        Ok(()) => {
            // The file has its final name. If removing the other name fails, the next `open` does
            // it.
            let _ = remove(part);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // The file system has no hard links: look first, and then rename.
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

/// Waits until a rename in the folder of `path` is on the disk. If the system can't sync a folder,
/// it writes the rename later.
pub(in super::super) fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Whether `path` leads to this file.
#[cfg(unix)]
pub(in super::super) fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |found: &fs::Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(a), Ok(b)) if identity(&a) == identity(&b))
}

#[cfg(not(unix))]
pub(in super::super) fn is_same(file: &File, path: &Path) -> bool {
    let identity = |found: &fs::Metadata| (found.len(), found.created().ok());
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(a), Ok(b)) if identity(&a) == identity(&b))
}

/// Whether the file has another name besides the one by which it was opened.
#[cfg(unix)]
fn is_linked(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.nlink() > 1)
}

#[cfg(not(unix))]
fn is_linked(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// The content of `NAME.part.resume`, as `parse` reads it.
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

/// Reads the content of `NAME.part.resume`. `None` if a field is missing or has the wrong type, if
/// the validator is neither a strong ETag nor a date of HTTP, or if `length` isn't between 1 and
/// `total`.
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
    // The value goes into a header of a request.
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
    fn a_part_is_free_once_it_is_kept_though_a_new_process_still_has_a_copy_of_the_file() {
        let folder = std::env::temp_dir().join(format!("fulmar-part-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let mut part = PartFile::open(&folder, "x").expect("free");
        let copy = part.file.try_clone().expect("a copy");
        assert!(matches!(PartFile::open(&folder, "x"), Err(OpenError::Busy)), "it is being written");
        part.write_all(b"half").expect("written");
        let validator = Validator { value: "\"a\"".into(), is_etag: true };
        part.keep(&Saved { url: "ab".into(), validator, length: 4, total: 9 }).expect("kept");
        PartFile::open(&folder, "x").expect("free again");
        drop(copy);
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_locks_is_none_that_fails() {
        use rustix::io::Errno;
        for errno in [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS] {
            assert!(has_no_locks(&errno.into()), "{errno:?}");
        }
        for errno in [Errno::IO, Errno::ACCESS, Errno::AGAIN] {
            assert!(!has_no_locks(&errno.into()), "{errno:?}");
        }
    }

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
