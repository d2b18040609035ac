//! Logging in: basic credentials, or tokens of an OIDC provider.
//!
//! A back-end wants `Bearer basic//TOKEN`, or `Bearer oidc/PROVIDER/TOKEN`. A token that has
//! expired is renewed once for all threads, and the request repeated once; how, depends on what it
//! came from.
//!
//! No OAuth2 crate: what is needed are four forms and their replies, and the crate at hand
//! (`oauth2` 5) brings fourteen others, a second date, random and error library among them, and
//! knows nothing of renewals by one thread for all.
//!
//! Sources: openEO API 1.2, "Authentication"; RFC 6749 (OAuth 2.0), RFC 7636 (PKCE), RFC 8628
//! (device grant); OpenID Connect Discovery 1.0.

mod basic;
mod device;
mod environment;
mod oidc;
mod pkce;
mod provider;
mod refresh_tokens;
mod renewal;
mod session;
mod settings;

pub use device::DevicePrompt;
pub use refresh_tokens::RefreshTokens;
pub use settings::Oidc;
