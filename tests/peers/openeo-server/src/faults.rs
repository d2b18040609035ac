//! What goes wrong, and when: as a test has planned it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, and nothing is done. From 500 on by a page of a gateway.
    Status(u16),
    /// It is refused with this status and openEO's code for an error, and nothing is done.
    Refused(u16, &'static str),
    /// It is refused with openEO's `JobNotFound`, and 404.
    NotFound,
    /// It is refused as `ConcurrentJobLimit`.
    TooManyJobs,
    /// It is done, and answered with this status and a page of a gateway.
    DoneBut(u16),
    /// It is answered with 202 as if it were done, and nothing is done.
    Forgotten,
    /// It is done, and the connection is cut before the answer.
    LostReply,
    /// The connection is cut, and nothing is done.
    Cut,
    /// It is answered, and the connection is cut after so many bytes of the body.
    CutAt(usize),
    /// As [`CutAt`](Fault::CutAt), and then all tokens expire.
    CutThenExpire(usize),
    /// It is done when the test lets it go on.
    Hang,
    /// It is sent on with this status to a neighbour: a path of the same host that isn't below the API's root.
    Redirect(u16),
    /// The last byte of the body is another.
    Damaged,
    /// The link has expired: 410, `ResultLinkExpired`.
    Expired,
}

#[derive(Default)]
pub(crate) struct Plans(VecDeque<Plan>);

struct Plan {
    kind: &'static str,
    title: Option<String>,
    fault: Fault,
    times: usize,
}

impl Plans {
    pub(crate) fn add(&mut self, kind: &'static str, title: Option<String>, fault: Fault, times: usize) {
        self.0.push_back(Plan { kind, title, fault, times });
    }

    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// What strikes this call, if anything does.
    pub(crate) fn strike(&mut self, kind: &str, title: Option<&str>) -> Option<Fault> {
        let is_for = |plan: &&mut Plan| {
            plan.kind == kind && plan.times > 0 && plan.title.as_deref().is_none_or(|wanted| title == Some(wanted))
        };
        let plan = self.0.iter_mut().find(is_for)?;
        plan.times -= 1;
        Some(plan.fault)
    }
}

/// What strikes by chance: each call with this probability, by one of the kinds in turn. Which ones follows from the seed.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// Where chance begins.
    pub seed: u64,
    /// The share of calls that are struck, from 0 to 1.
    pub share: f64,
    /// How long a delayed call takes; every fourth of them takes ten times as long, before it is done.
    pub delay: Duration,
}

/// What strikes a call by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It is done, and the connection is cut before the answer.
    Lost,
    /// It is answered, and the connection cut within the answer.
    Cut,
    /// The connection is reset, before or after it is done.
    Reset { done: bool },
    /// It is refused by what stands before the back-end.
    Refused(u16),
    /// It is done after a while.
    Delayed(Duration),
}

/// How often each call came.
#[derive(Default)]
pub(crate) struct Turns(HashMap<u64, u64>);

impl Turns {
    /// What strikes this call, if anything does.
    pub(crate) fn strike(&mut self, chaos: &Chaos, call: &str) -> Option<Blow> {
        let key = mix(call.bytes().fold(chaos.seed, |sum, byte| mix(sum ^ u64::from(byte))));
        let turn = self.0.entry(key).or_default();
        *turn += 1;
        let chance = mix(key ^ turn.rotate_left(32));
        if (chance >> 11) as f64 / (1u64 << 53) as f64 >= chaos.share {
            return None;
        }
        let which = mix(chance);
        Some(match which % 5 {
            0 => Blow::Lost,
            1 => Blow::Cut,
            2 => Blow::Reset { done: which & 32 == 0 },
            3 => Blow::Refused(if which & 32 == 0 { 502 } else { 503 }),
            _ => Blow::Delayed(if which & 96 == 0 { chaos.delay * 10 } else { chaos.delay }),
        })
    }
}

/// SplitMix64. (Steele, Lea, Flood, 2014)
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
