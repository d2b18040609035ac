//! Login with the credentials in environment variables, whose names are those of the Python client.

use super::settings::Oidc;
use crate::client::openeo::api::connection::Connection;
use crate::client::openeo::api::error::OpenEoError;

impl Connection {
    /// Logs in with the credentials in the environment variables of the Python client:
    ///
    /// - `OPENEO_AUTH_METHOD`: `client_credentials`, or `basic` (which is this crate's own).
    /// - `OPENEO_AUTH_CLIENT_ID`, `OPENEO_AUTH_CLIENT_SECRET`, `OPENEO_AUTH_PROVIDER_ID`.
    /// - `OPENEO_AUTH_USERNAME`, `OPENEO_AUTH_PASSWORD` for `basic`.
    ///
    /// If no method is set, but a client's id and secret are, the method is `client_credentials`.
    ///
    /// # Errors
    /// [`OpenEoError::Invalid`] names the variable that is missing or invalid. Otherwise the errors
    /// of the login itself.
    pub fn authenticate_from_environment(&self) -> Result<(), OpenEoError> {
        match method(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))? {
            Login::Basic { user, password } => self.authenticate_basic(&user, &password),
            Login::ClientCredentials(oidc) => self.authenticate_oidc_client_credentials(&oidc),
        }
    }
}

enum Login {
    Basic { user: String, password: String },
    ClientCredentials(Box<Oidc>),
}

/// Decides how to log in, and with what. `variable` returns a variable's value, or `None` if it
/// isn't set. Fails if one is missing, or if `OPENEO_AUTH_METHOD` names no method; the error names
/// the variable.
fn method(variable: &dyn Fn(&str) -> Option<String>) -> Result<Login, OpenEoError> {
    let needed = |name: &str| {
        variable(name).ok_or_else(|| OpenEoError::Invalid(format!("the environment has no {name}: set it to log in")))
    };
    match variable("OPENEO_AUTH_METHOD").as_deref() {
        Some("basic") => {
            Ok(Login::Basic { user: needed("OPENEO_AUTH_USERNAME")?, password: needed("OPENEO_AUTH_PASSWORD")? })
        }
        None | Some("client_credentials") => {
            let oidc = Oidc::new().client(&needed("OPENEO_AUTH_CLIENT_ID")?);
            let oidc = oidc.secret(&needed("OPENEO_AUTH_CLIENT_SECRET")?);
            let provider = variable("OPENEO_AUTH_PROVIDER_ID");
            Ok(Login::ClientCredentials(Box::new(provider.iter().fold(oidc, |oidc, id| oidc.provider(id)))))
        }
        Some(other) => Err(OpenEoError::Invalid(format!(
            "OPENEO_AUTH_METHOD is {other:?}, which isn't a method: `client_credentials` and `basic` are"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Login, OpenEoError> {
        method(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_reference_clients_variables_are_understood() {
        let client =
            [("OPENEO_AUTH_CLIENT_ID", "me"), ("OPENEO_AUTH_CLIENT_SECRET", "s"), ("OPENEO_AUTH_PROVIDER_ID", "egi")];
        let with_method = [&client[..], &[("OPENEO_AUTH_METHOD", "client_credentials")]].concat();
        for variables in [&client[..], &with_method] {
            let Ok(Login::ClientCredentials(oidc)) = read(variables) else { panic!("client credentials") };
            let found = (oidc.provider.as_deref(), oidc.client_id.as_deref(), oidc.client_secret.as_deref());
            assert_eq!(found, (Some("egi"), Some("me"), Some("s")));
        }
        let basic = [("OPENEO_AUTH_METHOD", "basic"), ("OPENEO_AUTH_USERNAME", "u"), ("OPENEO_AUTH_PASSWORD", "p")];
        assert!(matches!(read(&basic), Ok(Login::Basic { user, password }) if user == "u" && password == "p"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (variables, name) in [
            (&[][..], "OPENEO_AUTH_CLIENT_ID"),
            (&[("OPENEO_AUTH_CLIENT_ID", "me")], "OPENEO_AUTH_CLIENT_SECRET"),
            (&[("OPENEO_AUTH_METHOD", "basic")], "OPENEO_AUTH_USERNAME"),
            (&[("OPENEO_AUTH_METHOD", "magic")], "\"magic\""),
        ] {
            let Err(error) = read(variables) else { panic!("{name} is missing") };
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
