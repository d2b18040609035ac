//! What may be shown: URLs without what may be a secret, and a server's words without the secrets it was sent.

use url::Url;

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "***";

/// The longest piece of a server's words in an error, in characters.
pub(super) const WORDS: usize = 500;

/// Secrets shorter than this are left where they are: blotting out every `a` would hide the message, not the secret.
const SHORTEST: usize = 4;

/// The URL without user, password and fragment, and with no value of its query: a signed URL carries its key there.
pub(super) fn url(url: &Url) -> String {
    let mut shown = url.clone();
    // Both fail for URLs without a host only, which have neither.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_fragment(None);
    shown.set_query(None);
    let mut shown = String::from(shown);
    if let Some(query) = url.query() {
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{}={HIDDEN}", name.chars().take(64).collect::<String>()),
            // A name alone may be the key itself.
            None if pair.is_empty() => String::new(),
            None => HIDDEN.to_owned(),
        });
        shown.push('?');
        shown.push_str(&pairs.collect::<Vec<_>>().join("&"));
    }
    shown
}

/// A URL that couldn't be parsed, so that nobody knows where its secrets stand: up to what may begin them.
pub(super) fn unparsed(text: &str) -> String {
    let end = text.find(['?', '#', '@']).unwrap_or(text.len());
    // Whatever stands before an `@` may be a password.
    let shown = if text[end..].starts_with('@') { HIDDEN } else { &text[..end] };
    plain(shown, 200)
}

/// The secrets of one exchange: what must not be shown, whoever repeats it.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn add(&mut self, secret: &str) {
        for secret in [secret, secret.trim()].into_iter().chain(secret.split_whitespace().skip(1)) {
            if secret.len() >= SHORTEST && !self.0.iter().any(|known| known == secret) {
                self.0.push(secret.to_owned());
            }
        }
        // The longest first: a part of a longer one must not leave the rest behind.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// `text` with every secret hidden, also where JSON or a URL would have escaped it.
    pub(super) fn hide(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for secret in &self.0 {
            let in_url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            let in_json = secret.replace('\\', "\\\\").replace('"', "\\\"");
            for form in [secret, &in_url, &in_json] {
                if shown.contains(form.as_str()) {
                    shown = shown.replace(form.as_str(), HIDDEN);
                }
            }
        }
        shown
    }
}

/// On one line, without control characters and what reorders text, at most `limit` characters.
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

/// Characters that make text read otherwise than it is written.
pub(super) fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// An error of JSON without the values that it quotes.
pub(super) fn without_quotes(text: &str) -> String {
    let mut parts = text.split('"');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    // Between the first quote and the last stands what the server sent, quotes of its own included.
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
        assert_eq!(unparsed("http//me:pw@host"), HIDDEN);
        assert_eq!(unparsed("http//host?token=x"), "http//host");
    }

    #[test]
    fn secrets_are_hidden_in_whatever_form_they_come_back() {
        let mut secrets = Secrets::default();
        secrets.add("Bearer to/ken\"1");
        secrets.add("ab");
        assert_eq!(secrets.hide("got 'to/ken\"1', 'to%2Fken%221', 'to/ken\\\"1'"), "got '***', '***', '***'");
        assert_eq!(secrets.hide("ab"), "ab", "too short to hide");
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
    }
}
