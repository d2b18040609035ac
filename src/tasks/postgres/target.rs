//! Where to connect to: a URL or `keyword=value` words, read once, checked, and never shown again.
//!
//! A connection string holds a password, and libpq's messages quote what they could not read, or took for a host. So a
//! string in which a password could be taken for something else is refused here, in words that quote nothing.

use std::ffi::CString;
use std::fmt;
use std::time::Duration;

use super::error::PgError;
use super::libpq;

/// A checked connection string. What it shows of itself is where it leads: no user, no password.
#[derive(Clone)]
pub(super) struct Target {
    conninfo: CString,
    place: String,
}

impl Target {
    /// Reads `postgres://user:password@host:port/database?option=value`, or libpq's `host=.. dbname=..`.
    ///
    /// # Errors
    /// What can't be read, or could be read in two ways; an option that asks for TLS, if libpq was built without it.
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
        let Some(options) = libpq::parse(&text) else {
            return refuse("can't be read; in a URL, write special characters of names and passwords as %XX");
        };
        let option = |name: &str| options.iter().find(|(keyword, _)| keyword == name).map_or("", |(_, value)| value);
        if !option("port").chars().all(|c| c.is_ascii_digit() || c == ',') {
            return refuse("has a port that is no number; is a host missing behind a password?");
        }
        if let Some(name) = wants_tls(option).filter(|_| !libpq::has_tls()) {
            return Err(PgError::invalid(format!(
                "`{name}` of the PostgreSQL connection string asks for TLS, and libpq was built without it: \
                 add `pq-sys = {{ version = \"0.7\", features = [\"bundled\"] }}` to your own dependencies"
            )));
        }
        let or = |value: &str, other: &str| if value.is_empty() { other.to_owned() } else { value.to_owned() };
        let place = format!("{}:{}/{}", or(option("host"), "local"), or(option("port"), "5432"), option("dbname"));
        Ok(Target { conninfo: text, place })
    }

    /// Host, port and database.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The options for libpq. The user's own win over what is set here for their good.
    ///
    /// A peer that is gone without a word is noticed by the kernel within one and a half times `heartbeat`: an idle
    /// connection is probed, and what was sent must be acknowledged in time.
    pub(super) fn options(&self, connect_timeout: Duration, heartbeat: Duration) -> Vec<(CString, CString)> {
        let seconds = |time: Duration| CString::new(time.as_secs().max(1).to_string()).unwrap_or_default();
        let millis = CString::new(heartbeat.as_millis().clamp(1_000, 600_000).to_string()).unwrap_or_default();
        vec![
            (c"connect_timeout".into(), seconds(connect_timeout)),
            (c"keepalives".into(), c"1".into()),
            (c"keepalives_idle".into(), seconds(heartbeat / 2)),
            (c"keepalives_interval".into(), seconds(heartbeat / 4)),
            (c"keepalives_count".into(), c"3".into()),
            (c"tcp_user_timeout".into(), millis),
            // Of many hosts, the one that can write.
            (c"target_session_attrs".into(), c"read-write".into()),
            (c"fallback_application_name".into(), c"fulmar".into()),
            (c"dbname".into(), self.conninfo.clone()),
            // Text comes as Rust has it, whatever the environment says.
            (c"client_encoding".into(), c"UTF8".into()),
        ]
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.place).finish()
    }
}

/// Whether an `@` stands where libpq would take what is before it for a host: it reads up to the first `@` or `/`.
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
                assert!(error.contains("built without it: add `pq-sys"), "{asked}: {error}");
            } else {
                assert!(parsed.is_ok(), "{asked}: {parsed:?}");
            }
        }
    }

    #[test]
    fn the_users_options_come_behind_ours_and_so_win() {
        let target = Target::parse("postgres://db.example/jobs?keepalives_idle=99").expect("a sound string");
        let options = target.options(Duration::from_secs(5), Duration::from_secs(10));
        let at = |name: &std::ffi::CStr| options.iter().position(|(keyword, _)| keyword.as_c_str() == name);
        assert!(at(c"keepalives_idle") < at(c"dbname"), "libpq takes the last");
        assert!(at(c"dbname") < at(c"client_encoding"), "but for what the code relies on");
    }
}
