//! Parses the values of a reply's headers. Pure. A server may send anything, so every value is
//! checked here first.

/// The value of a `Content-Range`: the bytes from `first` to `last`, both included, of `total` if
/// that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: Option<u64>,
}

/// Parses `bytes 5-9/10` or `bytes 5-9/*`. `None` for anything else, and for an impossible range.
/// (RFC 9110, 14.4)
pub(super) fn content_range(value: &str) -> Option<ContentRange> {
    let (unit, rest) = value.trim().split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some(ContentRange { first, last, total })
}

/// Parses a number of digits only; `None` if it doesn't fit into 64 bits.
pub(super) fn number(digits: &str) -> Option<u64> {
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The type without its parameters, in lower case: `application/json`.
pub(super) fn media_type(value: &str) -> Option<String> {
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
    kind.split_once('/').is_some_and(|(a, b)| is_token(a) && is_token(b)).then_some(kind)
}

/// An `ETag` that may be compared byte by byte: `"x"`, never `W/"x"`. (RFC 9110, 8.8.3)
pub(super) fn strong_etag(value: &str) -> Option<&str> {
    let value = value.trim();
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    inner.bytes().all(|byte| byte > b' ' && byte != b'"' && byte != 0x7f).then_some(value)
}

/// The file name that a `Content-Disposition` proposes, if
/// [`check_file_name`](super::check_file_name) accepts it.
///
/// It reads `filename=` and `filename*=` in UTF-8; the latter wins (RFC 6266, RFC 8187). It refuses
/// a name with a path, and doesn't cut it, because the server would mean another file.
///
/// ```
/// use fulmar::client::http::file_name_of;
///
/// assert_eq!(file_name_of("attachment; filename=\"result.tif\"").as_deref(), Some("result.tif"));
/// assert_eq!(file_name_of("attachment; filename*=UTF-8''na%C3%AFve.txt").as_deref(), Some("naïve.txt"));
/// assert_eq!(file_name_of("attachment; filename=\"../../etc/passwd\""), None);
/// ```
pub fn file_name_of(content_disposition: &str) -> Option<String> {
    let mut plain = None;
    let mut extended = None;
    for (name, value) in parameters(content_disposition) {
        if name.eq_ignore_ascii_case("filename*") {
            extended = extended.or(Some(decoded(&value)?));
        } else if name.eq_ignore_ascii_case("filename") {
            plain = plain.or(Some(value));
        }
    }
    extended.or(plain).filter(|name| super::check_file_name(name).is_ok())
}

/// The parameters after the first word, in order: `; name=value` and `; name="quoted \" value"`.
fn parameters(value: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = value.chars().peekable();
    while chars.next_if(|c| *c != ';').is_some() {}
    while chars.next_if_eq(&';').is_some() {
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| !matches!(c, '=' | ';')) {
            name.push(c);
        }
        if chars.next_if_eq(&'=').is_none() {
            continue;
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let mut text = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => text.extend(chars.next()),
                    c => text.push(c),
                }
            }
            while chars.next_if(|c| *c != ';').is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != ';') {
                text.push(c);
            }
            text.truncate(text.trim_end().len());
        }
        found.push((name.trim().to_owned(), text));
    }
    found
}

/// Decodes `UTF-8'en'na%C3%AFve`; `None` for another character set or broken escapes.
fn decoded(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_make_no_sense_are_none() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(content_range("bytes 5-9/10"), range(5, 9, Some(10)));
        assert_eq!(content_range(" BYTES 0-0/* "), range(0, 0, None));
        for wrong in [
            "",
            "bytes",
            "bytes */10",
            "bytes 5-4/10",
            "bytes 5-10/10",
            "bytes +5-9/10",
            "bytes 5-9",
            "items 5-9/10",
            "bytes 5-9/-1",
            "bytes 0-18446744073709551616/*",
            "bytes 5 - 9/10",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong:?}");
        }
        let most = u64::MAX;
        assert_eq!(content_range(&format!("bytes 0-{most}/*")), range(0, most, None));
        assert_eq!(content_range(&format!("bytes 0-{most}/{most}")), None);
    }

    #[test]
    fn only_strong_tags_are_compared() {
        assert_eq!(strong_etag("\"abc\""), Some("\"abc\""));
        for weak in ["W/\"abc\"", "abc", "\"", "\"a\"b\"", "\"a b\"", ""] {
            assert_eq!(strong_etag(weak), None, "{weak:?}");
        }
    }

    #[test]
    fn a_media_type_has_two_halves() {
        assert_eq!(media_type(" Text/HTML; charset=x").as_deref(), Some("text/html"));
        assert_eq!(media_type("json"), None);
        assert_eq!(media_type("a/b c"), None);
    }

    #[test]
    fn a_disposition_is_read_with_its_quotes_and_refused_with_a_path() {
        assert_eq!(file_name_of("attachment; filename=a.zip ; size=3").as_deref(), Some("a.zip"));
        assert_eq!(file_name_of("inline; x=\"a;filename=b\"; filename=\"c\\\"d\"").as_deref().unwrap_or("refused"), {
            if cfg!(windows) { "refused" } else { "c\"d" }
        });
        assert_eq!(file_name_of("attachment; filename=\"/etc/passwd\""), None);
        assert_eq!(file_name_of("attachment; filename*=UTF-8''..%2Fx"), None);
        assert_eq!(file_name_of("attachment; filename*=UTF-8''%zz; filename=a"), None);
        assert_eq!(file_name_of("attachment; filename*=UTF-8''%"), None);
        assert_eq!(file_name_of("filename=a"), None);
    }
}
