//! An iterator over the results of an operation on each item of another one, so many at once.
//!
//! Promises: an item is read only when there is room for it, so that the input may be endless; the
//! window bounds what was read and not handed out; a failure is the result of its item; what has
//! not started is cancelled with the iterator. Left to others: stages, and a thread for the input
//! (`pipeline::Pipeline`).
//!
//! Source: `Executor.map` of Python's concurrent.futures, whose `buffersize` came for what was
//! reported in cpython's issues 74028 and 74508: it read all of its input first.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use super::core::{OrderBy, Way};
use super::front::Executor;
use super::handle::AsyncRequest;
use super::operation::IntoOutput;
use super::request::{Inbox, Observer, Status};
use super::wait::completed::next_ended;
use super::waits::Node;
use crate::error::{Error, Result};
use crate::time::Deadline;

impl Executor {
    /// Calls `op` with each of `items` on the executor's threads, and iterates over the results in
    /// the order of the items; [`as_completed`](Map::as_completed) makes it the order in which they
    /// come.
    ///
    /// It is lazy: nothing is read or submitted before the first `next`, and then never more than
    /// `window` items whose results were not handed out. So the input may be endless. Each `next`
    /// reads one item, and reads on for as long as it has no result to hand out and the window has
    /// room. The items are read on the thread that calls `next`, so they needn't be `Send` before
    /// they are read; where that may wait for long, as for messages, results wait with it, and
    /// [`pipeline::Pipeline`](crate::pipeline::Pipeline) is better, which has a thread for its
    /// source.
    ///
    /// If `op` fails or panics, the item's result is an `Err`, and the iteration goes on:
    /// `collect::<Result<Vec<_>, _>>()` and `?` stop at the first. Requests are never refused for a
    /// full queue. If the executor is shut down, the next item comes as [`Error::ShutDown`], behind
    /// the results of those before it, and ends the iteration. The requests belong to the group and
    /// the time limit of the operation that calls `next` ([`Group`](crate::Group)); once that has
    /// ended, the next item comes as [`Error::Cancelled`] or [`Error::Expired`], and is the last
    /// that is read. So is one whose wait was ended ([`Error::Interrupted`]) because the operation
    /// was cancelled.
    ///
    /// Dropping it reads no more, cancels what has not started, tells what runs
    /// ([`is_cancelled`](crate::is_cancelled)), and doesn't wait. Inside an operation it waits as
    /// [`AsyncRequest::wait`] does, so that one thread is enough for maps in maps.
    ///
    /// ```
    /// use fulmar::Executor;
    ///
    /// let executor = Executor::builder().threads(4).build()?;
    /// let lengths = executor.map(["AAPL", "IBM", "GE"], 2, |symbol| symbol.len())?;
    /// assert_eq!(lengths.collect::<Result<Vec<_>, _>>()?, [4, 3, 2]);
    ///
    /// // Over endless input, up to the first failure.
    /// let small = executor.map(1u32.., 8, |n| u8::try_from(n * n))?;
    /// assert_eq!(small.take_while(Result::is_ok).count(), 15);
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for a window of 0.
    pub fn map<I, R>(
        &self,
        items: I,
        window: usize,
        op: impl Fn(I::Item) -> R + Send + Sync + 'static,
    ) -> Result<Map<I::IntoIter, R::Output>>
    where
        I: IntoIterator<Item: Send + 'static>,
        R: IntoOutput<Output: Send + 'static>,
    {
        if window == 0 {
            return Err(Error::Invalid("a window of 0 lets nothing start: use 1 or more".into()));
        }
        let op = Arc::new(move |item| op(item).into_output().map_err(Error::Operation));
        let feed = Feed { executor: self.clone(), items: Some(items.into_iter()), window, op };
        Ok(Map { feed, ahead: VecDeque::new(), handed_out: 0 })
    }
}

type Op<A, T> = Arc<dyn Fn(A) -> Result<T> + Send + Sync>;

/// What is left of the input, and what is to be done with it.
struct Feed<I: Iterator, T> {
    executor: Executor,
    /// `None` once it has ended, or an item was refused.
    items: Option<I>,
    window: usize,
    op: Op<I::Item, T>,
}

impl<I, T> Feed<I, T>
where
    I: Iterator<Item: Send + 'static>,
    T: Send + 'static,
{
    /// Submits the next item, or says why it is refused, which ends the input.
    fn submit(&mut self) -> Option<Result<AsyncRequest<T>>> {
        let Some(item) = self.items.as_mut()?.next() else {
            self.items = None;
            return None;
        };
        let op = self.op.clone();
        // The window is the bound: a queue's would lose the item.
        let request = self.executor.admit(Way::Accepted(OrderBy::FREE), move || op(item));
        // The group of the operation that iterates may have ended: so would all that follow.
        if request.as_ref().map_or(true, |request| request.status() == Status::Cancelled) {
            self.items = None;
        }
        Some(request)
    }

    /// Ends the input if the operation that iterates was cancelled: no wait of it goes on, so that
    /// a loop over endless input would never pause.
    fn note(&mut self, result: &Result<T>) {
        if let Err(Error::Interrupted) = result {
            self.items = None;
        }
    }

    fn size_hint(&self, read: usize) -> (usize, Option<usize>) {
        let (_, most) = self.items.as_ref().map_or((0, Some(0)), Iterator::size_hint);
        // At least what was read: an executor that is shut down ends the iteration early.
        (read, most.and_then(|most| most.checked_add(read)))
    }
}

/// Results in the order of the items: see [`Executor::map`].
#[must_use = "it reads nothing and submits nothing until it is iterated over"]
pub struct Map<I: Iterator, T> {
    feed: Feed<I, T>,
    /// What was read and not handed out, the earliest first.
    ahead: VecDeque<Result<AsyncRequest<T>>>,
    handed_out: usize,
}

impl<I: Iterator, T> Map<I, T> {
    /// Hands the results out as they come, each with the number of its item, which counts from 0.
    ///
    /// ```
    /// let executor = fulmar::Executor::builder().threads(4).build()?;
    /// let symbols = ["AAPL", "IBM", "GE"];
    /// for (index, length) in executor.map(symbols, 2, |symbol| symbol.len())?.as_completed() {
    ///     assert_eq!(length?, symbols[index].len());
    /// }
    /// # Ok::<(), fulmar::Error>(())
    /// ```
    pub fn as_completed(mut self) -> MapCompleted<I, T> {
        let items = self.feed.items.take();
        let Feed { executor, window, op, .. } = &self.feed;
        let feed = Feed { executor: executor.clone(), items, window: *window, op: op.clone() };
        let mut completed = MapCompleted {
            feed,
            inbox: Inbox::new(),
            read: self.handed_out,
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            refused: None,
        };
        // What was read before comes as well.
        self.ahead.drain(..).for_each(|submitted| completed.enter(submitted));
        completed
    }
}

impl<I, T> Iterator for Map<I, T>
where
    I: Iterator<Item: Send + 'static>,
    T: Send + 'static,
{
    type Item = Result<T>;

    /// Waits for the result of the next item; `None` when the input has ended.
    fn next(&mut self) -> Option<Result<T>> {
        let mut has_read = false;
        let is_ready = |ahead: &VecDeque<_>| match ahead.front() {
            Some(Ok(first)) => AsyncRequest::is_done(first),
            first => first.is_some(),
        };
        while self.ahead.len() < self.feed.window && !(has_read && is_ready(&self.ahead)) {
            let Some(submitted) = self.feed.submit() else { break };
            self.ahead.push_back(submitted);
            has_read = true;
        }
        let first = self.ahead.pop_front()?;
        self.handed_out += 1;
        Some(first.and_then(|request| {
            let result = request.wait(None);
            // The wait itself may have failed, and nothing asks for the result any more.
            request.cancel();
            self.feed.note(&result);
            result
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint(self.ahead.len())
    }
}

impl<I, T> FusedIterator for Map<I, T>
where
    I: Iterator<Item: Send + 'static>,
    T: Send + 'static,
{
}

impl<I: Iterator, T> Drop for Map<I, T> {
    fn drop(&mut self) {
        for request in self.ahead.iter().flatten() {
            request.cancel();
        }
    }
}

impl<I: Iterator, T> fmt::Debug for Map<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("window", &self.feed.window)
            .field("ahead", &self.ahead.len())
            .finish_non_exhaustive()
    }
}

/// Results as they come, with the numbers of their items: see [`Map::as_completed`].
#[must_use = "it reads nothing and submits nothing until it is iterated over"]
pub struct MapCompleted<I: Iterator, T> {
    feed: Feed<I, T>,
    /// Is told of the slots whose requests have ended.
    inbox: Arc<Inbox>,
    /// How many items were read.
    read: usize,
    /// The requests that were not handed out, each with the number of its item.
    slots: Vec<Option<(usize, AsyncRequest<T>)>>,
    /// The empty slots of which the inbox won't be told.
    free: Vec<usize>,
    /// How many slots are not empty.
    open: usize,
    refused: Option<(usize, Error)>,
}

impl<I: Iterator, T> MapCompleted<I, T> {
    /// Gives the next item its number, and its request a slot; the inbox is told when the request
    /// has ended. A refusal is kept, to be handed out after the results that are ready.
    fn enter(&mut self, submitted: Result<AsyncRequest<T>>) {
        let number = self.read;
        self.read += 1;
        let request = match submitted {
            Ok(request) => request,
            Err(error) => {
                self.refused = Some((number, error));
                return;
            }
        };
        let slot = self.free.pop().unwrap_or(self.slots.len());
        let observer = Observer::Inbox(self.inbox.clone(), slot);
        if request.core().observers.register(request.head(), observer).is_err() {
            self.inbox.put(slot);
        }
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some((number, request));
        self.open += 1;
    }

    /// A slot whose request has ended, if there is one.
    fn ready(&self) -> Option<usize> {
        std::iter::from_fn(|| self.inbox.take()).find(|slot| self.slots[*slot].is_some())
    }

    /// Waits for one that ends.
    fn wait(&self) -> Result<usize> {
        let open = || self.slots.iter().flatten();
        let nodes = || -> Vec<Node> { open().map(|(_, request)| request.node()).collect() };
        next_ended(&self.inbox, Deadline::start(None), |slot| self.slots[slot].is_some(), nodes, self.open as u64)
    }
}

impl<I, T> Iterator for MapCompleted<I, T>
where
    I: Iterator<Item: Send + 'static>,
    T: Send + 'static,
{
    type Item = (usize, Result<T>);

    /// Waits until one of the items under way has its result; `None` when the input has ended.
    fn next(&mut self) -> Option<(usize, Result<T>)> {
        let mut has_read = false;
        let mut ready = self.ready();
        while self.open < self.feed.window && !(has_read && ready.is_some()) {
            let Some(submitted) = self.feed.submit() else { break };
            self.enter(submitted);
            has_read = true;
            ready = ready.or_else(|| self.ready());
        }
        if ready.is_none() {
            if let Some((number, refused)) = self.refused.take() {
                return Some((number, Err(refused)));
            }
            if self.open == 0 {
                return None;
            }
        }
        match ready.map_or_else(|| self.wait(), Ok) {
            Ok(slot) => {
                let (number, request) = self.slots[slot].take()?;
                self.open -= 1;
                self.free.push(slot);
                Some((number, request.try_take().unwrap_or(Err(Error::ResultTaken))))
            }
            // The wait itself has failed: the earliest item is given up, and its slot, of which the
            // inbox may be told later.
            Err(error) => {
                let number = |slot: &&mut Option<(usize, AsyncRequest<T>)>| slot.as_ref().map(|(number, _)| *number);
                let earliest = self.slots.iter_mut().filter(|slot| slot.is_some()).min_by_key(number)?;
                let (number, request) = earliest.take()?;
                self.open -= 1;
                request.cancel();
                let result = Err(error);
                self.feed.note(&result);
                Some((number, result))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint(self.open + usize::from(self.refused.is_some()))
    }
}

impl<I, T> FusedIterator for MapCompleted<I, T>
where
    I: Iterator<Item: Send + 'static>,
    T: Send + 'static,
{
}

impl<I: Iterator, T> Drop for MapCompleted<I, T> {
    fn drop(&mut self) {
        for (_, request) in self.slots.iter().flatten() {
            request.cancel();
        }
    }
}

impl<I: Iterator, T> fmt::Debug for MapCompleted<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapCompleted")
            .field("window", &self.feed.window)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
