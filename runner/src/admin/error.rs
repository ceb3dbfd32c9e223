//! Why an administrator did not get what was asked for.

use alga_bundles::{ArchiveError, PublishError, RegisterError, StoreError};
use alga_model::{ContentHash, ExtensionName, InstallId, TenantId};
use alga_registry::{RegistryError, UploadState};
use serde_json::{Value, json};
use uuid::Uuid;

use super::grants::Difference;
use super::mistakes::{Mistakes, Name};
use crate::activity::TailRefused;
use crate::storage_place::KeptElsewhere;
use crate::uploads::{Absence, FinalizeError, FollowRefused};

/// A refusal, or a failure.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The request makes no sense.
    #[error("{what} not valid")]
    Invalid {
        /// What isn't valid, with its verb: `the limits are`.
        what: &'static str,
        /// What is wrong with it.
        mistakes: Mistakes,
    },
    /// The caller may do some administration, but not this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such thing, or the caller may not know that there is.
    #[error("there is no {0}")]
    NotFound(Missing),
    /// What is to be changed was changed since the caller saw it.
    #[error("it was changed meanwhile: the generation is {actual}, not {expected}")]
    Changed {
        /// The generation that the caller saw.
        expected: u64,
        /// The present one.
        actual: u64,
    },
    /// What is replaced as a whole must have been seen.
    #[error("`If-Match` must name the generation that is to be changed; its ETag has it")]
    GuardMissing,
    /// The install is uninstalled.
    #[error("the install is uninstalled, so it can't be changed")]
    Uninstalled,
    /// The switches have a list of extensions, and this one is not on it.
    #[error("the extension is not on the list of those that are allowed, so it can't be installed")]
    ExtensionNotAllowed,
    /// A version is installed, or what an install may be rolled back to.
    #[error("installs have the version, or would go back to it")]
    VersionInUse {
        /// Some of the installs.
        installs: Vec<InstallId>,
    },
    /// An install would get wider grants than it has.
    #[error("the grants would be wider than they are, which must be approved")]
    ApprovalNeeded(Difference),
    /// An install was never upgraded, or rolled back since.
    #[error("there is no former version to go back to")]
    NothingToRollBack,
    /// The logs of an install can't be followed now.
    #[error(transparent)]
    Tail(#[from] TailRefused),
    /// The store of bundles may not be asked.
    #[error("bundles are neither received nor published here, as `bundles.offline` is set")]
    Offline,
    /// The process stops.
    #[error("the process stops; ask again")]
    Stopping,
    /// An upload can't be followed now.
    #[error(transparent)]
    Follow(#[from] FollowRefused),
    /// An upload was not published.
    #[error(transparent)]
    Finalize(#[from] FinalizeError),
    /// The store of bundles failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored can't be used.
    #[error("cannot use the registered manifest of the version")]
    Manifest(#[source] alga_bundles::InvalidManifest),
    /// Only where the records are kept can it be done.
    #[error(transparent)]
    Elsewhere(#[from] KeptElsewhere),
    /// Only where extensions run is it known.
    #[error("this process runs no extensions; ask one that does")]
    RunsNothing,
    /// The registry failed.
    #[error("cannot use the registry")]
    Registry(#[source] RegistryError),
    /// The storage failed.
    #[error("cannot use the storage")]
    Storage(#[source] alga_storage::Error),
}

/// What there isn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// An install.
    Install(InstallId),
    /// An install, nor a record of one.
    RecordedInstall(InstallId),
    /// A tenant that the caller may act for.
    Tenant(TenantId),
    /// An extension.
    Extension(ExtensionName),
    /// A version of an extension.
    Version(ExtensionName, String),
    /// Any version of an extension.
    AnyVersion(ExtensionName),
    /// A version with this content.
    Content(ContentHash),
    /// An invocation that is remembered.
    Invocation(Uuid),
    /// An upload of a bundle that is known.
    Upload(Uuid),
    /// Whatever the path names.
    Path,
}

impl Missing {
    /// What kind of thing it is.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Install(_) | Self::RecordedInstall(_) => "install",
            Self::Tenant(_) => "tenant",
            Self::Extension(_) => "extension",
            Self::Version(..) | Self::AnyVersion(_) | Self::Content(_) => "version",
            Self::Invocation(_) => "invocation",
            Self::Upload(_) => "upload",
            Self::Path => "path",
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Install(id) => write!(f, "install {id}"),
            Self::RecordedInstall(id) => write!(f, "install {id}, nor any record of one"),
            Self::Tenant(id) => write!(f, "tenant {id} that the token is good for"),
            Self::Extension(name) => write!(f, "extension {name}"),
            Self::Version(name, version) => write!(f, "version {} of {name}", Name(version)),
            Self::AnyVersion(name) => write!(f, "version of {name}"),
            Self::Content(hash) => write!(f, "version with the content {hash}"),
            Self::Invocation(id) => {
                write!(f, "invocation {id} that this process remembers")
            }
            Self::Upload(id) => write!(f, "upload {id}"),
            Self::Path => f.write_str("such thing"),
        }
    }
}

impl AdminError {
    /// A request that has one mistake or several.
    pub const fn invalid(what: &'static str, mistakes: Mistakes) -> Self {
        Self::Invalid { what, mistakes }
    }

    /// What programs branch on.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "BAD_REQUEST",
            Self::Forbidden(_) => "FORBIDDEN",
            Self::NotFound(_) => "NOT_FOUND",
            Self::Changed { .. } => "PRECONDITION_FAILED",
            Self::GuardMissing => "PRECONDITION_REQUIRED",
            Self::Uninstalled => "INSTALL_UNINSTALLED",
            Self::ExtensionNotAllowed => "EXTENSION_NOT_ALLOWED",
            Self::VersionInUse { .. } => "VERSION_IN_USE",
            Self::ApprovalNeeded(_) => "APPROVAL_NEEDED",
            Self::NothingToRollBack => "NOTHING_TO_ROLL_BACK",
            Self::Elsewhere(_) | Self::RunsNothing => "MISDIRECTED",
            Self::Offline => "BUNDLE_OFFLINE",
            Self::Finalize(error) => error.code(),
            Self::Store(StoreError::Unavailable { .. }) => "STORE_UNAVAILABLE",
            Self::Store(_) => "STORE_FAILED",
            Self::Tail(TailRefused::Install | TailRefused::Tenant) => "TAILS_LIMITED",
            Self::Stopping
            | Self::Tail(TailRefused::Process | TailRefused::Closed)
            | Self::Follow(_) => "OVERLOADED",
            Self::Registry(RegistryError::Unavailable { .. })
            | Self::Storage(alga_storage::Error::Unavailable(_)) => "UNAVAILABLE",
            Self::Manifest(_) | Self::Registry(_) | Self::Storage(_) => "INTERNAL",
        }
    }

    /// What programs may want to know besides.
    pub fn details(&self) -> Value {
        match self {
            Self::Invalid { mistakes, .. } => json!({ "mistakes": mistakes.texts() }),
            Self::NotFound(missing) => json!({ "what": missing.kind() }),
            Self::Changed { actual, .. } => json!({ "generation": actual }),
            Self::VersionInUse { installs } => json!({ "installs": installs }),
            Self::ApprovalNeeded(difference) => json!({ "difference": difference }),
            Self::Finalize(error) => finalize_details(error),
            _ => json!({}),
        }
    }
}

fn finalize_details(error: &FinalizeError) -> Value {
    let error = match error {
        FinalizeError::Publish(error) => error,
        FinalizeError::Absent(absence) => return absence_details(absence),
        _ => return json!({}),
    };
    match error {
        PublishError::Manifest(invalid) => json!({ "issues": invalid.issues }),
        PublishError::Archive(ArchiveError::Rejected { entry, .. }) => json!({ "entry": entry }),
        PublishError::Archive(ArchiveError::TooLarge { limit, .. }) => json!({ "limit": limit }),
        PublishError::Archive(ArchiveError::HashMismatch { actual, .. }) => {
            json!({ "contentHash": actual })
        }
        PublishError::Registry(RegisterError::DuplicateVersion { existing }) => {
            json!({ "contentHash": existing })
        }
        _ => json!({}),
    }
}

/// What became of the upload, and where it goes on.
fn absence_details(absence: &Absence) -> Value {
    let state = absence.state().map(UploadState::as_str);
    match absence {
        Absence::Incomplete { received, size } => {
            json!({ "state": state, "offset": received, "size": size })
        }
        Absence::Receiving { received, size } => {
            json!({ "state": state, "received": received, "size": size })
        }
        Absence::Published { hash: Some(hash) } => json!({ "state": state, "contentHash": hash }),
        Absence::Failed { code } => json!({ "state": state, "code": code }),
        Absence::Published { hash: None } | Absence::PublishedOtherwise | Absence::Aborted => {
            json!({ "state": state })
        }
        Absence::Unknown => json!({}),
    }
}

impl From<RegistryError> for AdminError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Conflict { expected, actual } => Self::Changed { expected, actual },
            RegistryError::Uninstalled => Self::Uninstalled,
            RegistryError::ExtensionNotAllowed => Self::ExtensionNotAllowed,
            RegistryError::NoFormerVersion => Self::NothingToRollBack,
            RegistryError::VersionInUse { installs } => Self::VersionInUse { installs },
            RegistryError::Invalid { field, rule } => {
                let mistake = Mistakes::one(format_args!("{field} must be {rule}"));
                Self::invalid("the request is", mistake)
            }
            // It was there a moment ago.
            RegistryError::NotFound { .. } => Self::NotFound(Missing::Path),
            error @ (RegistryError::PublisherMismatch { .. }
            | RegistryError::DuplicateVersion { .. }
            | RegistryError::ManifestConflict
            | RegistryError::Unavailable { .. }
            | RegistryError::Inconsistency { .. }
            | RegistryError::Internal { .. }) => Self::Registry(error),
        }
    }
}

impl From<alga_storage::Error> for AdminError {
    fn from(error: alga_storage::Error) -> Self {
        Self::Storage(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_missing_is_named_as_one() {
        let name: ExtensionName = "com.example.notes".parse().unwrap();
        let said = |missing| AdminError::NotFound(missing).to_string();
        assert_eq!(
            said(Missing::Version(name.clone(), "9.9.9".to_owned())),
            "there is no version 9.9.9 of com.example.notes"
        );
        assert_eq!(
            said(Missing::AnyVersion(name)),
            "there is no version of com.example.notes"
        );
    }
}
