//! Maintenance: what a worker does now and then for the whole queue.

use super::super::error::TaskError;
use super::super::limits;
use super::shared::Shared;
use crate::trace::event;

impl Shared {
    /// Takes up tasks whose workers are lost, and deletes retired ones, of all workers.
    pub(super) fn maintain(&self) {
        if let Err(error) = self.look_for_types() {
            self.note_error("looking for types", &error);
        }
        if let Err(error) = self.look_for_a_newer_schema() {
            self.note_error("looking at the schema's version", &error);
        }
        if let Err(error) = self.look_for_senseless_limits() {
            self.note_error("looking at limits", &error);
        }
        match self.queue.tidy() {
            Ok(tidied) if tidied != Default::default() => event!(INFO, "tidied", tidied = tidied),
            Ok(_) => {}
            Err(error) => self.note_error("tidying", &error),
        }
    }

    /// Enqueues the tasks of schedules whose time has come, of all types: another worker may have
    /// the handlers.
    pub(super) fn fire_schedules(&self) {
        // A worker that stops leaves what is left to make up for to others.
        if let Err(error) = self.queue.fire_schedules_while(|| !self.state.lock().draining) {
            self.note_error("firing schedules", &error);
        }
    }

    /// Told once: the worker goes on, and the log tells its operator that it is the older program.
    fn look_for_a_newer_schema(&self) -> Result<(), TaskError> {
        let Some(words) = self.queue.newer_schema()? else { return Ok(()) };
        if !std::mem::replace(&mut self.state.lock().told_of_newer_schema, true) {
            event!(WARN, "the schema is newer than this worker", worker = self.id.to_string(), words = words);
        }
        Ok(())
    }

    /// Told once for each set of them, as the tasks of such a type wait until an operator acts.
    fn look_for_senseless_limits(&self) -> Result<(), TaskError> {
        let types = self.queue.senseless_limits()?;
        let told = std::mem::replace(&mut self.state.lock().told_of_limits, types.clone());
        for name in types.iter().filter(|name| !told.contains(name)) {
            event!(WARN, "a type's limits make no sense", worker = self.id.to_string(), words = limits::warning(name));
        }
        Ok(())
    }

    /// A handler of a type that is not registered gets nothing to do: said, because it may be a
    /// slip of the pen.
    fn look_for_types(&self) -> Result<(), TaskError> {
        let known = self.queue.engine().types()?;
        let unknown: Vec<&str> = (self.types.iter().map(|name| &**name))
            .filter(|name| known.iter().all(|known| known.name() != *name))
            .collect();
        let count = unknown.len() as u64;
        let before = std::mem::replace(&mut self.state.lock().stats.unregistered, count);
        if count > before {
            let (worker, types) = (self.id.to_string(), unknown.join(", "));
            event!(
                WARN,
                "a worker has handlers of types that aren't registered: register them",
                worker = worker,
                types = types
            );
        }
        Ok(())
    }
}
