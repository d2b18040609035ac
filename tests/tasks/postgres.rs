//! A bed of PostgreSQL.

use fulmar::tasks::{TaskError, TaskQueue};

use crate::support::Bed;

/// A schema of its own on the server that tests/run brings, which goes with it.
pub(crate) struct Schema {
    name: String,
    /// For SQL around the queue: another queue's connections, of which each speaks of this schema.
    around: TaskQueue,
}

fn server() -> String {
    std::env::var("FULMAR_POSTGRES_URL").expect("tests/run sets it, to a server that it has started")
}

impl Schema {
    pub(crate) fn new() -> Schema {
        let name = format!("fulmar_{}", fulmar::tasks::WorkerId::new());
        // Tables of its own, in the database's default schema.
        let around = TaskQueue::connect(&server()).expect("the server is up");
        let schema = Schema { name, around };
        schema.ask(&format!("CREATE SCHEMA {}", schema.name));
        schema
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A queue on the same server, with other tables.
    pub(crate) fn around(&self) -> &TaskQueue {
        &self.around
    }

    /// The rows that a statement gives, with this schema's tables.
    pub(crate) fn ask(&self, sql: &str) -> (usize, Vec<Vec<Option<String>>>) {
        loop {
            let answer = self.around.postgres_transaction(|tx| {
                tx.execute(&format!("SET LOCAL search_path = {}, public", self.name), &[])?;
                if sql.trim_start().starts_with("SELECT") {
                    return Ok::<_, TaskError>((0, tx.query(sql, &[])?));
                }
                Ok((tx.execute(sql, &[])? as usize, Vec::new()))
            });
            match answer {
                Ok(answer) => return answer,
                // A statement over the whole table beside workers: the server calls off one of the two, in no order.
                Err(error) if format!("{error:?}").contains("40P01") => {}
                Err(error) => panic!("{sql}: {error:?}"),
            }
        }
    }
}

impl Bed for Schema {
    fn address(&self) -> String {
        // `%3D` is `=`: a value inside of a value.
        format!("{}?options=-csearch_path%3D{}", server(), self.name)
    }

    fn sql(&self, sql: &str) -> usize {
        self.ask(sql).0
    }

    fn count(&self, sql: &str) -> i64 {
        let (_, rows) = self.ask(&format!("SELECT ({sql})::text"));
        let number = rows[0][0].as_deref().unwrap_or_else(|| panic!("{sql}: null"));
        number.parse().unwrap_or_else(|error| panic!("{sql}: {number}: {error}"))
    }

    fn size(&self) -> i64 {
        self.count(&format!(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = '{}'::regnamespace",
            self.name
        ))
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // A test that failed has said enough, and the server goes with the tests.
        if !std::thread::panicking() {
            self.ask(&format!("DROP SCHEMA {} CASCADE", self.name));
        }
    }
}
