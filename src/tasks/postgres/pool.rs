//! Connections, kept for later and shared by threads: no more than so many at once, and one for
//! what keeps the leases.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::super::error::TaskError;
use super::super::worker_id::random_number;
use super::connection::{Connection, Limits};
use super::error::PgError;
use super::fault::Fault;
use super::target::Target;
use crate::backoff::Backoff;
use crate::sync::{Condvar, Mutex};

pub(super) struct Pool {
    pub(super) door: Door,
    pub(super) target: Target,
    pub(super) limits: Limits,
    most: usize,
    state: Mutex<State>,
    freed: Condvar,
    freed_reserved: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    lent: usize,
}

/// Where all threads of a queue log in. A server that refuses is not asked again before a pause is
/// over, which doubles: until then each is told what the last one was.
#[derive(Default)]
pub(super) struct Door(Mutex<Option<Refusal>>);

struct Refusal {
    error: PgError,
    failures: u32,
    until: Instant,
}

impl Door {
    /// # Errors
    /// As [`Connection::open`], of this try or of the last.
    pub(super) fn open(&self, target: &Target, limits: Limits) -> Result<Connection, PgError> {
        let failures = {
            let mut refusal = self.0.lock();
            match &mut *refusal {
                Some(refusal) if Instant::now() < refusal.until => return Err(refusal.error.again()),
                // One tries, and the others are told of the last time until it knows.
                Some(refusal) => {
                    refusal.until = Instant::now() + limits.connect;
                    refusal.failures.saturating_add(1)
                }
                None => 0,
            }
        };
        let opened = Connection::open(target, limits);
        let mut refusal = self.0.lock();
        match &opened {
            Err(error @ PgError::Connect { for_good, .. }) => {
                // What may pass by itself is looked after soon; a role that may not log in has to
                // wait for an operator.
                let cap = Duration::from_secs(if *for_good { 30 } else { 1 });
                let pauses = Backoff::new(Duration::from_millis(50)).cap(cap).jitter(0.5);
                if refusal.as_ref().is_none_or(|last| last.error.to_string() != error.to_string()) {
                    crate::trace::event!(WARN, "PostgreSQL can't be reached", error = error.to_string());
                }
                let until = Instant::now() + pauses.delay_with(failures, random_number());
                *refusal = Some(Refusal { error: error.again(), failures, until });
            }
            _ => *refusal = None,
        }
        opened
    }
}

/// A connection that goes back where it came from.
pub(super) struct PooledConnection<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Pool {
    pub(super) fn new(target: Target, limits: Limits, most: usize) -> Pool {
        Pool {
            door: Door::default(),
            target,
            limits,
            most: most.max(1),
            state: Mutex::new(State::default()),
            freed: Condvar::new(),
            freed_reserved: Condvar::new(),
        }
    }

    /// From here on all of them find the queue's tables there.
    pub(super) fn set_schema(&mut self, schema: &str) {
        self.target.set_schema(schema);
        let schema = self.target.schema();
        self.state.lock().idle.iter_mut().for_each(|db| db.set_schema(schema.clone()));
    }

    /// One of the connections has died without a word: those that are idle have probably died as
    /// well.
    pub(super) fn clear(&self) {
        let idle = std::mem::take(&mut self.state.lock().idle);
        drop(idle);
    }

    /// An idle connection, or a new one; waits while all are lent, for at most the limit of a
    /// statement.
    pub(super) fn take(&self) -> Result<PooledConnection<'_>, Fault> {
        self.take_one_of(self.most, &self.freed)
    }

    /// As [`Pool::take`], with one connection more: for what must not wait until those who have all
    /// others are done.
    pub(super) fn take_reserved(&self) -> Result<PooledConnection<'_>, Fault> {
        self.take_one_of(self.most.saturating_add(1), &self.freed_reserved)
    }

    /// Lends an idle connection, or opens one if none is left. While `most` or more are lent it
    /// waits on `freed`, for at most the time limit of a statement, and then it is `Busy`. Idle
    /// connections that the server has closed are dropped. Fails as `Door::open`.
    fn take_one_of(&self, most: usize, freed: &Condvar) -> Result<PooledConnection<'_>, Fault> {
        let (start, limit) = (Instant::now(), self.limits.statement);
        let mut state = self.state.lock();
        while state.lent >= most {
            let until = start.checked_add(limit).unwrap_or(start + Duration::from_secs(3_600));
            if freed.wait_until(&mut state, until).timed_out() && state.lent >= most {
                return Err(TaskError::Busy { waited: start.elapsed() }.into());
            }
        }
        state.lent += 1;
        // From here on the loan gives back its place, whatever happens.
        let mut loan = PooledConnection { pool: self, connection: None };
        // The one used last: its pages are warm, and the others may time out in peace.
        while let Some(mut connection) = state.idle.pop() {
            if connection.is_fresh() {
                loan.connection = Some(connection);
                break;
            }
        }
        drop(state);
        if loan.connection.is_none() {
            loan.connection = Some(self.door.open(&self.target, self.limits)?);
        }
        Ok(loan)
    }
}

impl Deref for PooledConnection<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("a loan that was made has its connection")
    }
}

impl DerefMut for PooledConnection<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a loan that was made has its connection")
    }
}

impl Drop for PooledConnection<'_> {
    fn drop(&mut self) {
        let connection = self.connection.take().filter(Connection::is_good).filter(|db| !db.is_in_transaction());
        let connection = connection.and_then(|mut db| db.restore().is_ok().then_some(db));
        let mut state = self.pool.state.lock();
        state.lent -= 1;
        state.idle.extend(connection);
        drop(state);
        self.pool.freed.notify_one();
        // The free place may be the reserved one, which only `take_reserved` may use: so wake a
        // thread there as well.
        self.pool.freed_reserved.notify_one();
    }
}
