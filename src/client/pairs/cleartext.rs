//! Keeps credentials from being sent unencrypted to a server that wants `https`.
//!
//! A user may have good reasons for a host with `http://`: a server of his own, or a tunnel. But if
//! the server redirects every request to `https`, it would first get user and password unencrypted.
//! So before the first call with credentials, the client sends one request without them.

use crate::client::http::{HttpClient, HttpErrorKind};
use crate::client::pairs::{PairsError, host};
use crate::sync::{AtomicBool, Ordering};

/// The most bytes of the reply to this request, whose content doesn't matter.
const MAX_ANSWER: u64 = 1 << 20;

/// A URL to which credentials are sent.
pub(super) struct Cleartext {
    url: String,
    /// Whether the check was passed.
    is_settled: AtomicBool,
}

impl Cleartext {
    pub(super) fn new(url: &str) -> Cleartext {
        let is_settled = !url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"));
        Cleartext { url: url.to_owned(), is_settled: AtomicBool::new(is_settled) }
    }

    /// Checks, the first time by a request, that credentials may be sent there. If `once`, it makes
    /// only one attempt.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if the server redirects to `https`; [`PairsError::Http`] if it
    /// doesn't answer.
    pub(super) fn check(&self, http: &HttpClient, once: bool) -> Result<(), PairsError> {
        // Relaxed: it does no harm if a second thread makes the request, too.
        if self.is_settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let question = http.get(&self.url).without_auth().max_body(MAX_ANSWER);
        let question = if once { question.once() } else { question };
        let is_https = match question.send() {
            Ok(response) => response.url().starts_with("https:"),
            // The request was redirected to `https`, and failed there.
            Err(error) if error.url().starts_with("https:") => true,
            Err(error) => match error.kind() {
                HttpErrorKind::Status(_) | HttpErrorKind::TooLarge | HttpErrorKind::Redirect => false,
                _ => return Err(error.into()),
            },
        };
        if is_https {
            let shown = host::shown(&self.url);
            return Err(PairsError::Invalid(format!(
                "{shown} sends requests on to https: name it with `https://`, or credentials would go there in the clear"
            )));
        }
        self.is_settled.store(true, Ordering::Relaxed);
        Ok(())
    }
}
