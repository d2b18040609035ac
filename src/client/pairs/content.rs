//! Recognises the type of a file by its content, because servers send `application/octet-stream`,
//! and gateways send any type.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::client::pairs::points;

/// How many bytes of a file are read to recognise its type.
const HEAD: usize = 4 << 10;

/// The byte order mark that some servers begin with.
const MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, PartialEq)]
pub(super) enum Content {
    Zip,
    Json {
        /// How many `NaN` and `Infinity` it has.
        not_numbers: u64,
    },
    Csv,
}

/// The type of a file, or why it can't be a result of PAIRS. A large file needs no more memory.
pub(super) fn content_of(path: &Path) -> io::Result<Result<Content, &'static str>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    // The second signature is that of an empty archive.
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Ok(Ok(Content::Zip));
    }
    let is_all = head.len() < HEAD;
    let head = head.strip_prefix(MARK).unwrap_or(&head);
    // Ignore half a character at the end of the bytes that were read.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or(""),
        Err(_) => return Ok(Err("it is neither an archive nor text")),
    };
    Ok(match text.trim_start().chars().next() {
        None => Err("it is empty"),
        Some('<') => Err("it is a page in HTML or XML, perhaps of a proxy that wants a login"),
        Some('{') if is_all && is_refusal(text) => Err("it is an error in JSON in place of data"),
        Some('{' | '[') => {
            let mut file = BufReader::with_capacity(64 << 10, File::open(path)?);
            if file.fill_buf()?.starts_with(MARK) {
                file.consume(MARK.len());
            }
            let mut reader = Numbers::of(file);
            match serde_json::from_reader::<_, IgnoredAny>(BufReader::with_capacity(64 << 10, &mut reader)) {
                Ok(IgnoredAny) => Ok(Content::Json { not_numbers: reader.count }),
                Err(error) if error.is_io() => return Err(error.into()),
                Err(_) => Err("it begins as JSON, and isn't"),
            }
        }
        Some(_) if points::is_csv(text) => Ok(Content::Csv),
        Some(_) => Err("it is neither an archive, nor JSON, nor CSV"),
    })
}

pub(super) fn ends_with_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(matches!(last, [b'\n' | b'\r']))
}

/// Whether a text is a gateway's error in JSON, and not values.
fn is_refusal(text: &str) -> bool {
    const SIGNS: [&str; 6] = ["error", "errorCode", "errorMessage", "httpCode", "httpMessage", "message"];
    let object: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    object.is_some_and(|object| !object.contains_key("data") && SIGNS.iter().any(|sign| object.contains_key(*sign)))
}

/// A reader that replaces each `NaN` and `Infinity` in JSON by a zero, so that the text can be
/// checked piece by piece.
struct Numbers<R> {
    inner: R,
    in_string: bool,
    is_escaped: bool,
    /// The rest of the word that has begun, such as `aN`.
    rest: &'static [u8],
    count: u64,
}

impl<R> Numbers<R> {
    fn of(inner: R) -> Numbers<R> {
        Numbers { inner, in_string: false, is_escaped: false, rest: b"", count: 0 }
    }

    /// The byte that stands for `byte`, the next one of the text: `NaN` becomes a zero and blanks,
    /// and so does `Infinity`. In strings nothing changes. What only begins like these words gets a
    /// `?`, so that the parser refuses it.
    fn replaced(&mut self, byte: u8) -> u8 {
        if let [next, rest @ ..] = self.rest {
            // If the next letter isn't the word's, the text isn't JSON.
            let is_next = byte == *next;
            self.rest = if is_next { rest } else { b"" };
            return if is_next { b' ' } else { b'?' };
        }
        match byte {
            _ if std::mem::take(&mut self.is_escaped) => {}
            b'\\' => self.is_escaped = self.in_string,
            b'"' => self.in_string = !self.in_string,
            b'N' | b'I' if !self.in_string => {
                self.rest = if byte == b'N' { b"aN" } else { b"nfinity" };
                self.count += 1;
                return b'0';
            }
            _ => {}
        }
        byte
    }
}

impl<R: Read> Read for Numbers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        for byte in &mut buffer[..count] {
            *byte = self.replaced(*byte);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hash, Hasher};

    /// No two tests may ask about the same bytes.
    fn of(bytes: &[u8]) -> Result<Content, &'static str> {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let name = format!("fulmar-content-{}-{:x}", std::process::id(), hasher.finish());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("written");
        let content = content_of(&path).expect("read");
        std::fs::remove_file(&path).expect("removed");
        content
    }

    #[test]
    fn numbers_that_json_does_not_know_are_counted_wherever_a_read_ends() {
        let text = r#"[NaN,{"NaN":"Infinity \" NaN","b":[-Infinity,Infinity,1,null,false]},-NaN]"#;
        for piece in 1..text.len() {
            let mut reader = Numbers::of(
                text.as_bytes()
                    .chunks(piece)
                    .fold(Box::new(io::empty()) as Box<dyn Read>, |all, piece| Box::new(all.chain(piece))),
            );
            let read = serde_json::from_reader::<_, IgnoredAny>(&mut reader);
            assert!(read.is_ok() && reader.count == 4, "{piece}: {read:?}, {}", reader.count);
        }
        assert_eq!(of(text.as_bytes()), Ok(Content::Json { not_numbers: 4 }));
        for wrong in ["[Na]", "[NaNs]", "[Infinit]", "[Infinity", "[None]", "[nan]", "[N aN]", "{NaN:1}"] {
            assert_eq!(of(wrong.as_bytes()), Err("it begins as JSON, and isn't"), "{wrong}");
        }
    }

    #[test]
    fn a_mark_before_it_changes_nothing() {
        for (text, content) in [
            (r#"{"data":[]}"#, Ok(Content::Json { not_numbers: 0 })),
            ("layerId,value\n1,2\n", Ok(Content::Csv)),
            (r#"{"message":"no"}"#, Err("it is an error in JSON in place of data")),
            ("", Err("it is empty")),
        ] {
            let marked = [MARK, text.as_bytes()].concat();
            assert_eq!((of(text.as_bytes()), of(&marked)), (content, of(text.as_bytes())), "{text}");
        }
    }
}
