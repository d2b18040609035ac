//! Per-key accessor/modifier order as plain data: no threads, no locks, no clock.
//!
//! The entries of one lane behave as if they ran in the order in which they entered. Accessors
//! share the lane, and a modifier runs alone. No entry overtakes an earlier one that it clashes
//! with, so none starves. A lane exists only while it has entries, so an idle key costs nothing.
//!
//! ```text
//! lane:  A1 A2 | M3 A4 A5 M6 A7        admitted | deferred ("the gate")
//!        A1 and A2 leave:  M3 | A4 A5 M6 A7
//!        M3 leaves:        A4 A5 | M6 A7      all accessors up to the next modifier start at once
//! ```
//!
//! The owner runs the admitted entries, and calls [`leave`](Lanes::leave) when one has ended. Every
//! call is O(1), plus O(1) for each entry that it admits.
//!
//! Source: Courtois, Heymans, Parnas, "Concurrent Control with Readers and Writers", CACM 14(10),
//! 1971, with a queue so that neither side starves.

mod key;
mod slab;

pub(crate) use key::{KeyHasher, LaneKey};

use key::LaneMap;
use slab::Slab;

/// Names an entry from `enter` until `leave`.
pub(crate) type Ticket = u32;

/// The order of all keys.
pub(crate) struct Lanes<T> {
    lanes: Slab<Lane>,
    entries: Slab<Entry<T>>,
    index: LaneMap,
}

/// The end of a list. A ticket with this reserved value is half the size of an `Option<Ticket>`.
const NONE: Ticket = Ticket::MAX;

/// One key's entries, as a doubly linked list in the order in which they entered. The entries
/// before `gate` are admitted, which means that they may run. `gate` and the entries behind it are
/// deferred, which means that they wait.
struct Lane {
    key: LaneKey,
    first: Ticket,
    last: Ticket,
    gate: Ticket,
    admitted: u32,
    deferred: u32,
    /// Whether the admitted entry is a modifier, which runs alone.
    alone: bool,
}

struct Entry<T> {
    item: T,
    lane: u32,
    modifier: bool,
    deferred: bool,
    /// Whether it was deferred when it entered.
    held: bool,
    prev: Ticket,
    next: Ticket,
}

impl<T> Lanes<T> {
    pub(crate) fn new() -> Lanes<T> {
        Lanes { lanes: Slab::new(), entries: Slab::new(), index: LaneMap::default() }
    }

    /// How many entries are deferred on `key`.
    pub(crate) fn backlog(&self, key: LaneKey) -> u64 {
        self.index.get(key).map_or(0, |lane| u64::from(self.lanes[lane].deferred))
    }

    /// Appends `item` to the lane of `key`, and makes the lane if the key has none. Returns its
    /// ticket, and whether it may run now; if not, the `leave` of an earlier entry hands it out
    /// later.
    ///
    /// Returns `item` as the error if there is no room for another entry or lane.
    pub(crate) fn enter(&mut self, key: LaneKey, modifier: bool, item: T) -> Result<(Ticket, bool), T> {
        let (lane_index, is_new) = match self.index.get(key) {
            Some(lane) => (lane, false),
            None => {
                // Not in the index yet: the entry itself may still be refused.
                let lane = Lane { key, first: NONE, last: NONE, gate: NONE, admitted: 0, deferred: 0, alone: false };
                match self.lanes.insert(lane) {
                    Ok(index) => (index, true),
                    Err(_) => return Err(item),
                }
            }
        };
        let prev = self.lanes[lane_index].last;
        let entry = Entry { item, lane: lane_index, modifier, deferred: true, held: false, prev, next: NONE };
        let ticket = match self.entries.insert(entry) {
            Ok(ticket) => ticket,
            Err(entry) => {
                if is_new {
                    self.lanes.remove(lane_index);
                }
                return Err(entry.item);
            }
        };
        if is_new {
            self.index.insert(key, lane_index);
        }
        let lane = &mut self.lanes[lane_index];
        lane.last = ticket;
        lane.deferred += 1;
        match prev {
            NONE => lane.first = ticket,
            prev => self.entries[prev].next = ticket,
        }
        let lane = &mut self.lanes[lane_index];
        // If another entry is the gate, this one waits behind it. Otherwise all earlier ones are
        // admitted, and this one may be, too.
        if lane.gate == NONE {
            lane.gate = ticket;
            self.admit(lane_index, |_| {});
        }
        let entry = &mut self.entries[ticket];
        entry.held = entry.deferred;
        Ok((ticket, !entry.held))
    }

    /// Takes out an entry that has ended, or that was cancelled while it waited. Calls `released`,
    /// in order, with each entry that may run now because of that. Returns the key.
    pub(crate) fn leave(&mut self, ticket: Ticket, released: impl FnMut(&T)) -> LaneKey {
        let entry = self.entries.remove(ticket);
        let lane = &mut self.lanes[entry.lane];
        let key = lane.key;
        match entry.prev {
            NONE => lane.first = entry.next,
            prev => self.entries[prev].next = entry.next,
        }
        match entry.next {
            NONE => lane.last = entry.prev,
            next => self.entries[next].prev = entry.prev,
        }
        if lane.gate == ticket {
            lane.gate = entry.next;
        }
        if entry.deferred {
            lane.deferred -= 1;
        } else {
            lane.admitted -= 1;
        }
        if lane.first != NONE {
            self.admit(entry.lane, released);
        } else {
            self.lanes.remove(entry.lane);
            self.index.remove(key);
        }
        key
    }

    /// The number of the lane that an entry is on.
    pub(crate) fn lane(&self, ticket: Ticket) -> u32 {
        self.entries[ticket].lane
    }

    /// The key of the lane that an entry is on.
    pub(crate) fn key(&self, ticket: Ticket) -> LaneKey {
        self.lanes[self.entries[ticket].lane].key
    }

    /// Whether an entry waits for others on its lane.
    pub(crate) fn is_deferred(&self, ticket: Ticket) -> bool {
        self.entries[ticket].deferred
    }

    /// The admitted entries on the lane of `ticket`. If `ticket` is deferred, they have to leave
    /// before it can start.
    pub(crate) fn admitted(&self, ticket: Ticket) -> impl Iterator<Item = &T> {
        let mut at = self.lanes[self.entries[ticket].lane].first;
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let entry = &self.entries[at];
            at = entry.next;
            (!entry.deferred).then_some(&entry.item)
        })
    }

    /// All entries, lane by lane, the last of each lane first, and whether each was deferred when
    /// it entered.
    pub(crate) fn backwards(&self) -> impl Iterator<Item = (&T, bool)> {
        self.lanes.values().flat_map(move |lane| {
            let mut at = lane.last;
            std::iter::from_fn(move || {
                let entry = (at != NONE).then(|| &self.entries[at])?;
                at = entry.prev;
                Some((&entry.item, entry.held))
            })
        })
    }

    /// Admits entries from the gate on until one clashes with those that are admitted, and calls
    /// `released` with each.
    fn admit(&mut self, lane: u32, mut released: impl FnMut(&T)) {
        let lane = &mut self.lanes[lane];
        while lane.gate != NONE {
            let entry = &mut self.entries[lane.gate];
            // A modifier needs the lane for itself, and nothing joins one.
            let clashes = lane.admitted > 0 && (entry.modifier || lane.alone);
            if clashes {
                break;
            }
            entry.deferred = false;
            lane.admitted += 1;
            lane.deferred -= 1;
            lane.alone = entry.modifier;
            lane.gate = entry.next;
            released(&entry.item);
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.lanes.is_empty() && self.index.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(keys: &KeyHasher, name: &str) -> LaneKey {
        keys.key(1, Some(name))
    }

    /// Enters `kinds` (`a` accessor, `m` modifier) on one key; the item is the position.
    fn lane_of(kinds: &str) -> (Lanes<usize>, Vec<Ticket>, Vec<bool>) {
        let (mut lanes, keys) = (Lanes::new(), KeyHasher::new());
        let entered = kinds.bytes().enumerate();
        let (tickets, ready) =
            entered.map(|(position, kind)| enter(&mut lanes, key(&keys, "k"), kind == b'm', position)).unzip();
        (lanes, tickets, ready)
    }

    fn enter(lanes: &mut Lanes<usize>, key: LaneKey, modifier: bool, item: usize) -> (Ticket, bool) {
        lanes.enter(key, modifier, item).expect("fewer than 2^32 entries")
    }

    fn leave(lanes: &mut Lanes<usize>, ticket: Ticket) -> Vec<usize> {
        let mut released = Vec::new();
        lanes.leave(ticket, |item| released.push(*item));
        released
    }

    #[test]
    fn accessors_share_and_nobody_overtakes_a_waiting_modifier() {
        let (mut lanes, tickets, ready) = lane_of("aamaama");
        assert_eq!(ready, [true, true, false, false, false, false, false]);
        assert_eq!(leave(&mut lanes, tickets[1]), [] as [usize; 0], "one accessor still runs");
        assert_eq!(leave(&mut lanes, tickets[0]), [2]);
        assert_eq!(leave(&mut lanes, tickets[2]), [3, 4], "all accessors up to the next modifier");
        assert_eq!(leave(&mut lanes, tickets[3]), [] as [usize; 0]);
        assert_eq!(leave(&mut lanes, tickets[4]), [5]);
        assert_eq!(leave(&mut lanes, tickets[5]), [6]);
        assert_eq!(leave(&mut lanes, tickets[6]), [] as [usize; 0]);
        assert!(lanes.is_empty(), "an idle key costs nothing");
    }

    #[test]
    fn a_cancelled_modifier_lets_the_accessors_behind_it_join_those_that_run() {
        let (mut lanes, tickets, _) = lane_of("amaam");
        assert_eq!(leave(&mut lanes, tickets[1]), [2, 3]);
        assert_eq!(lanes.admitted(tickets[4]).copied().collect::<Vec<_>>(), [0, 2, 3]);
    }

    #[test]
    fn all_entries_are_seen_the_last_of_each_lane_first() {
        let (mut lanes, tickets, _) = lane_of("ama");
        let other = key(&KeyHasher::new(), "other");
        enter(&mut lanes, other, true, 10);
        enter(&mut lanes, other, true, 11);
        leave(&mut lanes, tickets[0]);
        let seen: Vec<_> = lanes.backwards().map(|(item, held)| (*item, held)).collect();
        assert_eq!(seen, [(2, true), (1, true), (11, true), (10, false)]);
    }

    #[test]
    fn keys_do_not_know_each_other() {
        let (mut lanes, keys) = (Lanes::new(), KeyHasher::new());
        assert!(enter(&mut lanes, key(&keys, "AAPL"), true, 0).1);
        assert!(enter(&mut lanes, key(&keys, "MSFT"), true, 1).1, "another key");
        assert!(enter(&mut lanes, keys.key(2, Some("AAPL")), true, 2).1, "another store");
        assert!(enter(&mut lanes, keys.key(1, None), true, 3).1, "no key is a lane of its own");
        assert!(!enter(&mut lanes, key(&keys, "AAPL"), false, 4).1);
    }

    /// Random numbers below the argument, the same for the same seed.
    pub(super) fn random() -> impl FnMut(usize) -> usize {
        let seed = std::env::var("FULMAR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_u64);
        println!("seed {seed} (set FULMAR_SEED to repeat another)");
        let mut state = seed | 1;
        move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        }
    }

    /// The promise read off the definition: an entry may run when no earlier one that it clashes
    /// with is still there.
    #[test]
    fn any_sequence_agrees_with_the_definition() {
        let mut random = random();
        let (mut lanes, keys) = (Lanes::new(), KeyHasher::new());
        // (lane, modifier, running, ticket, item), in order of entry
        let mut model: Vec<(usize, bool, bool, Ticket, usize)> = Vec::new();
        for item in 0..20_000 {
            if model.is_empty() || random(100) < 52 {
                let (lane, modifier) = (random(3), random(3) == 0);
                let (ticket, ready) = enter(&mut lanes, keys.key(lane, None), modifier, item);
                model.push((lane, modifier, ready, ticket, item));
            } else {
                let (lane, _, _, ticket, _) = model.remove(random(model.len()));
                let mut released = Vec::new();
                assert_eq!(lanes.leave(ticket, |item| released.push(*item)), keys.key(lane, None));
                for entry in &mut model {
                    entry.2 |= released.contains(&entry.4);
                }
            }
            for (position, entry) in model.iter().enumerate() {
                let clash = model[..position].iter().any(|earlier| earlier.0 == entry.0 && (earlier.1 || entry.1));
                assert_eq!(entry.2, !clash, "item {} of lane {} after step {item}", entry.4, entry.0);
            }
            if model.len() > 60 {
                let (_, _, _, ticket, _) = model.remove(0);
                let mut released = Vec::new();
                lanes.leave(ticket, |item| released.push(*item));
                for entry in &mut model {
                    entry.2 |= released.contains(&entry.4);
                }
            }
        }
    }

    #[test]
    fn a_hundred_thousand_idle_keys_leave_no_memory_behind() {
        const KEYS: usize = 100_000;
        // None of them stays, or the first, one in the middle, or the last.
        for stays in [None, Some(0), Some(KEYS / 2), Some(KEYS - 1)] {
            let (mut lanes, keys) = (Lanes::new(), KeyHasher::new());
            let tickets: Vec<Ticket> =
                (0..KEYS).map(|n| enter(&mut lanes, key(&keys, &n.to_string()), true, n).0).collect();
            for (n, ticket) in tickets.iter().enumerate().filter(|(n, _)| Some(*n) != stays) {
                assert_eq!(lanes.leave(*ticket, |_| {}), key(&keys, &n.to_string()));
            }
            assert_eq!(lanes.is_empty(), stays.is_none());
            assert!(lanes.entries.capacity() < 1_000, "{} entries kept for {stays:?}", lanes.entries.capacity());
            assert!(lanes.lanes.capacity() < 1_000, "{} lanes kept for {stays:?}", lanes.lanes.capacity());
            assert!(lanes.index.capacity() < 1_000, "{} index slots kept for {stays:?}", lanes.index.capacity());
            if let Some(n) = stays {
                assert!(!enter(&mut lanes, key(&keys, &n.to_string()), false, KEYS).1, "it is still there");
                assert_eq!(leave(&mut lanes, tickets[n]), [KEYS]);
            }
        }
    }
}
