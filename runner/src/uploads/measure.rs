//! What is measured and logged of uploads and of what becomes of them.

use std::time::{Duration, Instant};

/// How receiving an upload can end.
pub(crate) const UPLOADED: Measured = Measured {
    name: "upload",
    total: "alga_bundle_uploads_total",
    duration: "alga_bundle_upload_duration_seconds",
    bytes: "alga_bundle_upload_size_bytes",
    outcomes: &[
        OK,
        CANCELLED,
        "BAD_REQUEST",
        "TOO_LARGE",
        "RATE_LIMIT",
        "OVERLOADED",
        "STORE_FAILED",
        "STORE_UNAVAILABLE",
        "INTERNAL_ERROR",
    ],
};

/// How publishing one can end.
pub(crate) const FINALIZED: Measured = Measured {
    name: "finalize",
    total: "alga_bundle_finalizes_total",
    duration: "alga_bundle_finalize_duration_seconds",
    bytes: "alga_bundle_finalize_size_bytes",
    outcomes: &[
        OK,
        CANCELLED,
        "BAD_REQUEST",
        "STAGING_NOT_FOUND",
        "HASH_MISMATCH",
        "BAD_ARCHIVE",
        "ARCHIVE_REJECTED",
        "MANIFEST_REQUIRED",
        "INVALID_MANIFEST",
        "INVALID_COMPONENT",
        "SIGNATURE_REQUIRED",
        "SIGNATURE_INVALID",
        "PUBLISHER_MISMATCH",
        "DUPLICATE_VERSION",
        "MANIFEST_CONFLICT",
        "OVERLOADED",
        "COMPILER_UNAVAILABLE",
        "REGISTRY_UNAVAILABLE",
        "STORE_FAILED",
        "STORE_UNAVAILABLE",
        "INTERNAL_ERROR",
    ],
};

/// How adding to one can end that comes in several requests.
pub(crate) const APPENDED: Measured = Measured {
    name: "append",
    total: "alga_bundle_chunks_total",
    duration: "alga_bundle_chunk_duration_seconds",
    bytes: "alga_bundle_chunk_size_bytes",
    outcomes: &[
        OK,
        CANCELLED,
        "BAD_REQUEST",
        "NOT_FOUND",
        "OFFSET_CONFLICT",
        "UPLOAD_CONFLICT",
        "UPLOAD_GONE",
        "PRECONDITION_FAILED",
        "TOO_LARGE",
        "UNSUPPORTED_MEDIA_TYPE",
        "OVERLOADED",
        "REGISTRY_UNAVAILABLE",
        "STORE_FAILED",
        "STORE_UNAVAILABLE",
        "INTERNAL_ERROR",
    ],
};

const OK: &str = "OK";
/// Nobody waited for the end, or the process stopped.
pub(super) const CANCELLED: &str = "CANCELLED";

/// The metrics of one kind of work.
#[derive(Debug)]
pub(crate) struct Measured {
    /// What the log calls it.
    pub(crate) name: &'static str,
    /// How often it ended.
    pub(crate) total: &'static str,
    /// How long it took.
    pub(crate) duration: &'static str,
    /// The bytes it was about.
    pub(crate) bytes: &'static str,
    /// The only labels there are.
    pub(crate) outcomes: &'static [&'static str],
}

/// Work that is measured. Dropped before its end it counts as given up.
#[derive(Debug)]
pub(super) struct Measure {
    what: &'static Measured,
    start: Instant,
    bytes: u64,
    outcome: &'static str,
}

impl Measure {
    pub(super) fn begin(what: &'static Measured) -> Self {
        Self {
            what,
            start: Instant::now(),
            bytes: 0,
            outcome: CANCELLED,
        }
    }

    /// So many bytes are there by now.
    pub(super) const fn bytes(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// It has ended: well, or with the code of an error.
    pub(super) fn end(&mut self, error: Option<&'static str>) {
        self.outcome = error.unwrap_or(OK);
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        let outcome = if std::thread::panicking() {
            "INTERNAL_ERROR"
        } else {
            self.outcome
        };
        let (took, what) = (self.start.elapsed(), self.what);
        metrics::counter!(what.total, "outcome" => outcome).increment(1);
        metrics::histogram!(what.duration, "outcome" => outcome).record(took);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a size of a bundle is far below 2^52"
        )]
        metrics::histogram!(what.bytes, "outcome" => outcome).record(self.bytes as f64);
        // Every other end is told by whoever knows more of it.
        if outcome == CANCELLED {
            let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                operation = what.name,
                size_bytes = self.bytes,
                duration_ms,
                "work on an upload was given up before its end"
            );
        }
    }
}
