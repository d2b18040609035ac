//! Shows a batch's progress on standard error: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::event::{Event, EventKind};
use super::run::Tell;
use crate::sync::Mutex;

/// How many active jobs get a line; more lines would push the bar off the screen.
const LINES: usize = 12;

/// A listener for the events of a batch of `jobs` jobs, which shows its progress on standard error.
pub(super) fn on_stderr(jobs: usize) -> Arc<Tell> {
    if std::io::stderr().is_terminal() {
        bars(jobs, ProgressDrawTarget::stderr())
    } else {
        lines(jobs, std::io::stderr())
    }
}

/// For a terminal: a bar for the whole batch, and a line for each active job.
fn bars(jobs: usize, target: ProgressDrawTarget) -> Arc<Tell> {
    let bars = Mutex::new(Bars::new(jobs, target));
    Arc::new(move |event| bars.lock().show(event))
}

/// For a log: a line for each job that has ended, and for each retry and remark. Other events would
/// fill the log.
fn lines(jobs: usize, out: impl Write + Send + 'static) -> Arc<Tell> {
    let state = Mutex::new((0, out));
    Arc::new(move |event| {
        let (ended, out) = &mut *state.lock();
        *ended += usize::from(matches!(event.kind, EventKind::Done | EventKind::Failed { .. }));
        if let EventKind::Done | EventKind::Failed { .. } | EventKind::Retrying { .. } | EventKind::Noted { .. } =
            event.kind
        {
            // Ignore a closed standard error: the batch should go on.
            let _ = writeln!(out, "[{ended}/{jobs}] {}: {}", name(event), words(&event.kind));
        }
    })
}

struct Bars {
    multi: MultiProgress,
    whole: ProgressBar,
    failed: usize,
    active: HashMap<usize, ProgressBar>,
}

impl Bars {
    fn new(jobs: usize, target: ProgressDrawTarget) -> Bars {
        let multi = MultiProgress::with_draw_target(target);
        let whole = multi.add(ProgressBar::new(jobs as u64));
        whole.set_style(style("{bar:32} {pos}/{len} jobs{msg}, {elapsed} so far, {eta} to go"));
        Bars { multi, whole, failed: 0, active: HashMap::new() }
    }

    /// Draws what an event changes: the bar of all jobs, and the lines of the first that are
    /// active.
    fn show(&mut self, event: &Event<'_>) {
        match &event.kind {
            EventKind::Done | EventKind::Failed { .. } => {
                if let Some(line) = self.active.remove(&event.index) {
                    line.finish_and_clear();
                    self.multi.remove(&line);
                }
                if let EventKind::Failed { .. } = event.kind {
                    self.failed += 1;
                    self.whole.set_message(format!(", {} failed", self.failed));
                    let _ = self.multi.println(format!("{}: {}", name(event), words(&event.kind)));
                }
                self.whole.inc(1);
                if Some(self.whole.position()) == self.whole.length() {
                    self.whole.abandon();
                }
            }
            kind => {
                if !self.active.contains_key(&event.index) && self.active.len() < LINES {
                    let line = self.multi.add(ProgressBar::new_spinner());
                    line.set_style(style("  {msg}"));
                    self.active.insert(event.index, line);
                }
                if let Some(line) = self.active.get(&event.index) {
                    line.set_message(format!("{}: {}", name(event), words(kind)));
                }
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn name(event: &Event<'_>) -> String {
    match event.id {
        Some(id) => format!("job {} ({})", event.index, printable(id)),
        None => format!("job {}", event.index),
    }
}

/// What a line says of an event, in a few words.
fn words(kind: &EventKind<'_>) -> String {
    match kind {
        EventKind::Started => "being submitted".into(),
        EventKind::Submitted => "submitted".into(),
        EventKind::StateChanged { state } => printable(state),
        EventKind::Progress { share } => format!("{:.0} %", share * 100.0),
        EventKind::Downloading { bytes, total: Some(total) } => {
            format!("downloading, {:.1} of {:.1} MB", *bytes as f64 / 1e6, *total as f64 / 1e6)
        }
        EventKind::Downloading { bytes, total: None } => format!("downloading, {:.1} MB", *bytes as f64 / 1e6),
        EventKind::Retrying { stage, attempt, delay, error } => {
            let error = printable(&error.to_string());
            format!("{stage} did not succeed at attempt {attempt}, again in {:.1} s: {error}", delay.as_secs_f64())
        }
        EventKind::Noted { text } => printable(text),
        EventKind::Done => "done".into(),
        EventKind::Failed { failure } => {
            let mut text = failure.to_string();
            let mut next = std::error::Error::source(failure);
            while let Some(error) = next {
                text = format!("{text}: {error}");
                next = error.source();
            }
            printable(&text)
        }
    }
}

/// The text of a service without control characters, which a terminal could take for commands.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{JobError, JobFailure, Stage, StopReason};
    use indicatif::InMemoryTerm;
    use std::time::Duration;

    fn events(tell: &Tell) {
        let error = JobError::retry("no\x1b[2J answer");
        let failure = JobFailure::Stopped(StopReason::Cancelled);
        let event = |job, kind| tell(&Event { index: job, id: Some("j-1"), kind });
        event(0, EventKind::Started);
        event(0, EventKind::StateChanged { state: "running" });
        let delay = Duration::from_secs(1);
        event(1, EventKind::Retrying { stage: Stage::Poll, attempt: 1, delay, error: &error });
        event(0, EventKind::Done);
        event(1, EventKind::Failed { failure: &failure });
    }

    #[test]
    fn elsewhere_there_is_a_line_for_what_matters_and_no_control_character() {
        let out = Shared::default();
        events(&*lines(2, out.clone()));
        let text = String::from_utf8(out.0.lock().clone()).expect("text");
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "[0/2] job 1 (j-1): poll did not succeed at attempt 1, again in 1.0 s: no [2J answer",
                "[1/2] job 0 (j-1): done",
                "[2/2] job 1 (j-1): the batch was cancelled",
            ]
        );
    }

    #[test]
    fn on_a_terminal_there_is_one_bar_and_no_line_stays_of_what_has_ended() {
        let terminal = InMemoryTerm::new(10, 120);
        events(&*bars(2, ProgressDrawTarget::term_like(Box::new(terminal.clone()))));
        let screen = terminal.contents();
        assert!(screen.contains("2/2 jobs, 1 failed"), "{screen}");
        assert!(!screen.contains("running"), "{screen}");
        assert!(!screen.contains('\x1b'), "{screen}");
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
