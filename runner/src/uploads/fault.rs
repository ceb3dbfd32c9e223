//! Whose fault it is that an upload was not published, and what the log says of it.

use alga_bundles::{ArchiveError, ObjectKey, PublishError, RegisterError, StagingKey, StoreError};
use alga_model::ErrorChain;
use alga_registry::RegistryError;

use super::FinalizeError;

/// Whose fault it is that an upload was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The sender's, who is told so.
    Caller,
    /// That of the host, which can't do its job at the moment.
    Host,
    /// The same, and something contradicts itself.
    Contradiction,
}

/// Tells the log, loudly where somebody must act.
pub(super) fn report(error: &FinalizeError, actor: &str, key: StagingKey) {
    let (code, cause) = (error.code(), ErrorChain(error));
    let message = "an upload was not published";
    match error.fault() {
        Fault::Caller => tracing::debug!(
            actor,
            upload.key = %key,
            error.code = code,
            error.blame = "caller",
            error = %cause,
            "{message}"
        ),
        Fault::Host => tracing::warn!(
            actor,
            upload.key = %key,
            error.code = code,
            error.blame = "host",
            error = %cause,
            "{message}"
        ),
        Fault::Contradiction => tracing::error!(
            actor,
            upload.key = %key,
            error.code = code,
            error.blame = "host",
            error = %cause,
            "{message}"
        ),
    }
}

impl FinalizeError {
    /// Whose fault it is.
    pub(crate) const fn fault(&self) -> Fault {
        match self {
            Self::Size { .. } | Self::TooLarge { .. } | Self::Absent(_) => Fault::Caller,
            Self::Busy | Self::Registry(RegistryError::Unavailable { .. }) => Fault::Host,
            Self::Registry(_) => Fault::Contradiction,
            Self::Publish(error) => of_publishing(error),
        }
    }
}

const fn of_publishing(error: &PublishError) -> Fault {
    match error {
        PublishError::Archive(error) => match error {
            ArchiveError::Damaged(_)
            | ArchiveError::NotZstd
            | ArchiveError::Rejected { .. }
            | ArchiveError::TooLarge { .. }
            | ArchiveError::HashMismatch { .. } => Fault::Caller,
            ArchiveError::Read(_) | ArchiveError::Write { .. } => Fault::Host,
        },
        PublishError::ManifestRequired
        | PublishError::Manifest(_)
        | PublishError::Signature(_)
        | PublishError::Component(_)
        | PublishError::ManifestConflict
        // The upload was changed or is gone: whoever did that knows.
        | PublishError::Store(
            StoreError::NotFound {
                key: ObjectKey::Staging(_),
            }
            | StoreError::WrongContent { .. }
            | StoreError::Changed { .. },
        ) => Fault::Caller,
        PublishError::Check(_) | PublishError::Store(_) => Fault::Host,
        PublishError::Registry(error) => match error {
            RegisterError::PublisherMismatch
            | RegisterError::DuplicateVersion { .. }
            | RegisterError::ManifestConflict => Fault::Caller,
            RegisterError::Unavailable { .. } => Fault::Host,
        },
        PublishError::StoreDamaged { .. } | PublishError::Interrupted(_) => Fault::Contradiction,
    }
}
