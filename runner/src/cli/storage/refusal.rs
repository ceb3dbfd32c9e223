//! Why a command on records failed, as scripts can tell it apart.

use std::process::ExitCode;

use alga_storage::{Cause, Error, ErrorCode};

/// What the process answers where the same may succeed later.
pub(in crate::cli) const TRY_AGAIN: u8 = 6;

/// An operation that did not happen: the contract's code, and what can be done about it.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub(in crate::cli) struct Refusal {
    code: ErrorCode,
    message: String,
    #[source]
    cause: Option<Cause>,
}

impl Refusal {
    /// A refusal that was found before the storage was asked.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            cause: None,
        }
    }

    /// Something that is not what it should be.
    pub(super) fn not_valid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ValidationFailed, message)
    }

    /// The same, and what can be done about it.
    pub(super) fn hinted(self, hint: impl std::fmt::Display) -> Self {
        Self {
            message: format!("{}; {hint}", self.message),
            ..self
        }
    }

    /// Whether it is unknown if the operation happened.
    pub(super) const fn is_uncertain(&self) -> bool {
        matches!(self.code, ErrorCode::Unavailable | ErrorCode::Internal)
    }

    /// What the process answers to whoever started it.
    pub(in crate::cli) fn exit_code(&self) -> ExitCode {
        self.status().into()
    }

    const fn status(&self) -> u8 {
        match self.code {
            ErrorCode::Internal => 1,
            // 2 is a command line that can't be read.
            ErrorCode::NotFound => 3,
            ErrorCode::RevisionMismatch => 4,
            ErrorCode::ValidationFailed
            | ErrorCode::LimitExceeded
            | ErrorCode::Unauthorized
            | ErrorCode::CapabilityDenied
            | ErrorCode::NamespaceDenied
            | ErrorCode::QuotaExceeded => 5,
            ErrorCode::RateLimited | ErrorCode::Unavailable => TRY_AGAIN,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let refusal = Self::new(error.code(), error.to_string());
        match error {
            Error::Unavailable(cause) | Error::Internal(cause) => Self {
                cause: Some(cause),
                ..refusal
            },
            _ => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use alga_storage::{Key, Violation};

    use super::*;

    #[test]
    fn every_code_has_the_status_that_is_documented() {
        let statuses = ErrorCode::ALL.map(|code| {
            let status = Refusal::new(code, "").status();
            format!("{code} {status}")
        });
        assert_eq!(
            statuses.join("\n"),
            "VALIDATION_FAILED 5\nLIMIT_EXCEEDED 5\nUNAUTHORIZED 5\nCAPABILITY_DENIED 5\n\
             NAMESPACE_DENIED 5\nNOT_FOUND 3\nREVISION_MISMATCH 4\nQUOTA_EXCEEDED 5\n\
             RATE_LIMITED 6\nUNAVAILABLE 6\nINTERNAL 1"
        );
    }

    #[test]
    fn a_refusal_says_its_code_first_and_its_cause_apart() {
        let refused = Refusal::from(Key::parse("a/b").unwrap_err()).hinted("use '.'");
        assert_eq!(
            refused.to_string(),
            "VALIDATION_FAILED: the request is not valid: key: '/' is not allowed; use '.'"
        );
        let unavailable = Refusal::from(Error::Unavailable("the disk is full".into()));
        let chain = format!("{:#}", anyhow::Error::new(unavailable));
        assert_eq!(
            chain,
            "UNAVAILABLE: the store cannot be reached: the disk is full"
        );
    }

    #[test]
    fn a_refusal_is_found_below_what_is_said_about_it() {
        use anyhow::Context as _;
        let refused = Refusal::from(Violation::argument("key", "bad"));
        let error = Err::<(), _>(refused).context("key 'a'");
        let error = error.context("nothing was written").unwrap_err();
        assert_eq!(error.downcast_ref::<Refusal>().unwrap().status(), 5);
    }
}
