//! Operations by name, with JSON arguments and results (feature `json`).

use serde_json::Value;

use super::operation::Operation;
use crate::error::BoxError;

/// A store whose operations have names, so that a request can be written down: in a file, a
/// message, a durable queue.
///
/// ```
/// use fulmar::{BoxError, Executor, Store};
/// use serde_json::{Value, json};
/// use std::sync::Arc;
///
/// struct Sums;
///
/// impl Store for Sums {
///     fn name(&self) -> &str { "sums" }
///
///     fn call(&self, op: &str, args: Value) -> Result<Value, BoxError> {
///         match op {
///             "add" => Ok(json!(args["a"].as_i64().ok_or("`a` is not a number")? + args["b"].as_i64().ok_or("`b` is not a number")?)),
///             _ => Err(format!("the store `{}` has no operation `{op}`", self.name()).into()),
///         }
///     }
/// }
///
/// let executor = Executor::builder().threads(1).build()?;
/// let sum = executor.submit(&Arc::new(Sums), "add", false, json!({"a": 1, "b": 2}))?;
/// assert_eq!(sum.wait(None)?, json!(3));
/// # Ok::<(), fulmar::Error>(())
/// ```
pub trait Store: Send + Sync {
    /// The store's own name, for messages and for finding it again.
    fn name(&self) -> &str;

    /// Does what `op` names.
    ///
    /// # Errors
    /// The operation's own; a name that the store doesn't know is one too, and says which.
    fn call(&self, op: &str, args: Value) -> Result<Value, BoxError>;
}

/// An operation by its name.
#[doc(hidden)]
#[derive(Debug)]
pub struct Named;

impl<S: Store + ?Sized> Operation<S, Value, Named> for &'static str {
    type Output = Value;

    fn call(self, store: &S, args: Value) -> Result<Value, BoxError> {
        store.call(self, args)
    }
}
