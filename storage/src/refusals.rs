//! Refused operations, for whoever operates the runner.

use std::time::Instant;

use alga_model::{InstallId, Silences};

use crate::error::{Error, ErrorCode};
use crate::gate::Caller;

/// Counts refusals, and logs when an install begins to be refused. A guest that is refused in a
/// loop must not fill the log.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Silences<Kind>);

/// Install, operation, code, and the quota or limit.
type Kind = (InstallId, &'static str, ErrorCode, &'static str);

impl Refusals {
    /// Notes that `operation` was refused, or failed, with `error`.
    pub(crate) fn note(&self, caller: &Caller, operation: &'static str, error: &Error) {
        let code = error.code();
        if code == ErrorCode::NotFound {
            return; // That is an answer.
        }
        metrics::counter!("alga_storage_refusals_total", "operation" => operation, "code" => code.as_str(), "limit" => limit_of(error))
            .increment(1);
        let kind = (caller.install, operation, code, limit_of(error));
        if let Some(unsaid) = self.0.unsaid(kind, Instant::now()) {
            log(caller, operation, error, unsaid);
        }
    }
}

/// The quota or limit that was exceeded.
fn limit_of(error: &Error) -> &'static str {
    match error {
        Error::QuotaExceeded(quota) => quota.name.as_str(),
        Error::LimitExceeded(limit) => limit.name,
        _ => "",
    }
}

fn log(caller: &Caller, operation: &'static str, error: &Error, unsaid: u64) {
    macro_rules! event {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                install.id = %caller.install,
                actor = %caller.actor,
                request.id = %caller.request_id,
                operation,
                error.code = %error.code(),
                limit = limit_of(error),
                unsaid,
                $message
            )
        };
    }
    match error.code() {
        ErrorCode::CapabilityDenied | ErrorCode::NamespaceDenied | ErrorCode::Unauthorized => {
            event!(info, "an operation is not allowed");
        }
        ErrorCode::QuotaExceeded => event!(info, "a quota refuses writes"),
        ErrorCode::RateLimited => event!(info, "a rate refuses operations"),
        // Doors log what went wrong in the host, with its causes, where they answer it.
        ErrorCode::Unavailable | ErrorCode::Internal => {}
        ErrorCode::ValidationFailed
        | ErrorCode::LimitExceeded
        | ErrorCode::NotFound
        | ErrorCode::RevisionMismatch => event!(debug, "an operation was refused"),
    }
}
