//! Whoever is asked: the data folder, or a server.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alga_bundles::Progress;
use alga_model::InstallId;
use serde_json::Value;
use tokio::fs::File;

use super::audit::{AuditQuery, AuditStream};
use super::bundles::{FinalizeUploadBody, PublishedBody, UploadQuery, UploadedBody};
use super::client::Client;
use super::error::AdminError;
use super::logs::{LogsQuery, RemoteLogs};
use super::operation::{Ask, Operation};
use super::{Admin, Author};

/// What commands ask. It does the same wherever it is.
#[derive(Debug)]
pub enum Administration {
    /// In this process, on databases it has opened.
    Here {
        /// Does what is asked for.
        admin: Box<Admin>,
        /// Who asks.
        author: Author,
    },
    /// In a server.
    There(Client),
}

impl Administration {
    /// Asks for an operation.
    pub async fn ask<O: Operation>(&self, ask: Ask<O>) -> Result<O::Answer, Refused> {
        match self {
            Self::Here { admin, author } => Ok(O::run(admin, author, ask).await?),
            Self::There(client) => client.ask(ask).await,
        }
    }

    /// Follows what an install does, from the event after the one with the id `after` on. Only the
    /// process that runs it knows.
    pub async fn logs(
        &self,
        install: InstallId,
        query: &LogsQuery,
        after: Option<&str>,
    ) -> Result<RemoteLogs, Refused> {
        match self {
            Self::Here { .. } => Err(Refused::unanswered(
                "only the server that runs an install knows what it does",
                None,
            )),
            Self::There(client) => client.logs(install, query, after).await,
        }
    }

    /// Sends a bundle, and tells `progress` how much of it is sent.
    pub async fn upload(
        &self,
        query: &UploadQuery,
        file: File,
        progress: Arc<Progress<'static>>,
    ) -> Result<UploadedBody, Refused> {
        self.server()?.upload(query, file, progress).await
    }

    /// Has a staged bundle published, however long the server takes to judge it.
    pub async fn finalize(&self, body: &FinalizeUploadBody) -> Result<PublishedBody, Refused> {
        self.server()?.finalize(body).await
    }

    /// The server that bundles are sent to.
    fn server(&self) -> Result<&Client, Refused> {
        match self {
            Self::Here { .. } => Err(Refused::unanswered(
                "bundles are sent to a server, and added to a data folder",
                None,
            )),
            Self::There(client) => Ok(client),
        }
    }

    /// Asks for the audit.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditStream, Refused> {
        Ok(match self {
            Self::Here { admin, author } => {
                AuditStream::Here(Box::new(admin.audit(author, query).await?))
            }
            Self::There(client) => AuditStream::There(client.audit(query).await?),
        })
    }
}

/// Why an operation was not done, wherever that was decided.
#[derive(Debug)]
pub struct Refused {
    /// What programs branch on.
    pub code: String,
    /// What it was, for people.
    pub message: String,
    /// What programs may want to know besides.
    pub details: Value,
    /// How soon the server said that it makes sense to ask again.
    pub retry_after: Option<Duration>,
    /// Whether nobody was there to be asked.
    pub is_unreachable: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Refused {
    /// An answer of a server.
    pub(super) fn by_server(code: String, message: String, details: Value) -> Self {
        Self {
            code,
            message,
            details,
            retry_after: None,
            is_unreachable: false,
            source: None,
        }
    }

    /// No answer of a server, or none that makes sense.
    pub(super) fn unanswered(
        message: impl Into<String>,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            code: "UNANSWERED".to_owned(),
            message: message.into(),
            details: Value::Null,
            retry_after: None,
            is_unreachable: false,
            source,
        }
    }

    /// Whether asking the same again some time later may help.
    pub fn is_passing(&self) -> bool {
        let passing = [
            "UNANSWERED",
            "UNAVAILABLE",
            "OVERLOADED",
            "COMPILER_UNAVAILABLE",
            "REGISTRY_UNAVAILABLE",
            "STORE_UNAVAILABLE",
            "TAILS_LIMITED",
            "INTERNAL",
        ];
        passing.contains(&self.code.as_str())
    }

    /// Whether what was to be changed was changed meanwhile, so that looking again may help.
    pub fn is_outdated(&self) -> bool {
        self.code == "PRECONDITION_FAILED"
    }
}

impl fmt::Display for Refused {
    /// The message, and each mistake on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let texts = |name: &str| {
            let list = self.details.get(name).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str)
        };
        for line in texts("mistakes").chain(texts("installs")) {
            write!(f, "\n    {line}")?;
        }
        let issues = self.details.get("issues").and_then(Value::as_array);
        for issue in issues.into_iter().flatten() {
            let part = |name| issue.get(name).and_then(Value::as_str);
            if let (Some(path), Some(message)) = (part("path"), part("message")) {
                write!(f, "\n    manifest.json{path}: {message}")?;
            }
        }
        let added = self.details.pointer("/difference/added");
        for permission in added.and_then(Value::as_array).into_iter().flatten() {
            let part = |name| permission.get(name).and_then(Value::as_str);
            if let (Some(capability), Some(allows)) = (part("capability"), part("allows")) {
                write!(f, "\n    {capability}: {allows}")?;
            }
        }
        Ok(())
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

impl From<AdminError> for Refused {
    fn from(error: AdminError) -> Self {
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
            details: error.details(),
            retry_after: None,
            is_unreachable: false,
            source: match error {
                AdminError::Manifest(error) => Some(error.into()),
                AdminError::Registry(error) => Some(error.into()),
                AdminError::Storage(error) => Some(error.into()),
                AdminError::Store(error) => Some(error.into()),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Mistakes;

    #[test]
    fn every_mistake_is_on_a_line_of_its_own() {
        let mut mistakes = Mistakes::default();
        mistakes.extend(["one", "two"]);
        let refused = Refused::from(AdminError::invalid("the limits are", mistakes));
        assert_eq!(
            refused.to_string(),
            "the limits are not valid\n    one\n    two"
        );
    }
}
