//! A function with its steps and its children, to be printed.

use std::fmt;

use serde_json::{Value, json};

use super::children::MOST_DEPTH;
use super::function::numbered;
use crate::tasks::engine::TaskRef;
use crate::tasks::error::{Result, TaskError};
use crate::tasks::queue::TaskQueue;

/// A task, the steps that it has stored, and its children. Prints as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskTree {
    /// Its type.
    pub task_type: String,
    /// Its identifier.
    pub identifier: String,
    /// Where it stands, in capitals.
    pub status: String,
    /// What its log says last.
    pub message: String,
    /// Its steps, in the order of their first use.
    pub steps: Vec<StepInfo>,
    /// Its children, oldest first.
    pub children: Vec<TaskTree>,
    /// Whether it has more children than were asked for.
    pub has_more: bool,
}

/// A stored step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// Its name.
    pub name: String,
    /// Which use of the name it is, from 1.
    pub number: u64,
    /// `step`, `sleep`, `event`, `children` or `patch`.
    pub kind: &'static str,
    /// `begun`, `done` or `failed`.
    pub state: &'static str,
    /// How often its closure has come to an end.
    pub attempts: u64,
    /// The size of what is stored of it.
    pub bytes: u64,
}

impl TaskQueue {
    /// A task with its steps and its children, of each task no more than `most`.
    ///
    /// # Errors
    /// [`TaskError::NotFound`]; those of the database.
    pub fn tree(&self, task_type: &str, identifier: &str, most: usize) -> Result<TaskTree> {
        let task = TaskRef { task_type: task_type.to_owned(), identifier: identifier.to_owned() };
        let missing = || TaskError::NotFound { task_type: task_type.to_owned(), identifier: identifier.to_owned() };
        let id = self.engine().journal().find(&task)?.ok_or_else(missing)?;
        self.grow(id, &task, most, MOST_DEPTH)?.ok_or_else(missing)
    }

    /// `None` if it was deleted meanwhile.
    fn grow(&self, id: i64, task: &TaskRef, most: usize, depth: usize) -> Result<Option<TaskTree>> {
        let Some(info) = self.engine().info(task)? else {
            return Ok(None);
        };
        let journal = self.engine().journal();
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        let (_, entries) = journal.steps(id)?;
        let steps = entries.iter().map(|entry| StepInfo {
            name: entry.name.clone(),
            number: number(entry.number) + 1,
            kind: entry.kind.word(),
            state: entry.state.word(),
            attempts: number(entry.attempts),
            bytes: entry.body.as_ref().map_or(0, |body| body.len() as u64),
        });
        let steps = steps.collect();
        let family = if depth == 0 { Vec::new() } else { journal.family(id, most.saturating_add(1))? };
        let has_more = family.len() > most;
        let mut children = Vec::new();
        for (id, child) in family.iter().take(most) {
            children.extend(self.grow(*id, child, most, depth - 1)?);
        }
        let message =
            self.engine().log(task)?.and_then(|mut log| log.pop()).map(|entry| entry.message).unwrap_or_default();
        Ok(Some(TaskTree {
            task_type: task.task_type.clone(),
            identifier: task.identifier.clone(),
            status: info.status.to_string(),
            message,
            steps,
            children,
            has_more,
        }))
    }
}

impl TaskTree {
    /// As JSON, in lines.
    pub fn to_json(&self) -> String {
        format!("{:#}", self.value())
    }

    fn value(&self) -> Value {
        let step = |step: &StepInfo| {
            let StepInfo { name, number, kind, state, attempts, bytes } = step;
            json!({"name": name, "number": number, "kind": kind, "state": state, "attempts": attempts, "bytes": bytes})
        };
        json!({
            "task_type": self.task_type,
            "identifier": self.identifier,
            "status": self.status,
            "message": self.message,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "children": self.children.iter().map(TaskTree::value).collect::<Vec<_>>(),
            "has_more": self.has_more,
        })
    }

    /// Adds the rows of the printed table for this task: its own, one for each step, and those of
    /// its children, indented by one level more. A row `..` at the end says that there are more
    /// children. `depth` is how many parents stand above the task.
    fn rows(&self, depth: usize, rows: &mut Vec<[String; 4]>) {
        let indent = "  ".repeat(depth);
        rows.push([
            format!("{indent}{}", self.identifier),
            self.task_type.clone(),
            self.status.clone(),
            self.message.clone(),
        ]);
        for step in &self.steps {
            let name = numbered(&step.name, i64::try_from(step.number).unwrap_or(1) - 1);
            let what = format!("{} attempts, {} bytes", step.attempts, step.bytes);
            rows.push([format!("{indent}  . {name}"), step.kind.into(), step.state.into(), what]);
        }
        for child in &self.children {
            child.rows(depth + 1, rows);
        }
        if self.has_more {
            rows.push([format!("{indent}  .."), String::new(), String::new(), String::new()]);
        }
    }
}

impl fmt::Display for TaskTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["task / step", "type", "status", "message"].map(str::to_owned)];
        self.rows(0, &mut rows);
        let mut widths = [0; 3];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for [name, kind, status, message] in rows {
            let [a, b, c] = widths;
            writeln!(f, "{}", format!("{name:a$}  {kind:b$}  {status:c$}  {message}").trim_end())?;
        }
        Ok(())
    }
}
