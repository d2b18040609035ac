//! Files that arrive whole, or not under their name.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ::http::HeaderMap;
use sha2::digest::DynDigest;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::client::HttpClient;
use super::error::{HttpError, HttpErrorKind};
use super::file_name::check_file_name;
use super::headers::{content_range, file_name_of, media_type, strong_etag};
use super::method::Method;
use super::part::{self, OpenError, Part, Saved, Validator};
use super::request::{Plan, is_credential_name};
use super::response::header;
use super::send::{Live, sent};
use crate::error::{Error, Result};
use crate::trace::event;

/// How much is read and written at a time; all the memory that a download takes besides.
const BUFFER: usize = 64 << 10;

/// How much of the beginning must be there before it is looked at: a page in HTML may come in pieces.
const BEGINNING: usize = 256;

/// An attempt that gets so much further isn't counted as one that failed in a row.
const PROGRESS: u64 = 64 << 10;

/// Even then a download ends after so many attempts.
const MOST_ATTEMPTS: u32 = 1_000;

/// What to do about a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Existing {
    /// Replace it, in one step, when the new one is whole.
    Replace,
    /// Leave it, ask nobody, and say [`Downloaded::kept`]: for batches that go on where an earlier one stopped. If a length
    /// or checksum is expected and the file has another, it is replaced.
    Keep,
    /// Fail.
    Refuse,
}

type Hash = Box<dyn DynDigest>;

/// An expected checksum, and what computes such.
struct Checksum {
    begin: fn() -> Hash,
    sum: Vec<u8>,
}

type Progress<'a> = Box<dyn FnMut(u64, Option<u64>) + 'a>;

/// Where a download goes, and what is expected of it.
///
/// It is streamed to `NAME.part`, checked, synced and renamed: under its final name there is a whole file, or what was there
/// before. Memory stays the same for any size.
///
/// # What is checked
/// The name ([`check_file_name`](super::check_file_name)); the status; that it is no page in HTML, by type and by its
/// first bytes, unless that was asked for; the length, as the server says it and as the caller expects it; the checksum.
///
/// # Cut connections
/// The next attempt asks for the rest, if the server gave a strong `ETag` or a `Last-Modified` to know the file by. Whatever
/// it answers that isn't exactly the rest of the same file, the download starts over. This works across calls, too.
///
/// # What is left
/// After a success: the file. After a failure that may pass (a cut, a time limit, a cancel), if the rest can be asked for:
/// `NAME.part`, and `NAME.part.resume` that tells what it is; the next download of the same URL, but for a signature
/// in its query, to the same name goes on there, and [`discard`](Download::discard) removes both. After any other
/// failure: nothing. A process that is killed leaves `NAME.part`, which the next download of that name starts over.
///
/// # At once
/// Of two downloads to one name, in this or another process, one goes on, and the other fails with
/// [`HttpErrorKind::Busy`].
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
    length: Option<u64>,
    checksum: Option<Checksum>,
    accepted: Vec<String>,
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
    /// Whether a part of it was there from before: of an earlier attempt, or an earlier call.
    pub resumed: bool,
    /// Whether it was there already, and nobody was asked ([`Existing::Keep`]).
    pub kept: bool,
    /// The type that the server said, without parameters and in lower case.
    pub content_type: Option<String>,
    /// The file name that the server proposes, if it is a sound one.
    pub file_name: Option<String>,
}

impl<'a> Download<'a> {
    /// A download to `folder`, which is made if it isn't there, under `name`, which must be one plain name of a file.
    pub fn new(folder: impl Into<PathBuf>, name: impl Into<String>) -> Download<'a> {
        Download {
            folder: folder.into(),
            name: name.into(),
            existing: Existing::Replace,
            resume: true,
            length: None,
            checksum: None,
            accepted: Vec::new(),
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

    /// Whether the rest is asked for after a cut. Defaults to yes; if not, every attempt starts over and leaves nothing.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Download<'a> {
        self.resume = resume;
        self
    }

    /// The size in bytes that the file must have. Defaults to what the server says.
    #[must_use]
    pub fn length(mut self, bytes: u64) -> Download<'a> {
        self.length = Some(bytes);
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

    /// The only types that are taken: `application/zip`, `image/*`. Defaults to all but HTML, which mostly is a page that
    /// asks to log in; naming `text/html`, `text/*` or `*/*` here takes it. A reply without a type is taken.
    #[must_use]
    pub fn accept_types(mut self, media_types: &[&str]) -> Download<'a> {
        let without_parameters = |kind: &&str| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.accepted = media_types.iter().map(without_parameters).collect();
        self
    }

    /// The most bytes that are written. Defaults to no limit.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Download<'a> {
        self.max_bytes = bytes;
        self
    }

    /// Called with the bytes that are there and those that will be, if that is known, after each piece of at most 64 KiB. On the
    /// thread that downloads; it should be quick.
    #[must_use]
    pub fn progress(self, progress: impl FnMut(u64, Option<u64>) + 'a) -> Download<'a> {
        *self.progress.borrow_mut() = Some(Box::new(progress));
        self
    }

    /// Asked before each attempt and after each piece, and ten times a second while it waits for the next attempt or for its
    /// turn under a rate limit; `true` ends the download with [`HttpErrorKind::Cancelled`]. A server that is silent
    /// delays it up to a time limit.
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

    /// Removes what an earlier, failed download to this name left; a file under the final name stays.
    ///
    /// # Errors
    /// [`Error::Invalid`], if the name isn't one plain name of a file, if a download to it is under way, or if the system
    /// doesn't let it be removed.
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
        self.checksum = Some(Checksum { begin, sum: sum.to_vec() });
        self
    }

    /// What is fed with the bytes, if a checksum is expected.
    fn hash(&self) -> Option<Hash> {
        self.checksum.as_ref().map(|checksum| (checksum.begin)())
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

    fn takes_html(&self) -> bool {
        self.takes("text/html") || self.accepted.iter().any(|kind| is_html(kind))
    }

    fn takes(&self, kind: &str) -> bool {
        if self.accepted.is_empty() {
            return !is_html(kind);
        }
        self.accepted.iter().any(|accepted| match accepted.strip_suffix('*') {
            Some("*/") => true,
            Some(start) => kind.starts_with(start),
            None => accepted == kind,
        })
    }
}

impl fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("folder", &self.folder)
            .field("name", &self.name)
            .field("existing", &self.existing)
            .field("length", &self.length)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Does the whole of it: `RequestBuilder::download`.
pub(super) fn run(client: &HttpClient, plan: &Plan, download: &Download<'_>) -> Result<Downloaded, HttpError> {
    let fail = |kind, text: String| HttpError::new(kind, plan.method, &plan.url, text);
    let path = download.path().map_err(|error| fail(HttpErrorKind::Invalid, error.to_string()))?;
    let on_disk = |what: &str, error: io::Error| file_error(plan, &path, what, error);

    let there = path.symlink_metadata().is_ok();
    match download.existing {
        Existing::Refuse if there => {
            let text = format!("{} is there already and isn't replaced", path.display());
            return Err(fail(HttpErrorKind::File, text).arrived(false));
        }
        Existing::Keep if there => {
            if let Some(bytes) = matching(download, &path).map_err(|error| on_disk("can't be read", error))? {
                let (content_type, file_name) = (None, None);
                return Ok(Downloaded { path, bytes, resumed: false, kept: true, content_type, file_name });
            }
        }
        _ => {}
    }
    if there && path.is_dir() {
        return Err(fail(HttpErrorKind::File, format!("{} is a folder", path.display())).arrived(false));
    }
    std::fs::create_dir_all(&download.folder).map_err(|error| on_disk("can't be put into its folder", error))?;
    let part = Part::open(&download.folder, &download.name).map_err(|error| match error {
        OpenError::Busy => {
            let text = format!("another download to {} is under way", path.display());
            fail(HttpErrorKind::Busy, text)
        }
        OpenError::Io(error) => on_disk("can't be written", error),
    })?;

    let mut job = Job { plan, download, path: &path, part, done: 0, known: None, hash: None, resumed: false };
    job.take_up().map_err(|error| on_disk("can't be read", error))?;
    let cancelled = download.cancelled.as_deref();
    let (mut failures, mut attempts) = (0, 0);
    loop {
        let before = job.done;
        let outcome = job.attempt(client);
        attempts += 1;
        let error = match outcome {
            Ok(arrived) => return job.finish(arrived),
            Err(error) => error,
        };
        let progress = job.done.saturating_sub(before) >= PROGRESS;
        failures = if progress { 1 } else { failures + 1 };
        let sent = sent(attempts, &error);
        let error = error.with_attempts(sent);
        let again = attempts < MOST_ATTEMPTS && client.wait_to_retry(plan, failures, &error, cancelled);
        if !again {
            let error = if download.is_cancelled() { job.cancelled().with_attempts(sent) } else { error };
            return Err(job.give_up(error));
        }
    }
}

/// A download under way.
struct Job<'a, 'b> {
    plan: &'a Plan,
    download: &'a Download<'b>,
    path: &'a Path,
    part: Part,
    /// How many bytes of the file are in the part.
    done: u64,
    /// What the part is the beginning of; without it, it can't be gone on with.
    known: Option<(Validator, u64)>,
    /// Of the bytes that are in the part, if a checksum is expected.
    hash: Option<Hash>,
    resumed: bool,
}

/// What the last reply said about the file.
struct Arrived {
    content_type: Option<String>,
    file_name: Option<String>,
}

impl Job<'_, '_> {
    /// Goes on with what an earlier call left, if that is known to be of the same file.
    fn take_up(&mut self) -> io::Result<()> {
        self.hash = self.download.hash();
        let saved = self.part.saved().filter(|saved| self.may_resume() && saved.url == fingerprint(self.plan));
        let Some(saved) = saved else {
            return self.part.start_over();
        };
        if let Some(hash) = &mut self.hash {
            self.part.read_again(saved.length, |bytes| hash.update(bytes))?;
        }
        self.part.resume_at(saved.length)?;
        self.done = saved.length;
        self.known = Some((saved.validator, saved.total));
        Ok(())
    }

    /// Only what may be asked for twice can be asked for in pieces.
    fn may_resume(&self) -> bool {
        self.download.resume && self.plan.method == Method::Get
    }

    fn start_over(&mut self) -> Result<(), HttpError> {
        self.part.start_over().map_err(|error| self.on_disk(error))?;
        self.done = 0;
        self.known = None;
        self.resumed = false;
        self.hash = self.download.hash();
        Ok(())
    }

    /// One request, and what comes of it to the disk. What has been written counts, even if it fails then.
    fn attempt(&mut self, client: &HttpClient) -> Result<Arrived, HttpError> {
        if self.download.is_cancelled() {
            return Err(self.cancelled().arrived(false));
        }
        if self.known.is_none() && self.done > 0 {
            self.start_over()?;
        }
        // A length is meant in bytes as they are stored, and so is a range.
        let mut headers = vec![("Accept-Encoding", "identity".to_owned())];
        let asked = self.known.clone().filter(|_| self.done > 0);
        if let Some((validator, _)) = &asked {
            headers.push(("Range", format!("bytes={}-", self.done)));
            headers.push(("If-Range", validator.value.clone()));
        }
        let live = match client.attempt(self.plan, &headers, self.download.cancelled.as_deref()) {
            Err(error) if error.status() == Some(416) && asked.is_some() => {
                self.start_over()?;
                return Err(error.retryable(true));
            }
            live => live?,
        };
        let headers = &live.reply.headers;
        let content_type = header(headers, "content-type").and_then(media_type);
        let file_name = header(headers, "content-disposition").and_then(file_name_of);
        let total = match (live.reply.status, &asked) {
            (206, Some((validator, total))) => {
                if let Err(text) = is_the_rest(headers, self.done, validator, *total) {
                    self.start_over()?;
                    return Err(self.fault(HttpErrorKind::Content, text).retryable(true));
                }
                self.resumed = true;
                Some(*total)
            }
            (200 | 203, _) => {
                if self.done > 0 {
                    self.start_over()?;
                }
                let total = live.reply.body.length();
                let validator = validator(headers).filter(|_| self.may_resume());
                self.known = validator.zip(total);
                total
            }
            (202, _) => {
                return Err(self.fault(HttpErrorKind::Content, "the data isn't ready yet (202)").retryable(true));
            }
            (status, _) => {
                let text = format!("the server sent no data but status {status}");
                return Err(self.fault(HttpErrorKind::Content, text));
            }
        };
        self.check_before(content_type.as_deref(), total)?;
        self.stream(live, total)?;
        self.check_after(total)?;
        Ok(Arrived { content_type, file_name })
    }

    /// What can be known from the headers.
    fn check_before(&self, content_type: Option<&str>, total: Option<u64>) -> Result<(), HttpError> {
        if let Some(kind) = content_type.filter(|kind| !self.download.takes(kind)) {
            return Err(self.fault(HttpErrorKind::Content, format!("the server sent {kind:?} in place of the data")));
        }
        match (total, self.download.length) {
            (Some(total), Some(expected)) if total != expected => {
                let text = format!("the server has {total} bytes where {expected} are expected");
                return Err(self.fault(HttpErrorKind::Content, text));
            }
            _ => {}
        }
        if total.is_some_and(|total| total > self.download.max_bytes) {
            return Err(self.too_large());
        }
        Ok(())
    }

    /// From the connection to the disk, piece by piece.
    fn stream(&mut self, live: Live, total: Option<u64>) -> Result<(), HttpError> {
        let Live { reply, url, method, secrets, permit } = live;
        let mut reader = reply.body;
        let mut buffer = vec![0; BUFFER];
        self.download.report(self.done, total);
        loop {
            let least = if self.done == 0 { BEGINNING } else { 1 };
            let (count, cut) = fill(&mut reader, &mut buffer, least, || self.download.is_cancelled());
            self.write(&buffer[..count], total)?;
            if let Some(error) = cut {
                return Err(HttpError::of_body(error, method, &url, &secrets));
            }
            if count == 0 {
                drop(permit);
                return Ok(());
            }
            self.download.report(self.done, total);
            if self.download.is_cancelled() {
                return Err(self.cancelled());
            }
        }
    }

    fn write(&mut self, bytes: &[u8], total: Option<u64>) -> Result<(), HttpError> {
        if self.done == 0 && looks_like_html(bytes) && !self.download.takes_html() {
            return Err(self.fault(HttpErrorKind::Content, "the server sent a page in HTML in place of the data"));
        }
        let after = self.done.checked_add(bytes.len() as u64).ok_or_else(|| self.too_large())?;
        if after > self.download.max_bytes {
            return Err(self.too_large());
        }
        if let Some(length) = total.or(self.download.length).filter(|length| after > *length) {
            return Err(
                self.fault(HttpErrorKind::Content, format!("the server sent more than the {length} bytes expected"))
            );
        }
        self.part.write_all(bytes).map_err(|error| self.on_disk(error))?;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.done = after;
        Ok(())
    }

    /// What can be known when all is there.
    fn check_after(&mut self, total: Option<u64>) -> Result<(), HttpError> {
        let done = self.done;
        if let Some(total) = total.filter(|total| done < *total) {
            let text = format!("the connection ended after {done} of {total} bytes");
            return Err(self.fault(HttpErrorKind::Broken, text));
        }
        if let Some(expected) = self.download.length.filter(|expected| done != *expected) {
            let text = format!("the server sent {done} bytes where {expected} are expected");
            return Err(self.fault(HttpErrorKind::Content, text));
        }
        if let (Some(expected), Some(hash)) = (&self.download.checksum, self.hash.take()) {
            if hash.finalize()[..] != expected.sum {
                // Pieces that don't fit together: once more, in one.
                let resumed = self.resumed;
                self.start_over()?;
                return Err(self
                    .fault(HttpErrorKind::Content, "the checksum is not the expected one")
                    .retryable(resumed));
            }
        }
        Ok(())
    }

    fn finish(self, arrived: Arrived) -> Result<Downloaded, HttpError> {
        let Job { plan, path, part, done, resumed, download, .. } = self;
        let replace = download.existing != Existing::Refuse;
        let path = part.finish(replace).map_err(|error| file_error(plan, path, "can't be put in place", error))?;
        let Arrived { content_type, file_name } = arrived;
        Ok(Downloaded { path, bytes: done, resumed, kept: false, content_type, file_name })
    }

    /// Leaves what another call can go on with, and nothing else.
    fn give_up(self, error: HttpError) -> HttpError {
        let passes = error.is_retryable() || error.kind() == HttpErrorKind::Cancelled;
        if let (true, Some((validator, total))) = (passes && self.done > 0, self.known) {
            let saved = Saved { url: fingerprint(self.plan), validator, length: self.done, total };
            if let Err(failed) = self.part.keep(&saved) {
                // Then nothing is left, and the next download starts over.
                event!(WARN, "an unfinished download could not be kept", path = self.path, error = failed.kind());
            }
        }
        error
    }

    fn fault(&self, kind: HttpErrorKind, text: impl Into<String>) -> HttpError {
        HttpError::new(kind, self.plan.method, &self.plan.url, text)
    }

    fn too_large(&self) -> HttpError {
        let text = format!("the file is larger than the {} bytes allowed: raise `max_bytes`", self.download.max_bytes);
        self.fault(HttpErrorKind::TooLarge, text)
    }

    fn cancelled(&self) -> HttpError {
        self.fault(HttpErrorKind::Cancelled, "the download was cancelled")
    }

    fn on_disk(&self, error: io::Error) -> HttpError {
        file_error(self.plan, self.path, "can't be written", error)
    }
}

/// Reads at least so many bytes, unless the end, an error or a cancel comes first; what had come before an error counts.
fn fill(
    reader: &mut impl Read,
    buffer: &mut [u8],
    least: usize,
    cancelled: impl Fn() -> bool,
) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    loop {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => return (filled, None),
            Ok(count) => filled += count,
            Err(error) => return (filled, Some(error)),
        }
        if filled >= least || cancelled() {
            return (filled, None);
        }
    }
}

fn file_error(plan: &Plan, path: &Path, what: &str, error: io::Error) -> HttpError {
    let why = match error.kind() {
        io::ErrorKind::StorageFull => ": the disk is full",
        io::ErrorKind::QuotaExceeded => ": the quota is used up",
        io::ErrorKind::PermissionDenied => ": no permission",
        io::ErrorKind::ReadOnlyFilesystem => ": the file system is read-only",
        io::ErrorKind::AlreadyExists => ": it is there already",
        _ => "",
    };
    let text = format!("{} {what}{why}", path.display());
    HttpError::new(HttpErrorKind::File, plan.method, &plan.url, text).with_source(error)
}

/// Whether a 206 is exactly the rest of the file that the part is the beginning of.
fn is_the_rest(headers: &HeaderMap, done: u64, validator: &Validator, total: u64) -> Result<(), &'static str> {
    let range =
        header(headers, "content-range").and_then(content_range).ok_or("a partial reply that doesn't say of what")?;
    if range.first != done || range.total.is_some_and(|now| now != total) || range.last >= total {
        return Err("the server sent another range than the one asked for");
    }
    let length = header(headers, "content-length").map(super::headers::number);
    if length.is_some_and(|length| length != (range.last - range.first).checked_add(1)) {
        return Err("the server sent a range of another length than it says");
    }
    if validator.is_etag && header(headers, "etag").is_some_and(|tag| tag.trim() != validator.value) {
        return Err("the file on the server has changed meanwhile");
    }
    Ok(())
}

/// What to know the file by later. A date only counts if it is at least a second old: within one, a file may change twice.
fn validator(headers: &HeaderMap) -> Option<Validator> {
    if header(headers, "accept-ranges").is_some_and(|ranges| ranges.trim().eq_ignore_ascii_case("none")) {
        return None;
    }
    if let Some(tag) = header(headers, "etag") {
        let value = strong_etag(tag)?.to_owned();
        return Some(Validator { value, is_etag: true });
    }
    let modified = header(headers, "last-modified")?;
    let at = httpdate::parse_http_date(modified).ok()?;
    let now = httpdate::parse_http_date(header(headers, "date")?).ok()?;
    let age = now.duration_since(at).ok()?;
    (age.as_secs() >= 1).then(|| Validator { value: modified.to_owned(), is_etag: false })
}

/// Tells URLs apart without showing them. The query counts, since validators and lengths of two files may well be the same,
/// but what belongs to a signature doesn't: that changes from day to day.
fn fingerprint(plan: &Plan) -> String {
    let mut url = plan.url.clone();
    let is_sas = url.query_pairs().any(|(name, _)| name == "sig");
    let lasting = |name: &str| !is_credential_name(name) && !is_of_signature(name, is_sas);
    let query: Vec<_> = plan.url.query_pairs().filter(|(name, _)| lasting(name)).collect();
    url.set_query(None);
    url.set_fragment(None);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Sha256::digest(url.as_str()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What goes along with a signature: of S3 and its likes, of CloudFront, and, `is_sas`, of Azure.
fn is_of_signature(name: &str, is_sas: bool) -> bool {
    const SAS: &[&str] =
        &["se", "ske", "skoid", "sks", "skt", "sktid", "skv", "sip", "sp", "spr", "sr", "st", "sv", "sdd", "ss", "srt"];
    let name = name.to_ascii_lowercase();
    let is_listed = ["expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"].contains(&name.as_str());
    is_listed || name.starts_with("x-amz-") || name.starts_with("x-goog-") || is_sas && SAS.contains(&name.as_str())
}

/// The size of the file that is there, if it is what is expected.
fn matching(download: &Download<'_>, path: &Path) -> io::Result<Option<u64>> {
    let found = match path.metadata() {
        // A link to nowhere, or somebody has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if !found.is_file() || download.length.is_some_and(|length| length != found.len()) {
        return Ok(None);
    }
    if let Some(expected) = &download.checksum {
        let mut hash = (expected.begin)();
        let (mut file, mut buffer) = (std::fs::File::open(path)?, vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        if hash.finalize()[..] != expected.sum {
            return Ok(None);
        }
    }
    Ok(Some(found.len()))
}

fn is_html(kind: &str) -> bool {
    matches!(kind, "text/html" | "application/xhtml+xml")
}

fn looks_like_html(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let start = &start[start.iter().take_while(|byte| byte.is_ascii_whitespace()).count()..];
    [&b"<!doctype html"[..], b"<html"]
        .iter()
        .any(|tag| start.get(..tag.len()).is_some_and(|found| found.eq_ignore_ascii_case(tag)))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::client::http::HttpClient;

    /// `/dev/full` takes any number of bytes and says that the disk is full when they are written.
    #[test]
    fn a_full_disk_says_so_and_nothing_gets_the_name() {
        let folder = std::env::temp_dir().join(format!("fulmar-full-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let client = HttpClient::builder().build().expect("sound settings");
        let plan = client.get("http://host.example/x").plan(None).expect("a sound request");
        let download = Download::new(&folder, "x");
        let path = folder.join("x");
        let part = Part::over(full, &folder, "x");
        let mut job = Job {
            plan: &plan,
            download: &download,
            path: &path,
            part,
            done: 0,
            known: None,
            hash: None,
            resumed: false,
        };
        let error = job.write(b"data", Some(4)).expect_err("full");
        assert_eq!((error.kind(), job.done), (HttpErrorKind::File, 0));
        assert!(error.to_string().ends_with("can't be written: the disk is full"), "{error}");
        assert!(!error.is_retryable());
        job.give_up(error);
        assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 0, "something is left");
        std::fs::remove_dir(&folder).expect("empty");
    }
}
