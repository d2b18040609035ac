//! Whether a wait could ever end: the graph of what waits for what, looked at before a worker blocks.
//!
//! A running request can end unless its thread is in a wait, without a time limit, for requests of which none can end: in
//! the innermost one or in one further out. A deferred request can end unless one of those ahead of it can't. A worker
//! first enters its own edges, then follows those of the others: of the workers that close a cycle together, the last one
//! to enter sees all of it.
//!
//! Reading the edges one after the other is sound. An edge stands until its target has ended, so an edge seen earlier
//! still stands when its target is seen unfinished later.
//!
//! Source: Knapp, "Deadlock Detection in Distributed Databases", ACM Computing Surveys 19(4), 1987 (the AND-OR model).

use std::collections::HashMap;
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

    /// The waits that a running request is in, or the one that a deferred request follows.
    fn waits(&self) -> Vec<Vec<Node>> {
        let mut waits = Vec::new();
        self.job.with_extras(&mut |extras| {
            waits = extras.as_ref().map(|extras| extras.waits.clone()).unwrap_or_default();
        });
        waits
    }

    /// Another request of the same executor.
    fn beside(&self, job: Arc<dyn Job>) -> Node {
        Node { job, host: self.host.clone() }
    }

    /// One that has to end before a deferred request can start, or `None` if only its time has to come.
    pub(super) fn obstacle(&self) -> Option<Node> {
        self.waits()
            .pop()
            .and_then(|mut follows| follows.pop())
            .or_else(|| self.host.obstacle(&*self.job).map(|job| self.beside(job)))
    }
}

/// Says to all that the requests of this thread wait for any of `targets`, for as long as it lives.
///
/// A request that waits and runs another one meanwhile, which waits in turn, is in both waits: it can't end before both
/// have. An outer one that were forgotten meanwhile could have a cycle closed through it that nobody sees.
pub(super) struct Edges(Vec<Arc<dyn Job>>);

impl Edges {
    pub(super) fn enter(targets: &[Node]) -> Edges {
        let mine = current::all();
        for job in &mine {
            push_wait(&**job, targets.to_vec());
        }
        Edges(mine)
    }
}

impl Drop for Edges {
    fn drop(&mut self) {
        for job in &self.0 {
            drop(pop_wait(&**job));
        }
    }
}

pub(super) fn push_wait(job: &dyn Job, targets: Vec<Node>) {
    let mut targets = Some(targets);
    job.with_extras(&mut |extras| extras.get_or_insert_default().waits.extend(targets.take()));
}

/// Returns what the wait was for, so that it is dropped outside the lock.
pub(super) fn pop_wait(job: &dyn Job) -> Option<Vec<Node>> {
    let mut popped = None;
    job.with_extras(&mut |extras| popped = extras.as_mut().and_then(|extras| extras.waits.pop()));
    popped
}

/// Whether none of `targets` can end before this thread's own requests have.
pub(super) fn would_deadlock(targets: &[Node]) -> bool {
    let (mut graph, targets) = Graph::explore(targets);
    graph.settle();
    // Others may be stuck among themselves, and are just being told so. Only what leads back here is ours to refuse.
    targets.iter().all(|target| graph.leads_back(*target))
}

/// Whether any of `targets` can't end before this thread's own requests have.
pub(super) fn any_would_deadlock(targets: &[Node]) -> bool {
    let (mut graph, targets) = Graph::explore(targets);
    graph.settle();
    targets.iter().any(|target| graph.leads_back(*target))
}

#[derive(Default)]
struct Graph {
    vertices: Vec<Vertex>,
    /// By the address of the request.
    known: HashMap<usize, usize>,
    /// What is admitted on a lane, by the address of its executor and its number, for all that are deferred on it.
    lanes: HashMap<(usize, u32), Vec<usize>>,
    /// Vertices whose needs are still to be found out.
    open: Vec<(usize, Node)>,
}

struct Vertex {
    needs: Needs,
    stuck: bool,
}

enum Needs {
    /// Runs on this thread, below the wait.
    Me,
    /// Of each of these, one has to end; nothing, for what is not started, or at work, or ended.
    OneOfEach(Vec<Vec<usize>>),
}

fn address<T: ?Sized>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).cast::<()>().addr()
}

impl Graph {
    /// All that `targets` depend on, and which vertices they are.
    fn explore(targets: &[Node]) -> (Graph, Vec<usize>) {
        let mut graph = Graph::default();
        for mine in current::all() {
            graph.known.insert(address(&mine), graph.vertices.len());
            graph.vertices.push(Vertex { needs: Needs::Me, stuck: true });
        }
        let targets = targets.iter().map(|target| graph.vertex(target)).collect();
        while let Some((index, node)) = graph.open.pop() {
            graph.vertices[index].needs = Needs::OneOfEach(match node.job.head().status() {
                Status::Running => graph.waits_of(&node),
                Status::Deferred => graph.ahead_of(&node),
                _ => Vec::new(),
            });
        }
        (graph, targets)
    }

    fn vertex(&mut self, node: &Node) -> usize {
        *self.known.entry(address(&node.job)).or_insert_with(|| {
            self.vertices.push(Vertex { needs: Needs::OneOfEach(Vec::new()), stuck: true });
            self.open.push((self.vertices.len() - 1, node.clone()));
            self.vertices.len() - 1
        })
    }

    fn waits_of(&mut self, node: &Node) -> Vec<Vec<usize>> {
        node.waits().iter().map(|targets| targets.iter().map(|target| self.vertex(target)).collect()).collect()
    }

    /// What has to end before a deferred request can start, as far as it has started: what is queued is not stuck.
    fn ahead_of(&mut self, node: &Node) -> Vec<Vec<usize>> {
        let mut ahead = self.waits_of(node);
        if let Some(lane) = node.host.lane(&*node.job) {
            let lane = (address(&node.host), lane);
            if !self.lanes.contains_key(&lane) {
                let running = node.host.running_ahead(&*node.job).into_iter();
                let running = running.map(|job| self.vertex(&node.beside(job))).collect();
                self.lanes.insert(lane, running);
            }
            ahead.extend(self.lanes[&lane].iter().map(|admitted| vec![*admitted]));
        }
        ahead
    }

    /// Frees whatever can go on, until nothing more comes free: what is left is stuck.
    fn settle(&mut self) {
        let mut changed = true;
        while std::mem::take(&mut changed) {
            // The last found first: what the others depend on, so that one round does for most graphs.
            for index in (0..self.vertices.len()).rev() {
                let stuck = |index: &usize| self.vertices[*index].stuck;
                let free = match &self.vertices[index].needs {
                    Needs::Me => false,
                    Needs::OneOfEach(waits) => waits.iter().all(|targets| !targets.iter().all(stuck)),
                };
                changed |= free && std::mem::replace(&mut self.vertices[index].stuck, false);
            }
        }
    }

    /// Whether a vertex is stuck because of this thread.
    fn leads_back(&self, from: usize) -> bool {
        if !self.vertices[from].stuck {
            return false;
        }
        let mut seen = vec![false; self.vertices.len()];
        let mut next = vec![from];
        while let Some(index) = next.pop() {
            let vertex = &self.vertices[index];
            if !vertex.stuck || std::mem::replace(&mut seen[index], true) {
                continue;
            }
            match &vertex.needs {
                Needs::Me => return true,
                Needs::OneOfEach(waits) => next.extend(waits.iter().flatten()),
            }
        }
        false
    }
}
