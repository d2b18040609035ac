//! Where to connect to: a URL or `keyword=value` words, read once, checked, and never shown again.
//!
//! A connection string holds a password, and libpq's messages quote what they could not read, or
//! took for a host. So a string in which a password could be taken for something else is refused
//! here, in words that quote nothing.

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::PgError;
use super::libpq;
use crate::error::BoxError;

/// A checked connection string. What it shows of itself is where it leads: no user, no password.
#[derive(Clone)]
pub(super) struct Target {
    conninfo: CString,
    place: String,
    password: Option<Password>,
    /// Where the queue's tables are, as SQL writes it; `None` until it is known.
    schema: Option<Arc<str>>,
}

/// Asked for each new connection, for passwords that don't live long.
pub(in super::super) type Password = Arc<dyn Fn() -> Result<String, BoxError> + Send + Sync>;

impl Target {
    /// Reads `postgres://user:password@host:port/database?option=value`, or libpq's
    /// `host=.. dbname=..`.
    ///
    /// # Errors
    /// What can't be read, or could be read in two ways; an option that asks for TLS, if libpq was
    /// built without it.
    pub(super) fn parse(conninfo: &str) -> Result<Target, PgError> {
        let refuse = |why: &str| Err(PgError::invalid(format!("the PostgreSQL connection string {why}")));
        let url = ["postgres://", "postgresql://"].iter().find_map(|scheme| conninfo.strip_prefix(scheme));
        if url.is_some_and(is_ambiguous) {
            return refuse("has an `@` in a place of its own meaning: write %40 for one in a password or a name");
        }
        if url.is_none() && !conninfo.contains('=') {
            return refuse("is neither a URL `postgres://user:password@host/database` nor `keyword=value` words");
        }
        let Ok(text) = CString::new(conninfo) else {
            return refuse("holds a zero byte");
        };
        // Before libpq reads the string: it would refuse these as unknown, and name no remedy.
        let asks = |name: &str| conninfo.split(['?', '&', ' ']).any(|word| word.starts_with(&format!("{name}=")));
        if ["schema", "currentSchema", "search_path"].into_iter().any(asks) {
            return refuse(
                "names a schema, for which libpq has no option: name it with `TaskQueue::builder().schema(..)`",
            );
        }
        let Some(options) = libpq::parse(&text) else {
            return refuse("can't be read; in a URL, write special characters of names and passwords as %XX");
        };
        let option = |name: &str| options.iter().find(|(keyword, _)| keyword == name).map_or("", |(_, value)| value);
        if !option("port").chars().all(|c| c.is_ascii_digit() || c == ',') {
            return refuse("has a port that isn't a number; is a host missing behind a password?");
        }
        if let Some(name) = wants_tls(option).filter(|_| !libpq::has_tls()) {
            return Err(PgError::invalid(format!(
                "`{name}` of the PostgreSQL connection string asks for TLS, and libpq was built without it: \
                 turn on this crate's feature `postgres-tls`"
            )));
        }
        let or = |value: &str, other: &str| if value.is_empty() { other.to_owned() } else { value.to_owned() };
        let place = format!("{}:{}/{}", or(option("host"), "local"), or(option("port"), "5432"), option("dbname"));
        Ok(Target { conninfo: text, place, password: None, schema: None })
    }

    /// Asks for the password before each connection is made; it wins over that of the string.
    pub(super) fn with_password(mut self, password: Option<Password>) -> Target {
        self.password = password;
        self
    }

    pub(super) fn set_schema(&mut self, schema: &str) {
        self.schema = Some(identifier(schema).into());
    }

    /// As SQL writes it.
    pub(super) fn schema(&self) -> Option<Arc<str>> {
        self.schema.clone()
    }

    /// Host, port and database.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The options for libpq. The user's own win over what is set here for their good.
    ///
    /// A peer that is gone without a word is noticed by the kernel within one and a half times
    /// `heartbeat`: an idle connection is probed, and what was sent must be acknowledged in time.
    ///
    /// # Errors
    /// What the password's source says.
    pub(super) fn options(
        &self,
        connect_timeout: Duration,
        heartbeat: Duration,
    ) -> Result<Vec<(CString, CString)>, PgError> {
        let seconds = |time: Duration| CString::new(time.as_secs().max(1).to_string()).unwrap_or_default();
        let millis = CString::new(heartbeat.as_millis().clamp(1_000, 600_000).to_string()).unwrap_or_default();
        let mut options = vec![
            (c"connect_timeout".into(), seconds(connect_timeout)),
            (c"keepalives".into(), c"1".into()),
            (c"keepalives_idle".into(), seconds(heartbeat / 2)),
            (c"keepalives_interval".into(), seconds(heartbeat / 4)),
            (c"keepalives_count".into(), c"3".into()),
            (c"tcp_user_timeout".into(), millis),
            // Of many hosts, the one that can write. A role whose transactions are read-only at
            // first isn't a hindrance.
            (c"target_session_attrs".into(), c"primary".into()),
            (c"fallback_application_name".into(), c"fulmar".into()),
            (c"dbname".into(), self.conninfo.clone()),
            // Text comes as Rust has it, whatever the environment says.
            (c"client_encoding".into(), c"UTF8".into()),
        ];
        if let Some(password) = &self.password {
            let refuse = |why: String| PgError::Connect { place: self.place.clone(), message: why, for_good: false };
            let password = password().map_err(|error| refuse(format!("its password could not be had: {error}")))?;
            let password = CString::new(password).map_err(|_| refuse("its password holds a zero byte".into()))?;
            options.push((c"password".into(), password));
        }
        Ok(options)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.place).finish()
    }
}

/// A name in SQL, whatever it holds.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether an `@` stands where libpq would take what is before it for a host: it reads up to the
/// first `@` or `/`.
fn is_ambiguous(url: &str) -> bool {
    let rest = match url.find(['@', '/']) {
        Some(at) if url[at..].starts_with('@') => &url[at + 1..],
        _ => url,
    };
    rest.split('?').next().is_some_and(|path| path.contains('@'))
}

/// The option by which the user asks for an encrypted or an authenticated server, if there is one.
fn wants_tls<'a>(option: impl Fn(&str) -> &'a str) -> Option<&'static str> {
    const CERTIFICATES: [&str; 5] = ["sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir"];
    let asks = |name: &str| match name {
        "sslmode" => !matches!(option(name), "" | "disable" | "allow" | "prefer"),
        "requiressl" => option(name) == "1",
        "channel_binding" => option(name) == "require",
        "sslnegotiation" => option(name) == "direct",
        _ => !option(name).is_empty(),
    };
    let mut names = ["sslmode", "requiressl", "channel_binding", "sslnegotiation"].into_iter().chain(CERTIFICATES);
    names.find(|name| asks(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2";

    #[test]
    fn a_target_shows_where_it_leads_and_no_more() {
        for conninfo in [
            "postgres://alice:hunter2@db.example:6432/jobs",
            "postgresql://alice:hunter2@db.example:6432/jobs?connect_timeout=3",
            "host=db.example port=6432 dbname=jobs user=alice password=hunter2",
            "postgres://db.example:6432/jobs?user=alice&password=hunter2",
        ] {
            let target = Target::parse(conninfo).expect("a sound string");
            assert_eq!(format!("{target:?}"), r#"Target("db.example:6432/jobs")"#);
        }
    }

    #[test]
    fn what_can_not_be_read_is_refused_without_being_quoted() {
        for conninfo in [
            "postgres://alice:hun/hunter2@db.example/jobs",
            "postgres://alice:12/hunter2@db.example/jobs",
            "postgres://alice:hun@hunter2@db.example/jobs",
            "postgres://alice:hunter2%@db.example/jobs",
            "postgres://alice:hunter2",
            "postgres://alice:hunter2/jobs",
            "postgres://db.example/jobs?password=x&hunter2",
            "host=db.example password=x hunter2 dbname=jobs",
            "host=db.example password='hunter2",
            "host=db.example port=hunter2",
            "mysql://alice:hunter2@db.example/jobs",
            "hunter2",
            "host=a\0 password=hunter2",
        ] {
            let error = Target::parse(conninfo).expect_err(conninfo);
            let shown = format!("{error} {error:?} {error:#?}");
            assert!(!shown.contains(SECRET), "{conninfo}: {shown}");
            assert!(shown.contains("the PostgreSQL connection string"), "{conninfo}: {shown}");
        }
    }

    #[test]
    fn a_schema_in_the_string_is_refused_with_the_remedy() {
        for conninfo in
            ["postgres://db.example/jobs?schema=a", "postgres://db.example/jobs?a=b&currentSchema=a", "host=x schema=a"]
        {
            let error = Target::parse(conninfo).expect_err(conninfo).to_string();
            assert!(error.contains(".schema(..)"), "{conninfo}: {error}");
        }
        Target::parse("postgres://db.example/jobs?options=-csearch_path%3Da").expect("libpq's own way");
    }

    #[test]
    fn a_password_is_asked_for_each_time_and_shown_never() {
        let calls = Arc::new(crate::sync::AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let source: Password =
            Arc::new(move || Ok(format!("hunter2-{}", counted.fetch_add(1, crate::sync::Ordering::SeqCst))));
        let target = Target::parse("postgres://alice:old@db.example/jobs").expect("sound").with_password(Some(source));
        for number in 0..2 {
            let options = target.options(Duration::from_secs(5), Duration::from_secs(10)).expect("options");
            let (name, value) = options.last().expect("options");
            assert_eq!((name.to_str(), value.to_str()), (Ok("password"), Ok(&*format!("hunter2-{number}"))));
        }
        assert!(!format!("{target:?}").contains(SECRET));
        let none = Target::parse("postgres://db.example/jobs").expect("sound");
        let none = none.with_password(Some(Arc::new(|| Err("the token's server is away".into()))));
        let error = none.options(Duration::from_secs(5), Duration::from_secs(10)).expect_err("no password");
        assert!(error.to_string().contains("the token's server is away"), "{error}");
    }

    #[test]
    fn tls_that_was_asked_for_is_never_left_out() {
        for (asked, is_a_wish) in [
            ("sslmode=require", true),
            ("sslmode=verify-full", true),
            ("sslrootcert=/etc/ca.pem", true),
            ("channel_binding=require", true),
            ("sslmode=prefer", false),
            ("sslmode=disable", false),
            ("", false),
        ] {
            let parsed = Target::parse(&format!("host=db.example {asked}"));
            if is_a_wish && !libpq::has_tls() {
                let error = parsed.expect_err(asked).to_string();
                assert!(error.contains("built without it: turn on"), "{asked}: {error}");
            } else {
                assert!(parsed.is_ok(), "{asked}: {parsed:?}");
            }
        }
    }

    #[test]
    fn the_users_options_come_behind_ours_and_so_win() {
        let target = Target::parse("postgres://db.example/jobs?keepalives_idle=99").expect("a sound string");
        let options =
            target.options(Duration::from_secs(5), Duration::from_secs(10)).expect("no password is asked for");
        let at = |name: &std::ffi::CStr| options.iter().position(|(keyword, _)| keyword.as_c_str() == name);
        assert!(at(c"keepalives_idle") < at(c"dbname"), "libpq takes the last");
        assert!(at(c"dbname") < at(c"client_encoding"), "but for what the code relies on");
    }
}
