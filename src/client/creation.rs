//! Creates something (a job, a query) on a remote service exactly once, even if a reply is lost.
//!
//! If a `POST` may have arrived, this doesn't just repeat it. It looks in the service's list for
//! what the `POST` may have created. It creates it again only if the list is known to be complete
//! and none of its entries can be the one. If that can't be proven, the caller gets
//! [`Failure::Unclear`]. No decision rests on a clock alone: a time that doesn't fit raises a
//! doubt, but proves nothing.
//!
//! ```text
//! post -> answered: made
//!      -> refused: an error
//!      -> lost: look -> one of the list is it: found
//!                    -> the list is whole and has nothing alike: post again
//!                    -> in doubt, or the server may still be at it: unclear
//! ```
//!
//! Several calls may create equal things at the same time. Each entry of the list goes to one of
//! them only, and a call claims none while another such call is still waiting for its reply.
//!
//! Left to the client of a service ([`Maker`]): how to send the request, how to read the list, and
//! how to compare an entry with the request.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Condvar, Mutex};

/// How often a request is sent at most.
const POSTS: u32 = 3;

/// How often to look in the list if the server may still be creating it.
const LOOKS: u32 = 3;

/// How long after a lost reply to look for the first time: the server may still be creating it.
const SETTLED: Duration = Duration::from_millis(500);

/// How much a service's clocks may differ from each other, and from ours within the time of a look,
/// in milliseconds.
const SLACK: i64 = 10_000;

/// How many ids are remembered at least: the last ones, because a look is for what is new.
const REMEMBERED: usize = 100_000;

/// For how many entries of a list the details are read.
const CANDIDATES: usize = 50;

/// A digest of all that is sent: the same for equal requests.
pub(crate) type Likeness = [u8; 32];

/// Whether an entry of the service may be what a request created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// All that the service says about it fits.
    Same,
    /// It can't be ruled out.
    Possible,
    /// It is certainly another.
    Different,
    /// The service doesn't know the entry that it has listed: it was deleted meanwhile, or it is so
    /// new that not all of the service's machines know it. Another look may tell.
    #[cfg_attr(not(feature = "openeo"), allow(dead_code, reason = "PAIRS' client never says so"))]
    Unknown,
}

/// An entry of a service's list.
pub(crate) struct Listed {
    pub(crate) id: String,
    /// When it was created, in milliseconds since 1970 by the service's clock.
    pub(crate) created: Option<i64>,
    /// How it matches by what the list says. Never `Same`, because lists have no details.
    pub(crate) alike: Match,
}

/// A part of a service's list, as far as it could be read.
pub(crate) struct Listing {
    pub(crate) entries: Vec<Listed>,
    /// The `Date` of the service's reply.
    pub(crate) date: Option<String>,
    /// Why it may be incomplete; `None` if it is complete.
    pub(crate) gap: Option<String>,
    /// Whether another part follows.
    pub(crate) has_more: bool,
}

/// After a failed `POST`: whether the service may have done it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It certainly hasn't.
    None,
    /// It may have done it. The server has answered, or has closed the connection.
    Lost,
    /// A proxy has answered in its place: it may have done it, or do it a little later.
    Behind,
    /// It may have done it, or may still do it: only our wait for the reply has ended.
    UnderWay,
    /// The server says that it has done it, but not under which id.
    Unnamed,
}

/// How one thing is created, listed and compared on a service. Each method is one call.
pub(crate) trait Maker {
    type Made;
    type Error: Display;

    /// Sends the request that creates it, and returns the service's reply.
    fn post(&self) -> Result<Self::Made, Self::Error>;
    /// The id of what was created, if the list has it.
    fn id_of<'a>(&self, made: &'a Self::Made) -> Option<&'a str>;
    /// Whether the service may have created it, although `post` failed by `error`.
    fn doubt(&self, error: &Self::Error) -> Doubt;
    /// Whether a `POST` that failed by `error`, and surely made nothing, may succeed if it is sent
    /// again.
    fn may_pass(&self, error: &Self::Error) -> bool;
    /// Reads a part of the list, counted from 1. If there are several parts, the newest entries
    /// come first.
    fn list(&self, part: u32) -> Result<Listing, Self::Error>;
    /// Reads the details of an entry, and compares them with the request.
    fn compare(&self, id: &str) -> Result<Match, Self::Error>;
}

/// What this process has created or is creating on one service as one user, and what it has seen in
/// the lists.
#[derive(Default)]
pub(crate) struct Ledger {
    state: Arc<Mutex<State>>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// For each digest: how many calls are waiting for their replies.
    posting: HashMap<Likeness, usize>,
    /// For each digest: how many calls have lost their replies and are looking for what they
    /// created.
    lost: HashMap<Likeness, usize>,
    /// The ids that calls of this process have created or found. If the reply came, with the times
    /// of its call's begin and end.
    own: Recent<Option<(Instant, Instant)>>,
    /// When each id was first known to exist.
    seen: Recent<Instant>,
}

/// What is known of ids, of which the older ones are forgotten some time.
struct Recent<T> {
    newer: HashMap<String, T>,
    older: HashMap<String, T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent { newer: HashMap::new(), older: HashMap::new() }
    }
}

impl<T> Recent<T> {
    fn get(&self, id: &str) -> Option<&T> {
        self.newer.get(id).or_else(|| self.older.get(id))
    }

    fn contains(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    fn insert(&mut self, id: &str, value: T) {
        self.newer.insert(id.to_owned(), value);
        if self.newer.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.newer);
        }
    }
}

impl Ledger {
    /// Notes the entries of a list that was just read: none of them can be what a later call
    /// creates.
    pub(crate) fn note_seen<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for id in ids {
            if !state.seen.contains(id) {
                state.seen.insert(id, now);
            }
        }
    }

    /// Waits until a call ends, for at most `limit`.
    #[cfg(feature = "openeo")]
    pub(crate) fn wait_for_change(&self, limit: Duration) {
        let mut state = self.state.lock();
        let _ = self.changed.wait_until(&mut state, Instant::now() + limit);
    }

    /// Whether a call with this digest is waiting for its reply.
    pub(crate) fn is_posting(&self, likeness: &Likeness) -> bool {
        self.state.lock().posting.contains_key(likeness)
    }

    fn begin_post(&self, likeness: Likeness) -> Posting<'_> {
        *self.state.lock().posting.entry(likeness).or_default() += 1;
        Posting { ledger: self, likeness }
    }

    fn own(&self, id: &str, made: Option<(Instant, Instant)>) {
        self.state.lock().own.insert(id, made);
    }

    /// Gives `call`, whose reply was lost, one of the entries in `same` as its own. These are the
    /// listed entries that equal what it sent; those in `doubtful` may be it. First removes from
    /// both the entries that other calls of this process have. Then, in this order:
    ///
    /// - `Nothing` if both are empty.
    /// - `NotYet` while a like call waits for its reply: an entry may be that call's.
    /// - `Nothing` if `same` has more entries than calls of this process have lost: then another
    ///   process has created some of them, and none can be told from the others. They are moved to
    ///   the front of `doubtful`.
    /// - `Taken` with the first of `same`: the ledger notes it as this call's, and the call no
    ///   longer counts as lost. Like calls want equal things, so each may take any of the entries.
    /// - `Nothing` if `same` is empty.
    ///
    /// All of this happens under one lock. Between two, a like call could end: then its entry would
    /// be counted without the call, or the call without its entry.
    fn claim(&self, call: &mut Counted, mut same: Vec<String>, doubtful: &mut Vec<String>) -> Claim {
        let mut state = self.state.lock();
        same.retain(|id| !state.own.contains(id));
        doubtful.retain(|id| !state.own.contains(id));
        if same.is_empty() && doubtful.is_empty() {
            return Claim::Nothing;
        }
        if state.posting.contains_key(&call.likeness) {
            return Claim::NotYet;
        }
        // The count includes `call` itself. Of more entries than lost calls, some are another
        // process's.
        if same.len() > state.lost.get(&call.likeness).copied().unwrap_or(0) {
            doubtful.splice(0..0, same);
            return Claim::Nothing;
        }
        match same.into_iter().next() {
            None => Claim::Nothing,
            Some(id) => {
                state.own.insert(&id, None);
                call.end(&mut state);
                Claim::Taken(id)
            }
        }
    }

    /// Whether an entry can be what a call created that began at `began`: no other call has it, and
    /// it didn't exist before.
    fn may_be_of(&self, id: &str, began: Instant) -> bool {
        let state = self.state.lock();
        !state.own.contains(id) && state.seen.get(id).is_none_or(|since| *since > began)
    }
}

/// What came of claiming an entry.
enum Claim {
    /// The entry of this id is the call's.
    Taken(String),
    /// A like call is waiting for its reply, and may have created what was found.
    NotYet,
    /// No entry is the call's for sure.
    Nothing,
}

/// A `POST` that waits for its reply. Dropping it ends it.
struct Posting<'a> {
    ledger: &'a Ledger,
    likeness: Likeness,
}

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        count_down(&mut self.ledger.state.lock().posting, &self.likeness);
        self.ledger.changed.notify_all();
    }
}

/// The creation of one thing, in steps. A step is one call or one search, and doesn't wait.
pub(crate) struct Creation<E> {
    likeness: Likeness,
    lost: Option<Lost<E>>,
    posts: u32,
    /// When the first call began whose reply was lost: what it creates may appear late.
    since: Option<Instant>,
}

/// A call whose reply was lost.
struct Lost<E> {
    error: E,
    looks: u32,
    doubt: Doubt,
    counted: Counted,
}

/// Counts a call as one that looks for what it created, until it is dropped.
struct Counted {
    state: Arc<Mutex<State>>,
    likeness: Likeness,
    has_ended: bool,
}

impl Counted {
    fn new(ledger: &Ledger, likeness: Likeness) -> Counted {
        *ledger.state.lock().lost.entry(likeness).or_default() += 1;
        Counted { state: Arc::clone(&ledger.state), likeness, has_ended: false }
    }

    fn end(&mut self, state: &mut State) {
        if !std::mem::replace(&mut self.has_ended, true) {
            count_down(&mut state.lost, &self.likeness);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        self.end(&mut state.lock());
    }
}

fn count_down(counts: &mut HashMap<Likeness, usize>, likeness: &Likeness) {
    if let Some(count) = counts.get_mut(likeness) {
        *count -= 1;
        if *count == 0 {
            counts.remove(likeness);
        }
    }
}

/// The outcome of a step.
#[derive(Debug)]
pub(crate) enum Step<M> {
    /// It was created, and this is the service's reply.
    Made(M),
    /// It was found in the list, with this id.
    Found(String),
    /// The reply was lost: step again after this time, to look for it.
    Look(Duration),
    /// It doesn't exist: step again, to create it again.
    Again,
    /// Step again when the other calls for equal things have ended.
    NotYet,
}

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    /// The service refused, or couldn't be reached: nothing was created.
    Refused(E),
    /// The list or the details of an entry couldn't be read: another step may succeed.
    NoLook(E),
    /// It may exist, and nothing more can be found out, for this reason.
    Unclear(String),
}

impl<E> Creation<E> {
    pub(crate) fn new(likeness: Likeness) -> Creation<E> {
        Creation { likeness, lost: None, posts: 0, since: None }
    }

    /// The error with which the reply was lost, if it may exist because of that.
    pub(crate) fn lost_by(&self) -> Option<&E> {
        self.lost.as_ref().map(|lost| &lost.error)
    }

    /// The error with which the reply was lost, as the source of the caller's error after
    /// [`Failure::Unclear`].
    pub(crate) fn into_lost(self) -> Option<E> {
        self.lost.map(|lost| lost.error)
    }

    /// Does one step: a call or a search. After [`Failure::NoLook`] it can be called again, and
    /// continues.
    pub(crate) fn advance<M>(&mut self, ledger: &Ledger, maker: &M) -> Result<Step<M::Made>, Failure<E>>
    where
        M: Maker<Error = E>,
    {
        if self.lost.is_some() { self.look(ledger, maker) } else { self.post(ledger, maker) }
    }

    /// Sends the request once. Meanwhile the ledger counts this call as one that waits for its
    /// reply.
    ///
    /// `Made` if the service has replied. `Look` if the reply was lost: from then on the ledger
    /// counts the call as lost, and the next step searches the list. `Failure::Refused` if surely
    /// nothing was created.
    fn post<M>(&mut self, ledger: &Ledger, maker: &M) -> Result<Step<M::Made>, Failure<E>>
    where
        M: Maker<Error = E>,
    {
        let began = Instant::now();
        // Until this returns: by then the ledger has the id, or counts this call as lost. In
        // between, a like call would take what this one has created for another process's.
        let _posting = ledger.begin_post(self.likeness);
        self.posts += 1;
        let error = match maker.post() {
            Ok(made) => {
                if let Some(id) = maker.id_of(&made) {
                    ledger.own(id, Some((began, Instant::now())));
                }
                return Ok(Step::Made(made));
            }
            Err(error) => error,
        };
        let doubt = maker.doubt(&error);
        if doubt == Doubt::None {
            return Err(Failure::Refused(error));
        }
        self.since.get_or_insert(began);
        self.lost = Some(Lost { error, looks: 0, doubt, counted: Counted::new(ledger, self.likeness) });
        Ok(Step::Look(SETTLED))
    }

    /// Searches the service's list for what the call with the lost reply may have created: reads
    /// the whole list, and the details of the entries that may be it.
    ///
    /// - `Found` if one entry is this call's. `NotYet` if a like call waits for its reply.
    /// - `Look` if another look may tell more; it is looked for in vain `LOOKS` times at most.
    /// - `Again` if it surely doesn't exist, and may be sent once more; otherwise
    ///   `Failure::Refused` with the error of the lost call.
    /// - `Failure::NoLook` if the list can't be read, and `Failure::Unclear` if nothing can be
    ///   proven.
    fn look<M>(&mut self, ledger: &Ledger, maker: &M) -> Result<Step<M::Made>, Failure<E>>
    where
        M: Maker<Error = E>,
    {
        let (Some(lost), Some(since)) = (&mut self.lost, self.since) else { return Ok(Step::Again) };
        if ledger.is_posting(&self.likeness) {
            return Ok(Step::NotYet);
        }
        let (mut same, mut doubtful, mut unknown, mut gap) = (Vec::new(), Vec::new(), None, None);
        // New entries move older ones to the next part, where they come a second time.
        let mut compared = HashSet::new();
        for part in 1.. {
            let list = maker.list(part).map_err(Failure::NoLook)?;
            let window = Window::new(ledger, &list, since);
            ledger.note_seen(list.entries.iter().map(|entry| entry.id.as_str()));
            let mut candidates: Vec<Listed> = list.entries;
            candidates.retain(|entry| entry.alike != Match::Different && ledger.may_be_of(&entry.id, since));
            // Compare first those whose time fits, and of these the newest.
            candidates
                .sort_by_key(|entry| (window.fits(entry.created) == Some(false), std::cmp::Reverse(entry.created)));
            for entry in candidates {
                if !compared.insert(entry.id.clone()) {
                    continue;
                }
                let is_too_many = compared.len() > CANDIDATES;
                let alike = if is_too_many { Ok(Match::Possible) } else { maker.compare(&entry.id) };
                match (alike.map_err(Failure::NoLook)?, window.fits(entry.created)) {
                    (Match::Different, _) => {}
                    (Match::Unknown, _) => unknown = Some(entry.id),
                    (Match::Same, Some(true)) => same.push(entry.id),
                    // If its time isn't known, it may be older than the call.
                    _ => doubtful.push(entry.id),
                }
            }
            gap = gap.or(list.gap);
            if !list.has_more {
                break;
            }
        }
        match ledger.claim(&mut lost.counted, same, &mut doubtful) {
            Claim::Taken(id) => {
                self.lost = None;
                return Ok(Step::Found(id));
            }
            Claim::NotYet => return Ok(Step::NotYet),
            Claim::Nothing => {}
        }
        if !doubtful.is_empty() {
            doubtful.truncate(5);
            return Err(Failure::Unclear(format!("it may be {}", doubtful.join(" or "))));
        }
        gap = gap.or_else(|| unknown.map(|id| format!("it has {id}, of which the server knows no details")));
        lost.looks += 1;
        // The server may still be creating it, or the list may be complete the next time.
        if lost.looks < LOOKS && (lost.doubt != Doubt::Lost || gap.is_some()) {
            return Ok(Step::Look(SETTLED * 2u32.pow(lost.looks)));
        }
        // No list can prove that the server isn't still creating it.
        let unclear = match (lost.doubt, gap) {
            (Doubt::Unnamed, _) => Some("it isn't in the list, but the server said that it was made".to_owned()),
            (Doubt::UnderWay, _) => Some("it isn't in the list, but the server may still be making it".to_owned()),
            (_, Some(gap)) => Some(format!("it isn't in the list, which may lack some: {gap}")),
            (_, None) => None,
        };
        if let Some(why) = unclear {
            return Err(Failure::Unclear(why));
        }
        match self.lost.take() {
            Some(lost) if self.posts >= POSTS || !maker.may_pass(&lost.error) => Err(Failure::Refused(lost.error)),
            _ => Ok(Step::Again),
        }
    }
}

/// The times of the service's clock between which a call with a lost reply can have created
/// something, in milliseconds since 1970.
#[derive(Debug, PartialEq)]
struct Window {
    earliest: i64,
    latest: i64,
}

impl Window {
    /// The window for a call that began at `began` and whose reply was lost before now.
    ///
    /// What the service's clock says now follows from an entry that this process has created: the
    /// list has its date, and the ledger when its call began and ended. Without such an entry it is
    /// the `Date` of the reply with the list, and without that our own clock.
    fn new(ledger: &Ledger, list: &Listing, began: Instant) -> Window {
        let now = Instant::now();
        let since = millis(now.saturating_duration_since(began));
        let of_own = {
            let state = ledger.state.lock();
            let own = list.entries.iter().filter_map(|entry| Some((entry.created?, (*state.own.get(&entry.id)?)?)));
            own.max_by_key(|(_, (_, ended))| *ended)
        };
        let (first, last) = match of_own {
            Some((created, (began, ended))) => (
                created.saturating_add(millis(now.saturating_duration_since(ended))),
                created.saturating_add(millis(now.saturating_duration_since(began))),
            ),
            None => {
                let date = list.date.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
                let now = millis(date.unwrap_or_else(SystemTime::now).duration_since(UNIX_EPOCH).unwrap_or_default());
                (now, now)
            }
        };
        Window { earliest: first.saturating_sub(since).saturating_sub(SLACK), latest: last.saturating_add(SLACK) }
    }

    /// Whether a time of creation is within the window; `None` if it isn't known.
    fn fits(&self, created: Option<i64>) -> Option<bool> {
        created.map(|created| (self.earliest..=self.latest).contains(&created))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A service that answers as a test has written it down.
    #[derive(Default)]
    struct Script {
        posts: RefCell<Vec<Result<&'static str, Doubt>>>,
        entries: RefCell<Vec<(&'static str, i64, Match)>>,
        gap: Option<&'static str>,
        date: Option<&'static str>,
        has_no_list: bool,
        /// How many parts have the same entries once more.
        repeats: u32,
    }

    /// `2022-06-08T08:58:21Z`.
    const DATE: &str = "Wed, 08 Jun 2022 08:58:21 GMT";
    const NOW: i64 = 1_654_678_701_000;
    /// An entry of the list that says no date.
    const UNDATED: i64 = i64::MIN;

    impl Maker for Script {
        type Made = &'static str;
        type Error = String;

        fn post(&self) -> Result<&'static str, String> {
            self.posts.borrow_mut().remove(0).map_err(|doubt| format!("{doubt:?}"))
        }

        fn id_of<'a>(&self, made: &'a &'static str) -> Option<&'a str> {
            Some(made)
        }

        fn doubt(&self, error: &String) -> Doubt {
            [Doubt::None, Doubt::Lost, Doubt::Behind, Doubt::UnderWay, Doubt::Unnamed]
                .into_iter()
                .find(|doubt| *error == format!("{doubt:?}"))
                .expect("a doubt")
        }

        fn may_pass(&self, _: &String) -> bool {
            true
        }

        fn list(&self, part: u32) -> Result<Listing, String> {
            if self.has_no_list {
                return Err("no list".to_owned());
            }
            let entry = |(id, created, _): &(&str, i64, Match)| Listed {
                id: (*id).to_owned(),
                created: (*created != UNDATED).then_some(*created),
                alike: Match::Possible,
            };
            let entries = self.entries.borrow().iter().map(entry).collect();
            Ok(Listing {
                entries,
                date: self.date.map(str::to_owned),
                gap: self.gap.map(str::to_owned),
                has_more: part <= self.repeats,
            })
        }

        fn compare(&self, id: &str) -> Result<Match, String> {
            let entries = self.entries.borrow();
            Ok(entries.iter().find(|entry| entry.0 == id).expect("an entry").2)
        }
    }

    fn script(posts: &[Result<&'static str, Doubt>], entries: &[(&'static str, i64, Match)]) -> Script {
        Script {
            posts: RefCell::new(posts.to_vec()),
            entries: RefCell::new(entries.to_vec()),
            date: Some(DATE),
            ..Script::default()
        }
    }

    /// Steps until something is final.
    fn run(ledger: &Ledger, script: &Script) -> Result<Step<&'static str>, Failure<String>> {
        let mut creation = Creation::new([0; 32]);
        loop {
            match creation.advance(ledger, script)? {
                Step::Look(_) | Step::Again => {}
                step => return Ok(step),
            }
        }
    }

    #[test]
    fn a_lost_reply_is_found_again_and_by_one_call_only() {
        let ledger = Ledger::default();
        let lost = script(&[Err(Doubt::Lost), Ok("b")], &[("a", NOW, Match::Same)]);
        assert!(matches!(run(&ledger, &lost), Ok(Step::Found(id)) if id == "a"));
        lost.posts.borrow_mut().insert(0, Err(Doubt::Lost));
        assert!(matches!(run(&ledger, &lost), Ok(Step::Made("b"))), "the first has it");
    }

    #[test]
    fn of_more_alike_than_were_lost_none_is_taken() {
        let both = || {
            let both = [("a", NOW, Match::Same), ("b", NOW, Match::Same)];
            script(&[Err(Doubt::Lost), Err(Doubt::Lost)], &both)
        };
        let alone = run(&Ledger::default(), &both());
        assert!(
            matches!(alone, Err(Failure::Unclear(why)) if why.contains("may be a or b")),
            "another process has made one of them"
        );
        // With a second call of this process, both are accounted for.
        let (ledger, lost) = (Ledger::default(), both());
        let (mut one, mut two) = (Creation::new([0; 32]), Creation::new([0; 32]));
        assert!(matches!(one.advance(&ledger, &lost), Ok(Step::Look(_))));
        assert!(matches!(two.advance(&ledger, &lost), Ok(Step::Look(_))));
        assert!(matches!(one.advance(&ledger, &lost), Ok(Step::Found(id)) if id == "a"));
        assert!(matches!(two.advance(&ledger, &lost), Ok(Step::Found(id)) if id == "b"));
    }

    #[test]
    fn an_entry_that_a_list_has_on_two_parts_is_one() {
        let lost = script(&[Err(Doubt::Lost)], &[("a", NOW, Match::Same)]);
        assert!(matches!(run(&Ledger::default(), &Script { repeats: 1, ..lost }), Ok(Step::Found(id)) if id == "a"));
        let alike = script(&[Err(Doubt::Lost)], &[("a", NOW, Match::Possible)]);
        assert!(
            matches!(run(&Ledger::default(), &Script { repeats: 1, ..alike }), Err(Failure::Unclear(why)) if why == "it may be a")
        );
    }

    #[test]
    fn it_is_made_again_only_where_a_whole_list_has_nothing_alike() {
        let others = [("x", NOW, Match::Different)];
        let whole = script(&[Err(Doubt::Lost), Ok("b")], &others);
        assert!(matches!(run(&Ledger::default(), &whole), Ok(Step::Made("b"))));
        let partial = Script { gap: Some("x is missing"), ..script(&[Err(Doubt::Lost), Ok("b")], &others) };
        assert!(
            matches!(run(&Ledger::default(), &partial), Err(Failure::Unclear(why)) if why.contains("x is missing"))
        );
        let none = Script { has_no_list: true, ..script(&[Err(Doubt::Lost), Ok("b")], &[]) };
        assert!(matches!(run(&Ledger::default(), &none), Err(Failure::NoLook(_))));
        for (created, alike) in [(NOW, Match::Possible), (NOW - 7_200_000, Match::Same), (NOW + 7_200_000, Match::Same)]
        {
            let alike = script(&[Err(Doubt::Lost), Ok("b")], &[("a", created, alike)]);
            assert!(matches!(run(&Ledger::default(), &alike), Err(Failure::Unclear(why)) if why.contains("may be a")));
        }
    }

    #[test]
    fn an_entry_without_details_may_have_them_at_the_next_look() {
        let (mut creation, ledger) = (Creation::new([0; 32]), Ledger::default());
        let lost = script(&[Err(Doubt::Lost), Ok("b")], &[("a", NOW, Match::Unknown)]);
        for _ in 0..LOOKS {
            assert!(matches!(creation.advance(&ledger, &lost), Ok(Step::Look(_))));
        }
        assert!(matches!(creation.advance(&ledger, &lost), Err(Failure::Unclear(why)) if why.contains("it has a")));
        lost.entries.borrow_mut()[0].2 = Match::Same;
        assert!(matches!(creation.advance(&ledger, &lost), Ok(Step::Found(id)) if id == "a"));
    }

    #[test]
    fn an_entry_without_a_date_is_a_doubt_unless_another_call_has_it() {
        let ledger = Ledger::default();
        let lost = || script(&[Err(Doubt::Lost), Ok("b")], &[("a", UNDATED, Match::Same)]);
        assert!(matches!(run(&ledger, &lost()), Err(Failure::Unclear(why)) if why.contains("may be a")));
        ledger.own("a", None);
        assert!(matches!(run(&ledger, &lost()), Ok(Step::Made("b"))));
    }

    #[test]
    fn what_a_refusal_did_not_make_is_not_looked_for() {
        let refused = Script { has_no_list: true, ..script(&[Err(Doubt::None)], &[]) };
        assert!(matches!(run(&Ledger::default(), &refused), Err(Failure::Refused(_))));
    }

    #[test]
    fn what_the_server_may_still_be_making_is_never_made_again() {
        for doubt in [Doubt::UnderWay, Doubt::Unnamed] {
            let slow = script(&[Err(doubt), Ok("b")], &[]);
            assert!(matches!(run(&Ledger::default(), &slow), Err(Failure::Unclear(_))), "{doubt:?}");
        }
        let mut creation = Creation::new([0; 32]);
        let (ledger, late) = (Ledger::default(), script(&[Err(Doubt::UnderWay)], &[]));
        for _ in 0..LOOKS {
            assert!(matches!(creation.advance(&ledger, &late), Ok(Step::Look(_))));
        }
        late.entries.borrow_mut().push(("a", NOW, Match::Same));
        assert!(matches!(creation.advance(&ledger, &late), Ok(Step::Found(id)) if id == "a"));
    }

    #[test]
    fn what_a_proxy_has_lost_is_looked_for_until_it_would_be_there() {
        let (mut creation, ledger) = (Creation::new([0; 32]), Ledger::default());
        let behind = script(&[Err(Doubt::Behind), Ok("b")], &[]);
        for _ in 0..LOOKS {
            assert!(matches!(creation.advance(&ledger, &behind), Ok(Step::Look(_))));
        }
        assert!(matches!(creation.advance(&ledger, &behind), Ok(Step::Again)), "it never came");
    }

    #[test]
    fn what_was_there_before_the_call_is_not_its_own() {
        let ledger = Ledger::default();
        ledger.note_seen(["a"].into_iter());
        let lost = script(&[Err(Doubt::Lost), Ok("b")], &[("a", NOW, Match::Same)]);
        assert!(matches!(run(&ledger, &lost), Ok(Step::Made("b"))));
    }

    #[test]
    fn nothing_is_claimed_while_a_like_call_is_on_its_way() {
        let ledger = Ledger::default();
        let lost = script(&[Err(Doubt::Lost)], &[("a", NOW, Match::Same)]);
        let mut creation = Creation::new([0; 32]);
        assert!(matches!(creation.advance(&ledger, &lost), Ok(Step::Look(_))));
        let twin = ledger.begin_post([0; 32]);
        assert!(matches!(creation.advance(&ledger, &lost), Ok(Step::NotYet)));
        ledger.own("a", None);
        drop(twin);
        assert!(matches!(creation.advance(&ledger, &lost), Ok(Step::Again)), "it is the twin's");
    }

    /// A service on which something happens between a call's steps.
    struct Meanwhile<'a> {
        script: &'a Script,
        before_list: &'a dyn Fn(),
        before_doubt: &'a dyn Fn(),
    }

    impl Maker for Meanwhile<'_> {
        type Made = &'static str;
        type Error = String;

        fn post(&self) -> Result<&'static str, String> {
            self.script.post()
        }

        fn id_of<'a>(&self, made: &'a &'static str) -> Option<&'a str> {
            Some(made)
        }

        fn doubt(&self, error: &String) -> Doubt {
            (self.before_doubt)();
            self.script.doubt(error)
        }

        fn may_pass(&self, error: &String) -> bool {
            self.script.may_pass(error)
        }

        fn list(&self, part: u32) -> Result<Listing, String> {
            (self.before_list)();
            self.script.list(part)
        }

        fn compare(&self, id: &str) -> Result<Match, String> {
            self.script.compare(id)
        }
    }

    #[test]
    fn what_a_like_call_has_made_since_the_look_began_is_no_doubt() {
        for alike in [Match::Same, Match::Possible] {
            let (ledger, twin) = (Ledger::default(), RefCell::new(None));
            let lost = script(&[Err(Doubt::Lost)], &[("a", NOW, Match::Same), ("b", NOW, alike)]);
            let begin_twin = || *twin.borrow_mut() = Some(ledger.begin_post([0; 32]));
            let meanwhile = Meanwhile { script: &lost, before_list: &begin_twin, before_doubt: &|| {} };
            let mut creation = Creation::new([0; 32]);
            assert!(matches!(creation.advance(&ledger, &meanwhile), Ok(Step::Look(_))));
            let step = creation.advance(&ledger, &meanwhile);
            assert!(matches!(step, Ok(Step::NotYet)), "{alike:?}: {step:?}");
            ledger.own("b", None);
            *twin.borrow_mut() = None;
            let step = creation.advance(&ledger, &lost);
            assert!(matches!(&step, Ok(Step::Found(id)) if id == "a"), "{alike:?}: {step:?}");
        }
    }

    #[test]
    fn a_call_counts_as_lost_before_it_counts_as_answered() {
        let ledger = Ledger::default();
        let lost = script(&[Err(Doubt::Lost), Err(Doubt::Lost)], &[("a", NOW, Match::Same), ("b", NOW, Match::Same)]);
        let (one, mut two) = (RefCell::new(Creation::new([0; 32])), Creation::new([0; 32]));
        assert!(matches!(one.borrow_mut().advance(&ledger, &lost), Ok(Step::Look(_))));
        let look = || {
            let step = one.borrow_mut().advance(&ledger, &lost);
            assert!(matches!(step, Ok(Step::NotYet)), "{step:?}");
        };
        let meanwhile = Meanwhile { script: &lost, before_list: &|| {}, before_doubt: &look };
        assert!(matches!(two.advance(&ledger, &meanwhile), Ok(Step::Look(_))));
        for creation in [&mut *one.borrow_mut(), &mut two] {
            assert!(matches!(creation.advance(&ledger, &lost), Ok(Step::Found(_))));
        }
    }

    #[test]
    fn what_a_call_has_made_last_stays_its_own_however_many_there_were_before() {
        let ledger = Ledger::default();
        for number in 0..2 * REMEMBERED + 2 {
            ledger.own(&number.to_string(), None);
            let last = [number.to_string(), number.saturating_sub(REMEMBERED / 2).to_string()];
            assert!(last.iter().all(|id| !ledger.may_be_of(id, Instant::now())), "{last:?}");
        }
        assert!(ledger.may_be_of("another", Instant::now()));
    }

    #[test]
    fn an_own_entry_tells_the_clock_that_dates_the_list() {
        let ledger = Ledger::default();
        // By the list's clock it is two hours later than by that of the replies.
        let late = NOW + 7_200_000;
        assert!(matches!(run(&ledger, &script(&[Ok("own")], &[])), Ok(Step::Made("own"))));
        let lost = script(&[Err(Doubt::Lost)], &[("own", late, Match::Same), ("a", late + 1, Match::Same)]);
        assert!(matches!(run(&ledger, &lost), Ok(Step::Found(id)) if id == "a"));
    }
}
