//! What a request carries: bytes, or a file that is read while it is sent, as often as it is sent.

use std::fs::File;
use std::io;
use std::path::PathBuf;

pub(super) enum Payload {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// A payload that is being sent.
pub(super) enum Source<'a> {
    Bytes(&'a [u8]),
    File {
        file: File,
        /// As it was when the sending began: what is promised is sent, or the sending fails.
        length: u64,
    },
}

impl Payload {
    pub(super) fn open(&self) -> io::Result<Source<'_>> {
        match self {
            Payload::Bytes(bytes) => Ok(Source::Bytes(bytes)),
            Payload::File(path) => {
                let file = File::open(path)?;
                let found = file.metadata()?;
                if !found.is_file() {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
                }
                Ok(Source::File { file, length: found.len() })
            }
        }
    }
}

impl Source<'_> {
    pub(super) fn length(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File { length, .. } => *length,
        }
    }
}
