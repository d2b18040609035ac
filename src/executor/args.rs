//! The arguments of an operation, and the key that says what it touches.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Arguments of an operation, which know the key of what it touches.
///
/// Requests with the same key on the same store keep their order: accessors share, a modifier runs
/// alone. Text is its own key, a tuple has that of its first element, a JSON object that of its
/// text member `"symbol"` or else `"key"`. `()`, `bool`, numbers, durations and times, addresses,
/// paths, collections, `Option`, `Box` and `Arc` have none, and requests without a key are ordered
/// among those of their store that have none. A type of your own says its key itself, and any other
/// type goes in as [`keyed`]`(key, args)` or [`keyless`]`(args)`:
///
/// ```
/// struct Write { symbol: String, prices: Vec<f64> }
///
/// impl fulmar::Args for Write {
///     fn key(&self) -> Option<&str> { Some(&self.symbol) }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't say which key it has, and so can't be the arguments of a request",
    label = "write `keyed(\"the key\", ..)` around it, or `keyless(..)`",
    note = "requests on one key of one store keep their order; text is its own key, and a tuple has that of its first element",
    note = "for a type of your own, `impl fulmar::Args for` it"
)]
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

macro_rules! without_key {
    ($($type:ty),*) => {$(impl Args for $type {})*};
}

without_key!((), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);
without_key!(Duration, Instant, SystemTime, IpAddr, SocketAddr, &Path, PathBuf, &OsStr, OsString);

impl<T> Args for Vec<T> {}
impl<T, const N: usize> Args for [T; N] {}
impl<T> Args for &[T] {}
impl<T> Args for Option<T> {}
impl<T> Args for Box<T> {}
impl<T: ?Sized> Args for Arc<T> {}
impl<K, V, H> Args for HashMap<K, V, H> {}
impl<K, V> Args for BTreeMap<K, V> {}
impl<T, H> Args for HashSet<T, H> {}
impl<T> Args for BTreeSet<T> {}

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

/// Arguments with a key beside them: made by [`keyed`] and [`keyless`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed<A, K = String> {
    pub(super) args: A,
    key: Option<K>,
}

impl<A, K: AsRef<str>> Args for Keyed<A, K> {
    fn key(&self) -> Option<&str> {
        self.key.as_ref().map(AsRef::as_ref)
    }
}

/// `args`, whatever their type, for a request on `key`. The operation gets `args` alone.
///
/// ```
/// use fulmar::{Executor, keyed};
/// use std::sync::Arc;
///
/// struct Options { days: u32, adjusted: bool }
///
/// struct Prices;
/// impl Prices {
///     fn history(&self, symbol: &str, options: &Options) -> Vec<f64> {
///         vec![symbol.len() as f64; options.days as usize]
///     }
///     fn refresh(&self, options: Options) -> bool {
///         options.adjusted
///     }
/// }
///
/// let executor = Executor::builder().threads(1).build()?;
/// let (prices, options) = (Arc::new(Prices), || Options { days: 2, adjusted: true });
/// // A tuple has the key of its first element.
/// let history = executor.submit(&prices, Prices::history, false, ("AAPL", options()))?;
/// let refresh = executor.submit(&prices, Prices::refresh, true, keyed("AAPL", options()))?;
/// assert_eq!((history.wait(None)?, refresh.wait(None)?), (vec![4.0, 4.0], true));
/// # Ok::<(), fulmar::Error>(())
/// ```
pub fn keyed<A, K: AsRef<str>>(key: K, args: A) -> Keyed<A, K> {
    Keyed { args, key: Some(key) }
}

/// `args`, whatever their type, for a request without a key. The operation gets `args` alone.
pub fn keyless<A>(args: A) -> Keyed<A> {
    Keyed { args, key: None }
}
