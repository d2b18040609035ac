//! Handles by reference, of several types, and each result.

use fulmar::{Executor, Result, wait_all, wait_each};

fn main() -> Result<()> {
    let executor = Executor::builder().threads(2).build()?;
    let (a, b) = (executor.spawn(|| 1)?, executor.spawn(|| 2)?);
    assert_eq!(wait_all(&[&a, &b], None)?, [1, 2]);
    let (text, number) = (executor.spawn(|| "text")?, executor.spawn(|| 3)?);
    assert_eq!(wait_all((&text, &number), None)?, ("text", 3));
    let c = executor.spawn(|| 4)?;
    assert!(wait_each([&a, &c], None)[1].is_ok());
    Ok(())
}
