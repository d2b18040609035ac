//! An ordinary blocking store of share prices, which knows nothing of fulmar's threads.
//!
//! A write adds a version and changes none. Each call takes 40 ms, as if the database were in another country.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use fulmar::{BoxError, Store};
use serde_json::{Value, json};

pub(crate) const LATENCY: Duration = Duration::from_millis(40);

#[derive(Default)]
pub(crate) struct PriceStore {
    /// All versions of each symbol, oldest first.
    series: RwLock<BTreeMap<String, Vec<Vec<Price>>>>,
}

#[derive(Clone)]
pub(crate) struct Price {
    pub(crate) date: String,
    pub(crate) price: f64,
}

/// One version of a symbol's prices; the first is 1.
pub(crate) struct Series {
    pub(crate) version: usize,
    pub(crate) prices: Vec<Price>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store has no symbol `{0}`")]
    UnknownSymbol(String),
    #[error("the store has no operation `{0}`; it has list_symbols, read, read_metadata")]
    UnknownOperation(String),
    #[error("operation `{0}` needs {{\"symbol\": \"AAPL\"}}")]
    NoSymbol(String),
}

impl PriceStore {
    pub(crate) fn read(&self, symbol: String) -> Result<Series, StoreError> {
        thread::sleep(LATENCY);
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let versions = series.get(&symbol).ok_or(StoreError::UnknownSymbol(symbol))?;
        Ok(Series { version: versions.len(), prices: versions.last().cloned().unwrap_or_default() })
    }

    /// Returns the number of the version that was written.
    pub(crate) fn write(&self, (symbol, prices): (String, Vec<Price>)) -> Result<usize, StoreError> {
        thread::sleep(LATENCY);
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let versions = series.entry(symbol).or_default();
        versions.push(prices);
        Ok(versions.len())
    }

    pub(crate) fn list_symbols(&self, (): ()) -> Result<Vec<String>, StoreError> {
        thread::sleep(LATENCY);
        Ok(self.series.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect())
    }
}

/// The same operations by name, with JSON for arguments and results.
impl Store for PriceStore {
    fn name(&self) -> &str {
        "prices"
    }

    fn call(&self, operation: &str, args: Value) -> Result<Value, BoxError> {
        let symbol = || args["symbol"].as_str().map(str::to_owned).ok_or(StoreError::NoSymbol(operation.to_owned()));
        Ok(match operation {
            "list_symbols" => json!(self.list_symbols(())?),
            "read" => json!(self.read(symbol()?)?.prices.iter().map(|p| json!([p.date, p.price])).collect::<Vec<_>>()),
            "read_metadata" => {
                let series = self.read(symbol()?)?;
                json!({ "version": series.version, "rows": series.prices.len() })
            }
            unknown => return Err(StoreError::UnknownOperation(unknown.to_owned()).into()),
        })
    }
}

/// Prices by symbol, from lines `symbol,date,price`; the first may be a heading.
pub(crate) fn parse(csv: &str) -> Result<BTreeMap<String, Vec<Price>>, String> {
    let mut symbols = BTreeMap::<String, Vec<Price>>::new();
    for (number, line) in (1..).zip(csv.lines()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        match fields[..] {
            [""] => {}
            [symbol, date, price] if price.parse::<f64>().is_ok_and(f64::is_finite) => {
                let price = Price { date: date.to_owned(), price: price.parse().unwrap_or_default() };
                symbols.entry(symbol.to_owned()).or_default().push(price);
            }
            [_, _, "price"] if number == 1 => {}
            _ => {
                return Err(format!(
                    "line {number} is `{line}`, not `symbol,date,price` as in `AAPL,Jan 1 2000,25.94`"
                ));
            }
        }
    }
    if symbols.is_empty() { Err("there is no price in it".to_owned()) } else { Ok(symbols) }
}
