//! A running download: makes attempt after attempt, and copies from the connection to the disk.

use std::io::{self, Read, Write};
use std::path::Path;

use super::super::client::HttpClient;
use super::super::error::HttpError;
use super::super::headers::{file_name_of, media_type};
use super::super::kind::HttpErrorKind;
use super::super::live::Live;
use super::super::method::Method;
use super::super::plan::Plan;
use super::super::response::{header, is_gzip};
use super::super::send::sent;
use super::super::wait::{Cancelled, lasting};
use super::expected::Hash;
use super::part::{OpenError, PartFile, Saved, Validator};
use super::resume::{fingerprint, is_the_rest, validator};
use super::stored::{Content, Packed, is_compressed_file, is_to_be_unpacked};
use super::{BUFFER, Download, Downloaded, Existing};
use crate::trace::event;

/// How many bytes are read before the beginning is checked for an HTML page, which may come in
/// small pieces.
const BEGINNING: usize = 256;

/// If a failed attempt has got at least this much further, the count of failures in a row starts
/// anew.
const PROGRESS: u64 = 64 << 10;

/// The most attempts of a download, even if each of them gets further.
const MOST_ATTEMPTS: u32 = 1_000;

/// Runs a download to its end, for `RequestBuilder::download`.
pub(in super::super) fn run(
    client: &HttpClient,
    plan: &Plan,
    download: &Download<'_>,
) -> Result<Downloaded, HttpError> {
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
            let expected = &download.expected;
            // A file of another length or checksum is replaced, as without `Keep`.
            if let Some(bytes) = expected.matching(&path).map_err(|error| on_disk("can't be read", error))? {
                let length_known = expected.length.is_some() || expected.checksum.is_some();
                let (content_type, file_name) = (None, None);
                return Ok(Downloaded {
                    path,
                    bytes,
                    length_known,
                    resumed: false,
                    kept: true,
                    content_type,
                    file_name,
                });
            }
        }
        _ => {}
    }
    // Refused before anything is sent: the rename at the end would fail, after all the bytes came.
    if there && path.is_dir() {
        return Err(fail(HttpErrorKind::File, format!("{} is a folder", path.display())).arrived(false));
    }
    std::fs::create_dir_all(&download.folder).map_err(|error| on_disk("can't be put into its folder", error))?;
    let part = PartFile::open(&download.folder, &download.name).map_err(|error| match error {
        OpenError::Busy => {
            let text = format!("another download to {} is under way", path.display());
            fail(HttpErrorKind::Busy, text)
        }
        OpenError::Io(error) => on_disk("can't be written", error),
    })?;

    let cancelled = download.cancelled.as_deref().map(lasting);
    let cancelled: Cancelled<'_> = cancelled.as_ref().map(|cancelled| cancelled as _);
    let mut transfer =
        Transfer { plan, download, cancelled, path: &path, part, done: 0, known: None, hash: None, resumed: false };
    transfer.take_up().map_err(|error| on_disk("can't be read", error))?;
    let (mut failures, mut attempts) = (0, 0);
    loop {
        let before = transfer.done;
        let outcome = transfer.attempt(client);
        attempts += 1;
        let error = match outcome {
            Ok(arrived) => return transfer.finish(arrived),
            Err(error) => error,
        };
        let progress = transfer.done.saturating_sub(before) >= PROGRESS;
        // An attempt that got further starts the count anew: a server that cuts each connection
        // after some megabytes must not use up the retries of a long download.
        failures = if progress { 1 } else { failures + 1 };
        let sent = sent(attempts, &error);
        let error = error.with_attempts(sent);
        let waited = match attempts < MOST_ATTEMPTS {
            true => client.wait_to_retry(plan, failures, error, cancelled),
            false => Err(error),
        };
        if let Err(error) = waited {
            return Err(transfer.give_up(error));
        }
    }
}

/// A download under way.
struct Transfer<'a, 'b> {
    plan: &'a Plan,
    download: &'a Download<'b>,
    cancelled: Cancelled<'a>,
    path: &'a Path,
    part: PartFile,
    /// How many bytes of the file are in the part.
    done: u64,
    /// The version and length of the file of which the part is the beginning. Without it the
    /// download can't be resumed.
    known: Option<(Validator, u64)>,
    /// The hash of the bytes in the part, if a checksum is expected.
    hash: Option<Hash>,
    resumed: bool,
}

/// What the headers of the last reply said about the file.
struct Arrived {
    is_delimited: bool,
    content_type: Option<String>,
    file_name: Option<String>,
}

impl Transfer<'_, '_> {
    /// If an earlier call has left a part of the same file, goes on with that.
    fn take_up(&mut self) -> io::Result<()> {
        self.hash = self.download.expected.hash();
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

    /// Whether the rest of the file can be asked for by a second request: only if the request may
    /// be repeated.
    fn may_resume(&self) -> bool {
        self.download.resume && self.plan.method == Method::Get
    }

    fn start_over(&mut self) -> Result<(), HttpError> {
        self.part.start_over().map_err(|error| self.on_disk(error))?;
        self.done = 0;
        self.known = None;
        self.resumed = false;
        self.hash = self.download.expected.hash();
        Ok(())
    }

    /// Sends one request, and writes the reply's body to the part. If it fails on the way, the
    /// bytes written so far stay, and the next attempt may go on behind them.
    fn attempt(&mut self, client: &HttpClient) -> Result<Arrived, HttpError> {
        if self.is_cancelled() {
            return Err(self.cancelled().arrived(false));
        }
        if self.known.is_none() && self.done > 0 {
            self.start_over()?;
        }
        // Ask for the bytes as they are stored, because lengths and ranges count those.
        let mut headers = vec![("Accept-Encoding", "identity".to_owned())];
        let asked = self.known.clone().filter(|_| self.done > 0);
        if let Some((validator, _)) = &asked {
            headers.push(("Range", format!("bytes={}-", self.done)));
            headers.push(("If-Range", validator.value.clone()));
        }
        let live = match client.attempt(self.plan, &headers, self.cancelled) {
            Err(error) if error.status() == Some(416) && asked.is_some() => {
                self.start_over()?;
                return Err(error.retryable(true));
            }
            live => live?,
        };
        let headers = &live.reply.headers;
        let content_type = header(headers, "content-type").and_then(media_type);
        let file_name = header(headers, "content-disposition").and_then(file_name_of);
        let is_gzip = is_gzip(headers);
        let is_packed = is_to_be_unpacked(is_gzip == Ok(true), content_type.as_deref(), &self.download.name);
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
                // A body that we unpack can't be resumed: a range counts packed bytes, and the part
                // has unpacked ones.
                let validator = validator(headers).filter(|_| self.may_resume() && !is_packed);
                self.known = validator.zip(total);
                total.filter(|_| !is_packed)
            }
            (202, _) => {
                return Err(self.fault(HttpErrorKind::Content, "the data isn't ready yet (202)").retryable(true));
            }
            (status, _) => {
                let text = format!("the server sent no data but status {status}");
                return Err(self.fault(HttpErrorKind::Content, text));
            }
        };
        if let (Err(text), false) = (is_gzip, is_compressed_file(&self.download.name)) {
            return Err(self.fault(HttpErrorKind::Content, text));
        }
        self.check_before(content_type.as_deref(), total)?;
        let is_delimited = live.reply.body.is_delimited();
        let packed = self.stream(live, total, is_packed)?;
        self.check_after(total, packed)?;
        Ok(Arrived { is_delimited, content_type, file_name })
    }

    /// Checks what the headers say against what the caller expects, before anything is written.
    fn check_before(&self, content_type: Option<&str>, total: Option<u64>) -> Result<(), HttpError> {
        if let Some(kind) = content_type.filter(|kind| !self.download.expected.takes(kind)) {
            return Err(self.fault(HttpErrorKind::Content, format!("the server sent {kind:?} in place of the data")));
        }
        match (total, self.download.expected.length) {
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

    /// Copies the body from the connection to the part, piece by piece, until it ends, breaks or is
    /// cancelled.
    fn stream(&mut self, live: Live, total: Option<u64>, is_packed: bool) -> Result<Option<Packed>, HttpError> {
        let Live { reply, url, method, secrets, permit } = live;
        let mut content = Content::of(reply.body, is_packed, &self.download.expected);
        let mut buffer = vec![0; BUFFER];
        self.download.report(self.done, total);
        loop {
            let least = if self.done == 0 { BEGINNING } else { 1 };
            let (count, stop) = fill(&mut content, &mut buffer, least, self.cancelled);
            self.write(&buffer[..count], total.or(self.download.expected.length.filter(|_| !is_packed)))?;
            match stop {
                Stop::Piece => {}
                Stop::End => {
                    drop(permit);
                    return Ok(content.into_packed());
                }
                Stop::Cut(error) => return Err(HttpError::of_body(error, method, &url, &secrets)),
                Stop::Cancelled => return Err(self.cancelled()),
            }
            self.download.report(self.done, total);
            if self.is_cancelled() {
                return Err(self.cancelled());
            }
        }
    }

    /// Appends one piece of the body to the part. Refuses an HTML page in place of the data, and
    /// more than `most` bytes or the download's own limit: before the write, so that a server can't
    /// fill the disk.
    fn write(&mut self, bytes: &[u8], most: Option<u64>) -> Result<(), HttpError> {
        // Only the first piece shows whether the file is a page.
        if self.done == 0 && self.download.expected.is_wrong_page(bytes) {
            return Err(self.fault(HttpErrorKind::Content, "the server sent a page in HTML in place of the data"));
        }
        let after = self.done.checked_add(bytes.len() as u64).ok_or_else(|| self.too_large())?;
        if after > self.download.max_bytes {
            return Err(self.too_large());
        }
        if let Some(length) = most.filter(|length| after > *length) {
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

    /// Checks the complete file: whether the connection ended too early, and the expected length
    /// and checksum. If the server stores the file packed, these may mean the packed bytes or the
    /// content, so either will do.
    fn check_after(&mut self, total: Option<u64>, packed: Option<Packed>) -> Result<(), HttpError> {
        let done = self.done;
        if let Some(total) = total.filter(|total| done < *total) {
            let text = format!("the connection ended after {done} of {total} bytes");
            return Err(self.fault(HttpErrorKind::Broken, text));
        }
        let stored = packed.as_ref().map_or(done, |packed| packed.bytes);
        if let Some(expected) = self.download.expected.length.filter(|expected| ![done, stored].contains(expected)) {
            let text = format!("the server sent {stored} bytes where {expected} are expected");
            return Err(self.fault(HttpErrorKind::Content, text));
        }
        if let Some(expected) = &self.download.expected.checksum {
            let hashes = [self.hash.take(), packed.and_then(|packed| packed.hash)];
            if !hashes.into_iter().flatten().any(|hash| expected.is_of(hash)) {
                // The part may consist of pieces of different versions of the file. If it was
                // resumed, another attempt in one piece may succeed.
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
        let Transfer { plan, path, part, done, resumed, download, .. } = self;
        let replace = download.existing != Existing::Refuse;
        let path = part.finish(replace).map_err(|error| file_error(plan, path, "can't be put in place", error))?;
        let Arrived { is_delimited, content_type, file_name } = arrived;
        let length_known = is_delimited || download.expected.length.is_some() || download.expected.checksum.is_some();
        Ok(Downloaded { path, bytes: done, length_known, resumed, kept: false, content_type, file_name })
    }

    /// Ends a failed download: keeps the part if another call can go on with it, and otherwise
    /// removes it. Returns `error`.
    fn give_up(self, error: HttpError) -> HttpError {
        let passes = error.is_retryable() || error.kind() == HttpErrorKind::Cancelled;
        if let (true, Some((validator, total))) = (passes && self.done > 0, self.known) {
            let saved = Saved { url: fingerprint(self.plan), validator, length: self.done, total };
            if let Err(failed) = self.part.keep(&saved) {
                // The part is removed, and the next download starts over.
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

    fn is_cancelled(&self) -> bool {
        self.cancelled.is_some_and(|cancelled| cancelled())
    }

    fn cancelled(&self) -> HttpError {
        self.fault(HttpErrorKind::Cancelled, "the download was cancelled")
    }

    fn on_disk(&self, error: io::Error) -> HttpError {
        file_error(self.plan, self.path, "can't be written", error)
    }
}

/// Why [`fill`] stopped reading.
enum Stop {
    /// It has read the wanted number of bytes.
    Piece,
    End,
    Cut(io::Error),
    Cancelled,
}

/// Reads at least `least` bytes, unless the body ends or breaks, or the caller cancels. Returns how
/// many bytes it has read, also in these cases.
fn fill(content: &mut Content, buffer: &mut [u8], least: usize, cancelled: Cancelled<'_>) -> (usize, Stop) {
    let mut filled = 0;
    loop {
        if cancelled.is_some_and(|cancelled| !content.wait(cancelled)) {
            return (filled, Stop::Cancelled);
        }
        match content.read(&mut buffer[filled..]) {
            // Return the bytes first: the next call meets the end again.
            Ok(0) if filled > 0 => return (filled, Stop::Piece),
            Ok(0) => return (0, Stop::End),
            Ok(count) => filled += count,
            Err(error) => return (filled, Stop::Cut(error)),
        }
        if filled >= least {
            return (filled, Stop::Piece);
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
        let part = PartFile::over(full, &folder, "x");
        let mut transfer = Transfer {
            plan: &plan,
            download: &download,
            cancelled: None,
            path: &path,
            part,
            done: 0,
            known: None,
            hash: None,
            resumed: false,
        };
        let error = transfer.write(b"data", Some(4)).expect_err("full");
        assert_eq!((error.kind(), transfer.done), (HttpErrorKind::File, 0));
        assert!(error.to_string().ends_with("can't be written: the disk is full"), "{error}");
        assert!(!error.is_retryable());
        transfer.give_up(error);
        assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 0, "something is left");
        std::fs::remove_dir(&folder).expect("empty");
    }
}
