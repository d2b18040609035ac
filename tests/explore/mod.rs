//! What the model checks share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `model` through all interleavings with at most `preemptions`, and tells how many there were.
pub(crate) fn check(name: &str, preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let interleavings = Arc::new(AtomicUsize::new(0));
    let count = interleavings.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let interleavings = interleavings.load(Ordering::Relaxed);
    println!("{name}: {interleavings} interleavings with at most {preemptions} preemptions");
    assert!(interleavings > 10, "a model that explores nothing proves nothing");
}
