//! Reads lists that come in pages.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::connection::Connection;
use super::error::OpenEoError;
use crate::client::http::{Method, Origin, RequestBuilder};
use crate::client::openeo::documents::text::plain;
use crate::trace::event;

/// Limits: how many pages are read, how many items are kept, how many pages in a row may be empty,
/// and for how long a step of a batch reads further pages.
const MOST_PAGES: usize = 1_000;
const MOST_ITEMS: usize = 100_000;
const EMPTY_PAGES: usize = 2;
const MOST_TIME: Duration = Duration::from_secs(60);

/// The items of all pages of a list, as far as they could be read.
pub(crate) struct Pages {
    pub(crate) items: Vec<Value>,
    /// Why the list may be incomplete; `None` if the last page said that it is the last, and no
    /// page said that something is missing.
    pub(crate) gap: Option<String>,
    /// The error of the page that couldn't be read, if that is why.
    pub(crate) fault: Option<OpenEoError>,
    /// The server's `Date` with the last page, as it came.
    pub(crate) date: Option<String>,
}

/// What a page says about the next one.
enum Next {
    /// There is none.
    None,
    /// There it is.
    Link(String),
    /// There is a next page, but its link can't be used.
    Unusable,
}

impl Pages {
    /// Reads a list by following its `next` links. It stops if a link leads to another origin or to
    /// a page that was read already, or if a page has no new items. If a further page can't be
    /// read, it returns the items before that, and `gap` says why.
    ///
    /// # Errors
    /// The error of the first page.
    pub(crate) fn read(connection: &Connection, first: RequestBuilder, field: &str) -> Result<Pages, OpenEoError> {
        let mut pages = Pages { items: Vec::new(), gap: None, fault: None, date: None };
        let (mut ids, mut urls) = (HashSet::new(), HashSet::new());
        let mut empty = 0;
        let mut request = first;
        let began = Instant::now();
        for number in 1..=MOST_PAGES {
            let page = match pages.next(connection, request, field) {
                Ok(page) => page,
                Err(error) if number == 1 => return Err(error),
                Err(error) => {
                    pages.note_gap(format!("page {number} could not be had: {error}"));
                    pages.fault = Some(error);
                    return Ok(pages);
                }
            };
            if let Some(missing) = missing(&page.document) {
                pages.note_gap(missing);
            }
            // Some back-ends end with an empty page that names another one.
            empty = if items_of(&page.document, field).next().is_none() { empty + 1 } else { 0 };
            let mut is_news = (1..=EMPTY_PAGES).contains(&empty);
            let mut here = Vec::new();
            for item in items_of(&page.document, field) {
                // Drop only exact repetitions: an item without an id, or one that differs from
                // another with the same id, is kept.
                let id = item.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
                if id.is_none_or(|id| !ids.contains(id)) {
                    is_news |= id.is_some();
                    here.extend(id.map(str::to_owned));
                    pages.items.push(item.clone());
                }
            }
            ids.extend(here);
            let href = match next_link(&page.document) {
                Next::None => return Ok(pages),
                Next::Link(href) => Some(href),
                Next::Unusable => None,
            };
            let url = href.and_then(|href| connection.resolve_from(&page.url, &href));
            let is_own = |url: &String| Origin::of(url) == Origin::of(connection.root_url());
            let is_endless = pages.items.len() >= MOST_ITEMS || (connection.is_once() && began.elapsed() > MOST_TIME);
            let why = match &url {
                None => "that makes no sense",
                Some(url) if !is_own(url) => "of another host",
                Some(_) if is_endless => "after so many items, or so long",
                Some(_) if !is_news => "after a page with nothing new",
                Some(url) if !urls.insert(url.clone()) => "that was read already",
                Some(url) => {
                    request = connection.request_link(Method::Get, url).accept("application/json");
                    continue;
                }
            };
            event!(WARN, "a list ends with a link that isn't followed", field = field, why = why);
            pages.note_gap(format!("page {number} ends with a link to a next one {why}, which isn't followed"));
            return Ok(pages);
        }
        event!(WARN, "a list has more pages than are followed", field = field);
        pages.note_gap(format!("it has more than {MOST_PAGES} pages"));
        Ok(pages)
    }

    fn next(&mut self, connection: &Connection, request: RequestBuilder, field: &str) -> Result<Page, OpenEoError> {
        let reply = connection.send(request)?;
        self.date = reply.header("date").map(str::to_owned);
        let page = Page { document: reply.json()?, url: reply.url().to_owned() };
        match page.document.get(field) {
            Some(Value::Array(_)) => Ok(page),
            _ => Err(OpenEoError::reply(format!("a list without `{field}`"))),
        }
    }

    /// Notes why the list may be incomplete. The first reason is kept.
    fn note_gap(&mut self, gap: String) {
        self.gap.get_or_insert(gap);
    }
}

struct Page {
    document: Value,
    /// The URL from which the page came: its links may be relative to that.
    url: String,
}

fn items_of<'a>(page: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    page.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// The back-ends that an aggregator says it couldn't ask. (openEO federation extension 0.1, "Lists
/// of resources")
fn missing(page: &Value) -> Option<String> {
    let missing = page.get("federation:missing")?;
    let names = match missing {
        Value::Null | Value::Bool(false) => return None,
        Value::Array(names) if names.is_empty() => return None,
        Value::Array(names) => names.iter().map(|name| plain(name.as_str().unwrap_or("?"), 40)).collect::<Vec<_>>(),
        other => vec![plain(other.as_str().unwrap_or("?"), 40)],
    };
    Some(format!("these back-ends of the federation could not be asked: {}", names.join(", ")))
}

fn next_link(page: &Value) -> Next {
    let links = match page.get("links") {
        None | Some(Value::Null) => return Next::None,
        Some(Value::Array(links)) => links,
        Some(_) => return Next::Unusable,
    };
    match links.iter().find(|link| link.get("rel").and_then(Value::as_str) == Some("next")) {
        None => Next::None,
        Some(link) => match link.get("href").and_then(Value::as_str).filter(|href| !href.is_empty()) {
            Some(href) => Next::Link(href.to_owned()),
            None => Next::Unusable,
        },
    }
}
