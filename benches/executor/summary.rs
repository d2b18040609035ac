//! The table: every arm in turn, round after round, so that noise hits all alike; medians and ratios.

use crate::contest::{BASELINE, BY_HAND, Goal, Line, OURS, Unit, Workload};
use crate::workloads::Scale;

/// Measures all workloads and prints the figures of everybody, then the table. A test is a single round.
pub(crate) fn print(workloads: &[Workload], scale: &Scale, test: bool) {
    if test {
        println!("\nA test: sizes are a hundredth of the real ones, and figures mean nothing.");
    }
    // Where the system tells it: on a busy machine not even the ratios mean much.
    if let Ok(load) = std::fs::read_to_string("/proc/loadavg") {
        println!("\nLoad at the start: {}.", load.split(' ').next().unwrap_or_default());
    }
    println!("\nEach figure: median (lowest .. highest) of rounds in which all take turns.\n");
    let mut table = String::new();
    for workload in workloads {
        let rounds = if test { 1 } else { workload.rounds };
        let outcomes = measure(workload, scale, rounds);
        print_all(workload, &outcomes, rounds);
        table.extend(workload.lines.iter().map(|line| row(line, &outcomes)));
    }
    println!(
        "{:<42} {:>9} {:>9} {:>9} {:<12} {:>8} {:>8}  {:<22} met",
        "workload", OURS, BASELINE, "best", "rival", "/ base", "/ best", "goal"
    );
    print!("{table}");
}

/// What one arm's runs gave: `figures[line][round]`.
struct Outcome {
    name: &'static str,
    figures: Vec<Vec<f64>>,
}

impl Outcome {
    fn median(&self, figure: usize) -> f64 {
        let mut figures = self.figures[figure].clone();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 }
    }

    fn is_rival(&self) -> bool {
        !self.name.starts_with(OURS) && self.name != BY_HAND
    }
}

fn measure(workload: &Workload, scale: &Scale, rounds: usize) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> =
        workload.arms.iter().map(|arm| Outcome { name: arm.name, figures: Vec::new() }).collect();
    for round in 0..rounds {
        let mut turns: Vec<usize> = (0..workload.arms.len()).collect();
        // Whoever follows a noisy neighbour follows another one in the next round.
        if round % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            let figures = (workload.arms[turn].run)(scale);
            let outcome = &mut outcomes[turn];
            outcome.figures.resize_with(figures.len(), Vec::new);
            for (all, figure) in outcome.figures.iter_mut().zip(figures) {
                all.push(figure);
            }
        }
    }
    outcomes
}

fn print_all(workload: &Workload, outcomes: &[Outcome], rounds: usize) {
    let mut shown = Vec::new();
    for line in &workload.lines {
        if shown.contains(&line.figure) {
            continue;
        }
        shown.push(line.figure);
        println!("{} [{}], {} rounds: {}", workload.name, line.unit.name(), rounds, line.label.trim());
        let mut sorted: Vec<&Outcome> = outcomes.iter().collect();
        sorted.sort_by(|one, other| one.median(line.figure).total_cmp(&other.median(line.figure)));
        for outcome in sorted {
            let figures = &outcome.figures[line.figure];
            let lowest = figures.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            println!(
                "    {:<20} {:>10} ({} .. {})",
                outcome.name,
                line.unit.show(outcome.median(line.figure)),
                line.unit.show(lowest),
                line.unit.show(highest),
            );
        }
        println!();
    }
}

/// One line of the table.
fn row(line: &Line, outcomes: &[Outcome]) -> String {
    let figure = |outcome: &Outcome| outcome.median(line.figure);
    let of = |name| outcomes.iter().find(|outcome| outcome.name == name).map(figure).expect("takes part everywhere");
    let (ours, baseline) = (of(line.ours), of(BASELINE));
    let rivals = outcomes.iter().filter(|outcome| outcome.is_rival());
    let best = rivals.min_by(|one, other| figure(one).total_cmp(&figure(other))).expect("the baseline is one");
    let (goal, met) = line.goal.judge(line.unit, ours, figure(best));
    format!(
        "{:<42} {:>9} {:>9} {:>9} {:<12} {:>8} {:>8}  {:<22} {}\n",
        format!("{} [{}]", line.label, line.unit.name()),
        line.unit.show(ours),
        line.unit.show(baseline),
        line.unit.show(figure(best)),
        best.name,
        ratio(ours, baseline),
        ratio(ours, figure(best)),
        goal,
        met,
    )
}

/// Two figures that are nothing (idle CPU, say) have no ratio worth telling.
fn ratio(ours: f64, theirs: f64) -> String {
    if theirs > 0.0 { format!("{:.2}", ours / theirs) } else { "-".to_owned() }
}

impl Goal {
    fn judge(&self, unit: Unit, ours: f64, best: f64) -> (String, &'static str) {
        let mut words = Vec::new();
        let mut met = true;
        if let Some(part) = self.of_best {
            words.push(format!("<= {part} best"));
            met &= ours <= part * best;
        }
        if let Some(most) = self.at_most {
            words.push(format!("<= {most} {}", unit.name()));
            met &= unit.rounded(ours) <= most;
        }
        if self.ends {
            words.push("ends".to_owned());
            met &= ours.is_finite();
        }
        let met = match (words.is_empty(), met) {
            (true, _) => "-",
            (false, true) => "yes",
            (false, false) => "NO",
        };
        (words.join(", "), met)
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Nanos => "ns",
            Self::Micros => "us",
            Self::Millis => "ms",
            Self::Bytes => "bytes",
            Self::Blocks => "blocks",
            Self::Times => "times",
        }
    }

    /// How many of it a second has, or one of whatever is counted.
    fn per_base(self) -> f64 {
        match self {
            Self::Nanos => 1e9,
            Self::Micros => 1e6,
            Self::Millis => 1e3,
            Self::Bytes | Self::Blocks | Self::Times => 1.0,
        }
    }

    /// As shown. The queue's own blocks are a hundredth of one a request, and no more than that.
    fn rounded(self, figure: f64) -> f64 {
        if matches!(self, Self::Times) {
            return figure;
        }
        (figure * self.per_base() * 10.0).round() / 10.0
    }

    fn show(self, figure: f64) -> String {
        if figure.is_infinite() {
            return "stuck".to_owned();
        }
        let figure = figure * self.per_base();
        match self {
            Self::Micros | Self::Times => format!("{figure:.2}"),
            Self::Millis | Self::Bytes | Self::Blocks => format!("{figure:.1}"),
            Self::Nanos => format!("{figure:.0}"),
        }
    }
}
