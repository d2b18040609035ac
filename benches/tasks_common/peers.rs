//! Other queues on the same database: programs that `benches/peers/run` has installed. Each is told
//! TASKS AT_ONCE BATCH, does that, and prints how many tasks those were, and the seconds it took to
//! enqueue them, to work them off, and to do both at once with as many more; `-` where it has no
//! such way to work.

use std::process::{Command, Stdio};

use super::{Arm, Load, Rates, Role};

/// What each program is and where it lies is in `FULMAR_BENCH_PEERS`: names and commands,
/// `name=command;name=command`. A name that begins with `floor` isn't a peer. `database` is where,
/// and what goes when the program has ended.
pub(crate) fn arms<'a, G>(database: impl Fn() -> (String, G) + Clone + 'a) -> Vec<Arm<'a>> {
    let peers = std::env::var("FULMAR_BENCH_PEERS").unwrap_or_default();
    if peers.is_empty() {
        println!("NOT RUN: other queues; benches/peers/run brings them");
    }
    let named = peers.split(';').filter_map(|peer| peer.split_once('='));
    let arm = |(name, command): (&str, &str)| {
        let (command, database) = (command.trim().to_owned(), database.clone());
        Arm {
            name: name.trim().into(),
            role: if name.trim().starts_with("floor") { Role::Floor } else { Role::Peer },
            run: Box::new(move |load| {
                let (url, _goes_with_this) = database();
                one(&command, &url, load)
            }),
        }
    };
    named.map(arm).collect()
}

fn one(command: &str, url: &str, load: Load) -> Rates {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .args([load.tasks, load.threads, load.batch].map(|number| number.to_string()))
        .env("DATABASE_URL", url)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<Option<f64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    let [Some(tasks), enqueue, work, through] = figures[..] else {
        assert!(text.trim() == "-", "{command}: no figures in `{text}`");
        return Rates::default();
    };
    let [enqueue, work, through] = [enqueue, work, through].map(|seconds| Some(tasks / seconds?));
    Rates { enqueue, work, through }
}
