//! Waits for several requests, of one type or of several, together.

use std::time::Duration;

use super::completed::{Awaitable, Completions};
use crate::error::{Error, Result};
use crate::executor::handle::AsyncRequest;
use crate::time::Deadline;

/// Handles that [`wait_all`] and [`wait_each`] wait for together: a slice, an array or a vector of
/// handles or of references to them, or a tuple of two to six references, whose results may be of
/// different types.
pub trait Handles {
    /// The values of all.
    type Values;
    /// The result of each.
    type Results;

    /// Not for users: [`wait_all`].
    ///
    /// # Errors
    /// Those of [`wait_all`].
    #[doc(hidden)]
    fn all(self, timeout: Option<Duration>) -> Result<Self::Values>;

    /// Not for users: [`wait_each`].
    #[doc(hidden)]
    fn each(self, timeout: Option<Duration>) -> Self::Results;
}

/// Waits until all of `handles` have ended, or one has failed, for at most `timeout` together, and
/// takes their values.
///
/// It returns at the first failure in time, with that error, which is taken. Whatever else there is
/// stays in its handle, and what still runs goes on; so it is after a timeout.
/// ([`Executor::wait_requests`](crate::Executor::wait_requests) waits for the others
/// before it tells of a failure, and tells of the first in their order.)
///
/// ```
/// use fulmar::{Executor, wait_all};
///
/// let executor = Executor::builder().threads(2).build()?;
/// let (text, number) = (executor.spawn(|| "AAPL".to_owned())?, executor.spawn(|| 7)?);
/// let (text, number): (String, i32) = wait_all((&text, &number), None)?;
/// assert_eq!((text.as_str(), number), ("AAPL", 7));
///
/// let squares = [executor.spawn(|| 1)?, executor.spawn(|| 4)?];
/// assert_eq!(wait_all([&squares[1], &squares[0]], None)?, [4, 1]);
/// # Ok::<(), fulmar::Error>(())
/// ```
///
/// # Errors
/// Those of [`AsyncRequest::wait`].
pub fn wait_all<H: Handles>(handles: H, timeout: impl Into<Option<Duration>>) -> Result<H::Values> {
    handles.all(timeout.into())
}

/// Waits until each of `handles` has ended, in whatever way, for at most `timeout` together, and
/// takes the result of each, in their order: a value, an error, or [`Error::Timeout`] for one that
/// goes on, whose handle is as good as before. If the operation that waits here is cancelled, those
/// that go on give [`Error::Interrupted`].
///
/// ```
/// use fulmar::{Error, Executor, wait_each};
/// use std::sync::Arc;
///
/// let executor = Executor::builder().threads(2).build()?;
/// let requests = executor.submit_many(&Arc::new(()), |_: &(), text: &str| text.parse::<u64>(), false, ["1", "two", "3"])?;
/// assert!(matches!(wait_each(&requests, None)[..], [Ok(1), Err(Error::Operation(_)), Ok(3)]));
/// # Ok::<(), Error>(())
/// ```
pub fn wait_each<H: Handles>(handles: H, timeout: impl Into<Option<Duration>>) -> H::Results {
    handles.each(timeout.into())
}

/// Waits until all have ended, or one without a value: that one's index.
fn first_failure(requests: &[impl Awaitable], timeout: Option<Duration>) -> Result<Option<usize>> {
    for (index, ended) in Completions::of(requests, Deadline::start(timeout)) {
        ended?;
        if !requests[index].head().has_value() {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Waits until all have ended; for each that is not waited for any longer, why.
fn unfinished(requests: &[impl Awaitable], timeout: Option<Duration>) -> Vec<Option<Error>> {
    let mut why: Vec<Option<Error>> = requests.iter().map(|_| None).collect();
    for (index, ended) in Completions::of(requests, Deadline::start(timeout)) {
        why[index] = ended.err();
    }
    why
}

fn take<T>(request: &AsyncRequest<T>) -> Result<T> {
    request.try_take().unwrap_or(Err(Error::ResultTaken))
}

fn all_of<T>(requests: &[&AsyncRequest<T>], timeout: Option<Duration>) -> Result<Vec<T>> {
    if let Some(failed) = first_failure(requests, timeout)? {
        return take(requests[failed]).and(Err(Error::ResultTaken));
    }
    let mut values = Vec::with_capacity(requests.len());
    for request in requests {
        match take(request) {
            Ok(value) => values.push(value),
            Err(error) => {
                // Another thread took one before: those taken here go back.
                requests.iter().zip(values).for_each(|(request, value)| request.restore(value));
                return Err(error);
            }
        }
    }
    Ok(values)
}

fn each_of<T>(requests: &[&AsyncRequest<T>], timeout: Option<Duration>) -> Vec<Result<T>> {
    let why = unfinished(requests, timeout);
    requests.iter().zip(why).map(|(request, why)| why.map_or_else(|| take(request), Err)).collect()
}

macro_rules! of_one_type {
    ($([$($generics:tt)*] $handles:ty,)*) => {$(
        impl<'a, T, $($generics)*> Handles for $handles {
            type Values = Vec<T>;
            type Results = Vec<Result<T>>;

            fn all(self, timeout: Option<Duration>) -> Result<Vec<T>> {
                all_of(&collected(self), timeout)
            }

            fn each(self, timeout: Option<Duration>) -> Vec<Result<T>> {
                each_of(&collected(self), timeout)
            }
        }
    )*};
}

of_one_type! {
    [] &'a [AsyncRequest<T>],
    [] &'a Vec<AsyncRequest<T>>,
    [const N: usize] &'a [AsyncRequest<T>; N],
    [] &'a [&'a AsyncRequest<T>],
    [] &'a Vec<&'a AsyncRequest<T>>,
    [] Vec<&'a AsyncRequest<T>>,
    [const N: usize] &'a [&'a AsyncRequest<T>; N],
    [const N: usize] [&'a AsyncRequest<T>; N],
}

fn collected<'a, T: 'a>(handles: impl IntoIterator<Item: Handle<'a, T>>) -> Vec<&'a AsyncRequest<T>> {
    handles.into_iter().map(Handle::get).collect()
}

/// A reference to a handle, or one to that.
trait Handle<'a, T> {
    fn get(self) -> &'a AsyncRequest<T>;
}

impl<'a, T> Handle<'a, T> for &'a AsyncRequest<T> {
    fn get(self) -> &'a AsyncRequest<T> {
        self
    }
}

impl<'a, T> Handle<'a, T> for &'a &'a AsyncRequest<T> {
    fn get(self) -> &'a AsyncRequest<T> {
        self
    }
}

macro_rules! of_many_types {
    ($($type:ident $index:tt),*) => {
        #[allow(non_snake_case, reason = "a value is called as its type")]
        impl<$($type),*> Handles for ($(&AsyncRequest<$type>,)*) {
            type Values = ($($type,)*);
            type Results = ($(Result<$type>,)*);

            fn all(self, timeout: Option<Duration>) -> Result<Self::Values> {
                let requests: [&dyn Awaitable; [$($index),*].len()] = [$(self.$index),*];
                if let Some(failed) = first_failure(&requests, timeout)? {
                    // The handles are of different types, so each has a function of its own to take
                    // its error.
                    let errors = [$(|handles: &Self| take(handles.$index).err()),*];
                    return Err(errors[failed](&self).unwrap_or(Error::ResultTaken));
                }
                let mut error = None;
                // Behind one that another thread took before, nothing is taken.
                let values = ($(match &error {
                    None => take(self.$index).map_err(|taken| error = Some(taken)).ok(),
                    Some(_) => None,
                },)*);
                match (error, values) {
                    (None, ($(Some($type),)*)) => Ok(($($type,)*)),
                    (error, values) => {
                        $(if let Some(value) = values.$index {
                            self.$index.restore(value);
                        })*
                        Err(error.unwrap_or(Error::ResultTaken))
                    }
                }
            }

            fn each(self, timeout: Option<Duration>) -> Self::Results {
                let requests: [&dyn Awaitable; [$($index),*].len()] = [$(self.$index),*];
                let mut why = unfinished(&requests, timeout);
                ($(match why[$index].take() {
                    None => take(self.$index),
                    Some(why) => Err(why),
                },)*)
            }
        }
    };
}

of_many_types!(A 0, B 1);
of_many_types!(A 0, B 1, C 2);
of_many_types!(A 0, B 1, C 2, D 3);
of_many_types!(A 0, B 1, C 2, D 3, E 4);
of_many_types!(A 0, B 1, C 2, D 3, E 4, F 5);
