//! Lists of collections, processes, jobs and the like.

use std::fmt;

use serde_json::Value;

use super::table::Table;

/// An item of a [`Listing`].
pub trait Listed {
    /// The headings of the table's columns.
    #[doc(hidden)]
    const HEADING: &'static [&'static str];

    #[doc(hidden)]
    fn new(document: Value) -> Self;

    /// Its id at the back-end.
    #[doc(hidden)]
    fn name(&self) -> &str;

    #[doc(hidden)]
    fn cells(&self) -> Vec<String>;
}

/// A back-end's items of one kind, in its order. Prints as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing<T> {
    items: Vec<T>,
    gap: Option<String>,
}

impl<T: Listed> Listing<T> {
    /// A list of the documents that could be read. `gap` says why there may be more.
    pub(crate) fn new(documents: Vec<Value>, gap: Option<String>) -> Listing<T> {
        Listing { items: documents.into_iter().map(T::new).collect(), gap }
    }

    /// The first item with this id.
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

    /// Whether these are all items. Not if a page can't be read, if a link leads to another host or
    /// in a circle, after 1,000 pages or 100,000 items, or if an aggregator couldn't reach all of
    /// its back-ends. The items before that are in the list.
    pub fn is_complete(&self) -> bool {
        self.gap.is_none()
    }

    /// Why there may be more items, as a text.
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

/// The value of a field, if it is text.
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
