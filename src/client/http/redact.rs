//! Removes secrets from texts that are shown: from URLs, and from a server's messages, which may
//! repeat what the request carried.

use url::Url;

/// Replaces a secret in a text.
pub(super) const HIDDEN: &str = "***";

/// How many characters of a server's message an error shows at most.
pub(super) const WORDS: usize = 500;

/// How many bytes of a URL's path, and how many pairs of its query, are shown at most: a server can
/// redirect to a URL of any length.
const LONGEST_PATH: usize = 1_000;
const MOST_PAIRS: usize = 50;

/// Shorter secrets aren't hidden: replacing every `a` would make a message unreadable.
const SHORTEST: usize = 4;

/// The URL without user, password and fragment, and with the values of its query hidden, because a
/// signed URL has its key there.
pub(super) fn url(url: &Url) -> String {
    let mut shown = url.clone();
    // These fail only for URLs without a host, which have no user or password.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_fragment(None);
    shown.set_query(None);
    if let Some(path) = shown.path().get(..LONGEST_PATH).map(|path| format!("{path}...")) {
        shown.set_path(&path);
    }
    let mut shown = String::from(shown);
    if let Some(query) = url.query() {
        let pairs = query.split('&').take(MOST_PAIRS).map(|pair| match pair.split_once('=') {
            _ if pair.is_empty() => String::new(),
            Some((name, value)) if !value.trim_start_matches('=').is_empty() => {
                format!("{}={HIDDEN}", name.chars().take(64).collect::<String>())
            }
            // Without a value, the name may be the key itself, with the `=` at the end of base64.
            _ => HIDDEN.to_owned(),
        });
        shown.push('?');
        shown.push_str(&pairs.collect::<Vec<_>>().join("&"));
    }
    shown
}

/// What can be shown of a URL that couldn't be parsed. Its secrets may be anywhere, so this cuts it
/// where one may begin.
pub(super) fn unparsed(text: &str) -> String {
    // All that is before an `@` may be a password, which may contain any character.
    let shown = if text.contains('@') { HIDDEN } else { text.split(['?', '#']).next().unwrap_or_default() };
    plain(shown, 200)
}

/// The secrets of one request: texts that errors must not show, even if the server repeats them.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn add(&mut self, secret: &str) {
        for secret in [secret, secret.trim()].into_iter().chain(secret.split_whitespace().skip(1)) {
            if secret.len() >= SHORTEST && !self.0.iter().any(|known| known == secret) {
                self.0.push(secret.to_owned());
            }
        }
        // The longest first: if one secret is a part of another, hiding the short one first would
        // show the rest of the long one.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// `text` with every secret hidden, also if it is escaped as in JSON, HTML or a URL.
    pub(super) fn hide(&self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        let mut hidden_to = 0;
        for (at, c) in text.char_indices() {
            let found = self.0.iter().filter_map(|secret| Some(at + repeated(&text[at..], secret)?)).max();
            if let Some(end) = found.filter(|end| *end > hidden_to) {
                if at >= hidden_to {
                    shown.push_str(HIDDEN);
                }
                hidden_to = end;
            }
            if at >= hidden_to {
                shown.push(c);
            }
        }
        shown
    }
}

/// If `text` begins with `secret`, escaped or not: how many bytes of `text` that is.
fn repeated(text: &str, secret: &str) -> Option<usize> {
    if text.starts_with(secret) {
        return Some(secret.len());
    }
    let mut rest = text;
    for c in secret.chars() {
        rest = after_escaped(rest, c).or_else(|| rest.strip_prefix(c))?;
    }
    Some(text.len() - rest.len())
}

/// How many bytes an entity of HTML has at most between `&` and `;`.
const MOST_ENTITY: usize = 8;

/// If `text` begins with an escape of `c`: the rest after it.
fn after_escaped(text: &str, c: char) -> Option<&str> {
    let number = |digits: &str| u32::from_str_radix(digits, 16).ok() == Some(u32::from(c));
    match text.as_bytes().first()? {
        b'+' if c == ' ' => text.get(1..),
        b'%' => {
            let mut rest = text;
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let digits = rest.strip_prefix('%')?.get(..2)?;
                rest = (u8::from_str_radix(digits, 16).ok()? == byte).then(|| &rest[3..])?;
            }
            Some(rest)
        }
        b'\\' => match text.strip_prefix("\\u") {
            Some(rest) => number(rest.get(..4)?).then(|| &rest[4..]),
            None => text[1..].strip_prefix(c).filter(|_| c.is_ascii_punctuation()),
        },
        b'&' => {
            // Not further: a server may send a long row of `&`, and this is asked at each of them.
            let end = text.bytes().take(MOST_ENTITY + 2).position(|byte| byte == b';')?;
            let (entity, rest) = (&text[1..end], &text[end + 1..]);
            let named = [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\'')];
            let is_it = match entity.strip_prefix('#') {
                None => named.contains(&(entity, c)),
                Some(code) => match code.strip_prefix(['x', 'X']) {
                    Some(digits) => number(digits),
                    None => code.parse() == Ok(u32::from(c)),
                },
            };
            is_it.then_some(rest)
        }
        _ => None,
    }
}

/// `text` on one line of at most `limit` characters, without control characters and without those
/// that reorder text.
pub(super) fn plain(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut count = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() || is_reordering(c) {
            gap = !shown.is_empty();
            continue;
        }
        if count >= limit {
            shown.push_str("...");
            break;
        }
        if std::mem::take(&mut gap) {
            shown.push(' ');
            count += 1;
        }
        shown.push(c);
        count += 1;
    }
    shown
}

/// Whether a character can make a text look different from what it says.
pub(super) fn is_reordering(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The text of an error of `serde_json` without the values from the server's reply that it quotes.
pub(super) fn without_quotes(text: &str) -> String {
    // The error quotes numbers and unknown names between backticks: "unknown field `x`, expected
    // ..". Hide from the first backtick to the last one before "expected". What follows is from our
    // own types, and may be shown.
    let end = text.rfind("`, expected").or_else(|| text.rfind("`, there are no"));
    let text = match (text.find('`'), end) {
        (Some(start), Some(end)) if start < end => format!("{}`{HIDDEN}{}", &text[..start], &text[end..]),
        _ => text.to_owned(),
    };
    let mut parts = text.split('"');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    // It quotes strings between double quotes, and a string may contain some: hide all from the
    // first to the last.
    if let Some(rest) = parts.next_back() {
        shown.push_str(HIDDEN);
        shown.push_str(rest);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        url(&Url::parse(text).expect("a URL"))
    }

    #[test]
    fn urls_are_shown_without_what_may_be_a_secret() {
        assert_eq!(
            shown("https://me:pw@h.org/a/b?page=1&sig=S3CR3T&&TOKEN#frag"),
            "https://h.org/a/b?page=***&sig=***&&***"
        );
        assert_eq!(shown("http://h.org"), "http://h.org/");
        let long = shown(&format!("http://h.org/{}?{}", "x".repeat(50_000), "a=b&".repeat(10_000)));
        assert!(long.len() < 2_000 && long.contains("x...?a=***&"), "{long}");
        assert_eq!(unparsed("http//me:pw@host"), HIDDEN);
        assert_eq!(unparsed("http//host?token=x"), "http//host");
        // In none of these does the first `@` come before what else could end the host.
        for text in ["https://me:S3CR3T#x@host/", "https://me:S3CR3T?x@host/", "https://me:S3CR3T/x@host:port/"] {
            assert_eq!(unparsed(text), HIDDEN, "{text}");
        }
        assert_eq!(shown("https://h.org/?S3CR3TKEY==&S3CR3T=&a==b"), "https://h.org/?***&***&a=***");
    }

    #[test]
    fn secrets_are_hidden_in_whatever_form_they_come_back() {
        let mut secrets = Secrets::default();
        secrets.add("Bearer to/ken\"1");
        secrets.add("ab");
        assert_eq!(secrets.hide("got 'to/ken\"1', 'to%2Fken%221', 'to/ken\\\"1'"), "got '***', '***', '***'");
        assert_eq!(secrets.hide("ab"), "ab", "too short to hide");
        for form in [
            "to\\/ken\\\"1",
            "to%2fken%221",
            "to/ken%221",
            "\\u0074o/ken\\u00221",
            "to&#x2F;ken&quot;1",
            "to&#47;ken&#34;1",
            "Bearer+to%2Fken%221",
            "Bearer%20to%2Fken%221",
        ] {
            assert_eq!(secrets.hide(&format!("<{form}>")), "<***>", "{form}");
        }
        let mut secrets = Secrets::default();
        secrets.add("abcdef");
        secrets.add("defghi");
        secrets.add("a\\\\b%41c");
        assert_eq!(secrets.hide("-abcdefghi-a\\\\b%41c-%-\\-&-\\u00-&;-é%c3"), "-***-***-%-\\-&-\\u00-&;-é%c3");
    }

    #[test]
    fn an_entity_ends_soon_or_is_none() {
        let mut secrets = Secrets::default();
        secrets.add("a-secret");
        assert_eq!(secrets.hide("&#x000061;-secret &#x0000061;-secret"), "*** &#x0000061;-secret");
    }

    #[test]
    fn words_are_one_plain_line() {
        assert_eq!(plain("  a\r\n\tb\u{1b}[31mc\u{202e}d  ", 99), "a b [31mc d");
        assert_eq!(plain("abcdef", 3), "abc...");
    }

    #[test]
    fn what_json_quotes_is_hidden() {
        assert_eq!(
            without_quotes("invalid type: string \"a\"b\", expected u8"),
            "invalid type: string ***, expected u8"
        );
        assert_eq!(without_quotes("missing field `id`"), "missing field `id`");
        assert_eq!(
            without_quotes("unknown variant `a`, expected `b`, expected one of `c`, `d`"),
            "unknown variant `***`, expected one of `c`, `d`"
        );
        assert_eq!(
            without_quotes("invalid type: integer `5`, expected a string at line 1"),
            "invalid type: integer `***`, expected a string at line 1"
        );
    }
}
