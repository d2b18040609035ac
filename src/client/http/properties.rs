//! What holds for every value of a parser, tried on values made at random.

use std::time::{Duration, SystemTime};

use url::Url;

use super::file_name::check_file_name;
use super::headers::{content_range, file_name_of, media_type, number, strong_etag};
use super::redact::{self, HIDDEN, Secrets};
use super::retry::retry_after;
use crate::client::random::for_all;

const ROUNDS: u64 = 20_000;

/// Reads pieces of `Content-Range` in any order, and then whole ones with numbers of any size.
#[test]
fn a_range_that_is_read_makes_sense_and_one_that_is_written_is_read() {
    for_all(ROUNDS, |random| {
        let text = random.text(&["bytes", " ", "-", "/", "*", "0", "18446744073709551615", "+", "bytes 0-1/"]);
        if let Some(range) = content_range(&text) {
            assert!(range.first <= range.last && range.total.is_none_or(|total| range.last < total), "{text:?}");
        }
        let (a, b) = (random.next() >> random.below(64), random.next() >> random.below(64));
        let (first, last) = (a.min(b), a.max(b));
        let range = content_range(&format!("bytes {first}-{last}/*")).expect("a range");
        assert_eq!((range.first, range.last, range.total), (first, last, None));
        if let Some(total) = last.checked_add(1) {
            assert_eq!(
                content_range(&format!("bytes {first}-{last}/{total}")).and_then(|range| range.total),
                Some(total)
            );
            assert_eq!(content_range(&format!("bytes {first}-{last}/{last}")), None);
        }
    });
}

#[test]
fn retry_after_is_read_from_seconds_and_dates_and_nothing_else() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for_all(ROUNDS, |random| {
        let seconds = random.next() >> random.below(64);
        assert_eq!(retry_after(&format!(" {seconds} "), now), Some(Duration::from_secs(seconds)));
        let ahead = Duration::from_secs(random.next() % 1_000_000_000);
        assert_eq!(retry_after(&httpdate::fmt_http_date(now + ahead), now), Some(ahead));
        assert_eq!(retry_after(&httpdate::fmt_http_date(now - ahead), now), Some(Duration::ZERO));
        let text =
            random.text(&["Sun", ",", " ", "06", "Nov", "1994", "08:49:37", "GMT", "-", ".", "99999999999999999999"]);
        if let Some(after) = retry_after(&text, now) {
            let digits = text.trim().bytes().all(|byte| byte.is_ascii_digit());
            assert!(digits || httpdate::parse_http_date(text.trim()).is_ok(), "{text:?} is {after:?}");
        }
    });
}

/// Reads pieces of `Content-Disposition` in any order, and then whole ones with a plain name.
#[test]
fn a_proposed_name_is_always_a_sound_one() {
    for_all(ROUNDS, |random| {
        let text = random.text(&[
            "attachment",
            ";",
            "filename",
            "*",
            "=",
            "\"",
            "\\",
            "UTF-8''",
            "%2F",
            "%00",
            "%",
            "..",
            "/",
            "a.zip",
            " ",
            "nul",
        ]);
        if let Some(name) = file_name_of(&text) {
            assert!(check_file_name(&name).is_ok(), "{text:?} gave {name:?}");
        }
        let name: String = (0..1 + random.below(20)).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        let disposition = format!("attachment; size=3; filename=\"n-{name}.tif\"");
        assert_eq!(file_name_of(&disposition), Some(format!("n-{name}.tif")));
    });
}

#[test]
fn a_name_that_passes_is_one_component_of_a_path() {
    use std::path::{Component, Path};
    for_all(ROUNDS, |random| {
        let name = random.text(&["..", ".", "/", "\\", ":", "C:", "con", "a", " ", "\0", "\n", "~", ".part", "é"]);
        if check_file_name(&name).is_ok() {
            let components: Vec<Component<'_>> = Path::new(&name).components().collect();
            assert!(matches!(components[..], [Component::Normal(part)] if part == name.as_str()), "{name:?}");
            assert_eq!(Path::new("folder").join(&name).parent(), Some(Path::new("folder")), "{name:?}");
        }
    });
}

/// Puts a secret into each part of a URL that may hold one: user, password, query, fragment.
#[test]
fn a_url_is_shown_without_what_may_be_secret_and_still_is_one() {
    for_all(ROUNDS, |random| {
        let secret = format!("S{:016x}", random.next());
        let place = random.below(5);
        let noise = random.text(&["a", "=", "&", "?", "%20", "+", ";", "/"]);
        let text = match place {
            0 => format!("https://user:{secret}@host.example/{noise}"),
            1 => format!("https://{secret}@host.example/{noise}"),
            2 => format!("https://host.example/a?x={secret}&{noise}"),
            3 => format!("https://host.example/a?{secret}"),
            _ => format!("https://host.example/a#{secret}{noise}"),
        };
        let Ok(url) = Url::parse(&text) else { return };
        let shown = redact::url(&url);
        assert!(!shown.to_lowercase().contains(&secret.to_lowercase()), "{text:?} is shown as {shown:?}");
        assert!(Url::parse(&shown).is_ok(), "{shown:?}");
        assert!(!redact::unparsed(&text).contains(&secret), "{text:?}");
    });
}

#[test]
fn a_secret_is_hidden_wherever_it_is_repeated() {
    for_all(ROUNDS, |random| {
        let secret = format!("{}{:016x}", random.piece(&["\"", "\\", " ", "%", "+"]).trim(), random.next());
        let mut secrets = Secrets::default();
        secrets.add(&secret);
        let shown = secrets.hide(&format!("said {secret} and {secret}{secret}"));
        assert!(!shown.contains(&secret), "{shown:?}");
        assert!(shown.contains(HIDDEN));
        let line = redact::plain(&random.text(&["\r\n", "\u{1b}[0m", "word", "\u{202e}"]), 20);
        assert!(line.chars().count() <= 24 && !line.chars().any(char::is_control), "{line:?}");
    });
}

#[test]
fn no_text_makes_a_parser_panic() {
    for_all(ROUNDS, |random| {
        let text = random.text(&["W/", "\"", "/", ";", "*", "é", "text", "bytes", "=", "'", "%", "\\"]);
        let _ = (media_type(&text), strong_etag(&text), number(&text), redact::without_quotes(&text));
        if let Some(tag) = strong_etag(&text) {
            assert!(!tag.starts_with('W') && tag.len() >= 2, "{text:?}");
        }
    });
}
