//! Makes a back-end's texts safe to be shown: on one line, without control characters. Pure.

use serde_json::Value;

/// `text` on one line of at most `limit` characters, without control characters and without those
/// that reorder text.
pub(crate) fn plain(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for (count, word) in text.split(|c: char| c.is_whitespace() || is_unseen(c)).filter(|w| !w.is_empty()).enumerate() {
        if count > 0 {
            shown.push(' ');
        }
        shown.push_str(word);
    }
    match shown.char_indices().nth(limit) {
        Some((at, _)) => format!("{}..", &shown[..at]),
        None => shown,
    }
}

/// Whether a character is invisible and changes how text is shown.
pub(crate) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A value as text: a string as it is, null as an empty text, and anything else as JSON.
pub(crate) fn text_of(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A number, also if it is written as text: `"12.5"`, `"40%"`.
pub(crate) fn number_of(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            text.trim().trim_end_matches('%').trim_end().parse().ok().filter(|number: &f64| number.is_finite())
        }
        _ => None,
    }
}

/// One segment of a URL's path. Special characters are escaped, so that an id can't lead to another
/// path.
pub(crate) fn segment(text: &str) -> String {
    // A segment of dots leads upwards, even if it is escaped, and an empty one leads to the list.
    // So change it to another one.
    if text.bytes().all(|byte| byte == b'.') {
        return "%2E".repeat(text.len()) + "%00";
    }
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Segments of a URL's path, from an id with slashes, as Earth Engine has them. The slashes aren't
/// escaped, because most servers don't understand `%2F`.
pub(crate) fn segments(text: &str) -> String {
    text.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_is_one_harmless_line() {
        assert_eq!(plain("a\n\u{1b}[31mb\u{202e} c\t", 99), "a [31mb c");
        assert_eq!(plain("äbcdef", 3), "äbc..");
    }

    #[test]
    fn what_is_of_another_type_is_read_all_the_same() {
        use serde_json::json;
        let text = |value: Value| text_of(Some(&value));
        assert_eq!([text(json!("a")), text(json!(7)), text(json!(null))], ["a", "7", ""].map(str::to_owned));
        assert_eq!(text(json!({"a": [1]})), r#"{"a":[1]}"#);
        let number = |value: Value| number_of(Some(&value));
        assert_eq!(
            [number(json!(1.5)), number(json!("12.5")), number(json!(" 40 %"))],
            [Some(1.5), Some(12.5), Some(40.0)]
        );
        assert_eq!([number(json!("NaN")), number(json!("")), number(json!(true)), number_of(None)], [None; 4]);
    }

    #[test]
    fn an_id_stays_one_segment() {
        assert_eq!(segment("j-2611~_.x"), "j-2611~_.x");
        assert_eq!(segment("../me?x#y"), "..%2Fme%3Fx%23y");
        assert_eq!(segment(""), "%00");
        assert!(!["..", "."].contains(&segment("..").as_str()), "climbs");
        assert_eq!(segment("ü"), "%C3%BC");
        assert_eq!(segments("LANDSAT/LC08/C02/T1_L2"), "LANDSAT/LC08/C02/T1_L2");
        assert_eq!(segments("a/../../me"), "a/%2E%2E%00/%2E%2E%00/me");
        assert_eq!(segments("/a//b?c"), "%00/a/%00/b%3Fc");
    }
}
