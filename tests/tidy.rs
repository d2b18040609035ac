//! The rules of the house that neither the compiler, nor `clippy.toml`, nor `deny.toml` can hold:
//! floors, singletons, the door to threads, features, the changelog.
//!
//! A rule is a function from text to violations, each a line that names the file, the line and the
//! remedy. Every rule has a test that reads this repository. Those that read the sources as tokens,
//! where comments and string literals are never taken for code, are tried on bad samples, too, so
//! that a rule that has gone blind fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The house: a room may name rooms of lower floors and itself, and nobody else.
const FLOORS: &[(&str, u8)] = &[
    ("error", 0),
    ("sync", 0),
    ("time", 0),
    ("backoff", 0),
    ("trace", 0),
    ("panics", 0),
    ("lanes", 1),
    ("timer", 1),
    ("queue", 1),
    ("combine", 1),
    ("client::http", 1),
    ("client::creation", 1),
    ("client::date", 1),
    ("client::random", 0),
    ("executor", 2),
    ("batch", 3),
    ("tasks", 3),
    ("pipeline", 3),
    ("campaign", 4),
    ("client", 5),
    ("client::openeo", 5),
    ("client::pairs", 5),
];

/// Every `static` that is more than a plain constant: file, name, and why it must be there.
const STATICS: &[(&str, &str, &str)] = &[
    ("src/sync/blocking.rs", "LENDER", "how a thread lends its place in an executor is a fact of the thread"),
    ("src/sync/interrupt.rs", "OPERATIONS", "the way from a low floor to the operation that a thread runs is one"),
    ("src/executor/global.rs", "GLOBAL", "the one executor of the process, and the only singleton"),
    ("src/executor/current.rs", "NESTED", "how deep callbacks run inside one another is a fact of the thread"),
    ("src/executor/current.rs", "POOL", "which pool a thread belongs to is a fact of the thread"),
    ("src/executor/current.rs", "RUNNING", "which requests a thread is running is a fact of the thread"),
    ("src/executor/current.rs", "SCOPED", "how many requests of groups a thread is running is a fact of the thread"),
    ("src/executor/current.rs", "TIMER", "whether a thread is a timer is a fact of the thread"),
    ("src/executor/current.rs", "WORKER", "which pool a thread belongs to is a fact of the thread"),
    ("src/executor/interruptible.rs", "ENTERED", "what a thread is at that can be cancelled is a fact of the thread"),
    ("src/executor/per_thread.rs", "STORES", "which values a thread has made is a fact of the thread"),
    ("src/executor/time_limit.rs", "BESIDE_ALL", "no user may shut down the timer of threads without an executor"),
    ("src/tasks/durable/journal.rs", "LEFT", "debug builds only: where a test has the process end"),
    ("src/sync.rs", "AT_END", "when a thread's thread-locals are destroyed is a fact of the thread"),
    ("src/sync.rs", "CURRENT", "models only: how a modelled thread parks is a fact of the thread"),
    ("src/sync.rs", "TURNS", "how many cores the machine has is a fact of the machine"),
];

/// The first thing that a user does is to run an example.
const MOST_CRATES_OF_AN_EXAMPLE: usize = 25;

// The rules, on this repository.

#[test]
fn every_room_has_a_floor() {
    no_violations(sources("src").iter().flat_map(|(file, _)| unknown_room(file)));
}

#[test]
fn arrows_go_down_only_and_rooms_on_one_floor_are_strangers() {
    no_violations(sources("src").iter().flat_map(|(file, text)| wrong_arrows(file, text)));
}

#[test]
fn there_is_no_second_singleton() {
    no_violations(sources("src").iter().flat_map(|(file, text)| unlisted_statics(file, text, STATICS)));
}

#[test]
fn every_listed_static_still_exists() {
    let sources = sources("src");
    no_violations(STATICS.iter().filter_map(|&(file, name, _)| {
        let exists = sources.iter().any(|(f, text)| f == file && statics(&tokens(text)).iter().any(|s| s.name == name));
        (!exists).then(|| format!("{file}: has no `static {name}` any more: take it off the list in tests/tidy.rs"))
    }));
}

#[test]
fn only_the_sync_room_names_locks_atomics_and_threads() {
    no_violations(sources("src").iter().flat_map(|(file, text)| around_the_door(file, text)));
}

#[test]
fn two_files_may_hold_unsafe_code() {
    let sources = sources("src").into_iter().filter(|(_, text)| text.contains("allow(unsafe_code)"));
    let files: Vec<String> = sources.map(|(file, _)| file).collect();
    assert_eq!(files, ["src/executor/request/cell.rs", "src/tasks/postgres/libpq.rs"], "README.md says which");
}

#[test]
fn every_feature_is_described_where_users_look() {
    let guide = inner_docs(&read("src/lib.rs"));
    no_violations(undescribed_features(&read("Cargo.toml"), &guide, &read("README.md")));
}

#[test]
fn the_documents_name_files_that_exist() {
    no_violations(["docs/architecture.md", "README.md"].iter().flat_map(|file| missing_files(file, &read(file))));
}

#[test]
fn the_changelog_has_a_section_for_this_version() {
    no_violations(changelog_gap(&read("CHANGELOG.md"), env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_features_only_five_crates_and_their_needs_remain() {
    no_violations(strangers_in(&cargo_tree(&["-p", "fulmar", "--edges", "normal", "--no-default-features"])));
}

#[test]
fn whoever_tries_an_example_builds_few_crates() {
    no_violations(too_many_crates(&cargo_tree(&["-p", "examples"]), MOST_CRATES_OF_AN_EXAMPLE));
}

// The rules, on samples that break them.

#[test]
fn a_room_without_a_floor_is_caught() {
    assert!(unknown_room("src/lib.rs").is_none());
    assert!(unknown_room("src/queue/line.rs").is_none());
    assert!(unknown_room("src/client/http/retry.rs").is_none());
    assert_caught(unknown_room("src/utils.rs"), "src/utils.rs: room `utils`");
    assert_caught(unknown_room("src/client/ftp.rs"), "src/client/ftp.rs: room `client::ftp`");
}

#[test]
fn a_climbing_arrow_is_caught() {
    assert_caught(wrong_arrows("src/lanes.rs", "\nuse crate::executor::Stats;"), "src/lanes.rs:2: `lanes` (floor 1)");
    assert_caught(wrong_arrows("src/queue/mod.rs", "fn f() { crate::batch::run() }"), "`batch` (floor 3)");
    assert_caught(wrong_arrows("src/queue/mod.rs", "use crate::{error::Error,\n executor::{a, b}};"), ":2: `queue`");
    assert_caught(wrong_arrows("src/queue/shared.rs", "pub(in crate::executor) fn f() {}"), "`executor`");
    assert_caught(wrong_arrows("src/client/http/mod.rs", "use crate::client::pairs::Query;"), "`client::pairs`");
}

#[test]
fn a_climbing_arrow_by_way_of_super_is_caught() {
    assert_caught(wrong_arrows("src/lanes.rs", "use super::executor::Stats;"), "`executor` (floor 2)");
    assert_caught(wrong_arrows("src/queue/line.rs", "use super::super::executor::Stats;"), "`executor`");
    assert_caught(wrong_arrows("src/lanes.rs", "mod tests { use super::super::timer::Timer; }"), "`timer`");
    assert_eq!(wrong_arrows("src/lanes.rs", "mod tests { use super::*; mod a { use super::super::Lane; } }"), [""; 0]);
    assert_eq!(wrong_arrows("src/queue/line.rs", "use super::state::State; use self::a::b;"), [""; 0]);
}

#[test]
fn an_arrow_to_a_stranger_on_the_same_floor_is_caught() {
    assert_caught(wrong_arrows("src/lanes.rs", "use crate::timer::Timer;"), "`timer` (floor 1)");
    assert_caught(wrong_arrows("src/time.rs", "use crate::error::Error;"), "`error` (floor 0)");
    assert_caught(wrong_arrows("src/client/openeo/mod.rs", "use crate::client::pairs::X;"), "`client::pairs`");
}

#[test]
fn an_arrow_to_the_roof_is_caught() {
    assert_caught(wrong_arrows("src/lanes.rs", "use crate::Error;"), "`crate::Error` names no room");
    assert_caught(wrong_arrows("src/lanes.rs", "use crate::{error::Error, Executor as E};"), "`crate::Executor`");
    assert_caught(wrong_arrows("src/lanes.rs", "use crate::*;"), "`crate::*`");
}

#[test]
fn a_falling_arrow_is_allowed() {
    let text = "//! [`crate::executor`] and \"crate::executor::X\" are prose.
        use crate::{error::{Error, Result}, sync::Mutex};
        /* use crate::executor; */ pub(crate) fn f() { let _ = (\"crate::executor::x\", 'c', r#\"crate::batch::x\"#); }";
    assert_eq!(wrong_arrows("src/queue/mod.rs", text), [""; 0]);
    assert_eq!(wrong_arrows("src/executor/mod.rs", "use crate::{lanes, timer::Timer}; use self::a::B;"), [""; 0]);
    assert_eq!(wrong_arrows("src/client/pairs/mod.rs", "use crate::client::http; use crate::batch::Job;"), [""; 0]);
    assert_eq!(wrong_arrows("src/lib.rs", "pub use crate::executor::Executor; use self::timer::Timer;"), [""; 0]);
}

#[test]
fn a_second_singleton_is_caught() {
    let text = "fn f() {\n static POOL: OnceLock<Pool> = OnceLock::new(); }";
    assert_caught(unlisted_statics("src/queue/mod.rs", text, &[]), "src/queue/mod.rs:2: `static POOL`");
    assert!(unlisted_statics("src/queue/mod.rs", text, &[("src/queue/mod.rs", "POOL", "a reason")]).is_empty());
    assert_caught(unlisted_statics("src/queue/mod.rs", text, &[("src/lanes.rs", "POOL", "elsewhere")]), "POOL");

    let by_its_own_type = "pub(crate) static REGISTRY: Registry = Registry::new();";
    assert_caught(unlisted_statics("src/lanes.rs", by_its_own_type, &[]), "REGISTRY");
    let by_thread = "thread_local! { static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) }; }";
    assert_caught(unlisted_statics("src/lanes.rs", by_thread, &[]), "STACK");
    assert_caught(unlisted_statics("src/lanes.rs", "static mut COUNT: u64 = 0;", &[]), "COUNT");
    assert_caught(unlisted_statics("src/lanes.rs", "static IDS: [AtomicU64; 2] = x();", &[]), "IDS");
}

#[test]
fn a_static_that_is_a_constant_is_allowed() {
    let text = "static NAMES: &[(&'static str, u8)] = &[(\"static X: Y = 1;\", 1)]; static N: [u32; 2] = [1, 2];
        fn f<T: Send + 'static>(x: &'static str) {}";
    assert_eq!(unlisted_statics("src/lanes.rs", text, &[]), [""; 0]);
}

#[test]
fn a_way_around_the_door_is_caught() {
    for text in [
        "use std::sync::Mutex;",
        "use std::{sync::{Arc, OnceLock}, io};",
        "use ::std::sync::mpsc::channel;",
        "use std::sync;",
        "use std::sync::*;",
        "use std::{self as s, thread};",
        "fn f() { std::thread::yield_now() }",
        "use core::sync::atomic::AtomicU8;",
        "use parking_lot::Mutex;",
        "use parking_lot as p;",
        "fn f() { loom::model(|| ()) }",
        "use crossbeam_utils::atomic::AtomicCell;",
        "use std::*;",
    ] {
        let caught = around_the_door("src/queue/mod.rs", text);
        assert!(caught.iter().any(|line| line.starts_with("src/queue/mod.rs:1: ")), "{text}: {caught:?}");
        assert!(around_the_door("src/sync.rs", text).is_empty());
    }
}

#[test]
fn the_door_and_shared_ownership_are_allowed() {
    let text = "use std::{sync::{Arc, Weak}, time::Duration}; use crate::sync::{Mutex, thread}; #[cfg(loom)] fn f() {}
        use crossbeam_utils::CachePadded; fn g(x: std::sync::Arc<u8>) { thread::current(); }";
    assert_eq!(around_the_door("src/queue/mod.rs", text), [""; 0]);
}

#[test]
fn tokens_leave_out_comments_strings_and_characters() {
    let text = "a::b /* x /* y */ z */ 'q' '\\'' '\"' \"s\\\"t\" b\"u\" br#\"v\"w\"# r#type 'life // end\nc";
    let found: Vec<(String, usize)> = tokens(text).into_iter().map(|token| (token.text, token.line)).collect();
    let expected = ["a", "::", "b", "''", "''", "''", "\"\"", "\"\"", "\"\"", "type", "'life"];
    assert_eq!(found.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>()[..11], expected);
    assert_eq!(found.last(), Some(&("c".to_owned(), 2)));
}

// Floors.

/// The room that a module path belongs to: its first name, and within `client` its first two.
fn room(path: &[String]) -> Option<String> {
    let first = path.first()?;
    if first != "client" {
        return Some(first.clone());
    }
    let inner = path.get(1).filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()) && *name != "self");
    Some(inner.map_or_else(|| first.clone(), |name| format!("{first}::{name}")))
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|&(_, floor)| floor)
}

/// The module path of a file; empty for `src/lib.rs`.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut names: Vec<String> = path.split('/').map(str::to_owned).collect();
    if names.last().is_some_and(|last| last == "mod") || names == ["lib"] {
        names.pop();
    }
    names
}

fn unknown_room(file: &str) -> Option<String> {
    let room = room(&module_of(file))?;
    floor(&room)
        .is_none()
        .then(|| format!("{file}: room `{room}` has no floor: give it one in tests/tidy.rs, or move it into a room"))
}

fn wrong_arrows(file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let Some(from) = room(&module) else {
        return Vec::new(); // lib.rs is the roof: it sees every room.
    };
    let Some(from_floor) = floor(&from) else {
        return Vec::new(); // `unknown_room` says so.
    };
    let mut found = Vec::new();
    for path in paths(&tokens(text)) {
        let Some(target) = from_the_roof(&path, &module) else {
            continue; // Another crate's, or a name in scope.
        };
        let to = room(&target).unwrap_or_default();
        if to == from {
            continue;
        }
        let line = path.line;
        match floor(&to) {
            None => found.push(format!(
                "{file}:{line}: `crate::{}` names no room of the house: name the room that it is from",
                target.join("::")
            )),
            Some(to_floor) if to_floor >= from_floor => found.push(format!(
                "{file}:{line}: `{from}` (floor {from_floor}) may not name `{to}` (floor {to_floor}): arrows go down only"
            )),
            Some(_) => {}
        }
    }
    found
}

/// Where a path leads, counted from the crate's root; `None` if it doesn't begin with `crate`,
/// `self` or `super`.
fn from_the_roof(path: &PathUse, file_module: &[String]) -> Option<Vec<String>> {
    let mut here: Vec<String> = file_module.iter().chain(&path.inside).cloned().collect();
    let mut names = path.names.iter().peekable();
    match names.peek()?.as_str() {
        "crate" => {
            here.clear();
            names.next();
        }
        "self" => {
            names.next();
        }
        "super" => {
            while names.next_if(|name| *name == "super").is_some() {
                here.pop();
            }
        }
        _ => return None,
    }
    here.extend(names.cloned());
    Some(here)
}

// Singletons.

struct Static {
    name: String,
    line: usize,
    plain: bool,
}

fn statics(tokens: &[Token]) -> Vec<Static> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "static") {
        let mut rest = &tokens[at + 1..];
        let mutable = rest.first().is_some_and(|next| next.text == "mut");
        if mutable || rest.first().is_some_and(|next| next.text == "ref") {
            rest = &rest[1..];
        }
        let [name, colon, tail @ ..] = rest else {
            continue;
        };
        if colon.text == ":" {
            let mut kind = tail.iter().take_while(|token| token.text != "=");
            let plain = !mutable && kind.all(|token| is_plain(&token.text));
            found.push(Static { name: name.text.clone(), line: token.line, plain });
        }
    }
    found
}

/// Whether a type made of such tokens alone can't change and can't hide anything that does.
fn is_plain(token: &str) -> bool {
    const PLAIN: &[&str] = &[
        "&", "'static", "[", "]", "(", ")", ",", ";", "bool", "char", "str", "f32", "f64", "i8", "i16", "i32", "i64",
        "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize",
    ];
    PLAIN.contains(&token) || token.starts_with(|c: char| c.is_ascii_digit())
}

fn unlisted_statics(file: &str, text: &str, listed: &[(&str, &str, &str)]) -> Vec<String> {
    let unlisted = |name: &str| !listed.iter().any(|&(f, n, _)| f == file && n == name);
    statics(&tokens(text))
        .iter()
        .filter(|item| !item.plain && unlisted(&item.name))
        .map(|item| {
            let (line, name) = (item.line, &item.name);
            format!(
                "{file}:{line}: `static {name}` is state of the whole process: pass it in, or list it with a reason"
            )
        })
        .collect()
}

// The door.

/// What `src/sync.rs` stands for: a model checker sees nothing that goes around it.
const BEHIND_THE_DOOR: &[&str] = &[
    "std::sync",
    "std::thread",
    "core::sync",
    "alloc::sync",
    "parking_lot",
    "loom",
    "concurrent_queue",
    "crossbeam_utils::atomic",
    "crossbeam_utils::sync",
    "crossbeam_utils::thread",
];

/// Shared ownership orders nothing and blocks no thread; the third is the name of a type, a panic
/// or a value.
const NO_NEED_OF_THE_DOOR: &[&str] = &["std::sync::Arc", "std::sync::Weak", "std::thread::Result"];

fn around_the_door(file: &str, text: &str) -> Vec<String> {
    if file == "src/sync.rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for path in paths(&tokens(text)) {
        let name = path.names.join("::");
        let is_or_is_in = |outer: &&&str| name == **outer || name.starts_with(&format!("{outer}::"));
        let behind = BEHIND_THE_DOOR.iter().find(is_or_is_in).is_some();
        let exempt = NO_NEED_OF_THE_DOOR.iter().find(is_or_is_in).is_some();
        if (behind && !exempt) || name == "std::*" || name == "core::*" {
            found.push(format!("{file}:{}: `{name}` goes around the door: take it from `crate::sync`", path.line));
        }
    }
    found
}

// Features and changelog.

struct Feature {
    name: String,
    comment: String,
}

fn features(manifest: &str) -> Vec<Feature> {
    let mut found = Vec::new();
    let mut comment = Vec::new();
    let section = manifest.lines().map(str::trim).skip_while(|line| *line != "[features]").skip(1);
    for line in section.take_while(|line| !line.starts_with('[')) {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim());
            continue;
        }
        if let Some((name, _)) = line.split_once('=').filter(|(name, _)| !name.contains('"')) {
            found.push(Feature { name: name.trim().to_owned(), comment: comment.join(" ") });
        }
        comment.clear();
    }
    found
}

fn undescribed_features(manifest: &str, guide: &str, readme: &str) -> Vec<String> {
    let mut found = Vec::new();
    for Feature { name, comment } in features(manifest) {
        if !comment.ends_with('.') || comment.split_whitespace().count() < 4 {
            found.push(format!("Cargo.toml: feature `{name}` has no sentence above it"));
        }
        for (file, text) in [("src/lib.rs", guide), ("README.md", readme)] {
            if !text.contains(&format!("`{name}`")) {
                found.push(format!("{file}: feature `{name}` isn't named there"));
            }
        }
    }
    found
}

fn inner_docs(text: &str) -> String {
    text.lines().filter_map(|line| line.trim_start().strip_prefix("//!")).collect::<Vec<_>>().join("\n")
}

fn changelog_gap(changelog: &str, version: &str) -> Option<String> {
    let heading = format!("## [{version}]");
    let mut lines = changelog.lines().skip_while(|line| !line.starts_with(&heading));
    if lines.next().is_none() {
        return Some(format!("CHANGELOG.md: no section `{heading}`, the version in Cargo.toml"));
    }
    let says_something = lines.take_while(|line| !line.starts_with("## ")).any(|line| line.starts_with("- "));
    (!says_something).then(|| format!("CHANGELOG.md: section `{heading}` says nothing"))
}

/// What a document names, between backquotes or as a link's target, below one of our folders.
fn missing_files(document: &str, text: &str) -> Vec<String> {
    let named = text.split(['`', '(', ')', ' ', ',']).map(|word| word.split(['#', '*']).next().unwrap_or(word));
    let ours =
        named.filter(|name| ["src/", "tests/", "benches/", "docs/"].iter().any(|folder| name.starts_with(folder)));
    let missing = ours.filter(|name| !Path::new(env!("CARGO_MANIFEST_DIR")).join(name).exists());
    missing.map(|name| format!("{document}: names `{name}`, which isn't there")).collect()
}

// Dependencies.

/// What `cargo tree` says, a crate a line, each behind its depth: `1parking_lot v0.12.3`.
fn cargo_tree(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |network: &[&str]| {
        Command::new(&cargo)
            .args(["tree", "--prefix", "depth", "--no-dedupe"])
            .args(arguments)
            .args(network)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo can be started")
    };
    // Offline serves where everything was fetched before; the first run of a fresh clone may miss
    // an optional crate.
    let mut output = run(&["--offline"]);
    if !output.status.success() {
        output = run(&[]);
    }
    assert!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo speaks UTF-8")
}

/// The lines of a tree, as depth and crate.
fn crates(tree: &str) -> impl Iterator<Item = (&str, &str)> {
    tree.lines().map(|line| line.split_at(line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len())))
}

fn crate_name(entry: &str) -> &str {
    entry.split(' ').next().unwrap_or(entry)
}

fn too_many_crates(tree: &str, most: usize) -> Option<String> {
    let entries = crates(tree).map(|(_, entry)| entry.split(' ').take(2).collect::<Vec<_>>());
    let count = entries.collect::<BTreeSet<_>>().len();
    (count > most)
        .then(|| format!("the examples need {count} crates, and may need {most}: leave out what one of them needs"))
}

fn strangers_in(tree: &str) -> Vec<String> {
    let expected = |name: &str| {
        matches!(name, "concurrent-queue" | "crossbeam-channel" | "crossbeam-utils" | "parking_lot" | "thiserror")
    };
    crates(tree)
        .filter(|&(depth, entry)| depth == "1" && !expected(crate_name(entry)))
        .map(|(_, entry)| format!("`{}` is needed without features: make it optional", entry.trim_end()))
        .collect()
}

// Reading.

fn no_violations(found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "\n  {}", found.join("\n  "));
}

#[track_caller]
fn assert_caught(found: impl IntoIterator<Item = String>, expected: &str) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.iter().any(|violation| violation.contains(expected)), "{expected:?} isn't among {found:#?}");
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every Rust file below `folder`, in order, with its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &str, names: &mut BTreeSet<String>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("{folder}: {error}")) {
            let entry = entry.unwrap_or_else(|error| panic!("{folder}: {error}"));
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                walk(&name, names);
            } else if name.ends_with(".rs") {
                names.insert(name);
            }
        }
    }
    let mut names = BTreeSet::new();
    walk(folder, &mut names);
    assert!(!names.is_empty(), "no Rust file below {folder}");
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// A path as code names it, with the inline modules that it stands in.
struct PathUse {
    names: Vec<String>,
    inside: Vec<String>,
    line: usize,
}

/// Every path of two names or more, and what `use` names; groups are taken apart: `a::{b, c::d}` is
/// `a::b` and `a::c::d`.
fn paths(tokens: &[Token]) -> Vec<PathUse> {
    let mut found = Vec::new();
    let mut braces = 0;
    let mut modules: Vec<(String, usize)> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        match token.text.as_str() {
            "{" => {
                braces += 1;
                if at >= 2 && tokens[at - 2].text == "mod" {
                    modules.push((tokens[at - 1].text.clone(), braces));
                }
            }
            "}" => {
                if modules.last().is_some_and(|&(_, depth)| depth == braces) {
                    modules.pop();
                }
                braces = braces.saturating_sub(1);
            }
            _ if token.begins_path() => {
                let used = at > 0 && tokens[at - 1].text == "use";
                let mut leaves = Vec::new();
                at = path_tree(tokens, at, &[], &mut leaves);
                let inside: Vec<String> = modules.iter().map(|(name, _)| name.clone()).collect();
                let leaves = leaves.into_iter().filter(|(names, _)| used || names.len() > 1);
                found.extend(leaves.map(|(names, line)| PathUse { names, inside: inside.clone(), line }));
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one path from `at` on, below `prefix`, into its leaves; returns where it ended.
fn path_tree(tokens: &[Token], mut at: usize, prefix: &[String], leaves: &mut Vec<(Vec<String>, usize)>) -> usize {
    let mut names = prefix.to_vec();
    let mut line = 0;
    while let Some(token) = tokens.get(at) {
        if token.text == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token.text != "}") {
                let from = at;
                at = path_tree(tokens, at, &names, leaves);
                // `as NAME` and the comma.
                while tokens.get(at).is_some_and(|token| token.text != "," && token.text != "}") {
                    at += 1;
                }
                at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                assert!(at > from, "a group of paths is read to its end");
            }
            return at + 1;
        }
        if !token.is_name() && token.text != "*" {
            break; // `::<` of a generic call.
        }
        line = token.line;
        // `a::{self}` is `a`.
        if token.text != "self" || names.is_empty() {
            names.push(token.text.clone());
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        at += 1;
    }
    leaves.push((names, line));
    at
}

struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }

    /// A name that isn't a keyword which may stand before a leading `::`.
    fn begins_path(&self) -> bool {
        const BEFORE: &[&str] = &[
            "use", "as", "const", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "unsafe", "while",
        ];
        self.is_name() && !BEFORE.contains(&self.text.as_str())
    }
}

/// Rust as names, numbers, lifetimes, `::` and single characters. Comments vanish; literals lose
/// what they say.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let rest = &chars[at..];
        let mut kept = None;
        match rest {
            ['/', '/', ..] => at += rest.iter().take_while(|c| **c != '\n').count(),
            ['/', '*', ..] => at += block_comment(rest),
            [c, ..] if c.is_whitespace() => at += 1,
            ['r' | 'b' | 'c', ..] if literal(rest).is_some() => {
                at += literal(rest).unwrap_or(1);
                kept = Some("\"\"".to_owned());
            }
            ['r', '#', c, ..] if is_word(*c) => at += 2, // A raw name: the name follows.
            ['"', ..] => {
                at += quoted(rest, '"');
                kept = Some("\"\"".to_owned());
            }
            ['\'', '\\', ..] | ['\'', _, '\'', ..] => {
                at += quoted(rest, '\'');
                kept = Some("''".to_owned());
            }
            ['\'', ..] => {
                at += 1 + rest[1..].iter().take_while(|c| is_word(**c)).count();
                kept = Some(chars[start..at].iter().collect());
            }
            [':', ':', ..] => {
                at += 2;
                kept = Some("::".to_owned());
            }
            [c, ..] if is_word(*c) => {
                at += rest.iter().take_while(|c| is_word(**c)).count();
                kept = Some(chars[start..at].iter().collect());
            }
            _ => {
                at += 1;
                kept = Some(chars[start..at].iter().collect());
            }
        }
        tokens.extend(kept.map(|text| Token { text, line }));
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// The length of a string that begins with `r`, `b`, `c`, or two of them; `None` if it isn't such a
/// string.
fn literal(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    let raw = rest[..prefix].contains(&'r');
    let hashes = if raw { rest[prefix..].iter().take_while(|c| **c == '#').count() } else { 0 };
    let open = prefix + hashes;
    match rest.get(open)? {
        _ if prefix > 2 => None,
        '"' if raw => {
            let ends = |end: &usize| {
                rest[*end] == '"' && rest[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
            };
            Some((open + 1..rest.len()).find(ends).map_or(rest.len(), |end| end + 1 + hashes))
        }
        '"' => Some(open + quoted(&rest[open..], '"')),
        '\'' if rest[..prefix] == ['b'] => Some(open + quoted(&rest[open..], '\'')),
        _ => None,
    }
}

/// The length of what begins with `quote` and ends with the next one that no backslash hides.
fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The length of a block comment; they nest.
fn block_comment(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(rest.len())
}
