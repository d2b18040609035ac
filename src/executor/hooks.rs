//! What users want done on each thread of the pool, when it starts and before it ends.

use std::sync::Arc;

use crate::panics;

pub(super) type Hook = Arc<dyn Fn() + Send + Sync>;

/// What users want done on each thread.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) start: Option<Hook>,
    pub(super) stop: Option<Hook>,
}

impl Hooks {
    pub(super) fn has_start(&self) -> bool {
        self.start.is_some()
    }

    pub(super) fn start(&self) {
        run(self.start.as_ref());
    }

    pub(super) fn stop(&self) {
        run(self.stop.as_ref());
    }
}

/// A panic in a hook is reported by the panic hook, and the thread goes on.
fn run(hook: Option<&Hook>) {
    if let Some(hook) = hook {
        panics::contain(|| hook());
    }
}
