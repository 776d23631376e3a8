//! Panics of libraries and threads as texts.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether panics of this thread are caught and reported by [`caught`].
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function of a library that panics on damaged data, and returns the panic's message. What the function had
/// changed must not be used after a panic.
///
/// The panic is not printed: the hook of the process, which other threads use meanwhile, stays in place for them.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let printing = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_CAUGHT.get() {
                printing(panic);
            }
        }));
    });
    IS_CAUGHT.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_CAUGHT.set(false);
    result.map_err(|panic| message(&*panic))
}

/// Returns the message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    match panic.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => (*panic.downcast_ref::<&str>().unwrap_or(&"no panic message")).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_returned_as_its_message() {
        assert_eq!(caught(|| 3), Ok(3));
        let number = 7;
        assert_eq!(caught(|| panic!("page {number}")), Err::<(), _>("page 7".to_owned()));
        assert_eq!(
            caught(|| unreachable!()),
            Err::<(), _>("internal error: entered unreachable code".to_owned())
        );
        assert!(!IS_CAUGHT.get());
    }
}
