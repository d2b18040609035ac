//! What enqueuing checks, by every way in: the same good and bad tasks by the method, in a transaction of the caller's, and on
//! PostgreSQL by the SQL function and by a trigger that calls it. What is refused is refused in the same words.

use fulmar::tasks::{NewTask, TaskError, TaskQueue, TaskStatus};

use crate::support::{Bed, task, transaction_at};

/// The arguments of one enqueuing, as all ways in have them.
#[derive(Clone)]
struct Arguments {
    task_type: String,
    identifier: String,
    input: Vec<u8>,
    message: String,
    key: Option<String>,
    unique: Option<String>,
}

impl Arguments {
    fn new(identifier: impl Into<String>) -> Arguments {
        Arguments {
            task_type: "t".into(),
            identifier: identifier.into(),
            input: b"1".into(),
            message: String::new(),
            key: None,
            unique: None,
        }
    }

    fn to_task(&self) -> NewTask {
        let task = NewTask::new(&self.task_type, &self.identifier).input_bytes(&*self.input).message(&self.message);
        let task = match &self.key {
            Some(key) => task.ordered(key, true),
            None => task,
        };
        match &self.unique {
            Some(key) => task.unique(fulmar::tasks::Unique::by_key(key)),
            None => task,
        }
    }

    /// As a call of the SQL function. The large and the unprintable are written as what makes them.
    #[cfg(feature = "postgres")]
    fn to_sql(&self) -> String {
        let text = |text: &str| {
            let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("convert_from('\\x{digits}', 'UTF8')")
        };
        let maybe = |value: &Option<String>| value.as_deref().map_or("NULL".into(), text);
        format!(
            "fulmar_enqueue({}, {}, convert_to(repeat('1', {}), 'UTF8'), message => {}, key => {}, is_modifier => {},
                 unique_key => {})",
            text(&self.task_type),
            text(&self.identifier),
            self.input.len(),
            text(&self.message),
            maybe(&self.key),
            self.key.is_some(),
            maybe(&self.unique),
        )
    }
}

/// Each with what it is about. Those that are good get names of their own, so that each way in may take them.
fn table(way: &str) -> Vec<(&'static str, Arguments)> {
    let good = |name: &str| Arguments::new(format!("{way} {name}"));
    let long = |length: usize| format!("{way} {}", "x".repeat(length - way.len() - 1));
    let with_type = |name: String| Arguments { task_type: name, ..good("of a type") };
    let with_key = |name: &str, key: String| Arguments { key: Some(key), ..good(name) };
    let with_unique = |name: &str, key: &str| Arguments { unique: Some(key.into()), ..good(name) };
    let with_message = |name: &str, message: String| Arguments { message, ..good(name) };
    vec![
        ("a plain one", good("plain")),
        ("an identifier of 512 bytes", Arguments::new(long(512))),
        ("an identifier of 513 bytes", Arguments::new(long(513))),
        ("an identifier of 512 bytes in other characters", Arguments::new("ü".repeat(256 - way.len()) + way + way)),
        ("an identifier of 514 bytes in other characters", Arguments::new("ü".repeat(257))),
        ("no identifier", Arguments::new("")),
        ("an identifier of two lines", good("a\nb")),
        ("an identifier with a delete", good("a\u{7f}b")),
        ("an identifier with a control character beyond ASCII", good("a\u{85}b")),
        ("an identifier with a space that breaks no line", good("a\u{a0}b")),
        ("an identifier that looks like SQL", good("'; $1 \\ %s {} \"")),
        ("no type", with_type(String::new())),
        ("a type of two lines", with_type("a\nb".into())),
        ("a type that is too long", with_type("x".repeat(513))),
        ("a type that is not registered", with_type("u".into())),
        ("an empty key", with_key("empty key", String::new())),
        ("a key of 512 bytes", with_key("long key", long(512))),
        ("a key of 513 bytes", with_key("longer key", long(513))),
        ("a key of two lines", with_key("odd key", "a\rb".into())),
        ("an empty unique key", with_unique("empty", "")),
        ("a unique key with a tab", with_unique("odd", "a\tb")),
        ("a unique key that is too long", with_unique("long", &"x".repeat(513))),
        ("a message that fits", with_message("message", "ü".repeat(4_096))),
        ("a message that is cut off", with_message("long message", format!("x{}", "ü".repeat(5_000)))),
        ("an input beside the row", Arguments { input: vec![b'1'; 257], ..good("large") }),
        ("an input that is too large", Arguments { input: vec![b'1'; (64 << 20) + 1], ..good("too large") }),
        ("a bad identifier and a bad key", with_key("\n", "\n".into())),
        ("the plain one again", good("plain")),
    ]
}

type WayIn<'a> = (&'static str, &'a dyn Fn(&Arguments) -> Result<(), TaskError>);

/// What is told, in words: those of the error, or of what it comes from.
fn words(error: &TaskError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error} {source}")
}

/// As the method says it, of a task of another name.
fn same_words(told: &str, by_method: &str, way: &str) -> bool {
    told.contains(&by_method.replace("method plain", &format!("{way} plain")))
}

fn all_say_the_same(bed: &dyn Bed, queue: &TaskQueue, others: &[WayIn<'_>]) {
    let mut refused = 0;
    for (way, enqueue) in others {
        for ((what, theirs), (_, ours)) in table(way).into_iter().zip(table("method")) {
            let by_method = queue.enqueue(ours.to_task()).map(drop);
            // The next way in finds it as it was; the last line wants the first one to be there.
            let is_kept = what == "a plain one";
            let came = enqueue(&theirs);
            match (by_method, came) {
                (Ok(()), Ok(())) => {
                    let [ours_is, theirs_is] = [&ours, &theirs].map(|arguments| stored(bed, queue, arguments));
                    assert_eq!(theirs_is, ours_is, "{way}: {what}");
                    if !is_kept {
                        queue.delete(&ours.task_type, &ours.identifier).expect("nothing holds it");
                        queue.delete(&theirs.task_type, &theirs.identifier).expect("nothing holds it");
                    }
                }
                (Err(ours), Err(theirs)) => {
                    assert!(same_words(&words(&theirs), &ours.to_string(), way), "{what}: {way}: {theirs:?}: {ours}");
                    refused += 1;
                }
                (ours, theirs) => panic!("{what}: by the method {ours:?}, by {way} {theirs:?}"),
            }
        }
        queue.delete("t", "method plain").expect("nothing holds it");
    }
    assert_eq!(refused, others.len() * 18, "so many lines of the table are bad");
}

/// All that is kept of a task, but its name and its times.
fn stored(bed: &dyn Bed, queue: &TaskQueue, arguments: &Arguments) -> (TaskStatus, String, Option<bool>, bool, i64) {
    let info = queue.info(&arguments.task_type, &arguments.identifier).expect("accepted");
    let message = queue.log("t", &arguments.identifier).expect("a log").pop().expect("an entry").message;
    let keys = bed.count(&format!("SELECT count(*) FROM fulmar_task_unique WHERE task_id = {}", info.id));
    let has_empty_key = info.key.as_ref().map(String::is_empty);
    (info.status, message, has_empty_key, info.is_modifier, keys)
}

fn a_full_queue_says_the_same(queue: &TaskQueue, others: &[WayIn<'_>]) {
    queue.set_capacity(queue.stats().expect("counted").depth()).expect("set");
    let ours = queue.enqueue(task("one more")).expect_err("full");
    for (way, enqueue) in others {
        let theirs = enqueue(&Arguments::new("one more")).expect_err("full");
        assert!(words(&theirs).contains(&ours.to_string()), "{way}: {theirs:?}");
    }
    queue.set_capacity(None).expect("set");
}

pub(crate) fn every_way_in_checks_the_same(bed: &dyn Bed) {
    let queue = bed.queue();
    let address = bed.address();
    let in_transaction = |arguments: &Arguments| {
        transaction_at(&address, &queue, &|tx, _| queue.enqueue_in(tx, [arguments.to_task()]).map(drop))
    };
    let many = |arguments: &Arguments| queue.enqueue_many([arguments.to_task()]).map(drop);
    #[cfg_attr(not(feature = "postgres"), allow(unused_mut))]
    let mut others: Vec<WayIn<'_>> = vec![("transaction", &in_transaction), ("many", &many)];
    #[cfg(feature = "postgres")]
    let by_sql = |sql: String| queue.postgres_transaction(|tx| tx.query(&sql, &[]).map(drop));
    #[cfg(feature = "postgres")]
    let by_function = |arguments: &Arguments| by_sql(format!("SELECT {}", arguments.to_sql()));
    #[cfg(feature = "postgres")]
    let by_trigger = |arguments: &Arguments| {
        // A trigger of the program's own, whose body is this one call.
        bed.sql(&format!(
            "CREATE OR REPLACE FUNCTION on_order() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
                 BEGIN PERFORM {}; RETURN NEW; END $$",
            arguments.to_sql()
        ));
        by_sql("INSERT INTO orders VALUES (1)".into())
    };
    #[cfg(feature = "postgres")]
    if address.starts_with("postgres://") {
        bed.sql("CREATE TABLE orders (id int8)");
        bed.sql("CREATE FUNCTION on_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$");
        bed.sql("CREATE TRIGGER on_order AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION on_order()");
        others.push(("function", &by_function));
        others.push(("trigger", &by_trigger));
    }
    all_say_the_same(bed, &queue, &others);
    a_full_queue_says_the_same(&queue, &others);
}

/// By the function alone.
#[cfg(feature = "postgres")]
mod postgres {
    use std::time::Duration;

    use fulmar::tasks::{TaskError, TaskType, Unique, WorkerId};

    use super::words;
    use crate::postgres::Schema;
    use crate::support::{Bed, claim, last_message, task};

    /// The SQL function has all of [`Unique`](fulmar::tasks::Unique).
    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server"]
    fn a_task_by_the_function_is_unique_as_any_other() {
        let bed = Schema::new();
        let queue = bed.queue();
        let enqueue = |arguments: &str| {
            let sql = format!("SELECT fulmar_enqueue('t', {arguments})::text");
            let rows = queue.postgres_transaction(|tx| tx.query(&sql, &[]))?;
            Ok::<i64, TaskError>(rows[0][0].as_deref().expect("a number").parse().expect("a number"))
        };
        let first = enqueue("'a', '1', unique_key => 'k'").expect("accepted");
        assert_eq!(enqueue("'b', '2', unique_key => 'k'").expect("there is one"), first);
        let by_method = queue.enqueue(task("c").unique(Unique::by_key("k"))).expect("there is one");
        assert_eq!((by_method.id(), by_method.existed()), (Some(first), true));
        // What the function enqueued is changed by it as by the method, and the other way round.
        let large = "convert_to(repeat('2', 300), 'UTF8')";
        let replaced = format!("'d', {large}, 'later', unique_key => 'k', on_conflict => 'replace', priority => 7");
        assert_eq!(enqueue(&replaced).expect("replaced"), first);
        assert_eq!(queue.info("t", "a").expect("known").priority, 7);
        assert_eq!(last_message(&queue, "a"), "replaced by another: later");
        let back = "'e', '3', unique_key => 'k', on_conflict => 'push back', run_after => interval '1 hour'";
        assert_eq!(enqueue(back).expect("pushed back"), first);
        assert!(queue.dequeue(&WorkerId::new(), &["t"], 1, Duration::from_secs(60)).expect("none").is_empty());
        bed.pass(Duration::from_secs(3_601));
        let taken = claim(&queue);
        assert_eq!((taken.task().identifier(), taken.task().input_bytes().expect("its input")), ("a", b"3".to_vec()));
        taken.start().expect("ours");
        // It runs: for `unended` it is in the way, for `waiting` it isn't.
        assert_eq!(enqueue("'f', '4', unique_key => 'k', unique_scope => 'unended'").expect("there is one"), first);
        taken.finish().expect("ours");
        let period = "unique_scope => 'period', unique_period => interval '1 day'";
        assert_eq!(enqueue(&format!("'g', '4', unique_key => 'k', {period}")).expect("there is one"), first);
        let second = enqueue("'h', '5', unique_key => 'k'").expect("accepted");
        assert_ne!(second, first);

        let by_input = enqueue("'i', '[6]', unique_input => true").expect("accepted");
        let same = queue.enqueue(task("j").input_bytes(*b"[6]").unique(Unique::by_input())).expect("there is one");
        assert_eq!((same.id(), same.existed()), (Some(by_input), true));

        for (arguments, why) in [
            ("'z', '1', unique_key => 'k', unique_input => true", "use one of them"),
            ("'z', '1', unique_key => 'k', unique_scope => 'ever'", "unique_scope"),
            ("'z', '1', unique_key => 'k', unique_scope => 'period'", "unique_period"),
            ("'z', '1', unique_key => 'k', on_conflict => 'drop'", "on_conflict"),
            ("'z', '1', priority => 32768", "use -32768 to 32767"),
            ("'z', NULL", "is null"),
            ("NULL, '1'", "the identifier of a task has 0 bytes"),
        ] {
            let refused = enqueue(arguments).expect_err(why);
            assert!(words(&refused).contains(why), "{arguments}: {refused:?}");
        }
        let far = enqueue("'far', '1', run_after => interval '100000000 years'");
        assert!(far.is_ok(), "as far as it likes: {far:?}");
    }

    /// A migration that has to make the function anew leaves who may call it as it was.
    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server"]
    fn who_may_call_the_function_stays_as_it_was() {
        let bed = Schema::new();
        drop(bed.queue());
        let may = "SELECT count(*) FROM pg_proc p, aclexplode(p.proacl) a WHERE p.proname = 'fulmar_enqueue'
            AND p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND a.grantee";
        // As a database stood before that migration.
        bed.sql(
            "DROP FUNCTION fulmar_enqueue(text, text, bytea, text, int4, interval, text, bool, text, bool, text, interval, text)",
        );
        bed.sql("DROP FUNCTION fulmar_check_name(text, text)");
        bed.sql(
            "CREATE FUNCTION fulmar_enqueue(text, text, bytea, text, int4, interval, text, bool) RETURNS int8 LANGUAGE sql
             AS 'SELECT 1::int8'",
        );
        bed.sql(&format!("REVOKE ALL ON FUNCTION {}.fulmar_enqueue FROM PUBLIC", bed.name()));
        bed.sql(&format!("GRANT EXECUTE ON FUNCTION {}.fulmar_enqueue TO pg_monitor", bed.name()));
        // What came after it is not to stand in its own way.
        bed.sql("DROP FUNCTION fulmar_child() CASCADE");
        bed.sql("DROP TABLE fulmar_task_step, fulmar_task_event, fulmar_task_family");
        bed.sql("ALTER TABLE fulmar_task DROP COLUMN parent, DROP COLUMN woken");
        bed.sql("UPDATE fulmar_setting SET value = '9' WHERE name = 'schema'");
        bed.queue().register(TaskType::new("t")).expect("it is up to date again");
        assert_eq!(bed.count(&format!("{may} = 0")), 0, "PUBLIC may not");
        assert_eq!(bed.count(&format!("{may} = 'pg_monitor'::regrole")), 1);
    }

    /// One that has started once may have read its input, and stored steps by it: the method leaves
    /// it as it is, and so does the function.
    #[test]
    #[ignore = "tests/run brings it: a PostgreSQL server"]
    fn the_function_changes_no_task_that_has_started_once() {
        let bed = Schema::new();
        let queue = bed.queue();
        let enqueue = |arguments: &str| {
            let sql = format!("SELECT fulmar_enqueue('t', {arguments}, unique_key => 'k')::text");
            let rows = queue.postgres_transaction(|tx| tx.query(&sql, &[])).expect("accepted");
            rows[0][0].as_deref().expect("a number").parse::<i64>().expect("a number")
        };
        let first = enqueue("'first', '1'");
        let given_back = claim(&queue);
        given_back.start().expect("ours");
        given_back.lose("on purpose").expect("ours");
        let unended = "unique_scope => 'unended', on_conflict => 'replace'";
        assert_eq!(enqueue(&format!("'second', '2', {unended}")), first, "it is in the way");
        assert_eq!(last_message(&queue, "first").split(';').next(), Some("on purpose"), "and stays as it is");
        let second = enqueue("'second', '2', on_conflict => 'replace'");
        assert_ne!(second, first, "it doesn't wait for its first start");
        assert_eq!(enqueue("'third', '3', on_conflict => 'replace'"), second);
        assert_eq!(claim(&queue).task().input_bytes().expect("its input"), b"1");
        assert_eq!(claim(&queue).task().input_bytes().expect("its input"), b"3");
    }
}
