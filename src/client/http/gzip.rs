//! Unpacks a body that is compressed with gzip, while it is read.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

/// The unpacked content of `R`. If `R` is empty, so is the content: a reply without a body may have
/// the header of a compressed one.
pub(super) struct Gunzip<R> {
    decoder: MultiGzDecoder<Watched<R>>,
    /// After an error the decoder would say that this is the end.
    has_failed: bool,
}

/// A reader that remembers whether it was empty.
struct Watched<R> {
    reader: R,
    has_begun: bool,
    is_empty: bool,
}

impl<R: Read> Gunzip<R> {
    pub(super) fn new(reader: R) -> Gunzip<R> {
        let watched = Watched { reader, has_begun: false, is_empty: false };
        Gunzip { decoder: MultiGzDecoder::new(watched), has_failed: false }
    }

    pub(super) fn into_inner(self) -> R {
        self.decoder.into_inner().reader
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_failed {
            return Err(io::Error::other(
                "an earlier read of this reply has failed, so the rest is unknown: send the request again",
            ));
        }
        let read = self.decoder.read(buffer);
        // Then the decoder only misses its header.
        if self.decoder.get_ref().is_empty {
            return Ok(0);
        }
        self.has_failed = read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.is_empty = !self.has_begun;
        } else {
            self.has_begun = true;
        }
        Ok(count)
    }
}
