//! What can be submitted: an operation on a store.

use super::shape::{Direct, Run, Whole};
use crate::error::BoxError;

/// Something to do with a store of type `S` and arguments of type `A`.
///
/// It is implemented for
///
/// - **methods as they are**, by their path: `Prices::last` for `fn last(&self, symbol: &str) ->
///   Result<f64, E>`. Of no argument it is submitted with `()`, of one with that, of two to six
///   with a tuple;
/// - **functions and closures** of the same shapes, and those that take all of `args` as one. A
///   closure says the type of its first parameter: `|prices: &Prices, symbol| ..`, and for a store
///   behind `Arc<dyn Trait>`, `|store: &(dyn Trait + 'static), ..|`;
/// - with feature `json`, a `&'static str` that names an operation of a `Store`.
///
/// Where a parameter borrows, the argument may be owned ([`Lend`](crate::Lend)): `String` for
/// `&str`, `Vec<T>` for `&[T]`, `PathBuf` for `&Path`, `T`, `Box<T>` and `Arc<T>` for `&T`.
///
/// It returns a `Result`, whose error keeps its type, or something that can't be a failure
/// ([`IntoOutput`]). For a type of your own that is no `Result`, write [`infallible`]`(..)` around
/// the operation.
///
/// ```
/// use fulmar::Executor;
/// use std::sync::Arc;
///
/// struct Prices;
/// impl Prices {
///     fn symbols(&self) -> Vec<String> { vec!["AAPL".to_owned(), "IBM".to_owned()] }
///     fn last(&self, symbol: &str) -> Result<f64, std::fmt::Error> { Ok(symbol.len() as f64) }
///     fn history(&self, symbol: &str, days: u32) -> Result<Vec<f64>, std::fmt::Error> {
///         (0..days).map(|_| self.last(symbol)).collect()
///     }
/// }
///
/// let executor = Executor::builder().threads(2).build()?;
/// let prices = Arc::new(Prices);
/// let symbols = executor.submit(&prices, Prices::symbols, false, ())?;
/// for symbol in symbols.wait(None)? {
///     executor.submit(&prices, Prices::last, false, symbol)?; // It owns the text, and the method borrows it.
/// }
/// let history = executor.submit(&prices, Prices::history, false, ("AAPL", 3))?;
/// let closure = executor.submit(&prices, |prices: &Prices, (a, b)| prices.last(a).and(prices.last(b)), false, ("IBM", "AMZN"))?;
/// assert_eq!((history.wait(None)?, closure.wait(None)?), (vec![4.0; 3], 4.0));
/// # Ok::<(), fulmar::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` isn't an operation on a store of type `{S}` with arguments of type `{A}`",
    label = "can't be called as `operation(&{S}, {A})`",
    note = "a method takes `&self` and up to six arguments, which are given as a tuple; where it borrows, the argument may be owned",
    note = "a closure says the type of its first parameter: `|store: &{S}, args| ..`",
    note = "it returns a `Result` with an error that fits into a `Box<dyn Error + Send + Sync>`, or a plain value; around one that returns a type of \
            your own, write `infallible(..)`",
    note = "a store that needs `&mut self`, or that threads can't share, goes into a `PerThread` or a `Mutex`"
)]
pub trait Operation<S: ?Sized, A, Shape = Fallible<Direct<Whole>>> {
    /// What it gives.
    type Output;

    /// Does it. Runs on a thread of the executor.
    ///
    /// # Errors
    /// The operation's own, boxed; the waiter gets it back as
    /// [`Error::Operation`](crate::Error::Operation).
    fn call(self, store: &S, args: A) -> Result<Self::Output, BoxError>;
}

/// How an operation is called that says whether it failed.
#[doc(hidden)]
#[derive(Debug)]
pub struct Fallible<M>(std::marker::PhantomData<M>);

impl<S, A, F, M> Operation<S, A, Fallible<M>> for F
where
    S: ?Sized,
    F: Run<S, A, M>,
    F::Returned: IntoOutput,
{
    type Output = <F::Returned as IntoOutput>::Output;

    fn call(self, store: &S, args: A) -> Result<Self::Output, BoxError> {
        self.run(store, args)?.into_output()
    }
}

/// What an operation may return: a `Result`, or a value of a type that can't be a failure: `()`,
/// `bool`, `char`, numbers, text, bytes, paths, durations and times, tuples of two to four,
/// `Option`, `Box`, `Arc` and the collections of the standard library.
///
/// A type of your own may be a failure or not, and so isn't among them: [`infallible`] says that it
/// isn't.
#[diagnostic::on_unimplemented(
    message = "an operation that returns `{Self}` doesn't say whether that may be a failure",
    label = "returns `{Self}`",
    note = "return a `Result<T, E>`, or write `infallible(..)` around the operation"
)]
pub trait IntoOutput {
    /// What a wait gives.
    type Output;

    /// Itself as a result.
    ///
    /// # Errors
    /// Its own, boxed.
    fn into_output(self) -> Result<Self::Output, BoxError>;
}

impl<T, E: Into<BoxError>> IntoOutput for Result<T, E> {
    type Output = T;

    fn into_output(self) -> Result<T, BoxError> {
        self.map_err(Into::into)
    }
}

macro_rules! values {
    ($([$($generics:tt)*] $type:ty,)*) => {$(
        impl<$($generics)*> IntoOutput for $type {
            type Output = $type;

            fn into_output(self) -> Result<$type, BoxError> {
                Ok(self)
            }
        }
    )*};
}

values! {
    [] (), [] bool, [] char,
    [] u8, [] u16, [] u32, [] u64, [] u128, [] usize, [] i8, [] i16, [] i32, [] i64, [] i128, [] isize, [] f32, [] f64,
    [] String, [] &'static str, [] std::path::PathBuf, [] std::ffi::OsString, [T: ToOwned + ?Sized + 'static] std::borrow::Cow<'static, T>,
    [] std::time::Duration, [] std::time::Instant, [] std::time::SystemTime,
    [T] Vec<T>, [T, const N: usize] [T; N], [T] Option<T>, [T: ?Sized] Box<T>, [T: ?Sized] std::sync::Arc<T>,
    [T] std::collections::VecDeque<T>, [K, V, H] std::collections::HashMap<K, V, H>, [K, V] std::collections::BTreeMap<K, V>,
    [T, H] std::collections::HashSet<T, H>, [T] std::collections::BTreeSet<T>,
    [A, B] (A, B), [A, B, C] (A, B, C), [A, B, C, D] (A, B, C, D),
}

#[cfg(feature = "json")]
values! { [] serde_json::Value, }

/// An operation whose value is what it returns, of whatever type: made by [`infallible`].
#[derive(Clone, Copy, Debug)]
pub struct Infallible<F>(F);

/// How an [`Infallible`] operation is called.
#[doc(hidden)]
#[derive(Debug)]
pub struct Plain<M>(std::marker::PhantomData<M>);

/// Says that what `op` returns can't be a failure: a wait gives it as it is.
///
/// ```
/// use fulmar::{Executor, infallible};
/// use std::sync::Arc;
///
/// #[derive(Debug, PartialEq)]
/// struct Price(f64);
///
/// struct Prices;
/// impl Prices {
///     fn last(&self, symbol: &str) -> Price { Price(symbol.len() as f64) }
/// }
///
/// let executor = Executor::builder().threads(1).build()?;
/// let last = executor.submit(&Arc::new(Prices), infallible(Prices::last), false, "AAPL")?;
/// assert_eq!(last.wait(None)?, Price(4.0));
/// # Ok::<(), fulmar::Error>(())
/// ```
pub fn infallible<F>(op: F) -> Infallible<F> {
    Infallible(op)
}

impl<S, A, F, M> Operation<S, A, Plain<M>> for Infallible<F>
where
    S: ?Sized,
    F: Run<S, A, M>,
{
    type Output = F::Returned;

    fn call(self, store: &S, args: A) -> Result<F::Returned, BoxError> {
        self.0.run(store, args)
    }
}
