//! The shapes of methods, functions and closures that are called alike: with each argument as it is
//! given, or lent.
//!
//! One trait, one implementation a shape, and a marker for each, so that the compiler finds the one
//! that fits. They exclude each other: by the number of parameters, and by whether each is a
//! reference that lives as long as the call.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::Keyed;
use super::per_thread::PerThread;
use crate::error::BoxError;

/// Can be called with what a request has. It is there for the compiler: see
/// [`Operation`](super::Operation).
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` isn't an operation on a store of type `{S}` with arguments of type `{A}`",
    label = "can't be called with a `&{S}` and `{A}`",
    note = "a method takes `&self` and up to six arguments, which are given as a tuple; where it borrows, the argument may be owned",
    note = "a closure says the type of its first parameter: `|store: &{S}, args| ..`; if that is a trait, `&(dyn Trait + 'static)`",
    note = "a store that needs `&mut self`, or that threads can't share, goes into a `PerThread` or a `Mutex`"
)]
pub trait Run<S: ?Sized, A, Shape> {
    type Returned;

    /// An error if there is no store to call it with.
    fn run(self, store: &S, args: A) -> Result<Self::Returned, BoxError>;
}

/// Can be called with a store and the arguments alone.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` isn't an operation on a store of type `{S}` with arguments of type `{A}`",
    label = "can't be called with a `&{S}` and `{A}`",
    note = "a method takes `&self` and up to six arguments, which are given as a tuple; where it borrows, the argument may be owned",
    note = "a closure says the type of its first parameter: `|store: &{S}, args| ..`; if that is a trait, `&(dyn Trait + 'static)`",
    note = "a store that needs `&mut self`, or that threads can't share, goes into a `PerThread` or a `Mutex`"
)]
pub trait Call<S: ?Sized, A, Shape> {
    type Returned;

    fn call(self, store: &S, args: A) -> Self::Returned;
}

/// Can be called with a store that it alone has.
#[doc(hidden)]
pub trait CallMut<S: ?Sized, A, Shape> {
    type Returned;

    fn call_mut(self, store: &mut S, args: A) -> Self::Returned;
}

/// Something that a method borrows for the call, while the request owns it.
///
/// ```
/// use fulmar::{Executor, Lend};
/// use std::sync::Arc;
///
/// /// A name that was checked.
/// struct Symbol(String);
///
/// impl Lend<str> for Symbol {
///     fn lend(&self) -> &str { &self.0 }
/// }
///
/// impl fulmar::Args for Symbol {
///     fn key(&self) -> Option<&str> { Some(&self.0) }
/// }
///
/// struct Prices;
/// impl Prices {
///     fn last(&self, symbol: &str) -> usize { symbol.len() }
/// }
///
/// let executor = Executor::builder().threads(1).build()?;
/// let last = executor.submit(&Arc::new(Prices), Prices::last, false, Symbol("AAPL".to_owned()))?;
/// assert_eq!(last.wait(None)?, 4);
/// # Ok::<(), fulmar::Error>(())
/// ```
pub trait Lend<B: ?Sized> {
    /// What is borrowed.
    fn lend(&self) -> &B;
}

impl<T> Lend<T> for T {
    fn lend(&self) -> &T {
        self
    }
}

macro_rules! lenders {
    ($([$($generics:tt)*] $owner:ty => $borrowed:ty,)*) => {$(
        impl<$($generics)*> Lend<$borrowed> for $owner {
            fn lend(&self) -> &$borrowed {
                self
            }
        }
    )*};
}

lenders! {
    [] String => str,
    [] Cow<'_, str> => str,
    [] PathBuf => Path,
    [] OsString => OsStr,
    [T] Vec<T> => [T],
    [T, const N: usize] [T; N] => [T],
    [T: ?Sized] Box<T> => T,
    [T: ?Sized] Arc<T> => T,
}

/// All of the arguments as one, as they are given.
#[doc(hidden)]
#[derive(Debug)]
pub struct Whole;

/// An argument as it is given.
#[doc(hidden)]
#[derive(Debug)]
pub struct Owned;

/// An argument of which the operation borrows a `B`.
#[doc(hidden)]
#[derive(Debug)]
pub struct Lent<B: ?Sized>(PhantomData<B>);

/// A tuple of arguments, each in its own way.
#[doc(hidden)]
#[derive(Debug)]
pub struct Each<M>(PhantomData<M>);

/// A store and arguments as they are.
#[doc(hidden)]
#[derive(Debug)]
pub struct Direct<M>(PhantomData<M>);

/// Arguments beside their key.
#[doc(hidden)]
#[derive(Debug)]
pub struct Unkeyed<M>(PhantomData<M>);

/// The value of this thread in place of the store.
#[doc(hidden)]
#[derive(Debug)]
pub struct Own<M>(PhantomData<M>);

/// The value of this thread in place of the store, and arguments beside their key.
#[doc(hidden)]
#[derive(Debug)]
pub struct OwnUnkeyed<M>(PhantomData<M>);

/// The value of this thread in place of the store, to be changed.
#[doc(hidden)]
#[derive(Debug)]
pub struct OwnMut<M>(PhantomData<M>);

/// The value of this thread in place of the store, to be changed, and arguments beside their key.
#[doc(hidden)]
#[derive(Debug)]
pub struct OwnMutUnkeyed<M>(PhantomData<M>);

/// The implementation for one shape, for `&S` and for `&mut S`.
macro_rules! shape {
    ([$($generics:tt)*] $args:ty, $marker:ty, ($($param:ty,)*), ($($bounds:tt)*), $pattern:pat => $($given:expr,)*) => {
        impl<S: ?Sized, F, R, $($generics)*> Call<S, $args, $marker> for F
        where
            F: FnOnce(&S, $($param),*) -> R,
            $($bounds)*
        {
            type Returned = R;

            fn call(self, store: &S, $pattern: $args) -> R {
                self(store, $($given),*)
            }
        }

        impl<S: ?Sized, F, R, $($generics)*> CallMut<S, $args, $marker> for F
        where
            F: FnOnce(&mut S, $($param),*) -> R,
            $($bounds)*
        {
            type Returned = R;

            fn call_mut(self, store: &mut S, $pattern: $args) -> R {
                self(store, $($given),*)
            }
        }
    };
}

/// The shapes of a tuple: each argument as it is given, and lent.
macro_rules! tuple {
    ([$($generics:tt)*] ($($marker:ty,)*) ($($param:ty,)*) ($($bounds:tt)*) ($($name:ident: $type:ident = $given:expr,)*)) => {
        shape!([$($generics)*] ($($type,)*), Each<($($marker,)*)>, ($($param,)*), ($($bounds)*), ($($name,)*) => $($given,)*);
    };
    (
        [$($generics:tt)*] ($($marker:tt)*) ($($param:tt)*) ($($bounds:tt)*) ($($given:tt)*)
        $name:ident $type:ident $borrowed:ident $($rest:ident)*
    ) => {
        tuple!(
            [$($generics)* $type,] ($($marker)* Owned,) ($($param)* $type,) ($($bounds)*)
            ($($given)* $name: $type = $name,) $($rest)*
        );
        tuple!(
            [$($generics)* $type, $borrowed: ?Sized,] ($($marker)* Lent<$borrowed>,) ($($param)* &$borrowed,)
            ($($bounds)* $type: Lend<$borrowed>,) ($($given)* $name: $type = $name.lend(),) $($rest)*
        );
    };
}

shape!([] (), Each<()>, (), (), () =>);
shape!([A] A, Whole, (A,), (), args => args,);
shape!([A, B: ?Sized] A, Lent<B>, (&B,), (A: Lend<B>), args => args.lend(),);
tuple!([] () () () () a A B c C D);
tuple!([] () () () () a A B c C D e E G);
tuple!([] () () () () a A B c C D e E G h H I);
tuple!([] () () () () a A B c C D e E G h H I j J K);
tuple!([] () () () () a A B c C D e E G h H I j J K l L M);

/// Calls a method with what a request has: arguments with or without their key, a store or this
/// thread's value of it.
macro_rules! run {
    ([$($generics:tt)*] $call:ident<$on:ty>, $store:ty, $args:ty, $marker:ty, |$self:ident, $s:ident, $a:ident| $run:expr, $($bounds:tt)*) => {
        impl<$($generics)* A, F, M> Run<$store, $args, $marker> for F
        where
            F: $call<$on, A, M>,
            $($bounds)*
        {
            type Returned = F::Returned;

            fn run($self, $s: &$store, $a: $args) -> Result<F::Returned, BoxError> {
                $run
            }
        }
    };
}

run!([S,] Call<S>, S, A, Direct<M>, |self, store, args| Ok(self.call(store, args)), S: ?Sized);
run!([S, K,] Call<S>, S, Keyed<A, K>, Unkeyed<M>, |self, store, args| Ok(self.call(store, args.args)), S: ?Sized);
run!([T,] Call<T>, PerThread<T>, A, Own<M>,
    |self, store, args| store.with(|value| self.call(value, args)), T: Send + 'static);
run!([T, K,] Call<T>, PerThread<T>, Keyed<A, K>, OwnUnkeyed<M>,
    |self, store, args| store.with(|value| self.call(value, args.args)), T: Send + 'static);
run!([T,] CallMut<T>, PerThread<T>, A, OwnMut<M>,
    |self, store, args| store.with(|value| self.call_mut(value, args)), T: Send + 'static);
run!([T, K,] CallMut<T>, PerThread<T>, Keyed<A, K>, OwnMutUnkeyed<M>,
    |self, store, args| store.with(|value| self.call_mut(value, args.args)), T: Send + 'static);
