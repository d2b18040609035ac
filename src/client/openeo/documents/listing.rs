//! Lists of what a back-end has.

use std::fmt;

use serde_json::Value;

use super::table::Table;

/// What stands in a [`Listing`].
pub trait Listed {
    /// What the columns of the table are called.
    #[doc(hidden)]
    const HEADING: &'static [&'static str];

    #[doc(hidden)]
    fn new(document: Value) -> Self;

    /// What the back-end calls it.
    #[doc(hidden)]
    fn name(&self) -> &str;

    #[doc(hidden)]
    fn cells(&self) -> Vec<String>;
}

/// What a back-end has of one kind, in its order. Prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing<T> {
    items: Vec<T>,
    gap: Option<String>,
}

impl<T: Listed> Listing<T> {
    /// Of the documents that were had; `gap` says why there may be more.
    pub(crate) fn new(documents: Vec<Value>, gap: Option<String>) -> Listing<T> {
        Listing { items: documents.into_iter().map(T::new).collect(), gap }
    }

    /// The one that the back-end calls so; the first of several.
    pub fn find(&self, id: &str) -> Option<&T> {
        self.items.iter().find(|item| item.name() == id)
    }
}

impl<T> Listing<T> {
    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether these are all. A page that can't be had leaves those before it; a link to another
    /// host, or in a circle, isn't followed, nor is one after 1,000 pages or 100,000 items; and an
    /// aggregator may not have reached all its back-ends.
    pub fn is_complete(&self) -> bool {
        self.gap.is_none()
    }

    /// Why there may be more, in words.
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }
}

impl<'a, T> IntoIterator for &'a Listing<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Listed> fmt::Display for Listing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(T::HEADING);
        for item in &self.items {
            let cells = item.cells();
            table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        }
        table.fmt(f)?;
        self.gap.as_ref().map_or(Ok(()), |gap| write!(f, "\n(there may be more: {gap})"))
    }
}

/// A field that is text; else nothing.
pub(crate) fn text<'a>(document: &'a Value, name: &str) -> Option<&'a str> {
    document.get(name).and_then(Value::as_str)
}

/// The texts in a field that is a list.
pub(crate) fn texts<'a>(document: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    document.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The fields of a field that is an object.
pub(super) fn fields<'a>(document: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    document.get(name).and_then(Value::as_object).into_iter().flatten()
}
