//! Code of users, called so that its panics go no further.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `f`. A panic comes back as what it said, if it said it in words.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    // Unwind safety is the user's affair: what a panic left half done is behind the user's own locks.
    catch_unwind(AssertUnwindSafe(f)).map_err(message)
}

/// Calls `f`, whose panic concerns nobody: the panic hook has told of it.
pub(crate) fn contain(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        dispose(panic);
    }
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a value that is not text".to_owned(),
    };
    dispose(panic);
    message
}

/// Drops a payload, whose destructor may panic in turn, with a payload whose destructor may panic.
fn dispose(mut panic: Box<dyn Any + Send>) {
    for _ in 0..8 {
        match catch_unwind(AssertUnwindSafe(move || drop(panic))) {
            Ok(()) => return,
            Err(another) => panic = another,
        }
    }
    // Whoever does that on purpose could go on for ever.
    std::mem::forget(panic);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_in_words() {
        assert_eq!(catch(|| 7), Ok(7));
        assert_eq!(catch(|| -> u8 { panic!("in a test, on purpose") }), Err("in a test, on purpose".into()));
        assert_eq!(catch(|| -> u8 { panic!("number {}, on purpose", 7) }), Err("number 7, on purpose".into()));
        assert_eq!(catch(|| -> u8 { std::panic::panic_any(7) }), Err("a value that is not text".into()));
    }

    #[test]
    fn a_payload_whose_destructor_panics_goes_no_further_either() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                std::panic::panic_any(7);
            }
        }
        contain(|| std::panic::panic_any(Bomb));
        assert!(catch(|| std::panic::panic_any(Bomb)).is_err());
    }
}
