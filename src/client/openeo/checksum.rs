//! Checksums of files as STAC has them: multihashes in hexadecimal. Pure but for reading the data.
//!
//! Sources: STAC file extension 2.1 (`file:checksum`), the multihash table.

use std::io::{self, Read};

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// A checksum that can be computed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Sha256([u8; 32]),
    Other { kind: Kind, sum: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sha224,
    Sha384,
    Sha512,
}

impl Checksum {
    /// Reads a multihash; `None` for what is none, or of a kind that isn't computed here (SHA-1 and MD5 among them).
    pub(super) fn of(text: &str) -> Option<Checksum> {
        let bytes = from_hex(text)?;
        let (code, rest) = varint(&bytes)?;
        let (length, sum) = varint(rest)?;
        if usize::try_from(length).ok()? != sum.len() {
            return None;
        }
        let (kind, length) = match code {
            0x12 => return Some(Checksum::Sha256(sum.try_into().ok()?)),
            0x1013 => (Kind::Sha224, 28),
            0x20 => (Kind::Sha384, 48),
            0x13 => (Kind::Sha512, 64),
            _ => return None,
        };
        (sum.len() == length).then(|| Checksum::Other { kind, sum: sum.to_vec() })
    }

    /// Whether these data have it.
    pub(super) fn is_of(&self, data: &mut impl Read) -> io::Result<bool> {
        Ok(match self {
            Checksum::Sha256(sum) => digest::<Sha256>(data)? == sum,
            Checksum::Other { kind: Kind::Sha224, sum } => digest::<Sha224>(data)? == *sum,
            Checksum::Other { kind: Kind::Sha384, sum } => digest::<Sha384>(data)? == *sum,
            Checksum::Other { kind: Kind::Sha512, sum } => digest::<Sha512>(data)? == *sum,
        })
    }
}

fn digest<D: Digest>(data: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut hash, mut buffer) = (D::new(), vec![0; 64 << 10]);
    loop {
        match data.read(&mut buffer)? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
}

/// An unsigned number in groups of seven bits, the least first.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multihashes_are_read_and_others_are_none() {
        let sum = "ab".repeat(32);
        assert_eq!(Checksum::of(&format!("1220{sum}")), Some(Checksum::Sha256([0xab; 32])));
        let long = "cd".repeat(64);
        let expected = Checksum::Other { kind: Kind::Sha512, sum: vec![0xcd; 64] };
        assert_eq!(Checksum::of(&format!("1340{long}")), Some(expected));
        assert!(Checksum::of(&format!("93201c{}", "ef".repeat(28))).is_some(), "a code of two bytes");
        let md5 = format!("d50110{}", "00".repeat(16));
        for wrong in ["", "12", "1220ab", &sum, "122", "12é0", &md5, &format!("1221{sum}"), &format!("1120{sum}")] {
            assert_eq!(Checksum::of(wrong), None, "{wrong}");
        }
    }
}
