//! Values that must not be seen.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroize;

/// A value that is never shown: `Debug` prints asterisks, there is no `Display` and no
/// `Serialize`, and the memory is wiped when it is dropped.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Hides `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that needs it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let token = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{token:?}"), "***");
        assert_eq!(token.expose(), "hunter2");
    }
}
