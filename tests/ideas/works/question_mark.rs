//! `?` in a function whose error is its own, and the error of the store had back.

use std::sync::Arc;

use fulmar::Error;

#[derive(Debug)]
enum Failure {
    NotFound,
    Fulmar(Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("no such price")
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Operation(own) => match own.downcast::<Failure>() {
                Ok(own) => *own,
                Err(other) => Self::Fulmar(Error::Operation(other)),
            },
            error => Self::Fulmar(error),
        }
    }
}

struct Db;

impl Db {
    fn last(&self, symbol: &str) -> Result<f64, Failure> {
        if symbol.is_empty() { Err(Failure::NotFound) } else { Ok(1.0) }
    }
}

fn last(symbol: &'static str) -> Result<f64, Failure> {
    let db = Arc::new(Db);
    Ok(fulmar::async_submit(&db, Db::last, false, symbol)?.wait(None)?)
}

fn main() {
    assert!(last("AAPL").is_ok());
    assert!(matches!(last(""), Err(Failure::NotFound)));
}
