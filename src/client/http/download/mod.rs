//! Files that arrive whole, or not under their name.

mod expected;
mod part;
mod resume;
mod stored;
mod transfer;

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::file_name::check_file_name;
use crate::error::{Error, Result};
use expected::{Checksum, Expected, Hash};
use part::OpenError;

pub(super) use part::sync_folder;
pub(super) use transfer::run;

/// How much is read and written at a time; all the memory that a download takes besides.
const BUFFER: usize = 64 << 10;

/// What to do about a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Existing {
    /// Replace it, in one step, when the new one is whole.
    Replace,
    /// Leave it, ask no server, and say [`Downloaded::kept`]: for batches that go on where an
    /// earlier one stopped. If a length or checksum is expected and the file has another, it is
    /// replaced.
    Keep,
    /// Fail.
    Refuse,
}

type Progress<'a> = Box<dyn FnMut(u64, Option<u64>) + 'a>;

/// Where a download goes, and what is expected of it.
///
/// It is streamed to `NAME.part`, checked, synced and renamed: under its final name there is a
/// whole file, or what was there before. Memory stays the same for any size.
///
/// # What is checked
/// The name ([`check_file_name`](super::check_file_name)); the status; that it is no page in HTML,
/// by type and by its first bytes, unless that was asked for; the length, as the server says it and
/// as the caller expects it; the checksum. A file that is stored compressed (`Content-Encoding`) is
/// unpacked, unless its name or type says that it is meant to be so.
///
/// # Cut connections
/// The next attempt asks for the rest, if the server gave a strong `ETag` or a `Last-Modified` to
/// know the file by. Whatever it answers that isn't exactly the rest of the same file, the download
/// starts over. This works across calls, too.
///
/// # What is left
/// After a success: the file. After a failure that may pass (a cut, a time limit, a cancel), if the
/// rest can be asked for: `NAME.part`, and `NAME.part.resume` that tells what it is; the next
/// download of the same URL, but for a signature in its query, to the same name goes on there, and
/// [`discard`](Download::discard) removes both. After any other failure: nothing. A process that is
/// killed leaves `NAME.part`, which the next download of that name starts over.
///
/// # At once
/// Of two downloads to one name, in this or another process, one goes on, and the other fails with
/// [`HttpErrorKind::Busy`](super::HttpErrorKind::Busy).
///
/// ```no_run
/// use fulmar::client::http::{Download, HttpClient};
///
/// let client = HttpClient::builder().build()?;
/// let download = Download::new("downloads", "result.zip").max_bytes(1 << 30).progress(|done, total| {
///     println!("{done} of {total:?} bytes");
/// });
/// let file = client.get("https://host.example/jobs/7/download").download(&download)?;
/// println!("{}: {} bytes", file.path.display(), file.bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Download<'a> {
    folder: PathBuf,
    name: String,
    existing: Existing,
    resume: bool,
    expected: Expected,
    max_bytes: u64,
    progress: RefCell<Option<Progress<'a>>>,
    cancelled: Option<Box<dyn Fn() -> bool + 'a>>,
}

/// A file that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Downloaded {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the server or the caller said how long it is, or what its checksum is. If not, it
    /// ends where the connection did. The connection was closed in order, but a proxy that gives up
    /// may close it so, too.
    pub length_known: bool,
    /// Whether a part of it was there from before: of an earlier attempt, or an earlier call.
    pub resumed: bool,
    /// Whether it was there already, and no server was asked ([`Existing::Keep`]).
    pub kept: bool,
    /// The type that the server said, without parameters and in lower case.
    pub content_type: Option<String>,
    /// The file name that the server proposes, if it is a sound one.
    pub file_name: Option<String>,
}

impl<'a> Download<'a> {
    /// A download to `folder`, which is made if it isn't there, under `name`, which must be one
    /// plain name of a file.
    pub fn new(folder: impl Into<PathBuf>, name: impl Into<String>) -> Download<'a> {
        Download {
            folder: folder.into(),
            name: name.into(),
            existing: Existing::Replace,
            resume: true,
            expected: Expected::default(),
            max_bytes: u64::MAX,
            progress: RefCell::new(None),
            cancelled: None,
        }
    }

    /// What to do about a file of that name. Defaults to [`Existing::Replace`].
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Download<'a> {
        self.existing = existing;
        self
    }

    /// Whether the rest is asked for after a cut. Defaults to yes; if not, every attempt starts
    /// over and leaves nothing.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Download<'a> {
        self.resume = resume;
        self
    }

    /// The size in bytes that the file must have, as it is stored: one that the server stores
    /// compressed, and says so, may have it before or after it is unpacked. Defaults to what the
    /// server says.
    #[must_use]
    pub fn length(mut self, bytes: u64) -> Download<'a> {
        self.expected.length = Some(bytes);
        self
    }

    /// The checksum that the file must have. Defaults to none; of several the last is the one.
    #[must_use]
    pub fn sha256(self, checksum: [u8; 32]) -> Download<'a> {
        self.checksum(|| Box::new(Sha256::new()), &checksum)
    }

    /// As [`sha256`](Download::sha256), by SHA-224.
    #[must_use]
    pub fn sha224(self, checksum: [u8; 28]) -> Download<'a> {
        self.checksum(|| Box::new(Sha224::new()), &checksum)
    }

    /// As [`sha256`](Download::sha256), by SHA-384.
    #[must_use]
    pub fn sha384(self, checksum: [u8; 48]) -> Download<'a> {
        self.checksum(|| Box::new(Sha384::new()), &checksum)
    }

    /// As [`sha256`](Download::sha256), by SHA-512.
    #[must_use]
    pub fn sha512(self, checksum: [u8; 64]) -> Download<'a> {
        self.checksum(|| Box::new(Sha512::new()), &checksum)
    }

    /// The only types that are taken: `application/zip`, `image/*`. Defaults to all but HTML, which
    /// mostly is a page that asks to log in; naming `text/html`, `text/*` or `*/*` here takes it. A
    /// reply without a type is taken.
    #[must_use]
    pub fn accept_types(mut self, media_types: &[&str]) -> Download<'a> {
        self.expected.accept(media_types);
        self
    }

    /// The most bytes that are written. Defaults to no limit.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Download<'a> {
        self.max_bytes = bytes;
        self
    }

    /// Called with the bytes that are there and those that will be, if that is known, after each
    /// piece of at most 64 KiB. On the thread that downloads; it should be quick.
    #[must_use]
    pub fn progress(self, progress: impl FnMut(u64, Option<u64>) + 'a) -> Download<'a> {
        *self.progress.borrow_mut() = Some(Box::new(progress));
        self
    }

    /// Asked before each attempt and after each piece, and ten times a second while it waits: for
    /// the server, for the next attempt or for its turn under a rate limit. `true` ends the
    /// download with [`HttpErrorKind::Cancelled`](super::HttpErrorKind::Cancelled). Only connecting
    /// goes on up to its time limit.
    #[must_use]
    pub fn cancelled(mut self, cancelled: impl Fn() -> bool + 'a) -> Download<'a> {
        self.cancelled = Some(Box::new(cancelled));
        self
    }

    /// The path that the file will have.
    ///
    /// # Errors
    /// [`Error::Invalid`], if the name isn't one plain name of a file.
    pub fn path(&self) -> Result<PathBuf> {
        check_file_name(&self.name)?;
        Ok(self.folder.join(&self.name))
    }

    /// Removes what an earlier, failed download to this name left; a file under the final name
    /// stays.
    ///
    /// # Errors
    /// [`Error::Invalid`], if the name isn't one plain name of a file, if a download to it is under
    /// way, or if the system doesn't let it be removed.
    pub fn discard(&self) -> Result<()> {
        check_file_name(&self.name)?;
        part::discard(&self.folder, &self.name).map_err(|error| {
            Error::Invalid(match error {
                OpenError::Busy => format!("a download to {:?} is under way: cancel it first", self.name),
                OpenError::Io(error) => format!("what is left of {:?} can't be removed: {error}", self.name),
            })
        })
    }

    fn checksum(mut self, begin: fn() -> Hash, sum: &[u8]) -> Download<'a> {
        self.expected.checksum = Some(Checksum { begin, sum: sum.to_vec() });
        self
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled())
    }

    fn report(&self, done: u64, total: Option<u64>) {
        // A progress that starts the same download would meet itself here.
        if let Ok(mut progress) = self.progress.try_borrow_mut() {
            if let Some(progress) = progress.as_mut() {
                progress(done, total);
            }
        }
    }
}

impl fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("folder", &self.folder)
            .field("name", &self.name)
            .field("existing", &self.existing)
            .field("length", &self.expected.length)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
