//! What is at work for an executor, and waits without a time limit: the edges of the graph of
//! `wait::graph`.

use std::collections::HashMap;
use std::sync::Arc;

use super::core::Core;
use super::request::Job;
use crate::sync::thread::Thread;

/// A request and the executor that accepted it.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) job: Arc<dyn Job>,
    pub(super) core: Arc<Core>,
}

impl Node {
    pub(super) fn is_done(&self) -> bool {
        self.job.head().is_done()
    }
}

/// What has to happen before a wait ends.
#[derive(Clone)]
pub(super) enum Wait {
    /// One of these requests ends.
    Any(Vec<Node>),
    /// Each of these requests ends.
    All(Vec<Node>),
    /// All requests and threads of the executor end.
    End(Arc<Core>),
    /// The threads that the executor has now end, each after what it runs.
    Threads(Arc<Core>),
}

impl Wait {
    /// The requests that it is for.
    pub(super) fn targets(&self) -> &[Node] {
        match self {
            Wait::Any(targets) | Wait::All(targets) => targets,
            Wait::End(_) | Wait::Threads(_) => &[],
        }
    }

    /// Whether the wait is known to be over. For an executor's end this is always false: only the
    /// waiting thread can tell.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Wait::Any(targets) => targets.iter().any(Node::is_done),
            Wait::All(targets) => targets.iter().all(Node::is_done),
            Wait::End(_) | Wait::Threads(_) => false,
        }
    }
}

/// Work in an operation that can be told to stop: a step or an attempt.
pub(super) trait Stoppable: Send + Sync {
    fn is_told(&self) -> bool;
}

/// A wait that a thread is in.
pub(super) struct Waiting {
    pub(super) wait: Arc<Wait>,
    pub(super) thread: Thread,
    /// What ends the wait if it is cancelled: the operation that waits, and the step or attempt in
    /// it. None in a shield.
    pub(super) operation: Option<Node>,
    pub(super) work: Option<Arc<dyn Stoppable>>,
}

impl Waiting {
    /// Whether the wait is over, whatever it is for, as soon as its thread runs.
    fn is_interrupted(&self) -> bool {
        let is_told = |node: &Node| node.job.head().is_cancel_requested() || node.core.is_told(node.job.head());
        self.operation.as_ref().is_some_and(is_told) || self.work.as_ref().is_some_and(|work| work.is_told())
    }
}

/// By the address of the request that waits, or that follows another one; where a thread waits
/// outside of a request, in a hook for one, by a number of its own.
#[derive(Default)]
pub(super) struct Waits {
    waiting: HashMap<usize, Vec<Arc<Waiting>>>,
    following: HashMap<usize, Follower>,
}

/// A request that is held back until another one has ended.
pub(super) struct Follower {
    pub(super) job: Arc<dyn Job>,
    pub(super) wait: Arc<Wait>,
}

impl Waits {
    pub(super) fn enter(&mut self, who: usize, waiting: Arc<Waiting>) {
        self.waiting.entry(who).or_default().push(waiting);
    }

    /// Has all threads look again that wait.
    pub(super) fn wake_all(&self) {
        self.waiting.values().flatten().for_each(|waiting| waiting.thread.unpark());
    }

    /// Takes the latest wait out, for the caller to drop under no lock.
    pub(super) fn leave(&mut self, who: usize) -> Option<Arc<Waiting>> {
        let waits = self.waiting.get_mut(&who)?;
        let left = waits.pop();
        if waits.is_empty() {
            self.waiting.remove(&who);
            shrink(&mut self.waiting);
        }
        left
    }

    pub(super) fn follow(&mut self, follower: Follower) {
        self.following.insert(follower.job.head().address(), follower);
    }

    /// As `leave`.
    pub(super) fn unfollow(&mut self, who: usize) -> Option<Follower> {
        let followed = self.following.remove(&who);
        shrink(&mut self.following);
        followed
    }

    /// All that follow another one.
    pub(super) fn followers(&self) -> Vec<Arc<dyn Job>> {
        self.following.values().map(|follower| follower.job.clone()).collect()
    }

    pub(super) fn of(&self, who: usize) -> Vec<Arc<Wait>> {
        let followed = self.following.get(&who).map(|follower| &follower.wait);
        waits(self.waiting.get(&who).into_iter().flatten()).chain(followed).cloned().collect()
    }

    /// The waits of all that are at work.
    pub(super) fn of_threads(&self) -> Vec<Arc<Wait>> {
        waits(self.waiting.values().flatten()).cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Wait>> {
        let followed = self.following.values().map(|follower| &follower.wait);
        waits(self.waiting.values().flatten()).chain(followed).cloned().collect()
    }
}

/// Those that may last.
fn waits<'a>(waiting: impl Iterator<Item = &'a Arc<Waiting>>) -> impl Iterator<Item = &'a Arc<Wait>> {
    waiting.filter(|waiting| !waiting.is_interrupted()).map(|waiting| &waiting.wait)
}

/// A burst of waits leaves no memory behind.
fn shrink<T>(waits: &mut HashMap<usize, T>) {
    if waits.is_empty() && waits.capacity() > 64 {
        waits.shrink_to(0);
    }
}
