//! Downloads to files, which get their names only when they are complete.

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

pub(super) use part::{is_same, sync_folder};
pub(super) use transfer::run;

/// How many bytes are read and written at a time: the memory that a download needs for its data.
const BUFFER: usize = 64 << 10;

/// What to do if a file with the name exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Existing {
    /// Replace it, in one step, when the new one is complete.
    Replace,
    /// Keep it, send no request, and return it as [`Downloaded::kept`]: for batches that continue
    /// an earlier one. If the caller expects a length or checksum and the file has another, it is
    /// replaced.
    Keep,
    /// Fail.
    Refuse,
}

type Progress<'a> = Box<dyn FnMut(u64, Option<u64>) + 'a>;

/// The target of a download, and what the caller expects of the file.
///
/// The client streams the file to `NAME.part`, checks it, syncs it to the disk and renames it. So
/// the final name always leads to a complete file, or to the one from before. A large file needs no
/// more memory.
///
/// # What is checked
/// - The name ([`check_file_name`](super::check_file_name)) and the status.
/// - That it isn't an HTML page, by its type and its first bytes, unless the caller accepts that.
/// - The length that the server says, and the length and checksum that the caller expects.
///
/// A file that the server stores compressed with gzip (`Content-Encoding`) is unpacked, unless its
/// name or type says that the file itself is a compressed one. One that is compressed in another way
/// is refused, unless its name ends with `.br`, `.zst`, `.zstd` or `.z`.
///
/// # Cut connections
/// The next attempt asks for the rest, if the server gave a strong `ETag` or a `Last-Modified` that
/// identifies the file. If the answer isn't exactly the rest of the same file, the download starts
/// over. This works across calls, too.
///
/// # What is left
/// After a success: the file. After a temporary failure (a cut, a time limit, a cancel):
/// `NAME.part` and `NAME.part.resume`, which says what the part is, if the rest can be asked for.
/// The next download of the same URL to the same name continues there; a signature in the URL's
/// query may differ. [`discard`](Download::discard) removes both. After any other failure: nothing.
/// A process that is killed leaves `NAME.part`, which the next download of that name starts over.
///
/// # At once
/// If two downloads to the same name run at once, in this or another process, the second fails with
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

/// A downloaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Downloaded {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the server or the caller said how long the file is, or its checksum. If not, the
    /// file ends with the connection. That was closed in order, but a proxy that gives up may do
    /// that, too.
    pub length_known: bool,
    /// Whether a part of it is from an earlier attempt or call.
    pub resumed: bool,
    /// Whether the file existed already, so that no request was sent ([`Existing::Keep`]).
    pub kept: bool,
    /// The type that the server said, without parameters and in lower case.
    pub content_type: Option<String>,
    /// The file name that the server proposes, if it is safe.
    pub file_name: Option<String>,
}

impl<'a> Download<'a> {
    /// A download to `folder`, which is created if necessary, with `name`, which must be a plain
    /// file name.
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

    /// What to do if a file with that name exists. Defaults to [`Existing::Replace`].
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Download<'a> {
        self.existing = existing;
        self
    }

    /// Whether to resume the download after a cut. Defaults to yes. If not, every attempt starts
    /// over, and a failed one leaves nothing.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Download<'a> {
        self.resume = resume;
        self
    }

    /// The size in bytes that the file must have. If the server stores it compressed, and says so,
    /// this may be the size before or after unpacking. Defaults to the size that the server says.
    #[must_use]
    pub fn length(mut self, bytes: u64) -> Download<'a> {
        self.expected.length = Some(bytes);
        self
    }

    /// The checksum that the file must have. Defaults to none. If several are set, the last one
    /// counts.
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

    /// The types to accept: `application/zip`, `image/*`. Defaults to all but HTML, which mostly is
    /// a page that asks to log in; to accept it, add `text/html`, `text/*` or `*/*`. A reply
    /// without a type is always accepted.
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

    /// A function that gets the number of bytes so far, and how many there will be, if that is
    /// known. It is called after each piece of at most 64 KiB, on the thread that downloads, and
    /// should return quickly.
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
    /// [`Error::Invalid`] if the name isn't a plain file name.
    pub fn path(&self) -> Result<PathBuf> {
        check_file_name(&self.name)?;
        Ok(self.folder.join(&self.name))
    }

    /// Removes the part of an earlier, failed download to this name. A file with the final name
    /// stays.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name isn't a plain file name, if a download to it is running, or
    /// if the system refuses to remove the part.
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

    fn report(&self, done: u64, total: Option<u64>) {
        // `try_borrow_mut`, because the progress function may itself run this same download.
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
