//! What an operator sees: lists, filters, counts, views.

use std::time::Duration;

use fulmar::tasks::TaskStatus::{self, Accepted, Cancelled, Failed, Finished, Running};
use fulmar::tasks::{NewTask, TaskFilter, TaskQueue, TaskType, WorkerId};

use crate::support::{Bed, claim, claims, put, task};

/// The identifiers of all pages of `limit`.
fn pages(queue: &TaskQueue, filter: &TaskFilter, limit: usize) -> Vec<Vec<String>> {
    let (mut pages, mut rest) = (Vec::new(), filter.clone());
    loop {
        let page = queue.list(&rest, limit).expect("listed");
        assert!(page.tasks.len() <= limit, "more than were asked for");
        pages.push(page.tasks.into_iter().map(|task| task.identifier).collect());
        match page.next {
            Some(next) => rest = rest.after(next),
            None => return pages,
        }
    }
}

fn fitting(queue: &TaskQueue, filter: TaskFilter) -> Vec<String> {
    let listed: Vec<String> = queue.list_all(&filter).map(|task| task.expect("listed").identifier).collect();
    assert_eq!(queue.count(&filter).expect("counted"), listed.len() as u64, "{filter:?}");
    assert_eq!(pages(queue, &filter, 2).concat(), listed, "{filter:?}");
    listed
}

/// Ends the first task that is ready as failed.
fn fail(queue: &TaskQueue, reason: &str) {
    let claim = claim(queue);
    claim.start().expect("ours");
    assert_eq!(claim.fail(reason).expect("ours"), Failed);
}

pub(crate) fn tasks_are_listed_page_by_page(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many((0..5).map(|n| task(n.to_string()))).expect("accepted");
    let all = TaskFilter::new();
    assert_eq!(pages(&queue, &all, 2), [vec!["0", "1"], vec!["2", "3"], vec!["4"]]);
    assert_eq!(pages(&queue, &all.clone().newest_first(), 3), [vec!["4", "3", "2"], vec!["1", "0"]]);
    assert_eq!(pages(&queue, &all, 5)[0].len(), 5);
    // What comes meanwhile is seen, what goes doesn't matter.
    let page = queue.list(&all, 2).expect("listed");
    queue.delete("t", "1").expect("deleted");
    put(&queue, "5");
    let rest = queue.list(&all.after(page.next.expect("more")), 10).expect("listed");
    assert_eq!(rest.tasks.iter().map(|task| &*task.identifier).collect::<Vec<_>>(), ["2", "3", "4", "5"]);
    assert_eq!(rest.tasks[0], queue.info("t", "2").expect("known"), "a list says what a look at one says");
}

pub(crate) fn a_filter_fits_what_it_says(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.register(TaskType::new("u")).expect("registered");
    assert!(fitting(&queue, TaskFilter::new()).is_empty());
    put(&queue, "old");
    bed.pass(Duration::from_secs(7_200));
    fail(&queue, "connection refused by 100% of 'hosts'");
    put(&queue, "broken");
    fail(&queue, "Disk on fire");
    put(&queue, "cancelled");
    queue.cancel("t", "cancelled").expect("cancelled");
    put(&queue, "done");
    claim(&queue).run(&|_: &fulmar::tasks::TaskContext| Ok::<_, fulmar::tasks::TaskError>(())).expect("ours");
    put(&queue, "running");
    let held = claim(&queue);
    held.start().expect("ours");
    queue.enqueue(task("keyed").ordered("k", true)).expect("accepted");
    queue.enqueue(NewTask::new("u", "other").ordered("k", true)).expect("accepted");

    let all = TaskFilter::new;
    let everything = ["old", "broken", "cancelled", "done", "running", "keyed", "other"];
    assert_eq!(fitting(&queue, all()), everything);
    assert_eq!(fitting(&queue, all().of_type("u")), ["other"]);
    assert!(fitting(&queue, all().of_type("nobody's")).is_empty());
    assert_eq!(fitting(&queue, all().status([Failed])), ["old", "broken"]);
    assert_eq!(fitting(&queue, all().status([Failed]).newest_first()), ["broken", "old"]);
    assert_eq!(fitting(&queue, all().status([Failed, Cancelled])), ["old", "broken", "cancelled"]);
    assert_eq!(fitting(&queue, all().status([Failed, Finished])), ["old", "broken", "done"]);
    assert_eq!(fitting(&queue, all().status([Running])), ["running"]);
    assert_eq!(fitting(&queue, all().status([Accepted])), ["keyed", "other"]);
    assert!(fitting(&queue, all().status([])).is_empty(), "no status is none of them");
    assert_eq!(fitting(&queue, all().key("k")), ["keyed", "other"]);
    assert_eq!(fitting(&queue, all().key("k").of_type("t")), ["keyed"]);
    let hour = Duration::from_secs(3_600);
    assert_eq!(fitting(&queue, all().older_than(hour)), ["old"]);
    assert_eq!(fitting(&queue, all().younger_than(hour)), &everything[1..]);
    assert_eq!(fitting(&queue, all().saying("100% of 'hosts'")), ["old"]);
    assert!(fitting(&queue, all().saying("disk")).is_empty(), "letters are as they are");
    assert_eq!(fitting(&queue, all().saying("Disk").status([Failed])), ["broken"]);

    let info = queue.info("t", "broken").expect("known");
    assert_eq!((info.status, info.message.as_deref()), (Failed, Some("Disk on fire")));
    assert_eq!(queue.info("t", "running").expect("known").message, None);
    assert_eq!(queue.info("t", "done").expect("known").message, None, "it said nothing");
}

pub(crate) fn a_page_reads_no_more_than_it_may(bed: &dyn Bed) {
    let queue = bed.queue();
    queue.enqueue_many((0..25_000).map(|n| task(n.to_string()))).expect("accepted");
    put(&queue, "last");
    queue.cancel("t", "last").expect("cancelled");
    let finished = TaskFilter::new().status([Finished, Cancelled, Running]);
    let pages = pages(&queue, &finished, 100);
    assert_eq!(pages.len(), 3, "10,000 rows a page");
    assert_eq!(pages.concat(), ["last"]);
    let waiting = queue.list(&TaskFilter::new().status([Accepted]), 20_000).expect("listed");
    assert_eq!(waiting.tasks.len(), 10_000);
    assert_eq!(queue.list_all(&TaskFilter::new().of_type("t")).count(), 25_001);
    // An index leads to what went wrong, whatever lies before it.
    let page = queue.list(&TaskFilter::new().status([Cancelled]), 100).expect("listed");
    assert_eq!((page.tasks.len(), page.next), (1, None));
}

pub(crate) fn a_bad_row_hides_no_other_from_a_list(bed: &dyn Bed) {
    let queue = bed.queue();
    for identifier in ["a", "b", "c"] {
        put(&queue, identifier);
    }
    assert_eq!(bed.sql("UPDATE fulmar_task SET starts = -7 WHERE identifier = 'b'"), 1);
    assert_eq!(pages(&queue, &TaskFilter::new(), 1), [vec!["a"], vec![], vec!["c"], vec![]]);
}

pub(crate) fn views_have_readable_statuses(bed: &dyn Bed) {
    let queue = bed.queue();
    put(&queue, "b");
    put(&queue, "a");
    fail(&queue, "no luck");
    let _held = claims(&queue, &WorkerId::new(), 1);
    queue.enqueue(task("never").run_after(Duration::MAX)).expect("accepted");
    let count = |sql: &str| bed.count(sql);
    assert_eq!(count("SELECT count(*) FROM fulmar_tasks WHERE type = 't'"), 3);
    assert_eq!(
        count("SELECT count(*) FROM fulmar_tasks WHERE status = 'FAILED' AND message = 'no luck' AND ended >= created"),
        1
    );
    assert_eq!(count("SELECT count(*) FROM fulmar_tasks WHERE status = 'SCHEDULED' AND lease_until > created"), 1);
    assert_eq!(count("SELECT count(*) FROM fulmar_tasks WHERE identifier = 'never' AND status = 'ACCEPTED'"), 1);
    for status in [TaskStatus::Failed, TaskStatus::Scheduled, TaskStatus::Accepted] {
        assert_eq!(count(&format!("SELECT tasks FROM fulmar_depth WHERE type = 't' AND status = '{status}'")), 1);
    }
}
