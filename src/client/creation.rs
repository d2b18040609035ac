//! Who makes which things just now, so that two calls that make alike ones don't take each other's.
//!
//! A reply to a creation that was lost is looked for in a list. That look is alone among calls for like things: it waits until
//! none of them is on its way, and they wait while it lasts.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

/// How many kinds of things, and how many ids of each, are remembered: what was made here is never taken for something whose
/// reply was lost.
const REMEMBERED: usize = 10_000;

/// What tells like things: a digest of all that is sent.
pub(crate) type Likeness = [u8; 32];

/// Who makes which things just now, on one connection and its clones.
pub(crate) struct Creations {
    like: Mutex<HashMap<Likeness, Like>>,
    changed: Condvar,
}

/// The calls that make like things.
#[derive(Default)]
struct Like {
    posting: usize,
    searching: bool,
    taken: HashSet<String>,
}

impl Creations {
    pub(crate) fn new() -> Creations {
        Creations { like: Mutex::new(HashMap::new()), changed: Condvar::new() }
    }

    /// Leave to make one. `false` while a lost one is looked for. [`end_post`](Creations::end_post) must follow.
    pub(crate) fn try_begin_post(&self, likeness: &Likeness) -> bool {
        self.with(likeness, |like| {
            let may = !like.searching;
            like.posting += usize::from(may);
            may
        })
    }

    /// One is made, with this id, or not.
    pub(crate) fn end_post(&self, likeness: &Likeness, id: Option<&str>) {
        self.with(likeness, |like| {
            like.posting -= 1;
            like.taken.extend(id.map(str::to_owned));
        });
    }

    /// Leave to look for a lost one: the ids that aren't it. `None` while others are at it.
    pub(crate) fn try_begin_search(&self, likeness: &Likeness) -> Option<HashSet<String>> {
        self.with(likeness, |like| {
            let may = !like.searching && like.posting == 0;
            like.searching |= may;
            may.then(|| like.taken.clone())
        })
    }

    /// The look is over, and has found one, or not.
    pub(crate) fn end_search(&self, likeness: &Likeness, id: Option<&str>) {
        self.with(likeness, |like| {
            like.searching = false;
            like.taken.extend(id.map(str::to_owned));
        });
    }

    /// Waits until something changes.
    pub(crate) fn wait_for_change(&self) {
        let mut like = self.like.lock();
        // Looks again now and then, too: a change between the refusal and this lock went unseen.
        let _ = self.changed.wait_until(&mut like, Instant::now() + Duration::from_millis(100));
    }

    fn with<T>(&self, likeness: &Likeness, change: impl FnOnce(&mut Like) -> T) -> T {
        let mut all = self.like.lock();
        if all.len() >= REMEMBERED && !all.contains_key(likeness) {
            all.retain(|_, like| like.searching || like.posting > 0);
        }
        let like = all.entry(*likeness).or_default();
        if like.taken.len() >= REMEMBERED {
            like.taken.clear();
        }
        let result = change(like);
        drop(all);
        self.changed.notify_all();
        result
    }
}
