//! A bed of SQLite.

use std::path::PathBuf;

use fulmar::tasks::rusqlite::Connection;

use crate::support::Bed;

/// A file in a folder of its own, both of which go with it.
pub(crate) struct File {
    folder: PathBuf,
}

impl File {
    pub(crate) fn new() -> File {
        let name = format!("fulmar-test-{}", fulmar::tasks::WorkerId::new());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder of its own");
        File { folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("queue.db")
    }

    /// A connection around the queue.
    pub(crate) fn connect(&self) -> Connection {
        let db = Connection::open(self.path()).expect("the file opens");
        db.busy_timeout(crate::support::HANG).expect("a timeout");
        db
    }
}

impl Bed for File {
    fn address(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    fn sql(&self, sql: &str) -> usize {
        self.connect().execute(sql, []).expect("sound SQL")
    }

    fn count(&self, sql: &str) -> i64 {
        self.connect().query_row(sql, [], |row| row.get(0)).expect("sound SQL")
    }

    fn size(&self) -> i64 {
        self.count("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
