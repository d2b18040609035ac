//! Unpacks a body while it is read: some servers store files compressed and say so with
//! `Content-Encoding`.

use std::io::{self, Read};

use super::super::gzip::Gunzip;
use super::super::wire::Body;
use super::expected::{Expected, Hash};

/// The content of a body, unpacked if necessary.
pub(super) enum Content {
    Plain(Box<Body>),
    /// Unpacked on the way.
    Gzip(Box<Gunzip<Stored>>),
}

/// The bytes as they come, counted.
pub(super) struct Stored {
    body: Body,
    count: u64,
    hash: Option<Hash>,
}

/// How many bytes came before they were unpacked, and their hash.
pub(super) struct Packed {
    pub(super) bytes: u64,
    pub(super) hash: Option<Hash>,
}

impl Content {
    pub(super) fn of(body: Body, is_packed: bool, expected: &Expected) -> Content {
        if is_packed {
            let stored = Stored { body, count: 0, hash: expected.hash() };
            Content::Gzip(Box::new(Gunzip::new(stored)))
        } else {
            Content::Plain(Box::new(body))
        }
    }

    /// Waits until there is something to read, and returns true; false if `cancelled` returned true
    /// meanwhile. For a packed body it doesn't wait, because the decoder may hold bytes, and only
    /// asks `cancelled`.
    pub(super) fn wait(&mut self, cancelled: &dyn Fn() -> bool) -> bool {
        match self {
            Content::Plain(body) => body.wait(cancelled),
            Content::Gzip(_) => !cancelled(),
        }
    }

    /// Length and hash of the packed bytes, if the body was packed.
    pub(super) fn into_packed(self) -> Option<Packed> {
        match self {
            Content::Plain(_) => None,
            Content::Gzip(decoder) => {
                let Stored { count, hash, .. } = decoder.into_inner();
                Some(Packed { bytes: count, hash })
            }
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Content::Plain(body) => body.read(buffer),
            Content::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buffer)?;
        self.count += count as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        Ok(count)
    }
}

/// Whether a file of this name is itself compressed in a way that this client can't unpack: then a
/// body with such a coding is the file.
pub(super) fn is_compressed_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".br", ".zst", ".zstd", ".z"].iter().any(|ending| name.ends_with(ending))
}

/// Whether to unpack a body. Not if the file itself should be a compressed one: for such files,
/// servers send the same header.
pub(super) fn is_to_be_unpacked(is_gzip: bool, content_type: Option<&str>, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_meant = [".gz", ".tgz", ".svgz"].iter().any(|ending| name.ends_with(ending))
        || content_type
            .is_some_and(|kind| matches!(kind, "application/gzip" | "application/x-gzip" | "application/x-tgz"));
    is_gzip && !is_meant
}
