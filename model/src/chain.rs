//! Errors as one line.

use std::error::Error;
use std::fmt;

/// Shows an error and every cause of it, joined by colons, for a log line that has to say it all.
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // A transparent error shows its cause as itself.
            if text != last {
                write!(f, ": {text}")?;
            }
            last = text;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("cannot open the store")]
        Outer(#[source] Box<Layer>),
        #[error(transparent)]
        Same(Box<Layer>),
        #[error("permission denied")]
        Inner,
    }

    #[test]
    fn every_cause_is_shown_once() {
        let inner = || Box::new(Layer::Inner);
        let error = Layer::Outer(Box::new(Layer::Same(inner())));
        assert_eq!(
            ErrorChain(&error).to_string(),
            "cannot open the store: permission denied"
        );
        assert_eq!(ErrorChain(&Layer::Inner).to_string(), "permission denied");
    }
}
