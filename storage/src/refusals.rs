//! Refused operations, for whoever operates the runner.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use alga_model::InstallId;

use crate::error::{Error, ErrorCode};
use crate::gate::Caller;

/// After a refusal was logged, the same is only counted for so long.
const SILENCE: Duration = Duration::from_secs(10);
/// Kinds of refusals that are remembered.
const MOST_KINDS: usize = 4_096;

/// Counts refusals, and logs when an install begins to be refused. A guest that is refused in a
/// loop must not fill the log.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<Kind, Silence>>);

/// Install, operation, code, and the quota or limit.
type Kind = (InstallId, &'static str, ErrorCode, &'static str);

#[derive(Debug, Clone, Copy)]
struct Silence {
    until: Instant,
    unsaid: u64,
}

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
        if let Some(unsaid) = self.break_silence(kind, Instant::now()) {
            log(caller, operation, error, unsaid);
        }
    }

    /// How many of this kind went unsaid since the last one that was logged; none where this one
    /// goes unsaid too.
    fn break_silence(&self, kind: Kind, now: Instant) -> Option<u64> {
        // Poisoning would need a panic below, which moves plain values only.
        let mut silences = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let silence = silences.get_mut(&kind);
        if let Some(silence) = silence
            && now < silence.until
        {
            silence.unsaid += 1;
            return None;
        }
        if silences.len() >= MOST_KINDS {
            silences.retain(|_, silence| now < silence.until);
        }
        if silences.len() >= MOST_KINDS {
            silences.clear();
        }
        let until = now + SILENCE;
        let former = silences.insert(kind, Silence { until, unsaid: 0 });
        Some(former.map_or(0, |silence| silence.unsaid))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_once_and_the_next_time_with_what_went_unsaid() {
        let refusals = Refusals::default();
        let kind = (InstallId::generate(), "put", ErrorCode::RateLimited, "");
        let other = (InstallId::generate(), "put", ErrorCode::RateLimited, "");
        let start = Instant::now();
        assert_eq!(refusals.break_silence(kind, start), Some(0));
        for _ in 0..3 {
            assert_eq!(refusals.break_silence(kind, start), None);
        }
        assert_eq!(refusals.break_silence(other, start), Some(0));
        assert_eq!(refusals.break_silence(kind, start + SILENCE), Some(3));
        assert_eq!(refusals.break_silence(kind, start + SILENCE * 2), Some(0));
    }

    #[test]
    fn kinds_are_forgotten_before_they_fill_the_memory() {
        let refusals = Refusals::default();
        let now = Instant::now();
        for _ in 0..MOST_KINDS * 2 {
            let kind = (
                InstallId::generate(),
                "get",
                ErrorCode::LimitExceeded,
                "keys",
            );
            refusals.break_silence(kind, now);
        }
        assert!(refusals.0.lock().unwrap().len() <= MOST_KINDS);
    }
}
