//! Making something on a remote service exactly once, although the reply may be lost.
//!
//! A `POST` that may have arrived is never repeated blindly. What it may have made is looked for in
//! the service's list. It is made again only if the list is proven whole and nothing in it can be
//! what was asked for; where that can't be proven, the caller is told ([`Failure::Unclear`]). No
//! decision hangs on a clock alone: a time that doesn't fit makes a doubt, and no proof.
//!
//! ```text
//! post -> answered: made
//!      -> refused: an error
//!      -> lost: look -> one of the list is it: found
//!                    -> the list is whole and has nothing alike: post again
//!                    -> in doubt, or the server may still be at it: unclear
//! ```
//!
//! Calls that make alike things at the same time don't take each other's: what one has made or
//! found is its own, and nothing is claimed while another such call is on its way.
//!
//! Left to the services: what a request is, what its list says, and when two things are alike
//! ([`Maker`]).

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::{Condvar, Mutex};

/// How often one thing is posted at most.
const POSTS: u32 = 3;

/// How often something is looked for that the server may still be making.
const LOOKS: u32 = 3;

/// How long after a lost reply it is looked for at first: the server may still be at it.
const SETTLED: Duration = Duration::from_millis(500);

/// How far a service's clocks may be off each other, and off ours within the time that a look
/// takes.
const SLACK: i64 = 10_000;

/// How many ids are remembered. To forget one can only raise a doubt.
const REMEMBERED: usize = 100_000;

/// How many entries of a list are asked for their details.
const CANDIDATES: usize = 50;

/// What tells like things: a digest of all that is sent.
pub(crate) type Likeness = [u8; 32];

/// How much something on the service is like what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// It is the same, as far as the service tells.
    Same,
    /// It isn't surely another.
    Possible,
    /// It is another.
    Different,
}

/// An entry of a service's list.
pub(crate) struct Listed {
    pub(crate) id: String,
    /// When it was made, in milliseconds since 1970 by the service's clock.
    pub(crate) created: Option<i64>,
    /// How much it is alike by what the list says: never `Same`, for lists leave things out.
    pub(crate) alike: Match,
}

/// A part of a service's list, as far as it could be read.
pub(crate) struct Listing {
    pub(crate) entries: Vec<Listed>,
    /// The service's `Date` with it.
    pub(crate) date: Option<String>,
    /// Why it may lack some; `None` if it is whole.
    pub(crate) gap: Option<String>,
    /// Whether another part follows.
    pub(crate) has_more: bool,
}

/// What a failed `POST` leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Nothing: it wasn't done.
    None,
    /// It may have been done. The server has answered, or hung up.
    Lost,
    /// It may have been done, or may still be: the wait for the answer has ended, and not the work
    /// on it.
    UnderWay,
    /// It was done, as the server says. It doesn't say under which id.
    Unnamed,
}

/// One thing to be made on one service, and what can be asked about it. Each method is one call, or
/// one read of the list.
pub(crate) trait Maker {
    type Made;
    type Error: Display;

    fn post(&self) -> Result<Self::Made, Self::Error>;
    /// The id of what was made, if it is something that the list has.
    fn id_of<'a>(&self, made: &'a Self::Made) -> Option<&'a str>;
    fn doubt(&self, error: &Self::Error) -> Doubt;
    /// Whether the same request may succeed the next time.
    fn may_pass(&self, error: &Self::Error) -> bool;
    /// A part of the list, counted from 1, the newest entries first if there are several.
    fn list(&self, part: u32) -> Result<Listing, Self::Error>;
    /// How much one of the list is alike, by its details.
    fn compare(&self, id: &str) -> Result<Match, Self::Error>;
}

/// What is made on one service by one user of it, and what has been seen there.
#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    changed: Condvar,
    lost: Arc<Tally>,
}

/// How many calls that make like things have lost their replies, and look for what they made.
type Tally = Mutex<HashMap<Likeness, usize>>;

#[derive(Default)]
struct State {
    /// How many calls are on their way that make like things.
    posting: HashMap<Likeness, usize>,
    /// What was made or found here: between which moments, if its reply came.
    own: HashMap<String, Option<(Instant, Instant)>>,
    /// Since when something is known to be there.
    seen: HashMap<String, Instant>,
}

impl Ledger {
    /// Notes what is in a list that was read by now: none of it is what a later call makes.
    pub(crate) fn note_seen<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.seen.len() > REMEMBERED {
            state.seen.clear();
        }
        for id in ids {
            state.seen.entry(id.to_owned()).or_insert(now);
        }
    }

    /// Waits until a call ends, for at most `limit`.
    #[cfg(feature = "openeo")]
    pub(crate) fn wait_for_change(&self, limit: Duration) {
        let mut state = self.state.lock();
        let _ = self.changed.wait_until(&mut state, Instant::now() + limit);
    }

    /// Whether a call that makes a like thing is on its way.
    pub(crate) fn is_posting(&self, likeness: &Likeness) -> bool {
        self.state.lock().posting.contains_key(likeness)
    }

    fn begin_post(&self, likeness: Likeness) -> Posting<'_> {
        *self.state.lock().posting.entry(likeness).or_default() += 1;
        Posting { ledger: self, likeness }
    }

    fn own(&self, id: &str, made: Option<(Instant, Instant)>) {
        let mut state = self.state.lock();
        if state.own.len() > REMEMBERED {
            state.own.clear();
        }
        state.own.insert(id.to_owned(), made);
    }

    /// Takes one for a call's own; `None` while a call is on its way that may have made it, `false`
    /// if another call has it.
    fn claim(&self, likeness: &Likeness, id: &str) -> Option<bool> {
        let mut state = self.state.lock();
        if state.posting.contains_key(likeness) {
            return None;
        }
        let is_free = !state.own.contains_key(id);
        if is_free {
            state.own.insert(id.to_owned(), None);
        }
        Some(is_free)
    }

    /// How many calls that make like things look for what they made.
    fn lost(&self, likeness: &Likeness) -> usize {
        self.lost.lock().get(likeness).copied().unwrap_or(0)
    }

    /// As `claim`, and takes nothing.
    fn is_free(&self, likeness: &Likeness, id: &str) -> Option<bool> {
        let state = self.state.lock();
        (!state.posting.contains_key(likeness)).then(|| !state.own.contains_key(id))
    }

    /// Whether it can be what a call made that began then: no other call has it, and it wasn't
    /// there before.
    fn may_be_of(&self, id: &str, began: Instant) -> bool {
        let state = self.state.lock();
        !state.own.contains_key(id) && state.seen.get(id).is_none_or(|since| *since > began)
    }
}

/// A `POST` on its way; over when dropped.
struct Posting<'a> {
    ledger: &'a Ledger,
    likeness: Likeness,
}

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        let mut state = self.ledger.state.lock();
        if let Some(count) = state.posting.get_mut(&self.likeness) {
            *count -= 1;
            if *count == 0 {
                state.posting.remove(&self.likeness);
            }
        }
        drop(state);
        self.ledger.changed.notify_all();
    }
}

/// One thing on its way to existence, step by step: each is one call or one search, and none waits.
pub(crate) struct Creation<E> {
    likeness: Likeness,
    lost: Option<Lost<E>>,
    posts: u32,
    /// When the first call began whose reply was lost: what it asked for may come to be late.
    since: Option<Instant>,
}

/// A call whose reply was lost.
struct Lost<E> {
    error: E,
    looks: u32,
    doubt: Doubt,
    /// Counts it as long as it looks.
    _counted: Counted,
}

/// One of a [`Tally`], until it is dropped.
struct Counted {
    tally: Arc<Tally>,
    likeness: Likeness,
}

impl Counted {
    fn new(ledger: &Ledger, likeness: Likeness) -> Counted {
        *ledger.lost.lock().entry(likeness).or_default() += 1;
        Counted { tally: Arc::clone(&ledger.lost), likeness }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut tally = self.tally.lock();
        if let Some(count) = tally.get_mut(&self.likeness) {
            *count -= 1;
            if *count == 0 {
                tally.remove(&self.likeness);
            }
        }
    }
}

/// What a step has come to.
#[derive(Debug)]
pub(crate) enum Step<M> {
    /// There it is, as it was answered.
    Made(M),
    /// There it is, by this id: the list had it.
    Found(String),
    /// The reply was lost: step again after a while, to look for it.
    Look(Duration),
    /// It is nowhere: step again, to make it again.
    Again,
    /// Step again when calls for like things have ended.
    NotYet,
}

/// Why a step has come to nothing.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    /// The service refused, or couldn't be asked: nothing was made.
    Refused(E),
    /// The list, or a detail of it, couldn't be had, for this reason: another step may have it.
    NoLook(E),
    /// It may exist. Nothing more can be found out.
    Unclear(String),
}

impl<E> Creation<E> {
    pub(crate) fn new(likeness: Likeness) -> Creation<E> {
        Creation { likeness, lost: None, posts: 0, since: None }
    }

    /// How the reply was lost, if it was, so that it may exist.
    pub(crate) fn lost_by(&self) -> Option<&E> {
        self.lost.as_ref().map(|lost| &lost.error)
    }

    /// How the reply was lost, to be told as the source of an error: after [`Failure::Unclear`],
    /// when nothing goes on.
    pub(crate) fn into_lost(self) -> Option<E> {
        self.lost.map(|lost| lost.error)
    }

    /// One call, or one search. After [`Failure::NoLook`] it may be called again, and goes on where
    /// it was.
    pub(crate) fn advance<M>(&mut self, ledger: &Ledger, maker: &M) -> Result<Step<M::Made>, Failure<E>>
    where
        M: Maker<Error = E>,
    {
        if self.lost.is_some() { self.look(ledger, maker) } else { self.post(ledger, maker) }
    }

    fn post<M>(&mut self, ledger: &Ledger, maker: &M) -> Result<Step<M::Made>, Failure<E>>
    where
        M: Maker<Error = E>,
    {
        let began = Instant::now();
        let posting = ledger.begin_post(self.likeness);
        let outcome = maker.post();
        if let Some(id) = outcome.as_ref().ok().and_then(|made| maker.id_of(made)) {
            ledger.own(id, Some((began, Instant::now())));
        }
        drop(posting);
        self.posts += 1;
        let error = match outcome {
            Ok(made) => return Ok(Step::Made(made)),
            Err(error) => error,
        };
        let doubt = maker.doubt(&error);
        if doubt == Doubt::None {
            return Err(Failure::Refused(error));
        }
        self.since.get_or_insert(began);
        self.lost = Some(Lost { error, looks: 0, doubt, _counted: Counted::new(ledger, self.likeness) });
        Ok(Step::Look(SETTLED))
    }

    fn look<M>(&mut self, ledger: &Ledger, maker: &M) -> Result<Step<M::Made>, Failure<E>>
    where
        M: Maker<Error = E>,
    {
        let (Some(lost), Some(since)) = (&mut self.lost, self.since) else { return Ok(Step::Again) };
        if ledger.is_posting(&self.likeness) {
            return Ok(Step::NotYet);
        }
        let (mut same, mut doubtful, mut gap) = (Vec::new(), Vec::new(), None);
        // What is made meanwhile moves entries on to the next part, where they come again.
        let mut compared = HashSet::new();
        for part in 1.. {
            let list = maker.list(part).map_err(Failure::NoLook)?;
            let window = Window::new(ledger, &list, since);
            ledger.note_seen(list.entries.iter().map(|entry| entry.id.as_str()));
            let mut candidates: Vec<Listed> = list.entries;
            candidates.retain(|entry| entry.alike != Match::Different && ledger.may_be_of(&entry.id, since));
            // The newest first, and those before whose time fits.
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
                    // It may be older than the call, as far as is known: a doubt, unless another call has it.
                    (Match::Same, None) => match ledger.is_free(&self.likeness, &entry.id) {
                        Some(true) => doubtful.push(entry.id),
                        Some(false) => {}
                        None => return Ok(Step::NotYet),
                    },
                    (Match::Same, Some(true)) => same.push(entry.id),
                    _ => doubtful.push(entry.id),
                }
            }
            gap = gap.or(list.gap);
            if !list.has_more {
                break;
            }
        }
        same.retain(|id| ledger.is_free(&self.likeness, id) != Some(false));
        // More than were lost here: another process makes the same, and one of them is its own.
        if same.len() > ledger.lost(&self.likeness) {
            doubtful.splice(0..0, std::mem::take(&mut same));
        }
        for id in same {
            match ledger.claim(&self.likeness, &id) {
                Some(true) => {
                    self.lost = None;
                    return Ok(Step::Found(id));
                }
                Some(false) => {}
                None => return Ok(Step::NotYet),
            }
        }
        if !doubtful.is_empty() {
            doubtful.truncate(5);
            return Err(Failure::Unclear(format!("it may be {}", doubtful.join(" or "))));
        }
        lost.looks += 1;
        if lost.doubt != Doubt::Lost {
            // No list can prove that the server isn't still at it.
            if lost.looks < LOOKS {
                return Ok(Step::Look(SETTLED * 2u32.pow(lost.looks)));
            }
            return Err(Failure::Unclear(match lost.doubt {
                Doubt::Unnamed => "it isn't in the list, but the server said that it was made".to_owned(),
                _ => "it isn't in the list, but the server may still be making it".to_owned(),
            }));
        }
        if let Some(gap) = gap {
            // It may be whole the next time.
            if lost.looks < LOOKS {
                return Ok(Step::Look(SETTLED * 2u32.pow(lost.looks)));
            }
            return Err(Failure::Unclear(format!("it isn't in the list, which may lack some: {gap}")));
        }
        match self.lost.take() {
            Some(lost) if self.posts >= POSTS || !maker.may_pass(&lost.error) => Err(Failure::Refused(lost.error)),
            _ => Ok(Step::Again),
        }
    }
}

/// Between which times of the service's clock a lost call can have made something, in milliseconds
/// since 1970.
#[derive(Debug, PartialEq)]
struct Window {
    earliest: i64,
    latest: i64,
}

impl Window {
    /// By the clock that dates the entries, if one that was made here tells it; else by the `Date`
    /// of the list, else by ours.
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

    /// `None` if it isn't known when it was made.
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
            [Doubt::None, Doubt::Lost, Doubt::UnderWay, Doubt::Unnamed]
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
