//! Statuses, gates and charges by their names in SQL.
//!
//! The database holds numbers. A statement names them, `gate = {gate_open}`, and [`sql!`] puts the
//! numbers of [`transition`](super::transition) in their place while the crate is compiled. So a
//! statement is still a constant, and its text is one that a partial index fits. A name that isn't
//! in the table stops the compiler.
//!
//! Migrations keep their numbers, because a released migration never changes.

use super::status::TaskStatus::{self, Accepted, Cancelled, Failed, Finished, Paused, Running, Scheduled};
use super::transition::{Charge, Gate};

/// A name, and what stands in its place: one number, or a list in parentheses.
struct Name {
    name: &'static str,
    numbers: &'static [u8],
    is_list: bool,
}

const fn status(name: &'static str, numbers: &'static [u8]) -> Name {
    Name { name, numbers, is_list: false }
}

const fn list(name: &'static str, numbers: &'static [u8]) -> Name {
    Name { name, numbers, is_list: true }
}

const fn code(status: TaskStatus) -> u8 {
    status as u8
}

const NAMES: &[Name] = &[
    status("accepted", &[code(Accepted)]),
    status("scheduled", &[code(Scheduled)]),
    status("running", &[code(Running)]),
    status("paused", &[code(Paused)]),
    status("finished", &[code(Finished)]),
    status("failed", &[code(Failed)]),
    status("cancelled", &[code(Cancelled)]),
    list("waiting", &[code(Accepted), code(Paused)]),
    list("held", &[code(Scheduled), code(Running)]),
    list("ended", &[code(Finished), code(Failed), code(Cancelled)]),
    list("wrong", &[code(Failed), code(Cancelled)]),
    status("gate_open", &[Gate::Open as u8]),
    status("gate_time", &[Gate::Time as u8]),
    status("gate_order", &[Gate::Order as u8]),
    status("charge_start", &[Charge::Start as u8]),
    status("charge_failure", &[Charge::Failure as u8]),
    status("charge_loss", &[Charge::Loss as u8]),
    status("charge_reset", &[Charge::Reset as u8]),
];

/// A statement, from literals as `concat!` takes them, with names in braces.
macro_rules! sql {
    ($($text:tt)+) => {{
        const TEXT: &str = concat!($($text)+);
        const BYTES: [u8; $crate::tasks::names::length(TEXT)] = $crate::tasks::names::filled(TEXT);
        const STATEMENT: &str = match std::str::from_utf8(&BYTES) {
            Ok(statement) => statement,
            Err(_) => panic!("names in SQL are ASCII"),
        };
        STATEMENT
    }};
}

pub(super) use sql;

/// How many bytes `text` has once its names are numbers.
pub(super) const fn length(text: &str) -> usize {
    fill::<0>(text).1
}

/// `text` with numbers for its names.
pub(super) const fn filled<const N: usize>(text: &str) -> [u8; N] {
    fill(text).0
}

/// Writes as much as there is room for, and counts all of it.
const fn fill<const N: usize>(text: &str) -> ([u8; N], usize) {
    let (text, mut bytes, mut count, mut at) = (text.as_bytes(), [0; N], 0, 0);
    macro_rules! put {
        ($byte:expr) => {{
            if count < N {
                bytes[count] = $byte;
            }
            count += 1;
        }};
    }
    while at < text.len() {
        if text[at] != b'{' {
            put!(text[at]);
            at += 1;
            continue;
        }
        let name = find(text, at + 1);
        if name.is_list {
            put!(b'(');
        }
        let mut number = 0;
        while number < name.numbers.len() {
            if number > 0 {
                put!(b',');
                put!(b' ');
            }
            assert!(name.numbers[number] < 10, "a number of one digit");
            put!(b'0' + name.numbers[number]);
            number += 1;
        }
        if name.is_list {
            put!(b')');
        }
        at += name.name.len() + 2;
    }
    (bytes, count)
}

/// The name that begins at `at` and ends before a brace.
const fn find(text: &[u8], at: usize) -> &'static Name {
    let mut entry = 0;
    while entry < NAMES.len() {
        let name = NAMES[entry].name.as_bytes();
        let end = at + name.len();
        let mut same = 0;
        while same < name.len() && at + same < text.len() && text[at + same] == name[same] {
            same += 1;
        }
        if same == name.len() && end < text.len() && text[end] == b'}' {
            return &NAMES[entry];
        }
        entry += 1;
    }
    panic!("a name in SQL that isn't in the table of src/tasks/names.rs");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_name_becomes_its_number_and_the_rest_stays() {
        assert_eq!(sql!("gate = {gate_order}"), "gate = 2");
        assert_eq!(sql!("é ", "{running}{paused}", " é"), "é 23 é");
        assert_eq!(sql!("nothing"), "nothing");
    }

    #[test]
    fn lists_are_what_the_statuses_say_of_themselves() {
        let of = |is_so: fn(TaskStatus) -> bool| {
            let codes: Vec<String> =
                TaskStatus::ALL.into_iter().filter(|s| is_so(*s)).map(|s| s.code().to_string()).collect();
            format!("({})", codes.join(", "))
        };
        assert_eq!(sql!("{ended}"), of(TaskStatus::is_ended));
        assert_eq!(sql!("{waiting}"), of(|status| matches!(status, Accepted | Paused)));
        assert_eq!(sql!("{held}"), of(|status| matches!(status, Scheduled | Running)));
        assert_eq!(sql!("{wrong}"), of(|status| status.is_ended() && status != Finished));
    }

    /// Where SQL has the number of a status or of a gate by itself.
    fn bare(text: &str) -> Vec<usize> {
        let is_number = |word: &str| {
            let word = word.trim_start_matches(['(', '"', '\\']);
            word.starts_with(|c: char| c.is_ascii_digit())
        };
        let mut found = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for (at, word) in words.iter().enumerate() {
                let column = word.trim_start_matches(['(', '"']).rsplit('.').next().unwrap_or_default();
                if !matches!(column, "status" | "gate" | "was" | "charge") {
                    continue;
                }
                let after = &words[at + 1..];
                let value = match after {
                    ["IS", "NOT", "DISTINCT", "FROM", value, ..] | ["IS", "DISTINCT", "FROM", value, ..] => value,
                    ["=" | "<>" | "IN" | "IS" | "<" | ">" | "<=" | ">=", value, ..] => value,
                    ["WHEN", value, ..] => value,
                    _ => continue,
                };
                if is_number(value) {
                    found.push(number);
                }
            }
        }
        found
    }

    #[test]
    fn a_bare_number_is_caught() {
        assert_eq!(
            bare("\"WHERE t.gate = 0 AND x\"\n\"status IN (5, 6)\"\n\"gate IS NOT DISTINCT FROM 1\""),
            [1, 2, 3]
        );
        assert_eq!(bare("\"CASE j.status WHEN 0 THEN\""), [1]);
        assert_eq!(bare("\"gate = {gate_open} AND status IN {ended} AND gate IS NOT NULL AND status = $1\""), [0; 0]);
    }

    #[test]
    fn no_statement_has_a_bare_number_of_a_status_or_a_gate() {
        let mut found = Vec::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tasks");
        let mut files = 0;
        for engine in ["sqlite", "postgres"] {
            for entry in std::fs::read_dir(root.join(engine)).expect("the engine's folder") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
                // The statements of `tests` are those of a user with a client.
                if name == "tests.rs" {
                    continue;
                }
                files += 1;
                let text = std::fs::read_to_string(&path).expect("a source file");
                found.extend(bare(&text).into_iter().map(|line| format!("{engine}/{name}:{line}")));
            }
        }
        assert!(files > 40, "the folders were found: {files}");
        assert_eq!(found, [""; 0], "name it in braces: see src/tasks/names.rs");
    }
}
