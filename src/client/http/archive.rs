//! Unpacks zip archives from untrusted servers, completely or not at all.
//!
//! All that an archive says of itself may be wrong: names, sizes, types. So a name must be plain,
//! each file must be new, only files and folders are made, and the limits count the bytes that are
//! really written. The files go into a temporary folder beside the final one, which gets its name
//! when all of them are there.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::download::{is_same, sync_folder};
use super::file_name::component_fault;

/// How many bytes may be unpacked before the limit on the ratio applies, because small archives of
/// repetitive data compress very well.
const FREE: u64 = 64 << 20;

/// How deep folders may lie.
const DEEPEST: usize = 32;

/// Limits on what an archive may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most files and folders, including folders that only appear in a file's path. Defaults to
    /// 10,000.
    pub entries: usize,
    /// The most bytes of all files together, unpacked. Defaults to 16 GiB.
    pub bytes: u64,
    /// The most unpacked bytes for each byte of the archive, checked once more than 64 MiB are
    /// unpacked. Defaults to 250.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 10_000, bytes: 16 << 30, ratio: 250 }
    }
}

/// Why an archive was not unpacked. None of its files are left on the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It isn't a zip archive, or it is damaged or truncated.
    #[error("{} isn't a sound zip archive", archive.display())]
    Damaged {
        /// The archive.
        archive: PathBuf,
        /// The decoder's error.
        #[source]
        source: io::Error,
    },

    /// An entry that is unsafe or unsupported: a name that leads out of the folder, a link, a
    /// device, a name that occurs twice, encryption, or a compression other than deflate.
    #[error("{} is not unpacked: its entry {name:?} {fault}", archive.display())]
    Refused {
        /// The archive.
        archive: PathBuf,
        /// The entry's name, cut to 200 characters.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },

    /// It holds more than the limits allow.
    #[error("{} is not unpacked: it holds more than {limit}; raise the limit if it is to be trusted", archive.display())]
    TooLarge {
        /// The archive.
        archive: PathBuf,
        /// The limit, in words.
        limit: String,
    },

    /// The folder is there already, and not empty.
    #[error("{} is there already: remove it or unpack to another folder", .0.display())]
    Exists(PathBuf),

    /// A file could not be read or written.
    #[error("{} can't be read or written", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks a zip archive into a new `folder`, and returns the files' paths in the order of the
/// archive.
///
/// It unpacks into `FOLDER.unpacking-N` and renames that at the end. A process that is killed
/// leaves it, and the next one that unpacks to `folder` removes it, where folders have locks
/// (Unix).
///
/// It holds the archive's index in memory, but not its files. It ignores permissions and times in
/// the archive.
///
/// # Errors
/// [`ArchiveError`] if the archive is damaged, unsafe or over the limits, if `folder` isn't empty,
/// or if a file can't be written. Then `folder` is as it was before.
/// # Examples
/// ```no_run
/// use fulmar::client::http::archive::{Limits, unpack};
///
/// for file in unpack("downloads/7.zip", "downloads/7", &Limits::default())? {
///     println!("{}", file.display());
/// }
/// # Ok::<(), fulmar::client::http::archive::ArchiveError>(())
/// ```
pub fn unpack(
    archive: impl AsRef<Path>,
    folder: impl AsRef<Path>,
    limits: &Limits,
) -> Result<Vec<PathBuf>, ArchiveError> {
    let (path, folder) = (archive.as_ref(), folder.as_ref());
    let reading = Reading { path, limits };
    let file = File::open(path).map_err(|error| failed(path, error))?;
    let size = file.metadata().map_err(|error| failed(path, error))?.len();
    let mut zip = ZipArchive::new(file).map_err(|error| reading.damaged(error))?;
    if zip.len() > limits.entries {
        return Err(reading.too_large(format!("{} entries", limits.entries)));
    }
    reading.refuse_duplicates(&zip)?;
    if !is_vacant(folder).map_err(|error| failed(folder, error))? {
        return Err(ArchiveError::Exists(folder.to_owned()));
    }

    let staging = Staging::beside(folder)?;
    let mut names = Vec::new();
    let mut budget = Budget { left: limits.bytes, written: 0, size, limits };
    let (mut seen, mut folders, mut packed) = (HashSet::new(), HashSet::new(), 0u64);
    for index in 0..zip.len() {
        let named = zip.name_for_index(index).unwrap_or_default().to_owned();
        let mut entry = zip.by_index(index).map_err(|error| match error {
            // The archive may be sound, and another program may be able to read it.
            ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => reading.refused(&named, "is encrypted"),
            ZipError::UnsupportedArchive(_) => reading.refused(&named, "is packed in a way that isn't known here"),
            error => reading.damaged(error),
        })?;
        let name = reading.checked_name(&entry, &mut seen)?;
        // Count packed bytes, too: if entries overlap, the same bytes could be read almost without
        // end, even if nothing comes out of them.
        packed = packed.saturating_add(entry.compressed_size());
        if packed > size {
            return Err(reading.refused(entry.name(), "shares its bytes with another"));
        }
        let above = name.ancestors().skip(usize::from(!entry.is_dir())).filter(|path| !path.as_os_str().is_empty());
        folders.extend(above.map(Path::to_owned));
        if names.len() + usize::from(!entry.is_dir()) + folders.len() > limits.entries {
            return Err(reading.too_large(format!("{} entries", limits.entries)));
        }
        let to = staging.path.join(&name);
        if entry.is_dir() {
            fs::create_dir_all(&to).map_err(|error| failed(&to, error))?;
            continue;
        }
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        // `create_new`, so that no file is overwritten: if the file system takes two names for the
        // same, the second fails here.
        let mut file = OpenOptions::new().write(true).create_new(true).open(&to).map_err(|error| failed(&to, error))?;
        reading.copy(&mut entry, &mut file, &to, &mut budget)?;
        file.sync_all().map_err(|error| failed(&to, error))?;
        names.push(name);
    }
    staging.rename(folder)?;
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

struct Reading<'a> {
    path: &'a Path,
    limits: &'a Limits,
}

struct Budget<'a> {
    left: u64,
    written: u64,
    size: u64,
    limits: &'a Limits,
}

impl Reading<'_> {
    /// The name as a path below the folder, if the entry is a plain file or folder with a plain and
    /// new name.
    fn checked_name<R: Read>(
        &self,
        entry: &zip::read::ZipFile<'_, R>,
        seen: &mut HashSet<String>,
    ) -> Result<PathBuf, ArchiveError> {
        let name = entry.name();
        let refused = |fault| self.refused(name, fault);
        // The upper bits of the mode are the file's type: 0 if the archive comes from a system
        // without modes.
        let kind = entry.unix_mode().unwrap_or(0) & 0o170_000;
        let is_plain = if entry.is_dir() { matches!(kind, 0 | 0o040_000) } else { matches!(kind, 0 | 0o100_000) };
        if entry.is_symlink() || !is_plain {
            return Err(refused("is a link or a device"));
        }
        let mut path = PathBuf::new();
        let plain = name.strip_suffix('/').filter(|_| entry.is_dir()).unwrap_or(name);
        for (depth, part) in plain.split('/').enumerate() {
            if let Some(fault) = component_fault(part) {
                return Err(refused(fault));
            }
            if depth >= DEEPEST {
                return Err(refused("lies too deep in folders"));
            }
            path.push(part);
        }
        // Many file systems don't distinguish upper and lower case.
        if !seen.insert(plain.to_lowercase()) {
            return Err(refused("is there twice"));
        }
        Ok(path)
    }

    /// Unpacks one entry into `file`, whose path is `to`. Each piece is taken from the `budget` of
    /// the whole archive before it is written.
    fn copy(
        &self,
        entry: &mut impl Read,
        file: &mut impl Write,
        to: &Path,
        budget: &mut Budget<'_>,
    ) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match entry.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.damaged(error.into())),
            };
            let bytes = count as u64;
            budget.left = budget
                .left
                .checked_sub(bytes)
                .ok_or_else(|| self.too_large(format!("{} bytes", budget.limits.bytes)))?;
            budget.written += bytes;
            let fair = budget.size.saturating_mul(budget.limits.ratio);
            if budget.written > FREE && budget.written > fair {
                return Err(self.too_large(format!("{} times its own size", self.limits.ratio)));
            }
            file.write_all(&buffer[..count]).map_err(|error| failed(to, error))?;
        }
    }

    /// Fails if two entries have the same name. The reader keeps one entry for each name, so then
    /// it has fewer than the archive's index says.
    fn refuse_duplicates(&self, zip: &ZipArchive<File>) -> Result<(), ArchiveError> {
        let mut file = File::open(self.path).map_err(|error| failed(self.path, error))?;
        let broken = |error: io::Error| self.damaged(error.into());
        let mut at = zip.central_directory_start();
        let mut count = 0usize;
        let mut header = [0; 46];
        loop {
            file.seek(SeekFrom::Start(at)).map_err(broken)?;
            match file.read_exact(&mut header[..4]) {
                Ok(()) if &header[..4] == b"PK\x01\x02" => {}
                _ => break,
            }
            file.read_exact(&mut header[4..]).map_err(broken)?;
            let field = |from: usize| u64::from(u16::from_le_bytes([header[from], header[from + 1]]));
            at = at.saturating_add(46 + field(28) + field(30) + field(32));
            count += 1;
            if count > zip.len() {
                return Err(self.refused("(one of them)", "is there twice"));
            }
        }
        if count < zip.len() {
            return Err(broken(io::Error::other(
                "its index changed between two reads: unpack it when nothing writes to it",
            )));
        }
        Ok(())
    }

    fn refused(&self, name: &str, fault: &'static str) -> ArchiveError {
        ArchiveError::Refused { archive: self.path.to_owned(), name: name.chars().take(200).collect(), fault }
    }

    fn damaged(&self, error: ZipError) -> ArchiveError {
        ArchiveError::Damaged { archive: self.path.to_owned(), source: io::Error::other(error.to_string()) }
    }

    fn too_large(&self, limit: String) -> ArchiveError {
        ArchiveError::TooLarge { archive: self.path.to_owned(), limit }
    }
}

/// The temporary folder beside the final one. Dropping it removes the folder, unless it was
/// renamed.
struct Staging {
    path: PathBuf,
    done: bool,
    /// Held as long as this process uses the folder.
    _lock: Option<File>,
}

impl Staging {
    /// Makes a new temporary folder beside `folder`, for the files until all of them are there.
    /// First removes those of processes that have died: their locks are free.
    fn beside(folder: &Path) -> Result<Staging, ArchiveError> {
        let wrong = || {
            failed(
                folder,
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the path doesn't end with a folder's name, which the unfinished files need",
                ),
            )
        };
        let name = folder.file_name().ok_or_else(wrong)?.to_string_lossy().into_owned();
        let parent = folder.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() {
            fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        let beginning = format!("{name}.unpacking-");
        remove_abandoned(parent, &beginning);
        // Other processes that unpack to the same folder use the first names.
        for number in 0..1_000 {
            let path = parent.join(format!("{beginning}{number}"));
            match fs::create_dir(&path) {
                Ok(()) => match lock(&path) {
                    Lock::Ours(lock) => return Ok(Staging { path, done: false, _lock: Some(lock) }),
                    Lock::Unknown => return Ok(Staging { path, done: false, _lock: None }),
                    // Until it was locked, the folder looked like an abandoned one: another process
                    // is removing it. Take the next name.
                    Lock::Busy => {}
                },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&path, error)),
            }
        }
        Err(failed(folder, io::Error::other("1,000 folders of unfinished unpackings are beside it: remove them")))
    }

    /// Gives the temporary folder its final name `folder`, where nothing or an empty folder may be,
    /// and syncs its parent folder.
    ///
    /// Fails with `ArchiveError::Exists` if the rename fails and something is at `folder`;
    /// otherwise with the system's error. Then the drop of `self` removes the temporary folder.
    fn rename(mut self, folder: &Path) -> Result<(), ArchiveError> {
        // Some systems don't rename onto an empty folder, so remove that and try again. If another
        // process has put a file there meanwhile, both fail.
        let renamed = fs::rename(&self.path, folder).or_else(|error| {
            fs::remove_dir(folder).map_err(|_| error)?;
            fs::rename(&self.path, folder)
        });
        renamed.map_err(|error| {
            if folder.symlink_metadata().is_ok() {
                ArchiveError::Exists(folder.to_owned())
            } else {
                failed(folder, error)
            }
        })?;
        self.done = true;
        sync_folder(folder);
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done {
            // The caller has an error already: a second one would hide it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the folders that killed processes have left: those without a lock.
fn remove_abandoned(parent: &Path, beginning: &str) {
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(beginning));
        if number.is_some_and(|number| number.parse::<u16>().is_ok()) {
            if let Lock::Ours(_lock) = lock(&entry.path()) {
                // What can't be removed is in no one's way.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

enum Lock {
    /// No other process has it until this file is closed.
    Ours(File),
    Busy,
    /// The system, or this file system, has no locks on folders.
    Unknown,
}

/// Locks a folder, without waiting.
fn lock(path: &Path) -> Lock {
    if !cfg!(unix) {
        return Lock::Unknown;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {}
        _ => return Lock::Busy,
    }
    let Ok(folder) = File::open(path) else { return Lock::Unknown };
    match fs4::fs_std::FileExt::try_lock_exclusive(&folder) {
        // The process that had the lock may have renamed or removed the folder meanwhile.
        Ok(true) if is_same(&folder, path) => Lock::Ours(folder),
        Ok(_) => Lock::Busy,
        Err(_) => Lock::Unknown,
    }
}

/// Whether nothing is at `folder`, or an empty folder.
fn is_vacant(folder: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() => Ok(fs::read_dir(folder)?.next().is_none()),
        Ok(_) => Ok(false),
    }
}

fn failed(path: &Path, source: io::Error) -> ArchiveError {
    ArchiveError::Io { path: path.to_owned(), source }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_in_use_is_not() {
        let parent = std::env::temp_dir().join(format!("fulmar-unpacking-{}", std::process::id()));
        let names = || {
            let entries = fs::read_dir(&parent).expect("a folder");
            let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        for left in ["out.unpacking-0/deep", "out.unpacking-7", "out.unpacking-x", "out2.unpacking-0"] {
            fs::create_dir_all(parent.join(left)).expect("a folder");
        }
        fs::write(parent.join("out.unpacking-0/deep/file"), b"half").expect("written");
        let first = Staging::beside(&parent.join("out")).expect("free");
        assert_eq!(names(), ["out.unpacking-0", "out.unpacking-x", "out2.unpacking-0"]);
        assert!(is_vacant(&first.path).expect("a folder"), "half a file is left in it");
        let second = Staging::beside(&parent.join("out")).expect("free");
        assert_eq!(names(), ["out.unpacking-0", "out.unpacking-1", "out.unpacking-x", "out2.unpacking-0"]);
        first.rename(&parent.join("out")).expect("renamed");
        drop(second);
        assert_eq!(names(), ["out", "out.unpacking-x", "out2.unpacking-0"]);
        fs::remove_dir_all(&parent).expect("removed");
    }
}
