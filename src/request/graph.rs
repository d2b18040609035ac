//! Whether a wait could ever end: the graph of what waits for what, looked at before a worker blocks.
//!
//! A running request can end unless its thread is blocked, without a time limit, on requests that can't end. A deferred
//! request can end unless one of those ahead of it can't. A worker first enters its own edges, then follows those of the
//! others: of the workers that close a cycle together, the last one to enter sees all of it.
//!
//! Reading the edges one after the other is sound. An edge stands until its target has ended, so an edge seen earlier
//! still stands when its target is seen unfinished later.
//!
//! Source: Knapp, "Deadlock Detection in Distributed Databases", ACM Computing Surveys 19(4), 1987 (the AND-OR model).

use std::sync::Arc;

use super::current;
use super::host::Host;
use super::state::{Job, Status};

/// A request and the executor that accepted it.
#[derive(Clone)]
pub(crate) struct Node {
    pub(super) job: Arc<dyn Job>,
    pub(super) host: Arc<dyn Host>,
}

impl Node {
    pub(super) fn is_done(&self) -> bool {
        self.job.head().is_done()
    }

    /// What a running request is blocked on, or what a deferred one follows.
    pub(super) fn after(&self) -> Vec<Node> {
        let mut after = Vec::new();
        self.job.with_extras(&mut |extras| {
            after = extras.as_ref().map(|extras| extras.after.clone()).unwrap_or_default();
        });
        after
    }

    /// What has to end before a deferred request can start.
    pub(super) fn ahead(&self) -> Vec<Node> {
        let same_host = |job| Node { job, host: self.host.clone() };
        let mut ahead = self.after();
        ahead.extend(self.host.ahead_of(&*self.job).into_iter().map(same_host));
        ahead
    }
}

/// Says to all that the requests of this thread wait for `targets`, for as long as it lives.
///
/// A request that waits and runs another one meanwhile, which waits in turn, is blocked on the inner wait first.
pub(super) struct Edges(Vec<(Arc<dyn Job>, Vec<Node>)>);

impl Edges {
    pub(super) fn enter(targets: &[Node]) -> Edges {
        let outer = |job: Arc<dyn Job>| {
            let outer = replace_after(&*job, targets.to_vec());
            (job, outer)
        };
        Edges(current::all().into_iter().map(outer).collect())
    }
}

impl Drop for Edges {
    fn drop(&mut self) {
        for (job, outer) in self.0.drain(..) {
            replace_after(&*job, outer);
        }
    }
}

/// Returns what was there before, so that it is dropped outside the lock.
pub(super) fn replace_after(job: &dyn Job, mut after: Vec<Node>) -> Vec<Node> {
    job.with_extras(&mut |extras| std::mem::swap(&mut extras.get_or_insert_default().after, &mut after));
    after
}

/// Whether none of `targets` can end before this thread's own requests have.
pub(super) fn would_deadlock(targets: &[Node]) -> bool {
    let mut graph = Graph { vertices: Vec::new(), mine: current::all() };
    let targets: Vec<usize> = targets.iter().map(|target| graph.explore(target)).collect();
    graph.settle();
    // Others may be stuck among themselves, and are just being told so. Only what leads back here is ours to refuse.
    targets.iter().all(|target| graph.vertices[*target].stuck) && graph.leads_back(&targets)
}

struct Graph {
    vertices: Vec<Vertex>,
    mine: Vec<Arc<dyn Job>>,
}

struct Vertex {
    job: Arc<dyn Job>,
    needs: Needs,
    stuck: bool,
}

enum Needs {
    /// Can go on: not started, or at work, or ended.
    Nothing,
    /// Runs on this thread, below the wait.
    Me,
    AnyOf(Vec<usize>),
    AllOf(Vec<usize>),
}

impl Graph {
    /// Adds `node` and all that it depends on.
    fn explore(&mut self, node: &Node) -> usize {
        let known = self.vertices.iter().position(|vertex| Arc::ptr_eq(&vertex.job, &node.job));
        if let Some(known) = known {
            return known;
        }
        let index = self.vertices.len();
        self.vertices.push(Vertex { job: node.job.clone(), needs: Needs::Nothing, stuck: true });
        let needs = if self.mine.iter().any(|job| Arc::ptr_eq(job, &node.job)) {
            Needs::Me
        } else {
            match node.job.head().status() {
                Status::Running => Needs::AnyOf(self.explore_all(&node.after())),
                Status::Deferred => Needs::AllOf(self.explore_all(&node.ahead())),
                _ => Needs::Nothing,
            }
        };
        self.vertices[index].needs = needs;
        index
    }

    fn explore_all(&mut self, nodes: &[Node]) -> Vec<usize> {
        nodes.iter().map(|node| self.explore(node)).collect()
    }

    /// Frees whatever can go on, until nothing more comes free: what is left is stuck.
    fn settle(&mut self) {
        loop {
            let stuck = |index: &usize| self.vertices[*index].stuck;
            let freed = self.vertices.iter().position(|vertex| {
                vertex.stuck
                    && match &vertex.needs {
                        Needs::Nothing => true,
                        Needs::Me => false,
                        Needs::AnyOf(nodes) => nodes.is_empty() || !nodes.iter().all(stuck),
                        Needs::AllOf(nodes) => !nodes.iter().any(stuck),
                    }
            });
            match freed {
                Some(index) => self.vertices[index].stuck = false,
                None => return,
            }
        }
    }

    fn leads_back(&self, from: &[usize]) -> bool {
        let mut seen = vec![false; self.vertices.len()];
        let mut next = from.to_vec();
        while let Some(index) = next.pop() {
            let vertex = &self.vertices[index];
            if !vertex.stuck || std::mem::replace(&mut seen[index], true) {
                continue;
            }
            match &vertex.needs {
                Needs::Me => return true,
                Needs::Nothing => {}
                Needs::AnyOf(nodes) | Needs::AllOf(nodes) => next.extend(nodes),
            }
        }
        false
    }
}
