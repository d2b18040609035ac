//! What goes wrong, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http_server::lock;

use crate::Shared;

/// What goes wrong. `Faults::default()` is nothing. Shares go from 0 to 1.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Which of the calls that a share allows for are struck.
    pub seed: u64,
    /// The share of calls answered 503 with an HTML page.
    pub unavailable: f64,
    /// The share of calls to the hosts of tokens answered 503.
    pub tokens_unavailable: f64,
    /// The share of calls whose connection is cut before they are looked at.
    pub drop: f64,
    /// The share of submissions that are accepted, and then the connection is cut before the answer.
    pub lost_reply: f64,
    /// The share of downloads cut half way.
    pub cut: f64,
    /// The share of status calls answered 200 with an HTML page.
    pub html_status: f64,
    /// The share of downloads answered 200 with an HTML page.
    pub html_download: f64,
    /// How many downloads of each job are answered 404 though it has succeeded.
    pub not_ready: u32,
    /// How many calls a second are let through; others are answered 429. Zero is no limit.
    pub rate_limit: usize,
    /// What `Retry-After` says with 503 and 429, in seconds. `None` leaves the header out.
    pub retry_after: Option<u64>,
    /// How long a token lives. `None` is an hour.
    pub token_life: Option<Duration>,
    /// Final status codes other than 20, each with its share of the jobs.
    pub codes: Vec<(i64, f64)>,
}

/// How often each thing was asked before.
pub(crate) type Turns = HashMap<(&'static str, u64), u64>;

impl Shared {
    /// Whether a fault of this kind strikes what `key` stands for, this time.
    pub(crate) fn strikes(&self, fault: &'static str, key: u64, share: f64) -> bool {
        if share <= 0.0 {
            return false;
        }
        let turn = {
            let mut turns = lock(&self.turns);
            let turn = turns.entry((fault, key)).or_default();
            *turn += 1;
            *turn
        };
        let seed = hash(fault.as_bytes()) ^ mix(self.config.faults.seed) ^ mix(key) ^ mix(turn).rotate_left(17);
        let strikes = unit(seed) < share;
        if strikes {
            self.bump(fault);
        }
        strikes
    }

    /// Whether this call is one too many within a second.
    pub(crate) fn is_too_much(&self) -> bool {
        let limit = self.config.faults.rate_limit;
        if limit == 0 {
            return false;
        }
        let (mut recent, now) = (lock(&self.recent), Instant::now());
        while recent.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(1)) {
            recent.pop_front();
        }
        if recent.len() >= limit {
            return true;
        }
        recent.push_back(now);
        false
    }
}

impl Faults {
    /// How a job ends that stands for `key`.
    pub(crate) fn final_code(&self, key: u64) -> i64 {
        let mut left = unit(mix(key) ^ mix(self.seed).rotate_left(31));
        for &(code, share) in &self.codes {
            left -= share;
            if left < 0.0 {
                return code;
            }
        }
        20
    }
}

/// FNV-1a.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// SplitMix64's finaliser.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn unit(seed: u64) -> f64 {
    (mix(seed) >> 11) as f64 / (1u64 << 53) as f64
}
