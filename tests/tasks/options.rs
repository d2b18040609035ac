//! Options that one engine has and the other has not.

use std::time::Duration;

use fulmar::tasks::{Durability, QueueBuilder, TaskError, TaskQueue};

use crate::support::{Bed, open_at};

type Set = fn(QueueBuilder) -> QueueBuilder;

/// What an option of one engine does on the other is nothing, so it is refused by its name.
pub(crate) fn an_option_of_the_other_engine_is_refused(bed: &dyn Bed) {
    let of_sqlite: [(&str, Set); 3] = [
        ("durability", |builder| builder.durability(Durability::Full)),
        ("max_file_size", |builder| builder.max_file_size(1 << 20)),
        ("clock_offset", |builder| builder.clock_offset(1)),
    ];
    let of_postgres: [(&str, Set); 5] = [
        ("connections", |builder| builder.connections(3)),
        ("old_transaction", |builder| builder.old_transaction(Duration::from_secs(1))),
        ("schema", |builder| builder.schema("public")),
        ("direct", |builder| builder.direct("host=nowhere")),
        ("password", |builder| builder.password(|| Ok("secret".into()))),
    ];
    let is_postgres = bed.address().starts_with("postgres://");
    let engine_here = if is_postgres { "PostgreSQL" } else { "SQLite" };
    let foreign = if is_postgres { &of_sqlite[..] } else { &of_postgres[..] };
    for &(name, set) in foreign {
        let refused = open_at(&bed.address(), set(TaskQueue::builder())).expect_err("of the other engine");
        assert!(
            matches!(refused, TaskError::OptionOfOther { option, engine } if (option, engine) == (name, engine_here)),
            "{name}: {refused:?}"
        );
        assert!(refused.to_string().contains(name), "{refused}");
    }
    assert!(matches!(open_at(&bed.address(), TaskQueue::builder().existing_only()), Err(TaskError::NoQueue { .. })));
}
