//! Reads JSON as servers send it: with a byte order mark, and with numbers that Python writes but
//! JSON doesn't have (`NaN`, `Infinity`).

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// Reads JSON, with `NaN`, `Infinity` and `-Infinity` as null.
///
/// # Errors
/// The error of `serde_json`, with line and column in the text as it came.
pub(crate) fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let text = without_mark(text);
    serde_json::from_slice(text).or_else(|error| match with_nulls(text) {
        (Cow::Owned(text), _) => serde_json::from_slice(&text).map_err(|_| error),
        (Cow::Borrowed(_), _) => Err(error),
    })
}

/// How many of the text's numbers are `NaN`, `Infinity` or `-Infinity`.
pub(crate) fn not_numbers(text: &[u8]) -> usize {
    with_nulls(without_mark(text)).1
}

/// The text without the byte order mark that some servers begin with.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// The text with every `NaN`, `Infinity` and `-Infinity` replaced by `null`, and how many there
/// were. Strings stay as they are.
fn with_nulls(text: &[u8]) -> (Cow<'_, [u8]>, usize) {
    let (mut made, mut copied, mut count) = (Vec::new(), 0, 0);
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = text.get(at) {
        match byte {
            // Skip an escaped character: an escaped quote doesn't end the string.
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'I' | b'N' if !in_string => {
                if let Some(length) = not_a_number(&text[at..]) {
                    made.extend_from_slice(&text[copied..at]);
                    made.extend_from_slice(b"null");
                    count += 1;
                    at += length;
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if count == 0 {
        return (Cow::Borrowed(text), 0);
    }
    made.extend_from_slice(&text[copied..]);
    (Cow::Owned(made), count)
}

/// The length of a `NaN`, `Infinity` or `-Infinity` at the beginning of a text.
fn not_a_number(text: &[u8]) -> Option<usize> {
    let word = [&b"NaN"[..], b"-NaN", b"Infinity", b"-Infinity"].into_iter().find(|word| text.starts_with(word))?;
    let ends = text.get(word.len()).is_none_or(|next| !next.is_ascii_alphanumeric());
    ends.then_some(word.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_no_number_is_null_and_counted() {
        let text = br#"{"a": NaN, "b": [-Infinity,Infinity, -1, -NaN], "NaN": "NaN, \"NaN\\", "c":NaN}"#;
        let read: Value = from_slice(text).expect("JSON but for its numbers");
        assert_eq!(read, json!({"a": null, "b": [null, null, -1, null], "NaN": "NaN, \"NaN\\", "c": null}));
        assert_eq!(not_numbers(text), 5);
        assert_eq!(from_slice::<Vec<Option<f64>>>(b"[1.5,NaN]").expect("numbers"), [Some(1.5), None]);
        assert_eq!(from_slice::<Value>(b"NaN").expect("one alone"), Value::Null);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_sound_json_is_left_alone() {
        assert_eq!(from_slice::<Value>(b"\xef\xbb\xbf{\"a\": 1}").expect("JSON"), json!({"a": 1}));
        assert_eq!(not_numbers(br#"{"a": "NaN", "b": -1}"#), 0);
    }

    #[test]
    fn what_is_no_json_is_still_none() {
        let texts: [&[u8]; 9] =
            [b"", b"{", b"NaNa", b"[Infinit]", b"[--Infinity]", b"{NaN: 1}", b"[NaN", b"\"\\", b"[1,]"];
        for text in texts {
            assert!(from_slice::<Value>(text).is_err(), "{text:?}");
        }
    }
}
