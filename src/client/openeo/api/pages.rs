//! Lists that come in pages.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::connection::Connection;
use super::error::OpenEoError;
use crate::client::http::{Method, Origin, RequestBuilder};

use crate::trace::event;

/// How many pages are followed, how many items are kept, and for how long a step of a batch reads on.
const MOST_PAGES: usize = 1_000;
const MOST_ITEMS: usize = 100_000;
const MOST_TIME: Duration = Duration::from_secs(60);

/// All pages of a list put together.
pub(crate) struct Pages {
    pub(crate) items: Vec<Value>,
    /// Whether the last page said that it is the last.
    pub(crate) complete: bool,
    /// The server's `Date` with the last page, as it came.
    pub(crate) date: Option<String>,
}

impl Pages {
    /// Follows `next` links, as long as they lead to the same origin, to a page that wasn't read yet, with an item that
    /// wasn't seen on an earlier one.
    pub(crate) fn read(connection: &Connection, first: RequestBuilder, field: &str) -> Result<Pages, OpenEoError> {
        let mut pages = Pages { items: Vec::new(), complete: false, date: None };
        let (mut ids, mut urls) = (HashSet::new(), HashSet::new());
        let mut request = first;
        let began = Instant::now();
        for _ in 0..MOST_PAGES {
            let reply = connection.send(request)?;
            pages.date = reply.header("date").map(str::to_owned);
            let page: Value = reply.json()?;
            let Some(items) = page.get(field).and_then(Value::as_array) else {
                return Err(OpenEoError::reply(format!("a list without `{field}`")));
            };
            let mut is_news = false;
            let mut here = Vec::new();
            for item in items {
                // What has no id can't be told from others, and isn't thrown away; nor is what only shares one.
                let id = item.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
                if id.is_none_or(|id| !ids.contains(id)) {
                    is_news |= id.is_some();
                    here.extend(id.map(str::to_owned));
                    pages.items.push(item.clone());
                }
            }
            ids.extend(here);
            let Some(next) = next_link(&page) else {
                pages.complete = true;
                return Ok(pages);
            };
            let url = connection.resolve(&next).filter(|url| Origin::of(url) == Origin::of(connection.root_url()));
            let is_endless = pages.items.len() >= MOST_ITEMS || (connection.is_once() && began.elapsed() > MOST_TIME);
            match url {
                Some(url) if is_news && !is_endless && urls.insert(url.clone()) => {
                    request = connection.request_link(Method::Get, &url).accept("application/json");
                }
                _ => {
                    event!(WARN, "a list ends with a link that isn't followed", field = field);
                    return Ok(pages);
                }
            }
        }
        event!(WARN, "a list has more pages than are followed", field = field);
        Ok(pages)
    }
}

fn next_link(page: &Value) -> Option<String> {
    let links = page.get("links")?.as_array()?;
    let next = links.iter().find(|link| link.get("rel").and_then(Value::as_str) == Some("next"))?;
    next.get("href")?.as_str().map(str::to_owned)
}
