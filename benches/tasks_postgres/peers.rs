//! Other queues on the same server: programs that `benches/peers/run` has installed, each of which is told a load, runs it,
//! and prints how many tasks those were, and the seconds it took to enqueue them and to work them off.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Load, Took};

/// What each program is and where it lies is in `FULMAR_BENCH_PEERS`: names and commands, `name=command;name=command`.
pub(crate) fn run(url: &str, load: Load) -> Vec<(String, Option<Took>)> {
    let peers = std::env::var("FULMAR_BENCH_PEERS").unwrap_or_default();
    let named = peers.split(';').filter_map(|peer| peer.split_once('='));
    named.map(|(name, command)| (name.trim().to_owned(), one(command.trim(), url, load))).collect()
}

/// `None` if it has no such way to work.
fn one(command: &str, url: &str, load: Load) -> Option<Took> {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next()?)
        .args(words)
        .args([load.tasks, load.threads, load.batch].map(|number| number.to_string()))
        .env("DATABASE_URL", url)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match figures[..] {
        [tasks, enqueue, work] => {
            let (enqueue, work) = (Duration::from_secs_f64(enqueue), Duration::from_secs_f64(work));
            Some(Took { tasks: tasks as usize, enqueue, work })
        }
        _ if text.trim() == "-" => None,
        _ => panic!("{command}: no figures in `{text}`"),
    }
}
