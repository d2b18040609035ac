//! What can be submitted: an operation on a store, with arguments that know their key.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::BoxError;

/// Something to do with a store of type `S` and arguments of type `A`.
///
/// It is implemented for every method path, function and closure `FnOnce(&S, A) -> Result<T, E>`, and, with feature
/// `json`, for a `&'static str` that names an operation of a `Store`. A closure says the type of its
/// first parameter: `|prices: &Prices, symbol| ..`, and for a store behind `Arc<dyn Trait>`, `|store: &(dyn Trait + 'static), ..|`.
///
/// ```
/// use fulmar::Executor;
/// use std::sync::Arc;
///
/// struct Prices;
/// impl Prices {
///     fn last(&self, symbol: &str) -> Result<f64, std::fmt::Error> { Ok(symbol.len() as f64) }
/// }
///
/// let executor = Executor::builder().threads(2).build()?;
/// let prices = Arc::new(Prices);
/// let path = executor.submit(&prices, Prices::last, false, "AAPL")?;
/// let closure = executor.submit(&prices, |prices: &Prices, (a, b)| prices.last(a).and(prices.last(b)), false, ("IBM", "AMZN"))?;
/// assert_eq!((path.wait(None)?, closure.wait(None)?), (4.0, 4.0));
/// # Ok::<(), fulmar::Error>(())
/// ```
pub trait Operation<S: ?Sized, A> {
    /// What it gives.
    type Output;

    /// Does it. Runs on a thread of the executor.
    ///
    /// # Errors
    /// The operation's own, boxed; the waiter gets it back as [`Error::Operation`](crate::Error::Operation).
    fn call(self, store: &S, args: A) -> Result<Self::Output, BoxError>;
}

impl<S, A, F, T, E> Operation<S, A> for F
where
    S: ?Sized,
    F: FnOnce(&S, A) -> Result<T, E>,
    E: Into<BoxError>,
{
    type Output = T;

    fn call(self, store: &S, args: A) -> Result<T, BoxError> {
        self(store, args).map_err(Into::into)
    }
}

/// Arguments of an operation, which know the key of what it touches.
///
/// Requests with the same key on the same store keep their order: accessors share, a modifier runs alone. Text is its
/// own key, a tuple has that of its first element, a JSON object that of its text member `"symbol"` or else `"key"`.
/// `()`, `bool`, numbers, durations, paths, `Vec`, `Option` and `Arc` have none, and requests without a key are ordered
/// among those of their store that have none. A type of your own says so itself:
///
/// ```
/// struct Write { symbol: String, prices: Vec<f64> }
///
/// impl fulmar::Args for Write {
///     fn key(&self) -> Option<&str> { Some(&self.symbol) }
/// }
/// ```
pub trait Args {
    /// The thing that the request touches, if it touches one thing. Asked once, at submission.
    fn key(&self) -> Option<&str> {
        None
    }
}

impl Args for &str {
    fn key(&self) -> Option<&str> {
        Some(self)
    }
}

macro_rules! text {
    ($($text:ty),*) => {$(
        impl Args for $text {
            fn key(&self) -> Option<&str> {
                Some(self)
            }
        }
    )*};
}

text!(String, Box<str>, Cow<'_, str>);

macro_rules! keyless {
    ($($type:ty),*) => {$(impl Args for $type {})*};
}

keyless!((), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);
keyless!(Duration, &Path, PathBuf, &OsStr, OsString);

impl<T> Args for Vec<T> {}
impl<T> Args for Option<T> {}
impl<T: ?Sized> Args for Arc<T> {}

macro_rules! tuples {
    ($first:ident $($rest:ident)*) => {
        impl<$first: Args, $($rest),*> Args for ($first, $($rest,)*) {
            fn key(&self) -> Option<&str> {
                self.0.key()
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

#[cfg(feature = "json")]
impl Args for serde_json::Value {
    fn key(&self) -> Option<&str> {
        ["symbol", "key"].iter().find_map(|name| self.get(name)?.as_str())
    }
}
