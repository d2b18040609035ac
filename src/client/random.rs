//! Values made at random, for what holds for everything that a stranger may send. A failure prints
//! its seed, and `FULMAR_SEED=seed` repeats it.

#![cfg_attr(not(all(feature = "openeo", feature = "pairs")), allow(dead_code))]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use serde_json::Value;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    pub(crate) fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    /// A text of pieces that a parser reacts to, and of characters that it may not expect.
    pub(crate) fn text(&mut self, pieces: &[&str]) -> String {
        (0..self.below(8)).map(|_| self.piece(pieces)).collect()
    }

    pub(crate) fn piece(&mut self, pieces: &[&str]) -> String {
        match self.below(10) {
            0 => char::from_u32(u32::try_from(self.next() % 0x11_0000).expect("21 bits")).unwrap_or('?').into(),
            1 => self.next().to_string(),
            2 => self.below(100).to_string(),
            _ => self.one_of(pieces).to_owned(),
        }
    }

    /// JSON, with these names of fields and these texts, of that depth at most.
    pub(crate) fn json(&mut self, names: &[&str], texts: &[&str], depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => Value::Null,
            1 => (self.next() % 2 == 0).into(),
            2 => (self.next() as i64 >> self.below(64)).into(),
            3 => Value::from(f64::from_bits(self.next())),
            4 => self.one_of(texts).into(),
            5 => (0..self.below(4)).map(|_| self.json(names, texts, depth - 1)).collect(),
            _ => {
                let fields = (0..self.below(6)).map(|_| self.one_of(names).to_owned()).collect::<Vec<_>>();
                fields.into_iter().map(|name| (name, self.json(names, texts, depth - 1))).collect()
            }
        }
    }

    /// A sound text, cut, with bytes that are others, too many or missing.
    pub(crate) fn damaged(&mut self, sound: &str) -> String {
        let mut bytes = sound.as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1));
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), self.next() as u8),
                2 if at < bytes.len() => bytes[at] = b"{}[]\",:0-9eE.\\<\0\xff"[self.below(17)],
                _ => drop(bytes.drain(at.min(bytes.len())..(at + self.below(9)).min(bytes.len()))),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Runs `property` on one value after another; the panic of the one that fails names its seed.
pub(crate) fn for_all(rounds: u64, property: impl Fn(&mut Random)) {
    if let Some(seed) = std::env::var("FULMAR_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return from(seed, &property);
    }
    let first = RandomState::new().build_hasher().finish();
    for round in 0..rounds {
        from(first.wrapping_add(round), &property);
    }
}

fn from(seed: u64, property: impl Fn(&mut Random)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| property(&mut Random(seed)))) {
        println!("FULMAR_SEED={seed} repeats it");
        resume_unwind(panic);
    }
}
