//! Logins: user and password, or tokens of an OIDC provider.
//!
//! A back-end expects `Bearer basic//TOKEN`, or `Bearer oidc/PROVIDER/TOKEN`. When a token has
//! expired, one thread renews it for all, in the way that it was got, and the request is repeated
//! once.
//!
//! Why no OAuth2 crate: this needs only four forms and their replies. The usual crate (`oauth2` 5)
//! brings fourteen others, with a second library each for dates, random numbers and errors, and it
//! can't have one thread renew a token for all.
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
