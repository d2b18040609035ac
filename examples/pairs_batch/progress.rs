//! Progress without the feature of that name: one bar on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use fulmar::batch::{Event, EventKind};
use indicatif::{ProgressBar, ProgressStyle};

use crate::report::chain;

/// What shows how `queries` queries stand.
pub(crate) fn on_stderr(queries: usize) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
    let bar = io::stderr().is_terminal().then(|| bar(queries));
    move |event| match &bar {
        Some(bar) => draw(bar, event),
        None => line(event),
    }
}

fn bar(queries: usize) -> ProgressBar {
    let bar = ProgressBar::new(queries as u64);
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} queries, {elapsed} so far  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn draw(bar: &ProgressBar, event: &Event<'_>) {
    match &event.kind {
        EventKind::Done => bar.inc(1),
        EventKind::Failed { failure } => {
            bar.println(format!("query {} {}: {}", event.index, event.id.unwrap_or(""), chain(failure)));
            bar.inc(1);
        }
        EventKind::StateChanged { state } => bar.set_message(format!("{} {state}", event.id.unwrap_or(""))),
        _ => return,
    }
    if Some(bar.position()) == bar.length() {
        bar.abandon_with_message("");
    }
}

fn line(event: &Event<'_>) {
    let text = match &event.kind {
        EventKind::Done => "done".to_owned(),
        EventKind::Failed { failure } => chain(failure),
        EventKind::Retrying { stage, error, .. } => format!("{stage} is tried again: {error}"),
        EventKind::Noted { text } => (*text).to_owned(),
        _ => return,
    };
    // A closed standard error isn't a reason to stop.
    let _ = writeln!(io::stderr(), "query {} {}: {text}", event.index, event.id.unwrap_or(""));
}
