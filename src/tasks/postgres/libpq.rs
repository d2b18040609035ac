//! The one file of the crate with `unsafe`: PostgreSQL's C client library, made safe and nothing
//! more.
//!
//! It knows connections, answers and sockets. What a statement means, how values are written, when
//! a connection is given up is `connection.rs`, which is safe code. Nothing here blocks but
//! [`Raw::connect`] and [`wait`], each with a limit of its own: statements are sent, and their
//! answers collected, without waiting.
//!
//! `#![forbid(unsafe_code)]` holds for builds without the feature `postgres`; with it the crate
//! denies, and this file alone allows. `tests/tidy.rs` fails if the word appears anywhere else.
//!
//! # What every block leans on
//!
//! 1. **The library is the one that the bindings were made from**: `pq-sys` is built with its own
//!    source of libpq, so that its enums have no values that Rust doesn't know.
//! 2. **One owner.** A [`Raw`] owns its `PGconn`, an [`Answer`] its `PGresult`, a [`Cancel`] its
//!    `PGcancelConn`. None can be copied; each pointer is non-null from its making to its `Drop`,
//!    which frees it once.
//! 3. **One thread at a time.** libpq allows a connection to be used from any thread, if not from
//!    two at once ("Behavior in Threaded Programs", chapter 34.20 of PostgreSQL's manual). These
//!    types are `Send`, and not `Sync`.
//! 4. **What libpq points to is copied** before the next call on the same object, or borrowed from
//!    an `Answer`, which nothing changes.
//!
//! Source: PostgreSQL 18 manual, chapter 34, "libpq - C Library"; poll(2) of POSIX.1-2008.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use pq_sys as pq;

/// A connection. After any failure it can only be dropped.
pub(super) struct Raw(NonNull<pq::PGconn>);

/// What the server said to one statement.
pub(super) struct Answer(NonNull<pq::PGresult>);

/// A message on a channel that the connection listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notification {
    pub(super) channel: String,
    pub(super) payload: String,
}

/// What kind of answer a statement had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Done, with rows if the statement has any.
    Done,
    /// Refused or broken; the connection may be gone.
    Failed,
    /// The text was empty, or wants to copy to or from the client, which this crate never does.
    Unexpected,
}

/// Whether the session is inside a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Open,
    /// An error inside: only a rollback is left.
    Aborted,
    /// The connection is gone, or in the middle of a statement.
    Unknown,
}

// SAFETY: (3) above: libpq keeps no thread's state for either object.
unsafe impl Send for Raw {}
// SAFETY: as above; a result is plain memory of its own.
unsafe impl Send for Answer {}

/// The options that a URL or a text of `keyword=value` words sets; `None` if libpq can't read it.
///
/// libpq's own message is not given: it quotes what it could not read, which may be a password.
pub(super) fn parse(conninfo: &CStr) -> Option<Vec<(String, String)>> {
    let mut message: *mut c_char = ptr::null_mut();
    // SAFETY: a C string, and a place for a message that is ours to free; the list that comes back
    // is ours, too.
    let list = unsafe { pq::PQconninfoParse(conninfo.as_ptr(), &raw mut message) };
    if !message.is_null() {
        // SAFETY: libpq allocated it for us, and it hasn't been freed.
        unsafe { pq::PQfreemem(message.cast::<c_void>()) };
    }
    if list.is_null() {
        return None;
    }
    let mut options = Vec::new();
    let mut next = list;
    loop {
        // SAFETY: the list ends with an entry whose keyword is null, and we have not passed it.
        let option = unsafe { &*next };
        if option.keyword.is_null() {
            break;
        }
        if !option.val.is_null() {
            // SAFETY: both are C strings that live as long as the list.
            let (keyword, value) = unsafe { (text(option.keyword), text(option.val)) };
            options.push((keyword, value));
        }
        // SAFETY: this entry was not the last.
        next = unsafe { next.add(1) };
    }
    // SAFETY: from PQconninfoParse, not freed yet; what we keep was copied.
    unsafe { pq::PQconninfoFree(list) };
    Some(options)
}

/// Whether this build of libpq can encrypt its connections.
pub(super) fn has_tls() -> bool {
    // SAFETY: without a connection it tells of the library; the answer is a constant of the
    // library, or null.
    !unsafe { pq::PQsslAttribute(ptr::null_mut(), c"library".as_ptr()) }.is_null()
}

/// Why [`wait`] returned. Both may be true; neither means that the deadline passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) socket: bool,
    pub(super) waker: bool,
}

/// Waits until the socket is ready, the waker was rung, or the deadline passed, and says which. The
/// socket is ready if it can be read, if it is broken, and with `write` also if it can be written.
/// The rings stay in the waker, for the caller to `hear`. `None` for the deadline: as long as it
/// takes.
///
/// # Errors
/// What poll(2) says. A signal isn't an error: the wait goes on.
pub(super) fn wait(
    socket: BorrowedFd<'_>,
    write: bool,
    waker: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> io::Result<Ready> {
    let events = if write { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
    let mut watched = [
        libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 },
        // poll(2) ignores a negative descriptor.
        libc::pollfd { fd: waker.map_or(-1, |waker| waker.as_raw_fd()), events: libc::POLLIN, revents: 0 },
    ];
    loop {
        // Rounded up: a wait that ends a little early would be followed by one of zero, and one
        // more, in a hot loop. poll(2) counts milliseconds in an `int`: a deadline that is further
        // off than 24 days ends the wait after those, as if it had passed.
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_nanos(999_999));
        let left = left.map_or(-1, |left| c_int::try_from(left.as_millis()).unwrap_or(c_int::MAX));
        // SAFETY: two entries, which live until the call returns.
        let count = unsafe { libc::poll(watched.as_mut_ptr(), 2, left) };
        if count >= 0 {
            // An error or a hang-up counts as ready: the next read says what it is.
            return Ok(Ready { socket: watched[0].revents != 0, waker: watched[1].revents != 0 });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl Raw {
    /// Connects with these options, keywords and values; later ones win, and `dbname` may hold a
    /// whole URL. Blocks for at most the option `connect_timeout` for each address that they name,
    /// and without that option as long as the system tries. Later calls on the connection don't
    /// block.
    ///
    /// # Errors
    /// What libpq or the server said, with `***` in place of the password.
    pub(super) fn connect(options: &[(CString, CString)]) -> Result<Raw, String> {
        // Initialise OpenSSL here, before libpq or other code of this process does: the first one
        // decides. By itself OpenSSL installs an `atexit` handler that frees its state when the
        // process ends; `init` asks it not to. The notifier's thread may use OpenSSL at that
        // moment, if only to hash a password, because the process doesn't wait for that thread.
        #[cfg(feature = "postgres-tls")]
        openssl_sys::init();
        let null = std::iter::once(ptr::null());
        let keywords: Vec<_> = options.iter().map(|(keyword, _)| keyword.as_ptr()).chain(null.clone()).collect();
        let values: Vec<_> = options.iter().map(|(_, value)| value.as_ptr()).chain(null).collect();
        // SAFETY: two arrays of C strings of one length, ended by null; libpq copies what it keeps.
        let conn = unsafe { pq::PQconnectdbParams(keywords.as_ptr(), values.as_ptr(), 1) };
        let raw = Raw(NonNull::new(conn).ok_or("out of memory")?);
        // SAFETY: (2). `ignore`, which drops the server's notices, never goes away and needs no
        // argument.
        unsafe { pq::PQsetNoticeProcessor(raw.ptr(), Some(ignore), ptr::null_mut()) };
        // SAFETY: (2).
        if !raw.is_good() || unsafe { pq::PQsetnonblocking(raw.ptr(), 1) } != 0 {
            // SAFETY: (2); a C string or null. It is the password in use, from wherever libpq had
            // it.
            let password = unsafe { text(pq::PQpass(raw.ptr())) };
            let message = raw.message();
            return Err(if password.is_empty() { message } else { message.replace(&password, "***") });
        }
        Ok(raw)
    }

    /// Whether libpq believes that the connection stands.
    pub(super) fn is_good(&self) -> bool {
        // SAFETY: (1), (2).
        unsafe { pq::PQstatus(self.ptr()) == pq::ConnStatusType::CONNECTION_OK }
    }

    /// What went wrong last, in libpq's words; several lines.
    pub(super) fn message(&self) -> String {
        // SAFETY: (2); a C string that lives until the next call.
        unsafe { text(pq::PQerrorMessage(self.ptr())) }
    }

    /// The server's version, as 150004 for 15.4.
    pub(super) fn server_version(&self) -> i32 {
        // SAFETY: (2).
        unsafe { pq::PQserverVersion(self.ptr()) }
    }

    /// What the server says of one of its settings, if it is among those that it tells of.
    pub(super) fn setting(&self, name: &CStr) -> Option<String> {
        // SAFETY: (2); a C string or null, which lives until the next call on the connection.
        let value = unsafe { pq::PQparameterStatus(self.ptr(), name.as_ptr()) };
        // SAFETY: as above.
        (!value.is_null()).then(|| unsafe { text(value) })
    }

    /// The number of the session's process on the server. A pooler gives one of its own making.
    pub(super) fn process(&self) -> i64 {
        // SAFETY: (2).
        i64::from(unsafe { pq::PQbackendPID(self.ptr()) })
    }

    /// Asks the server to give up the statement that is under way, over a connection of its own.
    /// True: the request has arrived, and the answer to the statement will say what became of it.
    pub(super) fn cancel(&self, deadline: Instant) -> bool {
        use pq::PostgresPollingStatusType as Status;
        // SAFETY: (2); libpq copies what it needs from the connection. The request is ours.
        let Some(request) = NonNull::new(unsafe { pq::PQcancelCreate(self.ptr()) }).map(Cancel) else { return false };
        // SAFETY: (2).
        if unsafe { pq::PQcancelStart(request.0.as_ptr()) } != 1 {
            return false;
        }
        let mut write = true;
        loop {
            // SAFETY: (2); libpq closes the socket only inside a call, and none is made while it is
            // borrowed.
            let fd: RawFd = unsafe { pq::PQcancelSocket(request.0.as_ptr()) };
            if fd < 0 {
                return false;
            }
            // SAFETY: as above.
            let socket = unsafe { BorrowedFd::borrow_raw(fd) };
            if !wait(socket, write, None, Some(deadline)).is_ok_and(|ready| ready.socket) {
                return false;
            }
            // SAFETY: (1), (2).
            match unsafe { pq::PQcancelPoll(request.0.as_ptr()) } {
                Status::PGRES_POLLING_OK => return true,
                Status::PGRES_POLLING_READING => write = false,
                Status::PGRES_POLLING_WRITING => write = true,
                Status::PGRES_POLLING_FAILED | Status::PGRES_POLLING_ACTIVE => return false,
            }
        }
    }

    pub(super) fn phase(&self) -> Phase {
        use pq::PGTransactionStatusType as Status;
        // SAFETY: (1), (2).
        match unsafe { pq::PQtransactionStatus(self.ptr()) } {
            Status::PQTRANS_IDLE => Phase::Idle,
            Status::PQTRANS_INTRANS => Phase::Open,
            Status::PQTRANS_INERROR => Phase::Aborted,
            Status::PQTRANS_ACTIVE | Status::PQTRANS_UNKNOWN => Phase::Unknown,
        }
    }

    /// The socket, to wait on; `None` if the connection is gone.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: (2).
        let fd: RawFd = unsafe { pq::PQsocket(self.ptr()) };
        // SAFETY: libpq closes the socket only inside a call that needs `&mut self`, or in `drop`;
        // until then it is open.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Sends one statement or several, without parameters. Their answers come in text, which isn't
    /// read here.
    pub(super) fn send(&mut self, sql: &CStr) -> bool {
        // SAFETY: (2); libpq copies the text.
        unsafe { pq::PQsendQuery(self.ptr(), sql.as_ptr()) == 1 }
    }

    /// Sends a statement to be prepared under `name`; the server finds out the types of its
    /// parameters.
    pub(super) fn send_prepare(&mut self, name: &CStr, sql: &CStr) -> bool {
        // SAFETY: (2); libpq copies both texts, and no types are given.
        unsafe { pq::PQsendPrepare(self.ptr(), name.as_ptr(), sql.as_ptr(), 0, ptr::null()) == 1 }
    }

    /// Runs what was prepared as `name`, with parameters in PostgreSQL's binary form. Its rows come
    /// in binary, too.
    pub(super) fn send_prepared(&mut self, name: &CStr, values: &[Option<&[u8]>]) -> bool {
        let Some(packed) = Packed::new(values) else { return false };
        // SAFETY: (2); three arrays of `count` entries each, whose values live until the call
        // returns; libpq copies them.
        unsafe {
            pq::PQsendQueryPrepared(
                self.ptr(),
                name.as_ptr(),
                packed.count,
                packed.pointers.as_ptr(),
                packed.lengths.as_ptr(),
                packed.formats.as_ptr(),
                BINARY,
            ) == 1
        }
    }

    /// As [`Raw::send_prepared`], for a statement that is run once.
    pub(super) fn send_once(&mut self, sql: &CStr, values: &[Option<&[u8]>]) -> bool {
        let Some(packed) = Packed::new(values) else { return false };
        // SAFETY: as in `send_prepared`; no types are given.
        unsafe {
            pq::PQsendQueryParams(
                self.ptr(),
                sql.as_ptr(),
                packed.count,
                ptr::null(),
                packed.pointers.as_ptr(),
                packed.lengths.as_ptr(),
                packed.formats.as_ptr(),
                BINARY,
            ) == 1
        }
    }

    /// Runs a statement with parameters in PostgreSQL's text form, whose types the server finds
    /// out. Its rows come in text.
    pub(super) fn send_text(&mut self, sql: &CStr, values: &[Option<CString>]) -> bool {
        let Ok(count) = c_int::try_from(values.len()) else { return false };
        let pointers: Vec<_> =
            values.iter().map(|value| value.as_ref().map_or(ptr::null(), |text| text.as_ptr())).collect();
        // SAFETY: (2); `count` C strings, or nulls, that live until the call returns; without
        // types, lengths and formats they are taken for text.
        unsafe {
            pq::PQsendQueryParams(
                self.ptr(),
                sql.as_ptr(),
                count,
                ptr::null(),
                pointers.as_ptr(),
                ptr::null(),
                ptr::null(),
                TEXT,
            ) == 1
        }
    }

    /// Hands what is unsent to the socket. `Some(true)`: all of it is; `Some(false)`: the socket
    /// takes no more for now; `None`: the connection is gone.
    pub(super) fn flush(&mut self) -> Option<bool> {
        // SAFETY: (2).
        match unsafe { pq::PQflush(self.ptr()) } {
            0 => Some(true),
            1 => Some(false),
            _ => None,
        }
    }

    /// Reads what the socket has, without waiting. False: the connection is gone.
    pub(super) fn consume(&mut self) -> bool {
        // SAFETY: (2).
        unsafe { pq::PQconsumeInput(self.ptr()) == 1 }
    }

    /// Whether [`Raw::answer`] would have to wait.
    pub(super) fn is_busy(&mut self) -> bool {
        // SAFETY: (2).
        unsafe { pq::PQisBusy(self.ptr()) == 1 }
    }

    /// The next answer to what was sent; `None` once there are no more. Ask only if not busy.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        // SAFETY: (2); the result is ours.
        NonNull::new(unsafe { pq::PQgetResult(self.ptr()) }).map(Answer)
    }

    /// The next notification among what was read.
    pub(super) fn notification(&mut self) -> Option<Notification> {
        // SAFETY: (2); the notification is ours.
        let notify = NonNull::new(unsafe { pq::PQnotifies(self.ptr()) })?;
        // SAFETY: not freed yet, and its two texts live as long as it does.
        let found = unsafe {
            let notify = notify.as_ref();
            Notification { channel: text(notify.relname), payload: text(notify.extra) }
        };
        // SAFETY: libpq allocated it for us, in one piece with its texts, which were copied.
        unsafe { pq::PQfreemem(notify.as_ptr().cast::<c_void>()) };
        Some(found)
    }

    fn ptr(&self) -> *mut pq::PGconn {
        self.0.as_ptr()
    }
}

/// A request to give up a statement.
struct Cancel(NonNull<pq::PGcancelConn>);

impl Drop for Cancel {
    fn drop(&mut self) {
        // SAFETY: (2).
        unsafe { pq::PQcancelFinish(self.0.as_ptr()) };
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: (2). libpq says good-bye if the socket takes it at once, and closes.
        unsafe { pq::PQfinish(self.ptr()) };
    }
}

impl Answer {
    pub(super) fn outcome(&self) -> Outcome {
        use pq::ExecStatusType as Status;
        // SAFETY: (1), (2).
        match unsafe { pq::PQresultStatus(self.ptr()) } {
            Status::PGRES_COMMAND_OK | Status::PGRES_TUPLES_OK => Outcome::Done,
            Status::PGRES_FATAL_ERROR | Status::PGRES_NONFATAL_ERROR | Status::PGRES_BAD_RESPONSE => Outcome::Failed,
            _ => Outcome::Unexpected,
        }
    }

    /// The constraint that an error is about.
    pub(super) fn constraint(&self) -> Option<String> {
        self.field(pq::PG_DIAG_CONSTRAINT_NAME)
    }

    /// The five characters that name an error; `None` if it isn't the server's.
    pub(super) fn sqlstate(&self) -> Option<String> {
        self.field(pq::PG_DIAG_SQLSTATE)
    }

    /// The server's message without its details, or libpq's own.
    pub(super) fn message(&self) -> String {
        // SAFETY: (2); a C string that lives as long as the result.
        self.field(pq::PG_DIAG_MESSAGE_PRIMARY).unwrap_or_else(|| unsafe { text(pq::PQresultErrorMessage(self.ptr())) })
    }

    fn field(&self, which: u8) -> Option<String> {
        // SAFETY: (2); a C string that lives as long as the result, or null.
        let field = unsafe { pq::PQresultErrorField(self.ptr(), c_int::from(which)) };
        // SAFETY: as above.
        (!field.is_null()).then(|| unsafe { text(field) })
    }

    /// `COMMIT`, `ROLLBACK`, `INSERT 0 3`: what was done.
    pub(super) fn command(&self) -> String {
        // SAFETY: (2); a C string that lives as long as the result. libpq doesn't change it, though
        // its signature isn't const.
        unsafe { text(pq::PQcmdStatus(self.ptr())) }
    }

    pub(super) fn rows(&self) -> usize {
        // SAFETY: (2).
        usize::try_from(unsafe { pq::PQntuples(self.ptr()) }).unwrap_or(0)
    }

    pub(super) fn columns(&self) -> usize {
        // SAFETY: (2).
        usize::try_from(unsafe { pq::PQnfields(self.ptr()) }).unwrap_or(0)
    }

    /// The type of a column, as the server numbers types; 0 if there is no such column.
    pub(super) fn column_type(&self, column: usize) -> u32 {
        // SAFETY: (2); libpq checks the number.
        c_int::try_from(column).map_or(0, |column| unsafe { pq::PQftype(self.ptr(), column) })
    }

    /// A value as it came; `None` if it is null, or if there is no such place.
    pub(super) fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        if row >= self.rows() || column >= self.columns() {
            return None;
        }
        let (row, column) = (c_int::try_from(row).ok()?, c_int::try_from(column).ok()?);
        // SAFETY: (2), (4); the place exists. A value that isn't null has a pointer, to so many
        // bytes, which live as long as the result.
        unsafe {
            if pq::PQgetisnull(self.ptr(), row, column) == 1 {
                return None;
            }
            let start = pq::PQgetvalue(self.ptr(), row, column).cast::<u8>().cast_const();
            let length = usize::try_from(pq::PQgetlength(self.ptr(), row, column)).ok()?;
            Some(std::slice::from_raw_parts(start, length))
        }
    }

    fn ptr(&self) -> *mut pq::PGresult {
        self.0.as_ptr()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: (2).
        unsafe { pq::PQclear(self.ptr()) };
    }
}

const TEXT: c_int = 0;
const BINARY: c_int = 1;

/// Parameters as libpq wants them: three arrays side by side. The pointers borrow from `values`.
struct Packed<'a> {
    count: c_int,
    pointers: Vec<*const c_char>,
    lengths: Vec<c_int>,
    formats: Vec<c_int>,
    values: PhantomData<&'a [u8]>,
}

impl<'a> Packed<'a> {
    /// `None` if there are more than libpq can number, or one is longer.
    fn new(values: &[Option<&'a [u8]>]) -> Option<Packed<'a>> {
        let count = c_int::try_from(values.len()).ok()?;
        // An empty slice has a pointer, too, which libpq takes for a value of no bytes.
        let pointers = values.iter().map(|value| value.map_or(ptr::null(), |bytes| bytes.as_ptr().cast())).collect();
        let lengths = values.iter().map(|value| c_int::try_from(value.map_or(0, <[u8]>::len)).ok());
        let (lengths, formats) = (lengths.collect::<Option<_>>()?, vec![BINARY; values.len()]);
        Some(Packed { count, pointers, lengths, formats, values: PhantomData })
    }
}

/// Notices are for people at a terminal; libpq would print them.
unsafe extern "C" fn ignore(_: *mut c_void, _: *const c_char) {}

/// A copy of a C string, with what isn't UTF-8 replaced; empty for null.
///
/// # Safety
/// `start` is null, or begins a C string that lives and doesn't change until the call returns.
unsafe fn text(start: *const c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}
