//! How this process shows who it is to a server, and knows the server.

use std::path::Path;

use alga_model::Secret;
use anyhow::{Context as _, ensure};

use crate::config::secret_file::{self, Readers};

/// The certificates that vouch for a server, where they aren't those of the system.
pub(crate) fn authorities(file: Option<&Path>) -> anyhow::Result<Option<Vec<u8>>> {
    let read = |file: &Path| {
        std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
    };
    file.map(read).transpose()
}

/// The token in a file, or else the one that was given.
pub(crate) fn token(
    token: Option<&Secret<String>>,
    file: Option<&Path>,
) -> anyhow::Result<Option<Secret<String>>> {
    match file {
        Some(file) => in_file(file).map(Some),
        None => Ok(token.cloned()),
    }
}

fn in_file(file: &Path) -> anyhow::Result<Secret<String>> {
    let text = secret_file::read(file, Readers::Group)?;
    let token = text.expose().trim();
    ensure!(!token.is_empty(), "the file {} is empty", file.display());
    Ok(Secret::new(token.to_owned()))
}
