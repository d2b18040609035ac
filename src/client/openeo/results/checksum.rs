//! Checksums of files as STAC writes them: multihashes in hexadecimal. Pure.
//!
//! Sources: STAC file extension 2.1 (`file:checksum`), the multihash table.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// A checksum of a kind that we can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksum {
    Sha224([u8; 28]),
    Sha256([u8; 32]),
    Sha384([u8; 48]),
    Sha512([u8; 64]),
}

impl Checksum {
    /// Reads a multihash. `None` if it is invalid, or of a kind that we don't compute, such as
    /// SHA-1 and MD5.
    pub(crate) fn of(text: &str) -> Option<Checksum> {
        let bytes = from_hex(text)?;
        let (code, rest) = varint(&bytes)?;
        let (length, sum) = varint(rest)?;
        if usize::try_from(length).ok()? != sum.len() {
            return None;
        }
        Some(match code {
            0x1013 => Checksum::Sha224(sum.try_into().ok()?),
            0x12 => Checksum::Sha256(sum.try_into().ok()?),
            0x20 => Checksum::Sha384(sum.try_into().ok()?),
            0x13 => Checksum::Sha512(sum.try_into().ok()?),
            _ => return None,
        })
    }

    /// Whether `data` have this checksum.
    pub(crate) fn is_of(&self, data: &[u8]) -> bool {
        match self {
            Checksum::Sha224(sum) => Sha224::digest(data)[..] == sum[..],
            Checksum::Sha256(sum) => Sha256::digest(data)[..] == sum[..],
            Checksum::Sha384(sum) => Sha384::digest(data)[..] == sum[..],
            Checksum::Sha512(sum) => Sha512::digest(data)[..] == sum[..],
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
}

/// Reads an unsigned number in groups of seven bits, the least significant first. Returns the rest,
/// too.
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
        assert_eq!(Checksum::of(&format!("1340{long}")), Some(Checksum::Sha512([0xcd; 64])));
        assert!(Checksum::of(&format!("93201c{}", "ef".repeat(28))).is_some(), "a code of two bytes");
        let md5 = format!("d50110{}", "00".repeat(16));
        for wrong in ["", "12", "1220ab", &sum, "122", "12é0", &md5, &format!("1221{sum}"), &format!("1120{sum}")] {
            assert_eq!(Checksum::of(wrong), None, "{wrong}");
        }
    }
}
