//! No credentials in the clear for a server that wants `https`.
//!
//! A host named with `http://` may be meant so: a server of the user's own, a tunnel. But a server
//! that sends every request on to `https` would get user and password in the clear first. So before
//! the first call with credentials the server is asked once without.

use crate::client::http::{HttpClient, HttpErrorKind};
use crate::client::pairs::{PairsError, host};
use crate::sync::{AtomicBool, Ordering};

/// What the answer to the question may have in bytes; its size changes nothing.
const MAX_ANSWER: u64 = 1 << 20;

/// A URL that credentials go to.
pub(super) struct Cleartext {
    url: String,
    /// Whether nothing has to be asked any more.
    is_settled: AtomicBool,
}

impl Cleartext {
    pub(super) fn new(url: &str) -> Cleartext {
        let is_settled = !url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"));
        Cleartext { url: url.to_owned(), is_settled: AtomicBool::new(is_settled) }
    }

    /// Whether credentials may go there; asks if that isn't known yet, with one attempt if `once`.
    ///
    /// # Errors
    /// [`PairsError::Invalid`] if the server sends on to `https`; [`PairsError::Http`] if it
    /// doesn't answer.
    pub(super) fn check(&self, http: &HttpClient, once: bool) -> Result<(), PairsError> {
        // Relaxed: a second thread that asks, too, does no harm.
        if self.is_settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let question = http.get(&self.url).without_auth().max_body(MAX_ANSWER);
        let question = if once { question.once() } else { question };
        let is_https = match question.send() {
            Ok(response) => response.url().starts_with("https:"),
            // Whatever came of it there.
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
