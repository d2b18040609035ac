//! One request of a scope, from before the executor accepts it until its end has been told.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::cancel_scope::{CancelScope, Why};
use crate::error::{Error, Result};
use crate::executor::alarm::Alarmed;
use crate::executor::core::{Core, Due, OrderBy, Way};
use crate::executor::current;
use crate::executor::pool::Task;
use crate::executor::request::{Belongs, Call, Host, Job, Kind, Observer, Outcome, Request, Status, Terms};
use crate::panics;

/// An operation whose type is forgotten. The box is what a request of a group costs more than
/// others, together with its [`Member`]; so the code of a submission is compiled once for each type
/// of result.
pub(in crate::executor) type Operation<T> = Box<dyn FnOnce() -> Result<T> + Send>;

/// What a request is submitted to.
#[derive(Clone)]
pub(in crate::executor) struct Target {
    pub(super) scope: Arc<CancelScope>,
    /// Whether its end counts for the policy: not if an operation of the group submitted it, for
    /// that operation decides what comes of it.
    pub(super) is_direct: bool,
    /// When it has to have started.
    pub(super) start_by: Option<Instant>,
}

struct Member {
    target: Target,
    /// Its number in the scope.
    number: u64,
    core: Arc<Core>,
}

/// The operation of a request that belongs to a scope.
struct InScope<F> {
    member: Arc<Member>,
    operation: F,
}

impl<T, F: Call<T>> Call<T> for InScope<F> {
    const MAY_REFUSE: bool = true;

    /// Calls the operation, if it may still start.
    fn call(self, host: &dyn Host) -> Result<T> {
        let InScope { member, operation } = self;
        if let Some(error) = member.refusal() {
            host.refuse(matches!(error, Error::Expired));
            panics::contain(|| drop(operation));
            return Err(error);
        }
        let _scope = current::enter_scope(Some(member.target.scope.clone()));
        operation.call(host)
    }
}

impl Target {
    /// Submits `operation` to the executor as a request of the scope. If the scope has ended, the
    /// request is cancelled from the start, and the executor never gets it.
    pub(in crate::executor) fn submit<T, F>(
        &self,
        core: &Arc<Core>,
        way: Way<'_>,
        operation: F,
    ) -> Result<Arc<dyn Outcome<T>>>
    where
        T: Send + 'static,
        F: Call<T> + Send + 'static,
    {
        // The request enters the scope before the executor has it. Otherwise the scope could end in
        // between without cancelling it, or count as idle while the request runs.
        let members = match self.enter(core, 1)? {
            Ok(members) => members,
            Err(why) => return Ok(stillborn(core, way.kind(), operation, why)),
        };
        let member = &members[0];
        let prepare = |job: &Task| member.prepare(job);
        let operation = InScope { member: member.clone(), operation };
        let accepted: Result<Arc<dyn Outcome<T>>> = match way {
            Way::Now(order_by) => core.submit_prepared(order_by, operation, prepare).map(|request| request as _),
            Way::At(at, order_by) => core.submit_at(at, order_by, operation, prepare).map(|request| request as _),
            Way::After(first) => core.submit_follower(first, operation, prepare).map(|request| request as _),
            Way::Accepted(order_by) => core.submit_accepted(order_by, operation, prepare).map(|request| request as _),
            Way::Limited(order_by, permits) => {
                core.submit_limited(order_by, permits, operation, prepare).map(|request| request as _)
            }
        };
        match accepted {
            Ok(request) => {
                member.accepted(request.clone().as_job());
                Ok(request)
            }
            Err(error) => {
                member.not_accepted();
                Err(error)
            }
        }
    }

    /// Submits many operations, all or none; but one by one where the executor accepts them so.
    pub(in crate::executor) fn submit_many<T: Send + 'static>(
        &self,
        core: &Arc<Core>,
        operations: Vec<(OrderBy, Operation<T>)>,
    ) -> Result<Vec<Arc<dyn Outcome<T>>>> {
        if core.accepts_one_by_one() {
            let submit = |(order_by, operation)| self.submit(core, Way::Now(order_by), operation);
            return operations.into_iter().map(submit).collect();
        }
        let members = match self.enter(core, operations.len())? {
            Ok(members) => members,
            Err(why) => {
                let born = operations
                    .into_iter()
                    .map(|(order_by, operation)| stillborn(core, order_by.terms.kind, operation, why));
                return Ok(born.collect());
            }
        };
        let operations = members
            .iter()
            .zip(operations)
            .map(|(member, (order_by, operation))| (order_by, InScope { member: member.clone(), operation }));
        let mut unprepared = members.iter();
        let prepare = |job: &Task| {
            if let Some(member) = unprepared.next() {
                member.prepare(job);
            }
        };
        match core.submit_many(operations, prepare) {
            Ok(requests) => {
                members.iter().zip(&requests).for_each(|(member, request)| member.accepted(request.clone()));
                Ok(requests.into_iter().map(|request| request as _).collect())
            }
            Err(error) => {
                members.iter().for_each(|member| member.not_accepted());
                Err(error)
            }
        }
    }

    /// Enters `count` requests into the scope and counts them in the group's account. If they have
    /// to have started by some time, sets an alarm for each. The caller then calls `accepted` or
    /// `not_accepted` for each.
    ///
    /// The inner error is why the scope has ended: the requests count as cancelled, and the
    /// executor must not get them. The outer one says that no alarm could be set: nothing stays
    /// counted.
    fn enter(&self, core: &Arc<Core>, count: usize) -> Result<Result<Vec<Arc<Member>>, Why>> {
        let numbers = self.scope.enter(core, count)?;
        let stats = |change: &dyn Fn(&mut super::GroupStats)| change(&mut self.scope.group().lock().stats);
        let numbers = match numbers {
            Ok(numbers) => numbers,
            Err(why) => {
                stats(&|stats| {
                    stats.submitted += count as u64;
                    stats.cancelled += count as u64;
                });
                return Ok(Err(why));
            }
        };
        stats(&|stats| stats.submitted += count as u64);
        let member = |number| Member { target: self.clone(), number, core: core.clone() };
        let members: Vec<_> = numbers.into_iter().map(|number| Arc::new(member(number))).collect();
        if let Some(at) = self.start_by {
            for member in &members {
                let alarm = self.scope.core.set_alarm(at, Due::Limit(Arc::new(StartBy(Arc::downgrade(member)))), None);
                match alarm {
                    Ok(alarm) => {
                        if let Some(entry) = self.scope.lock().members.get_mut(&member.number) {
                            entry.alarm = Some(alarm);
                        }
                    }
                    Err(error) => {
                        members.iter().for_each(|member| member.not_accepted());
                        return Err(error);
                    }
                }
            }
        }
        Ok(Ok(members))
    }
}

/// A request that has ended before it was accepted.
fn stillborn<T, F>(core: &Core, kind: Kind, operation: F, why: Why) -> Arc<dyn Outcome<T>>
where
    T: Send + 'static,
    F: Call<T> + Send + 'static,
{
    let request = Request::new(core.next_number(), Terms::plain(kind), Status::Queued, 0, operation);
    request.head().cancel(0, why == Why::Expired);
    let request: Arc<dyn Outcome<T>> = Arc::new(request);
    request.discard();
    request
}

impl Member {
    fn refusal(&self) -> Option<Error> {
        let scope = &self.target.scope;
        if let Some(why) = scope.ended() {
            return Some(why.error());
        }
        let is_late = scope.is_past() || self.target.start_by.is_some_and(|at| Instant::now() >= at);
        is_late.then_some(Error::Expired)
    }

    /// Tells the scope which request this is: it exists, but the executor hasn't accepted it yet.
    fn prepare(&self, job: &Task) {
        let scope = &self.target.scope;
        if let Some(entry) = scope.lock().members.get_mut(&self.number) {
            entry.job = Some(job.clone());
        }
        scope.wake();
    }

    /// The executor has refused the request: takes back what `enter` counted.
    fn not_accepted(&self) {
        let scope = &self.target.scope;
        self.remove();
        scope.group().lock().stats.submitted -= 1;
        scope.leave();
    }

    /// The executor has accepted the request.
    fn accepted(self: &Arc<Member>, job: Task) {
        let scope = &self.target.scope;
        let belongs = Observer::Member(self.clone());
        if self.core.observers.register(job.head(), belongs).is_err() {
            if self.ended(job.head().status()) {
                self.cancel_others();
            }
            return;
        }
        let is_expired = {
            let mut state = scope.lock();
            let Some(entry) = state.members.get_mut(&self.number) else { return };
            entry.accepted = true;
            entry.expired
        };
        if let Some(why) = scope.ended() {
            self.core.cancel_for(&job, why == Why::Expired);
        } else if is_expired {
            self.core.take_out(&job, true);
        } else {
            scope.wake();
        }
    }

    fn remove(&self) -> Option<Task> {
        let entry = self.target.scope.lock().members.remove(&self.number)?;
        if let Some(alarm) = entry.alarm {
            drop(self.target.scope.core.timer.remove(alarm));
        }
        entry.job
    }
}

impl Belongs for Member {
    /// Takes the member out of the scope and counts its end in the group's account. `false` if that
    /// was done before, or if the others go on. If it returns `true`, the caller calls
    /// `cancel_others`.
    fn ended(&self, status: Status) -> bool {
        let Some(job) = self.remove() else { return false };
        let (scope, group) = (&self.target.scope, self.target.scope.group());
        {
            let stats = &mut group.lock().stats;
            *match status {
                Status::Completed => &mut stats.succeeded,
                Status::Cancelled => &mut stats.cancelled,
                _ => &mut stats.failed,
            } += 1;
        }
        // A cancel by its own handle is no failure.
        let is_outcome = status != Status::Cancelled || job.head().is_expired();
        let succeeded = status == Status::Completed;
        // Before it is left: a thread that finds the group idle has to find it decided.
        let decides = self.target.is_direct && is_outcome && group.decide(&job, succeeded);
        scope.leave();
        decides
    }

    fn cancel_others(&self) {
        self.target.scope.group().cancel_members(Why::Cancelled);
    }
}

/// What the timer fires when a request has to have started.
struct StartBy(Weak<Member>);

impl Alarmed for StartBy {
    fn ring(self: Arc<StartBy>) {
        let Some(member) = self.0.upgrade() else { return };
        let job = {
            let mut state = member.target.scope.lock();
            let Some(entry) = state.members.get_mut(&member.number) else { return };
            entry.expired = true;
            entry.job.clone().filter(|job| entry.accepted && job.head().status() != Status::Running)
        };
        if let Some(job) = job {
            if !member.core.take_out(&job, true) {
                member.core.put_down(job);
            }
        }
    }

    /// Never: a shutdown lets what was accepted end as it would without one.
    fn give_up(self: Arc<StartBy>) {}
}
