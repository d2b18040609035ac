//! What is at work for an executor, and waits without a time limit: the edges of the graph of `wait::graph`.

use std::collections::HashMap;
use std::sync::Arc;

use super::core::Core;
use super::request::Job;

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

    /// Whether it is known to be over. Of an executor's end only who waits for it knows.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Wait::Any(targets) => targets.iter().any(Node::is_done),
            Wait::All(targets) => targets.iter().all(Node::is_done),
            Wait::End(_) | Wait::Threads(_) => false,
        }
    }
}

/// By the address of the request that waits, or that follows another one; where a thread waits outside of a request, in
/// a hook for one, by a number of its own.
#[derive(Default)]
pub(super) struct Waits {
    waiting: HashMap<usize, Vec<Arc<Wait>>>,
    following: HashMap<usize, Arc<Wait>>,
}

impl Waits {
    pub(super) fn enter(&mut self, who: usize, wait: Arc<Wait>) {
        self.waiting.entry(who).or_default().push(wait);
    }

    /// Takes the latest wait out, for the caller to drop under no lock.
    pub(super) fn leave(&mut self, who: usize) -> Option<Arc<Wait>> {
        let waits = self.waiting.get_mut(&who)?;
        let left = waits.pop();
        if waits.is_empty() {
            self.waiting.remove(&who);
            shrink(&mut self.waiting);
        }
        left
    }

    pub(super) fn follow(&mut self, who: usize, wait: Arc<Wait>) {
        self.following.insert(who, wait);
    }

    /// As `leave`.
    pub(super) fn unfollow(&mut self, who: usize) -> Option<Arc<Wait>> {
        let followed = self.following.remove(&who);
        shrink(&mut self.following);
        followed
    }

    pub(super) fn of(&self, who: usize) -> Vec<Arc<Wait>> {
        self.waiting.get(&who).into_iter().flatten().chain(self.following.get(&who)).cloned().collect()
    }

    /// The waits of all that are at work.
    pub(super) fn of_threads(&self) -> Vec<Arc<Wait>> {
        self.waiting.values().flatten().cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Wait>> {
        self.waiting.values().flatten().chain(self.following.values()).cloned().collect()
    }
}

/// A burst of waits leaves no memory behind.
fn shrink<T>(waits: &mut HashMap<usize, T>) {
    if waits.is_empty() && waits.capacity() > 64 {
        waits.shrink_to(0);
    }
}
