//! Code of users, called so that its panics go no further.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `f`. A panic comes back as what it said, if it said it in words.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_payload(f).map_err(|payload| payload.message())
}

/// Calls `f`. A panic comes back with what `f` panicked with.
pub(crate) fn catch_payload<R>(f: impl FnOnce() -> R) -> Result<R, Payload> {
    // Unwind safety is the user's affair: what a panic left half done is behind the user's own
    // locks.
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| Payload(Some(payload)))
}

/// Calls `f`, whose panic ends here: the panic hook has reported it.
pub(crate) fn contain(f: impl FnOnce()) {
    drop(catch_payload(f));
}

/// What a panic carries. Its destructor may panic in turn, which ends here, too.
pub(crate) struct Payload(Option<Box<dyn Any + Send>>);

impl Payload {
    pub(crate) fn message(&self) -> String {
        let text = self.0.as_ref().and_then(|payload| {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| payload.downcast_ref::<String>().cloned())
        });
        text.unwrap_or_else(|| "a value that is not text".to_owned())
    }

    /// Moves it out; the destructor is the taker's affair from then on.
    pub(crate) fn take(&mut self) -> Option<Box<dyn Any + Send>> {
        self.0.take()
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let Some(mut payload) = self.0.take() else { return };
        // Its destructor may panic with a payload whose destructor may panic.
        for _ in 0..8 {
            match catch_unwind(AssertUnwindSafe(move || drop(payload))) {
                Ok(()) => return,
                Err(another) => payload = another,
            }
        }
        // Code that does that on purpose could go on for ever.
        std::mem::forget(payload);
    }
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
