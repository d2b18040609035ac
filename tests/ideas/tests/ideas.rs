//! Programs as new users wrote them from the documentation alone, one idea each. Those in `works` compile and run. Those in `told`
//! can't compile, and what the compiler says about them, in the file beside each, has to name the remedy.

use std::process::Command;

/// The compiler whose words are written down. Another one says the same in other lines.
const TOLD_BY: &str = "rustc 1.95.";

#[test]
fn what_people_write_first_compiles_or_is_told() {
    let cases = trybuild::TestCases::new();
    cases.pass("works/*.rs");
    let version = Command::new("rustc").arg("--version").output().expect("a compiler").stdout;
    if String::from_utf8_lossy(&version).starts_with(TOLD_BY) {
        cases.compile_fail("told/*.rs");
    } else {
        assert!(
            std::env::var_os("FULMAR_STRICT").is_none(),
            "the words of {TOLD_BY} can't be checked with another compiler"
        );
        println!("NOT RUN: what the compiler says was written down from {TOLD_BY}");
    }
}
