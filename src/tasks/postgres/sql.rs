//! Pieces that statements have in common. They are macros because a statement is a constant,
//! prepared once.

/// The server's clock, in milliseconds, as of this row.
macro_rules! now {
    () => {
        "floor(date_part('epoch', clock_timestamp()) * 1000)::int8"
    };
}

/// The server's clock as of the statement's arrival: a constant of the statement, which an index
/// can be asked for.
macro_rules! then {
    () => {
        "floor(date_part('epoch', statement_timestamp()) * 1000)::int8"
    };
}

/// The entry of a task's log that an update adds, if it has no message: `$status` and `$token` are
/// SQL.
macro_rules! trail {
    ($status:expr, $token:expr) => {
        concat!(
            "t.trail || int8send(t.entries + 1) || int8send(",
            now!(),
            " * 8 + ",
            $status,
            ") || int8send(",
            $token,
            ")"
        )
    };
}

/// The first of four numbers that advisory locks of this queue begin with, for: migrations (0) and
/// the capacity (1), types with a limit at once, lanes, unique keys. Queues in other schemas have
/// others, because the schema is written into the literal, and so have, most likely, other
/// programs.
macro_rules! locks {
    () => {
        "((1718971501 # hashtext('fulmar_locks')) & -4)"
    };
}

pub(super) use {locks, now, then, trail};
