//! Whether a wait could ever end: the graph of what waits for what, looked at before a thread at
//! work blocks.
//!
//! A running request can end unless its thread is in a wait, without a time limit, that can't end:
//! in the innermost one or in one further out. A deferred request can end unless one of those ahead
//! of it can't. An executor can end unless one of its requests can't, or this thread is at work for
//! it. A thread first enters its own edges, then follows those of the others: of the threads that
//! close a cycle together, the last one to enter sees all of it.
//!
//! Reading the edges one after the other is sound. An edge stands until its target has ended, so an
//! edge seen earlier still stands when its target is seen unfinished later. Only a cancel ends it
//! before: the waits of an operation that was cancelled, or has a time limit, are no edges.
//!
//! Source: Knapp, "Deadlock Detection in Distributed Databases", ACM Computing Surveys 19(4), 1987
//! (the AND-OR model).

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Error;
use crate::executor::core::Core;
use crate::executor::current;
use crate::executor::group::remaining;
use crate::executor::interruptible;
use crate::executor::permits::Permits;
use crate::executor::pool::Task;
use crate::executor::request::Status;
use crate::executor::waits::{Follower, Node, Stoppable, Wait, Waiting};
use crate::sync::interrupt::InterruptibleWait;
use crate::sync::thread;

/// Says to all what this thread waits for, in the name of each request that it runs, for as long as
/// this lives.
///
/// A request that waits in a callback, say, of another one that it has run meanwhile is in both
/// waits: it can't end before both have.
pub(in crate::executor) struct Edges(Vec<(Arc<Core>, usize)>);

impl Edges {
    pub(in crate::executor) fn enter(wait: Wait) -> Edges {
        let operation = current::current().map(|(core, job)| Node { job, core });
        if operation.is_some() && remaining().is_some() {
            // It ends when the time is over that the operation has.
            return Edges(Vec::new());
        }
        let (thread, work) = (thread::current(), interruptible::current());
        let work = work.map(|work| work as Arc<dyn Stoppable>);
        let waiting = Arc::new(Waiting { wait: Arc::new(wait), thread, operation, work });
        // Nothing else has its address as long as it is entered: good for a thread that isn't a
        // request.
        let nameless = Arc::as_ptr(&waiting).addr();
        let mine: Vec<(Arc<Core>, usize)> = current::all()
            .into_iter()
            .map(|(core, job)| (core, job.map_or(nameless, |job| job.head().address())))
            .collect();
        for (core, who) in &mine {
            core.waits.lock().enter(*who, waiting.clone());
        }
        Edges(mine)
    }
}

impl Drop for Edges {
    fn drop(&mut self) {
        for (core, who) in &self.0 {
            let left = core.waits.lock().leave(*who);
            drop(left);
        }
    }
}

impl Core {
    /// `job` has come to need a turn of a limit, or what is ahead of it on its key, and no thread has
    /// looked whether that closes a circle. If it does, an operation of this executor is in it whose
    /// thread waits: so all those look again, and the threads that wait for the job.
    pub(in crate::executor) fn note_dependent(&self, job: &Task) {
        self.observers.wake_threads(job.head());
        self.waits.lock().wake_all();
    }

    /// `job` is held back until `first` has ended.
    pub(in crate::executor) fn follow(self: &Arc<Core>, job: &Task, first: &Task) {
        let wait = Arc::new(Wait::Any(vec![Node { job: first.clone(), core: self.clone() }]));
        self.waits.lock().follow(Follower { job: job.clone(), wait });
    }

    /// `job` is held back no more, by the request that it followed, if it did.
    pub(in crate::executor) fn unfollow(&self, job: &Task) {
        let followed = self.waits.lock().unfollow(job.head().address());
        if let Some(Wait::Any(followed)) = followed.as_ref().map(|follower| &*follower.wait) {
            // One that was cancelled leaves nothing behind in the request that it followed.
            followed.iter().for_each(|first| self.observers.unfollow(first.job.head(), job.head().id()));
        }
    }
}

/// Whether none of `targets` can end before what this thread is at work on has.
pub(in crate::executor) fn would_deadlock(targets: &[Node]) -> bool {
    let (mut graph, targets) = Graph::of_requests(targets);
    graph.settle();
    // Others may be stuck among themselves, and are just being told so. Only what leads back here
    // is ours to refuse.
    targets.iter().all(|target| graph.leads_back(*target))
}

/// Whether any of `targets` can't end before what this thread is at work on has.
pub(in crate::executor) fn any_would_deadlock(targets: &[Node]) -> bool {
    let (mut graph, targets) = Graph::of_requests(targets);
    graph.settle();
    targets.iter().any(|target| graph.leads_back(*target))
}

/// What a wait is told that would deadlock. A thread that waits for this operation may have
/// cancelled it first, which `interruptible`, begun before the graph was looked at, then knows.
pub(in crate::executor) fn refusal(interruptible: &InterruptibleWait) -> Error {
    if interruptible.is_interrupted() { Error::Interrupted } else { Error::WouldDeadlock }
}

/// Whether an executor, or its threads, can't end before what this thread is at work on has.
pub(in crate::executor) fn end_would_deadlock(end: &Wait) -> bool {
    let mut graph = Graph::new();
    let needs = graph.needs_of(std::slice::from_ref(end));
    graph.explore();
    graph.settle();
    needs.iter().flatten().any(|end| graph.leads_back(*end))
}

struct Graph {
    vertices: Vec<Vertex>,
    /// By the address of the request, of the executor whose end it is, or of the limit's turns.
    known: HashMap<usize, usize>,
    /// What runs on a lane, by the address of its executor and its number, for all that are
    /// deferred on it.
    lanes: HashMap<(usize, u32), Vec<usize>>,
    /// Vertices whose needs are still to be found out.
    open: Vec<(usize, Open)>,
    /// The executors that this thread is at work for, by their addresses.
    mine: Vec<usize>,
}

enum Open {
    Request(Node),
    End(Arc<Core>),
    Threads(Arc<Core>),
    /// A turn of a limit.
    Turn(Arc<Permits>, Arc<Core>),
}

struct Vertex {
    needs: Needs,
    stuck: bool,
}

enum Needs {
    /// Is at work on this thread, below the wait.
    Me,
    /// Of each of these, one has to end; nothing, for what is not started, or at work, or ended.
    OneOfEach(Vec<Vec<usize>>),
}

/// The vertex of this thread.
const ME: usize = 0;

fn address<T: ?Sized>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).cast::<()>().addr()
}

impl Graph {
    /// Knows this thread, and what it is at work on.
    fn new() -> Graph {
        let at_work = current::all();
        Graph {
            vertices: vec![Vertex { needs: Needs::Me, stuck: true }],
            known: at_work.iter().filter_map(|(_, job)| Some((job.as_ref()?.head().address(), ME))).collect(),
            lanes: HashMap::new(),
            open: Vec::new(),
            mine: at_work.iter().map(|(core, _)| address(core)).collect(),
        }
    }

    /// All that `targets` depend on, and which vertices they are.
    fn of_requests(targets: &[Node]) -> (Graph, Vec<usize>) {
        let mut graph = Graph::new();
        let targets = targets.iter().map(|target| graph.request(target)).collect();
        graph.explore();
        (graph, targets)
    }

    fn explore(&mut self) {
        while let Some((index, open)) = self.open.pop() {
            self.vertices[index].needs = Needs::OneOfEach(match open {
                Open::Request(node) => match node.job.head().status() {
                    Status::Running => self.waits_of(&node),
                    Status::Deferred => self.ahead_of(&node),
                    _ => Vec::new(),
                },
                Open::End(core) => self.unfinished_of(&core, core.waits.lock().all()),
                Open::Threads(core) => self.unfinished_of(&core, core.waits.lock().of_threads()),
                Open::Turn(permits, core) => self.holders_of(&permits, &core),
            });
        }
    }

    fn request(&mut self, node: &Node) -> usize {
        let address = node.job.head().address();
        self.known.get(&address).copied().unwrap_or_else(|| self.add(address, Open::Request(node.clone())))
    }

    fn end(&mut self, core: &Arc<Core>) -> usize {
        let address = address(core);
        self.known.get(&address).copied().unwrap_or_else(|| self.add(address, Open::End(core.clone())))
    }

    fn threads(&mut self, core: &Arc<Core>) -> usize {
        // The second byte of the executor's memory: an address that is nothing else's.
        let address = address(core) + 1;
        self.known.get(&address).copied().unwrap_or_else(|| self.add(address, Open::Threads(core.clone())))
    }

    fn turn(&mut self, permits: &Arc<Permits>, core: &Arc<Core>) -> usize {
        let address = address(permits);
        let known = self.known.get(&address).copied();
        known.unwrap_or_else(|| self.add(address, Open::Turn(permits.clone(), core.clone())))
    }

    fn add(&mut self, address: usize, open: Open) -> usize {
        let index = self.vertices.len();
        self.vertices.push(Vertex { needs: Needs::OneOfEach(Vec::new()), stuck: true });
        self.known.insert(address, index);
        self.open.push((index, open));
        index
    }

    fn waits_of(&mut self, node: &Node) -> Vec<Vec<usize>> {
        let waits = node.core.waits.lock().of(node.job.head().address());
        self.needs_of(&waits)
    }

    fn needs_of<W: std::borrow::Borrow<Wait>>(&mut self, waits: &[W]) -> Vec<Vec<usize>> {
        let mut needs = Vec::new();
        for wait in waits {
            match wait.borrow() {
                Wait::Any(nodes) => needs.push(nodes.iter().map(|node| self.request(node)).collect()),
                Wait::All(nodes) => needs.extend(nodes.iter().map(|node| vec![self.request(node)])),
                Wait::End(core) => needs.push(vec![self.end(core)]),
                Wait::Threads(core) => needs.push(vec![self.threads(core)]),
            }
        }
        needs
    }

    /// What has to end before a deferred request can start, as far as it has started: what is
    /// queued is not stuck.
    fn ahead_of(&mut self, node: &Node) -> Vec<Vec<usize>> {
        let mut ahead = self.waits_of(node);
        let core = address(&node.core);
        let lanes = &self.lanes;
        if let Some((lane, running)) = node.core.order.ahead(node.job.head(), |lane| !lanes.contains_key(&(core, lane)))
        {
            if !self.lanes.contains_key(&(core, lane)) {
                let beside = |job| Node { job, core: node.core.clone() };
                let running = running.into_iter().map(|job| self.request(&beside(job))).collect();
                self.lanes.insert((core, lane), running);
            }
            ahead.extend(self.lanes[&(core, lane)].iter().map(|running| vec![*running]));
        }
        if node.job.head().is_limited() {
            if let Some(permits) = node.core.awaited_turns(node.job.head()) {
                ahead.push(vec![self.turn(&permits, &node.core)]);
            }
        }
        ahead
    }

    /// What a turn of a limit needs: one of those that have one has to end.
    fn holders_of(&mut self, permits: &Permits, core: &Arc<Core>) -> Vec<Vec<usize>> {
        let holders = permits.holders();
        // A turn that is just being given on is free.
        if holders.is_empty() {
            return Vec::new();
        }
        vec![holders.into_iter().map(|job| self.request(&Node { job, core: core.clone() })).collect()]
    }

    /// What an executor's end needs: this thread, if it is at work for it, and the ends of all
    /// `waits` in it.
    fn unfinished_of(&mut self, core: &Arc<Core>, waits: Vec<Arc<Wait>>) -> Vec<Vec<usize>> {
        let mut needs = self.needs_of(&waits);
        if self.mine.contains(&address(core)) {
            needs.push(vec![ME]);
        }
        needs
    }

    /// Frees whatever can go on, until nothing more comes free: what is left is stuck.
    fn settle(&mut self) {
        let mut changed = true;
        while std::mem::take(&mut changed) {
            // The last found first: what the others depend on, so that one round does for most
            // graphs.
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
