//! A row of parameters: what one job is made of.

use std::fmt::Write;
use std::io::Read;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::ledger::Entry;

/// A row of a campaign, as the function sees it that makes its job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// What it was added as.
    pub params: Value,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// Why the last attempt failed, if one did: a job that ran out of memory can be given more.
    pub last_error: Option<String>,
}

impl Row {
    pub(super) fn of(entry: &Entry) -> Row {
        Row { params: entry.params.clone(), attempt: entry.attempt, last_error: entry.error.clone() }
    }

    /// A parameter; `null` if there is none of that name.
    pub fn get(&self, name: &str) -> &Value {
        self.params.get(name).unwrap_or(&Value::Null)
    }
}

/// A row for each line of a table, whose first line has the names; what is wrong with it.
pub(super) fn from_csv(table: impl Read) -> Result<Vec<Value>, String> {
    let broken = |error: csv::Error| format!("the table of rows is broken: {error}");
    let mut reader = csv::Reader::from_reader(table);
    let mut names: Vec<String> = reader.headers().map_err(broken)?.iter().map(str::to_owned).collect();
    if let Some(first) = names.first_mut() {
        // As spreadsheets write it.
        *first = first.trim_start_matches('\u{feff}').to_owned();
    }
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(format!("the table of rows has two columns that are called {:?}", twice.1));
    }
    let cell = |(name, cell): (&String, &str)| {
        let value = if cell.is_empty() { Value::Null } else { Value::from(cell) };
        (name.clone(), value)
    };
    let row = |record: csv::StringRecord| Value::Object(names.iter().zip(&record).map(cell).collect::<Map<_, _>>());
    reader.into_records().map(|record| record.map(row).map_err(broken)).collect()
}

/// What tells a row from others: a digest of its parameters, whatever their order.
pub(super) fn key_of(params: &Value) -> String {
    let digest = Sha256::digest(canonical(params).to_string());
    digest.iter().take(16).fold(String::new(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    })
}

/// With the names of all objects in order: a map of `serde_json` may keep the order of the input.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            // An array of pairs has an order, whatever a map has.
            names
                .into_iter()
                .map(|name| Value::from(vec![Value::from(name.as_str()), canonical(&fields[name])]))
                .collect()
        }
        Value::Array(items) => Value::from(vec![Value::from("[]"), items.iter().map(canonical).collect()]),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_texts_by_name_or_an_error_that_says_where() {
        let rows = from_csv("\u{feff}tile,n\r\n007,\"a,b\"\r\n,5\r\n".as_bytes());
        assert_eq!(rows, Ok(vec![json!({"tile": "007", "n": "a,b"}), json!({"tile": null, "n": "5"})]));
        for (table, named) in [("a,b\n1,2\n3\n", "line: 3"), ("a,a\n1,2\n", "\"a\"")] {
            let error = from_csv(table.as_bytes()).expect_err("no rows");
            assert!(error.contains(named), "{table:?}: {error}");
        }
        assert_eq!(from_csv("".as_bytes()), Ok(Vec::new()));
    }

    #[test]
    fn the_order_of_parameters_tells_no_rows_apart() {
        let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(key_of(&read(r#"{"a":1,"b":{"c":2,"d":3}}"#)), key_of(&read(r#"{"b":{"d":3,"c":2},"a":1}"#)));
        let others = [json!({"a": 1}), json!({"a": "1"}), json!([["a", 1]]), json!({"a": 1, "b": null}), json!([])];
        let mut keys: Vec<String> = others.iter().map(key_of).collect();
        keys.dedup();
        assert_eq!(keys.len(), others.len());
    }
}
