//! Another process, for what a process reads of its environment: this very binary, asked for the one test that is none.

use std::process::Command;

use fulmar::client::http::{HttpClient, RetryPolicy};

const URL: &str = "FULMAR_HTTP_CHILD";

#[test]
#[ignore = "it is a process of other tests, which start it"]
fn child() {
    let Ok(url) = std::env::var(URL) else { return };
    let client = HttpClient::builder().retry(RetryPolicy::never()).build().expect("sound settings");
    match client.get(&url).send() {
        Ok(reply) => println!("@ {}", reply.text().expect("text")),
        Err(error) => println!("@ {:?} {} {error}", error.kind(), error.may_have_arrived()),
    }
}

/// What a client says of a `GET` of `url`, in a process with only these variables about networks: the body, or
/// `Kind may_have_arrived message`.
pub(super) fn get_in(url: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["http::child::child", "--exact", "--ignored", "--nocapture"]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let output = command.env(URL, url).envs(variables.iter().copied()).output().expect("this very program starts");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = told.lines().find_map(|line| line.split_once("@ "));
    line.unwrap_or_else(|| panic!("nothing was told: {told} {}", String::from_utf8_lossy(&output.stderr))).1.to_owned()
}
