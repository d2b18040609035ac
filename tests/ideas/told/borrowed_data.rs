//! An operation that borrows what belongs to its caller, as scoped threads may.

use fulmar::{Executor, Result};

fn main() -> Result<()> {
    let executor = Executor::builder().threads(2).build()?;
    let prices = vec![1.0, 2.0, 3.0];
    let sum = executor.spawn(|| prices.iter().sum::<f64>())?;
    assert_eq!(sum.wait(None)? + prices[0], 7.0);
    Ok(())
}
