//! Proof that the client that asks for a token is the one that began the login: it first sends the
//! hash of a secret, and later the secret. (RFC 7636)

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::client::openeo::api::error::OpenEoError;

/// A verifier of 256 random bits, and its challenge by the method `S256`.
pub(super) struct Pkce {
    pub(super) verifier: String,
    pub(super) challenge: String,
}

impl Pkce {
    pub(super) fn new() -> Result<Pkce, OpenEoError> {
        let mut bytes = [0; 32];
        getrandom::getrandom(&mut bytes)
            .map_err(|error| OpenEoError::Invalid(format!("the system gives no random numbers: {error}")))?;
        Ok(Pkce::of(URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn of(verifier: String) -> Pkce {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        Pkce { verifier, challenge }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let pkce = Pkce::of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        assert_eq!(pkce.challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn no_two_verifiers_are_the_same() {
        let (a, b) = (Pkce::new().expect("random"), Pkce::new().expect("random"));
        assert_ne!(a.verifier, b.verifier);
        assert_eq!(a.verifier.len(), 43);
    }
}
