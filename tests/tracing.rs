//! Feature `tracing`, in a process of its own because it sets the global subscriber: a request tells where it stands.
#![cfg(all(feature = "tracing", not(loom)))]

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use fulmar::{Error, Executor};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down what happens to each span, under the path of its names.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    names: HashMap<u64, String>,
    references: HashMap<u64, usize>,
    inside: HashMap<std::thread::ThreadId, Vec<u64>>,
    lines: Vec<String>,
}

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("a string takes all");
    }
}

impl Diary {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lines(&self, of: &str) -> Vec<String> {
        self.pages().lines.iter().filter(|line| line.contains(of)).cloned().collect()
    }
}

impl Subscriber for Diary {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "fulmar" || metadata.target().starts_with("tracing")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut pages = self.pages();
        let id = pages.names.len() as u64 + 1;
        let mut name = span.parent().map(|parent| format!("{}/", pages.names[&parent.into_u64()])).unwrap_or_default();
        name.push_str(span.metadata().name());
        let mut fields = String::new();
        span.record(&mut Text(&mut fields));
        pages.lines.push(format!("new {name}{fields}"));
        pages.names.insert(id, name);
        pages.references.insert(id, 1);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut pages = self.pages();
        let mut fields = String::new();
        values.record(&mut Text(&mut fields));
        let line = format!("record {}{fields}", pages.names[&span.into_u64()]);
        pages.lines.push(line);
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut pages = self.pages();
        let mut fields = String::new();
        event.record(&mut Text(&mut fields));
        let inside = pages.inside.get(&std::thread::current().id()).and_then(|spans| spans.last().copied());
        let name = inside.map(|span| pages.names[&span].clone()).unwrap_or_default();
        pages.lines.push(format!("event in {name}{fields}"));
    }

    fn enter(&self, span: &Id) {
        let thread = std::thread::current().id();
        self.pages().inside.entry(thread).or_default().push(span.into_u64());
    }

    fn exit(&self, _span: &Id) {
        let thread = std::thread::current().id();
        self.pages().inside.entry(thread).or_default().pop();
    }

    fn clone_span(&self, span: &Id) -> Id {
        *self.pages().references.entry(span.into_u64()).or_default() += 1;
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let mut pages = self.pages();
        let left = pages.references.entry(span.into_u64()).or_default();
        *left -= 1;
        let closed = *left == 0;
        if closed {
            let line = format!("close {}", pages.names[&span.into_u64()]);
            pages.lines.push(line);
        }
        closed
    }
}

#[test]
fn a_request_tells_its_stages_and_its_end() {
    let diary = Diary::default();
    tracing::subscriber::set_global_default(diary.clone()).expect("the first in this process");
    let executor = Executor::builder().threads(1).build().expect("sound");
    let store = Arc::new(());
    let (open, gate) = mpsc::channel::<()>();
    let operation = move |_: &(), _: &str| {
        tracing::info!(target: "fulmar", "at work");
        gate.recv().map_err(|_| "nobody opened the gate")
    };
    let first = executor.submit(&store, operation, true, "AAPL").expect("accepted");
    let second = executor.submit(&store, |_: &(), _: &str| Ok::<_, Error>(()), true, "AAPL").expect("accepted");
    let third = executor.submit(&store, |_: &(), _: &str| Ok::<_, Error>(()), true, "AAPL").expect("accepted");
    assert!(third.cancel());
    open.send(()).expect("it listens");
    first.wait(None).expect("it ends");
    second.wait(None).expect("it ends");
    executor.shutdown(None).expect("it ends");

    let stages = |stage: &str| diary.lines(&format!("request/{stage}")).len();
    assert_eq!(diary.lines("new request id=").len(), 3, "{:#?}", diary.lines(""));
    assert_eq!(diary.lines("new request id=1 kind=Modifier").len(), 1, "{:#?}", diary.lines(""));
    // Opened and closed: two each; the first was never deferred, the third never queued.
    assert_eq!((stages("deferred"), stages("queued")), (4, 4), "{:#?}", diary.lines(""));
    assert_eq!(diary.lines("new request/running").len(), 2, "{:#?}", diary.lines(""));
    assert_eq!(diary.lines("event in request/running message=at work").len(), 1, "{:#?}", diary.lines(""));
    assert_eq!(diary.lines("record request status=Completed").len(), 2, "{:#?}", diary.lines(""));
    assert_eq!(diary.lines("record request status=Cancelled").len(), 1, "{:#?}", diary.lines(""));
    let closed = diary.lines("close request").into_iter().filter(|line| line == "close request").count();
    assert_eq!(closed, 3, "ended, though the handles are still there: {:#?}", diary.lines(""));
    drop((first, second, third));
}
