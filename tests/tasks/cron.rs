//! Schedules by cron expressions. The table of what clocks do is with the rule, in src/tasks/schedule/rule.rs.

use std::time::Duration;

use fulmar::tasks::{Missed, Schedule, TaskError};

use crate::support::{Bed, task};

pub(crate) fn cron_expressions_have_their_zone(bed: &dyn Bed) {
    let queue = bed.queue();
    let nightly = |zone: &str| Schedule::cron("nightly", "30 2 * * *", task("r")).zone(zone);
    queue.put_schedule(nightly("Europe/Vienna")).expect("sound");
    let vienna = queue.schedules().expect("listed").remove(0);
    assert_eq!((&*vienna.rule, &*vienna.zone), ("30 2 * * *", "Europe/Vienna"));
    queue.put_schedule(nightly("Asia/Tokyo")).expect("sound");
    let tokyo = queue.schedules().expect("listed").remove(0);
    assert_ne!(tokyo.next, vienna.next);
    queue.pass_time(Duration::from_secs(86_400)).expect("it passes");
    assert_eq!(queue.fire_schedules().expect("fired"), 1);
    let next = queue.schedules().expect("listed").remove(0).next;
    assert!(next > tokyo.last && next.is_some());
    for (expression, zone) in [("30 25 * * *", "UTC"), ("30 2 * * *", "Mars/Olympus"), ("0 0 30 2 *", "UTC")] {
        let refused = queue.put_schedule(Schedule::cron("s", expression, task("r")).zone(zone));
        assert!(matches!(refused, Err(TaskError::Invalid(_))), "{expression} {zone}");
    }
}

/// pg-boss 592: one process removed a schedule and put it again while another was firing it, and
/// the job ran twice.
pub(crate) fn a_schedule_that_is_put_anew_fires_no_time_twice(bed: &dyn Bed) {
    let (queue, other) = (bed.queue(), bed.open());
    let hourly = || Schedule::cron("hourly", "19 * * * *", task("r")).missed(Missed::Each);
    queue.put_schedule(hourly()).expect("put");
    queue.pass_time(Duration::from_secs(3_600)).expect("it passes");
    assert_eq!(other.fire_schedules().expect("fired"), 1);
    for _ in 0..2 {
        assert!(queue.remove_schedule("hourly").expect("removed"));
        queue.put_schedule(hourly()).expect("put");
        assert_eq!(other.fire_schedules().expect("looked") + queue.fire_schedules().expect("looked"), 0);
    }
    queue.pass_time(Duration::from_secs(3_600)).expect("it passes");
    assert_eq!(other.fire_schedules().expect("fired") + queue.fire_schedules().expect("looked"), 1);
}
