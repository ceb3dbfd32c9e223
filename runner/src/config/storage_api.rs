//! Settings of a storage that another process serves.

use std::num::NonZeroU32;
use std::path::PathBuf;

use alga_model::Secret;

use super::client::{ServerUrl, TokenText};
use super::kind::{Flag, Optional, Path, count_from_one};
use super::setting::section;

section! {
    /// Where the records are, if another process serves them.
    pub struct StorageApiConfig {
        /// The server with the storage of extensions. Where it is not set, this process keeps it itself.
        url: Option<String> = None, "storage.api.url" or "STORAGE_API_BASE_URL": Optional(ServerUrl);
        /// The service token for that server.
        token: Option<Secret<String>> = None, "storage.api.token" or "RUNNER_STORAGE_API_TOKEN": Optional(TokenText);
        /// The file of that token, which others must not be able to read. Stronger than the token.
        token_file: Option<PathBuf> = None, "storage.api.token_file": Optional(Path);
        /// The file of the certificates, as PEM, that vouch for that server at https instead of those of
        /// the system.
        ca: Option<PathBuf> = None, "storage.api.ca": Optional(Path);
        /// The most requests to that server under way at once; others wait.
        max_in_flight: NonZeroU32 = NonZeroU32::MIN.saturating_add(255), "storage.api.max_in_flight": count_from_one(10_000);
        /// Whether HTTP/2 is spoken to that server at http too, which an Alga Runner understands. At https
        /// it is agreed upon.
        http2: bool = false, "storage.api.http2": Flag;
    }
}
