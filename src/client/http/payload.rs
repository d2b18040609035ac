//! The body of a request: bytes, or a file, which is read anew each time that the request is sent.

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
        /// The file's length when sending began. The head of the request has promised it, so if the
        /// file has become shorter, sending fails.
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
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a file"));
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
