//! What the caller expects of a downloaded file: its length, its checksum, its type, and that it
//! isn't a page that asks to log in.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::digest::DynDigest;

use super::BUFFER;

pub(super) type Hash = Box<dyn DynDigest>;

/// An expected checksum, and the hash function that computes it.
pub(super) struct Checksum {
    pub(super) begin: fn() -> Hash,
    pub(super) sum: Vec<u8>,
}

impl Checksum {
    pub(super) fn is_of(&self, hash: Hash) -> bool {
        hash.finalize()[..] == self.sum
    }
}

#[derive(Default)]
pub(super) struct Expected {
    pub(super) length: Option<u64>,
    pub(super) checksum: Option<Checksum>,
    /// The accepted types, without parameters and in lower case. If empty, every type but HTML.
    pub(super) accepted: Vec<String>,
}

impl Expected {
    /// A new hash to feed with the file's bytes, if a checksum is expected.
    pub(super) fn hash(&self) -> Option<Hash> {
        self.checksum.as_ref().map(|checksum| (checksum.begin)())
    }

    pub(super) fn accept(&mut self, media_types: &[&str]) {
        let without_parameters = |kind: &&str| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.accepted = media_types.iter().map(without_parameters).collect();
    }

    pub(super) fn takes(&self, kind: &str) -> bool {
        if self.accepted.is_empty() {
            return !is_html(kind);
        }
        self.accepted.iter().any(|accepted| match accepted.strip_suffix('*') {
            Some("*/") => true,
            Some(start) => kind.starts_with(start),
            None => accepted == kind,
        })
    }

    fn takes_html(&self) -> bool {
        self.takes("text/html") || self.accepted.iter().any(|kind| is_html(kind))
    }

    /// Whether `start` is the beginning of an HTML page that the server sent in place of the data.
    pub(super) fn is_wrong_page(&self, start: &[u8]) -> bool {
        looks_like_html(start) && !self.takes_html()
    }

    /// The size of the file at `path`, if it has the length and the checksum that are expected.
    /// What isn't expected isn't checked: with neither of them, every plain file will do. Reads the
    /// whole file if a checksum is expected.
    ///
    /// `None` if there is no plain file at `path`, or another one. Fails if the file can't be read.
    pub(super) fn matching(&self, path: &Path) -> io::Result<Option<u64>> {
        let found = match path.metadata() {
            // The path is a link to nowhere, or another process has just removed the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        if !found.is_file() || self.length.is_some_and(|length| length != found.len()) {
            return Ok(None);
        }
        if let Some(expected) = &self.checksum {
            let mut hash = (expected.begin)();
            let (mut file, mut buffer) = (File::open(path)?, vec![0; BUFFER]);
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    count => hash.update(&buffer[..count]),
                }
            }
            if !expected.is_of(hash) {
                return Ok(None);
            }
        }
        Ok(Some(found.len()))
    }
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
