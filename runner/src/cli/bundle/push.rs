//! `alga-runner bundle push`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use alga_bundles::{Manifest, Signature, StagingKey};
use alga_model::{ContentHash, ContentHasher};
use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use uuid::Uuid;

use super::{ensure_archive, ensure_file};
use crate::admin::{
    AbortUpload, AbortUploadBody, Administration, Ask, FinalizeUploadBody, PublishedBody, Refused,
    UploadQuery,
};
use crate::cli::output::{self, Progress};
use crate::cli::session::Session;
use crate::config::Config;

#[derive(Debug, Args)]
pub(in crate::cli) struct Push {
    /// The bundle
    file: PathBuf,
    /// Refuse the bundle unless it has this hash
    #[arg(long, value_name = "HASH")]
    declared_hash: Option<ContentHash>,
    /// Send this manifest beside a bundle that has none
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Send this signature of the publisher, as minisign writes it
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

impl Push {
    /// Prints the hash of the bundle.
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        ensure!(
            config.client.server.is_some(),
            "a bundle is pushed to a server, which --server or ALGA_SERVER names; `alga-runner bundle add` puts one into the data folder"
        );
        ensure_file(&self.file).await?;
        ensure_archive(&self.file)?;
        let manifest = text(self.manifest.as_deref(), Manifest::MAX_BYTES as u64).await?;
        let signature = text(self.signature.as_deref(), Signature::MAX_BYTES as u64).await?;
        let upload = Upload::of(&self.file, self.declared_hash).await?;
        let session = Session::open(config).await?;
        let body = FinalizeUploadBody {
            key: upload.key,
            size: Some(upload.size),
            declared_hash: Some(upload.hash),
            manifest_json: manifest,
            signature,
        };
        let pushed = tokio::select! {
            pushed = push(&session.admin, upload, &body) => pushed,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot wait for Ctrl-C")?;
                give_up(&session.admin, body.key).await;
                output::note("interrupted; the upload was given up");
                return Ok(ExitCode::from(130));
            }
        };
        let published =
            pushed.with_context(|| format!("cannot publish {}", self.file.display()))?;
        session.close().await;
        for warning in &published.warnings {
            output::note(format_args!(
                "warning: manifest.json{}: {}",
                warning.path, warning.message
            ));
        }
        output::note(format_args!(
            "published {} {} by {}",
            published.extension.name, published.version.version, published.extension.publisher
        ));
        output::line(published.content_hash)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A bundle that is to be sent.
struct Upload {
    file: File,
    name: String,
    /// Under which it will be staged: known before, so that it can be given up at any time.
    key: StagingKey,
    size: u64,
    hash: ContentHash,
}

impl Upload {
    /// Reads the bundle once, so that the server can tell whether what came is what was sent.
    async fn of(path: &Path, declared: Option<ContentHash>) -> anyhow::Result<Self> {
        let cannot_read = || format!("cannot read {}", path.display());
        let mut file = File::open(path).await.with_context(cannot_read)?;
        let (mut hasher, mut size) = (ContentHasher::new(), 0);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).await.with_context(cannot_read)?;
            let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
                break;
            };
            hasher.update(chunk);
            size += read as u64;
        }
        file.rewind().await.with_context(cannot_read)?;
        let hash = hasher.finish();
        if let Some(declared) = declared {
            ensure!(
                declared == hash,
                "HASH_MISMATCH: {} is {hash}, not {declared}",
                path.display()
            );
        }
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Self {
            file,
            name: name.to_string_lossy().into_owned(),
            key: StagingKey::new(Uuid::now_v7()),
            size,
            hash,
        })
    }
}

async fn push(
    admin: &Administration,
    upload: Upload,
    body: &FinalizeUploadBody,
) -> anyhow::Result<PublishedBody> {
    let progress = Progress::new("sending", upload.size);
    let query = UploadQuery {
        filename: upload.name,
        size: upload.size,
        declared_hash: Some(upload.hash),
        upload_id: Some(upload.key.id()),
    };
    let progress = Arc::new(move |done| progress.show(done));
    admin
        .upload(&query, upload.file, progress)
        .await
        .map_err(told)?;
    let published = admin.finalize(body).await;
    // Where there was no answer, it may be published this very moment.
    if let Err(refused) = &published
        && refused.code != "UNANSWERED"
    {
        give_up(admin, body.key).await;
    }
    published.map_err(told)
}

/// Removes what was sent. Where that fails, the server does so after a day.
async fn give_up(admin: &Administration, key: StagingKey) {
    let ask = Ask::<AbortUpload>::with((), AbortUploadBody { key });
    if let Err(refused) = admin.ask(ask).await {
        output::note(format_args!(
            "cannot give the upload up, the server will after a day: {refused}"
        ));
    }
}

/// The refusal with its code, and with what may help.
fn told(refused: Refused) -> anyhow::Error {
    let context = match advice(&refused.code) {
        Some(advice) => format!("{} ({advice})", refused.code),
        None => refused.code.clone(),
    };
    anyhow::Error::new(refused).context(context)
}

fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "UNAUTHORIZED" => "name an admin token with --token-file or ALGA_TOKEN",
        "RBAC_FORBIDDEN" => "publishing needs an admin token that is not limited to some tenants",
        "MANIFEST_REQUIRED" => "send one with --manifest FILE",
        "INVALID_MANIFEST" => "mend manifest.json and pack the bundle again",
        "SIGNATURE_REQUIRED" => "send one with --signature FILE",
        "BAD_ARCHIVE" | "ARCHIVE_REJECTED" => "make the bundle with `alga-runner bundle pack`",
        "HASH_MISMATCH" => "the file changed while it was sent; push it again",
        "PUBLISHER_MISMATCH" => "choose another name in manifest.json",
        "DUPLICATE_VERSION" => "raise the version in manifest.json and pack the bundle again",
        "RATE_LIMIT"
        | "OVERLOADED"
        | "COMPILER_UNAVAILABLE"
        | "REGISTRY_UNAVAILABLE"
        | "STORE_UNAVAILABLE"
        | "UNANSWERED" => "push it again a little later",
        "STORE_FAILED" | "INTERNAL_ERROR" => "the log of the server says why",
        "MISDIRECTED" => "push to a server that runs extensions",
        _ => return None,
    })
}

/// What is in a text file that is sent along.
async fn text(file: Option<&Path>, limit: u64) -> anyhow::Result<Option<String>> {
    let Some(path) = file else {
        return Ok(None);
    };
    let read = async {
        let mut text = String::new();
        let file = File::open(path).await?;
        file.take(limit + 1).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read.await;
    let text = text.with_context(|| format!("cannot read {} as text", path.display()))?;
    ensure!(
        text.len() as u64 <= limit,
        "{} has more than {limit} bytes",
        path.display()
    );
    Ok(Some(text))
}
