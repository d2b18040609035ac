//! Pieces that statements have in common. They are macros because a statement is a constant, prepared once.

/// The server's clock, in milliseconds, as of this row.
macro_rules! now {
    () => {
        "floor(date_part('epoch', clock_timestamp()) * 1000)::int8"
    };
}

/// The server's clock as of the statement's arrival: a constant of the statement, which an index can be asked for.
macro_rules! then {
    () => {
        "floor(date_part('epoch', statement_timestamp()) * 1000)::int8"
    };
}

/// The entry of a task's log that an update adds, if it has no message: `$status` and `$token` are SQL.
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

pub(super) use {now, then, trail};
