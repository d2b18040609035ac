//! Who takes part in what, and what is to be reached.

use crate::ours::{Fulmar, Keys, Submit, SubmitMany};
use crate::rivals::{
    Blocking, ByHand, Crossbeam, Futures, Rayon, Rival, RustyPool, Threadpool, Threads, Tokio, Workerpool,
};
use crate::workloads::{self, Scale};

/// One workload with everybody who can do it.
pub(crate) struct Workload {
    /// Names the criterion group, and selects it on the command line.
    pub(crate) name: &'static str,
    pub(crate) arms: Vec<Arm>,
    pub(crate) lines: Vec<Line>,
    /// Rounds of the summary.
    pub(crate) rounds: usize,
    /// The criterion group; none for what isn't a time.
    pub(crate) group: Option<Group>,
}

/// How criterion measures a workload.
pub(crate) struct Group {
    /// Requests in a run.
    pub(crate) elements: fn(&Scale) -> usize,
    /// Measured time for each arm; naps and preparations come on top.
    pub(crate) millis: u64,
}

/// One contestant in one workload.
pub(crate) struct Arm {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Scale) -> Vec<f64>,
}

/// A line of the table: a figure of one of our arms, beside those of the baseline and the best rival.
pub(crate) struct Line {
    pub(crate) label: &'static str,
    pub(crate) ours: &'static str,
    /// Which of the figures of a run.
    pub(crate) figure: usize,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Nanos,
    Micros,
    Millis,
    Bytes,
    Blocks,
    /// So many times as long.
    Times,
}

/// All that is given must hold; with nothing given the line is for information.
#[derive(Default)]
pub(crate) struct Goal {
    /// Part of the figure of the best rival, the baseline among them.
    pub(crate) of_best: Option<f64>,
    /// In the line's unit.
    pub(crate) at_most: Option<f64>,
    /// It isn't stuck, however long it takes.
    pub(crate) ends: bool,
}

/// The names of our arms start with it.
pub(crate) const OURS: &str = Fulmar::NAME;
pub(crate) const BASELINE: &str = Crossbeam::NAME;
/// Shown, but no rival: see there.
pub(crate) const BY_HAND: &str = ByHand::NAME;

/// Ours, then the pools, then those who can't do everything.
macro_rules! arms {
    ($run:ident: $($ours:ty),+; $($more:ty),*) => {
        arms!(@ $run: $($ours,)+ Crossbeam, ByHand, Rayon, Threadpool, Workerpool, RustyPool, Futures, Tokio, $($more),*)
    };
    (@ $run:ident: $($arm:ty),+ $(,)?) => {
        vec![$(Arm { name: <$arm>::NAME, run: workloads::$run::<$arm> }),+]
    };
}

/// The table of the project's performance goals, line by line.
pub(crate) fn workloads() -> Vec<Workload> {
    let ours = Fulmar::NAME;
    vec![
        Workload {
            name: "submit_wait",
            arms: arms!(submit_wait: Fulmar, Submit, SubmitMany, Keys<1_000>, Keys<1>; Blocking, Threads),
            lines: vec![
                Line::new("submit 200k, wait for all: spawn", ours, Unit::Nanos).of_best(0.65),
                Line::new("  submit, no key", Submit::NAME, Unit::Nanos).of_best(1.0),
                Line::new("  submit_many", SubmitMany::NAME, Unit::Nanos).of_best(0.6),
                Line::new("  submit, 1,000 keys, all modifiers", Keys::<1_000>::NAME, Unit::Nanos).of_best(1.2),
                Line::new("  submit, 1 key, all modifiers", Keys::<1>::NAME, Unit::Nanos).of_best(1.2),
            ],
            rounds: 9,
            group: Group::new(|scale| scale.submits, 2_000),
        },
        Workload {
            name: "round_trip_busy",
            arms: arms!(round_trip_busy: Fulmar; Blocking, Threads),
            lines: vec![Line::new("round trip, busy, p50", ours, Unit::Micros).of_best(0.4)],
            rounds: 7,
            group: Group::new(|scale| scale.round_trips, 1_000),
        },
        Workload {
            name: "round_trip_idle",
            arms: arms!(round_trip_idle: Fulmar; Blocking, Threads),
            lines: vec![Line::new("round trip after idling, p50", ours, Unit::Micros).of_best(1.0)],
            rounds: 9,
            group: Group::new(|scale| scale.idle_round_trips, 20),
        },
        Workload {
            name: "four_submitters",
            arms: arms!(four_submitters: Fulmar, Keys<1_000>; Blocking, Threads),
            lines: vec![
                Line::new("4 submitters x 50k: spawn", ours, Unit::Nanos).of_best(0.8),
                Line::new("  submit, 1,000 keys, all modifiers", Keys::<1_000>::NAME, Unit::Nanos).of_best(1.2),
            ],
            rounds: 9,
            group: Group::new(|scale| scale.submits, 2_000),
        },
        Workload {
            name: "spin_5us",
            arms: arms!(spin_5us: Fulmar; Blocking, Threads),
            lines: vec![
                Line::new("10k requests of 5 us, wall", ours, Unit::Millis).of_best(0.8),
                Line::new("10k requests of 5 us, CPU", ours, Unit::Millis).figure(1).of_best(0.8),
            ],
            rounds: 11,
            group: Group::new(|_| 1, 1_000),
        },
        Workload {
            name: "pending_memory",
            arms: arms!(pending_memory: Fulmar, Submit, Keys<1_000>; Blocking),
            lines: vec![
                Line::new("heap of a pending request", ours, Unit::Bytes).at_most(112.0),
                Line::new("  submit, no key", Submit::NAME, Unit::Bytes).at_most(112.0),
                Line::new("  submit, 1,000 keys, all modifiers", Keys::<1_000>::NAME, Unit::Bytes).at_most(112.0),
                Line::new("allocations a pending request", ours, Unit::Blocks).figure(1).at_most(1.0),
                Line::new("  submit, no key", Submit::NAME, Unit::Blocks).figure(1).at_most(1.0),
                Line::new("  submit, 1,000 keys, all modifiers", Keys::<1_000>::NAME, Unit::Blocks)
                    .figure(1)
                    .at_most(1.0),
            ],
            rounds: 1,
            group: None,
        },
        Workload {
            name: "wait_done",
            arms: arms!(wait_done: Fulmar; Blocking),
            lines: vec![Line::new("take 100k results, done", ours, Unit::Nanos).of_best(1.2)],
            rounds: 9,
            group: Group::new(|scale| scale.waits, 100),
        },
        Workload {
            name: "wait_pending",
            arms: arms!(wait_pending: Fulmar; Blocking),
            lines: vec![Line::new("take 100k results, pending", ours, Unit::Nanos).of_best(1.5)],
            rounds: 9,
            group: Group::new(|scale| scale.waits, 500),
        },
        Workload {
            name: "many_threads",
            arms: arms!(many_threads: Fulmar, Keys<1_000>;),
            lines: vec![
                Line::new("submit 200k to 64 threads: spawn", ours, Unit::Nanos),
                Line::new("  submit, 1,000 keys, all modifiers", Keys::<1_000>::NAME, Unit::Nanos),
            ],
            rounds: 5,
            group: Group::new(|scale| scale.submits, 2_000),
        },
        Workload {
            name: "pairs",
            arms: arms!(pairs: Fulmar, Submit;),
            lines: vec![
                Line::new("10k pairs that wait for each other: spawn", ours, Unit::Nanos).ends(),
                Line::new("  submit, no key", Submit::NAME, Unit::Nanos).ends(),
            ],
            rounds: 3,
            group: None,
        },
        Workload {
            name: "growth",
            arms: arms!(growth: Fulmar, Keys<1_000_000>;),
            lines: vec![
                Line::new("1,000,000 pending beside 1,000: spawn", ours, Unit::Times),
                Line::new("  submit, each on a key", Keys::<1_000_000>::NAME, Unit::Times).at_most(1.2),
                Line::new("  submit, 1,000 keys pending", Keys::<1_000_000>::NAME, Unit::Nanos).figure(1),
                Line::new("  submit, 1,000,000 keys pending", Keys::<1_000_000>::NAME, Unit::Nanos).figure(2),
            ],
            rounds: 3,
            group: None,
        },
        Workload {
            name: "idle_threads",
            // Not `blocking`, whose one pool has two threads here.
            arms: arms!(idle_threads: Fulmar;),
            lines: vec![Line::new("64 idle threads, CPU in 2 s", ours, Unit::Millis).at_most(10.0)],
            rounds: 1,
            group: None,
        },
    ]
}

impl Group {
    fn new(elements: fn(&Scale) -> usize, millis: u64) -> Option<Self> {
        Some(Self { elements, millis })
    }
}

impl Line {
    fn new(label: &'static str, ours: &'static str, unit: Unit) -> Self {
        Self { label, ours, figure: 0, unit, goal: Goal::default() }
    }

    fn figure(mut self, figure: usize) -> Self {
        self.figure = figure;
        self
    }

    fn of_best(mut self, part: f64) -> Self {
        self.goal.of_best = Some(part);
        self
    }

    fn ends(mut self) -> Self {
        self.goal.ends = true;
        self
    }

    fn at_most(mut self, most: f64) -> Self {
        self.goal.at_most = Some(most);
        self
    }
}
