//! `alga-runner bundle push`.

use std::borrow::Cow;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use alga_bundles::{Manifest, StagingKey};
use alga_model::{ContentHash, ContentHasher};
use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::signal::ctrl_c;
use uuid::Uuid;

use super::sign::signature_of;
use super::{ensure_archive, ensure_file};
use crate::admin::{
    AbortUpload, AbortUploadBody, Administration, Ask, FinalizeUploadBody, PublishedBody, Refused,
    UploadQuery,
};
use crate::cli::output::{self, Progress};
use crate::cli::session::Session;
use crate::config::Config;

/// The code where there was no answer.
const UNANSWERED: &str = "UNANSWERED";
/// How often the server is asked to publish a bundle, where asking again may help: for three minutes where it
/// answers at once, as a database or a replica that is replaced may take.
const MOST_ATTEMPTS: usize = 16;
/// How long to wait until it is asked again; each time twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// After this time it is not asked again.
const PATIENCE: Duration = Duration::from_mins(15);
/// How long nothing more of a bundle may leave until it is said whom that waits for.
const SILENCE: Duration = Duration::from_secs(5);
/// How often is looked whether anything has.
const LOOK: Duration = Duration::from_millis(500);

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
    /// The publisher's signature, as minisign writes it; FILE.minisig if that is there
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
        let signature = signature_of(&self.file, self.signature.as_deref())?;
        let signature = signature.map(String::from_utf8).transpose();
        let signature = signature.context("the signature is no text")?;
        let upload = Upload::of(&self.file, self.declared_hash).await?;
        let session = Session::open(config).await?;
        let body = FinalizeUploadBody {
            key: upload.key,
            size: Some(upload.size),
            declared_hash: Some(upload.hash),
            manifest_json: manifest,
            signature,
        };
        let pushing = Pushing::of(&session.admin, &upload);
        let pushed = tokio::select! {
            pushed = pushing.push(upload, &body) => pushed,
            interrupted = ctrl_c() => {
                interrupted.context("cannot wait for Ctrl-C")?;
                pushing.interrupted().await;
                return Ok(ExitCode::from(130));
            }
        };
        pushing.progress.end();
        if let Err(Failed { stays: true, .. }) = &pushed {
            pushing.give_up().await;
        }
        let published = pushed
            .map_err(|failed| failed.error)
            .with_context(|| format!("cannot publish {}", self.file.display()))?;
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
    /// What tells that the file is still the one that was read.
    stamp: Option<Stamp>,
}

/// The size of a file and when it was last written.
type Stamp = (u64, SystemTime);

async fn stamp(file: &File) -> Option<Stamp> {
    let metadata = file.metadata().await.ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

impl Upload {
    /// Reads the bundle once, so that the server can tell whether what came is what was sent.
    async fn of(path: &Path, declared: Option<ContentHash>) -> anyhow::Result<Self> {
        let cannot_read = || format!("cannot read {}", path.display());
        let mut file = File::open(path).await.with_context(cannot_read)?;
        let stamp = stamp(&file).await;
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
            stamp,
        })
    }
}

/// A bundle on its way.
struct Pushing<'a> {
    admin: &'a Administration,
    key: StagingKey,
    phase: Cell<Phase>,
    progress: Progress,
    /// How many bytes have left.
    sent: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nobody can publish it yet.
    Sending,
    /// The server goes on with it, whoever waits.
    Judging,
}

/// Why a bundle was not published.
struct Failed {
    error: anyhow::Error,
    /// Whether what was sent stays on the server, and nobody needs it.
    stays: bool,
}

impl<'a> Pushing<'a> {
    fn of(admin: &'a Administration, upload: &Upload) -> Self {
        Self {
            admin,
            key: upload.key,
            phase: Cell::new(Phase::Sending),
            progress: Progress::new("sending", upload.size),
            sent: Arc::default(),
        }
    }

    async fn push(
        &self,
        upload: Upload,
        body: &FinalizeUploadBody,
    ) -> Result<PublishedBody, Failed> {
        self.send(upload).await?;
        self.progress.end();
        self.phase.set(Phase::Judging);
        output::note("sent; the server checks and publishes it");
        self.finalize(body).await.map_err(|refused| {
            // Where there was no answer, it may be published this very moment.
            let is_known = refused.code != UNANSWERED;
            Failed {
                stays: is_known,
                error: if is_known {
                    told(refused)
                } else {
                    let unknown = "it may be published all the same; push it again to see";
                    anyhow::Error::new(refused).context(unknown)
                },
            }
        })
    }

    async fn send(&self, upload: Upload) -> Result<(), Failed> {
        let query = UploadQuery {
            filename: upload.name,
            size: upload.size,
            declared_hash: Some(upload.hash),
            upload_id: Some(upload.key.id()),
        };
        let (progress, sent) = (self.progress.clone(), Arc::clone(&self.sent));
        let progress = Arc::new(move |done| {
            sent.store(done, Ordering::Relaxed);
            progress.show(done);
        });
        let same_file = upload.file.try_clone().await;
        let uploading = self.admin.upload(&query, upload.file, progress);
        let waiting = || {
            self.progress.pause();
            output::note("waiting for the server to store it");
        };
        let Err(refused) = watched(uploading, &self.sent, waiting).await else {
            return Ok(());
        };
        let stays = refused.code == UNANSWERED && self.sent.load(Ordering::Relaxed) > 0;
        let has_changed = match same_file {
            Ok(file) => stamp(&file).await != upload.stamp,
            Err(_) => false,
        };
        let error = if has_changed {
            let changed = "the file changed while it was sent; push it again";
            anyhow::Error::new(refused).context(changed)
        } else {
            told(refused)
        };
        Err(Failed { error, stays })
    }

    /// Has it published. To ask again does no harm: the server completes what was interrupted, and says
    /// the same of what is done.
    async fn finalize(&self, body: &FinalizeUploadBody) -> Result<PublishedBody, Refused> {
        let start = Instant::now();
        for pause in pauses() {
            let refused = match self.admin.finalize(body).await {
                Err(refused) if refused.is_passing() && start.elapsed() < PATIENCE => refused,
                answered => return answered,
            };
            output::note(format_args!(
                "{}: {refused}; asking again in {} s",
                refused.code,
                pause.as_secs()
            ));
            tokio::time::sleep(pause).await;
        }
        self.admin.finalize(body).await
    }

    /// Somebody doesn't want to wait any more: says what becomes of the bundle.
    async fn interrupted(&self) {
        self.progress.end();
        match self.phase.get() {
            Phase::Sending => {
                output::note("interrupted; giving the upload up");
                if self.give_up().await {
                    output::note("the upload was given up");
                }
            }
            Phase::Judging => output::note(
                "interrupted; the server goes on and may publish the bundle: push it again to see",
            ),
        }
    }

    /// Removes what was sent; true where it is gone. Where that fails, or a further Ctrl-C ends it, the
    /// server does so after a day.
    async fn give_up(&self) -> bool {
        let ask = Ask::<AbortUpload>::with((), AbortUploadBody { key: self.key });
        let why = tokio::select! {
            asked = self.admin.ask(ask) => match asked {
                Ok(_) => return true,
                Err(refused) => refused.to_string(),
            },
            _ = ctrl_c() => "interrupted".to_owned(),
        };
        output::note(format_args!(
            "cannot give the upload up, the server will after a day: {why}"
        ));
        false
    }
}

/// How long to wait between one attempt and the next.
fn pauses() -> impl Iterator<Item = Duration> {
    let next = |pause: &Duration| Some((*pause * 2).min(LONGEST_PAUSE));
    std::iter::successors(Some(FIRST_PAUSE), next).take(MOST_ATTEMPTS - 1)
}

/// Does the work, and says once that it waits, where for some time no more was sent than there was before.
async fn watched<T>(work: impl Future<Output = T>, sent: &AtomicU64, waiting: impl FnOnce()) -> T {
    let silence = async {
        let (mut before, mut silent) = (0, Duration::ZERO);
        while silent < SILENCE {
            tokio::time::sleep(LOOK).await;
            let now = sent.load(Ordering::Relaxed);
            // As long as nothing was sent there is no server yet.
            silent = if now == before && now > 0 {
                silent + LOOK
            } else {
                Duration::ZERO
            };
            before = now;
        }
    };
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = silence => waiting(),
    }
    work.await
}

/// The refusal with its code, and with what may help.
fn told(refused: Refused) -> anyhow::Error {
    let context = match advice(&refused) {
        Some(advice) => format!("{} ({advice})", refused.code),
        None => refused.code.clone(),
    };
    anyhow::Error::new(refused).context(context)
}

fn advice(refused: &Refused) -> Option<Cow<'static, str>> {
    let soon = match refused.retry_after {
        Some(after) => format!("push it again in {} s", after.as_secs()),
        None => "push it again a little later".to_owned(),
    };
    Some(Cow::Borrowed(match refused.code.as_str() {
        "UNAUTHORIZED" => "name an admin token with --token-file or ALGA_TOKEN",
        "RBAC_FORBIDDEN" => "publishing needs an admin token that is not limited to some tenants",
        "MANIFEST_REQUIRED" => "send one with --manifest FILE",
        "INVALID_MANIFEST" => "mend manifest.json and pack the bundle again",
        "SIGNATURE_REQUIRED" => "send one with --signature FILE",
        "SIGNATURE_INVALID" => {
            "sign this bundle with a key of its publisher, or have the operator add the key to `bundles.publishers`"
        }
        "BAD_ARCHIVE" | "ARCHIVE_REJECTED" => "make the bundle with `alga-runner bundle pack`",
        "STAGING_NOT_FOUND" => "push it again",
        "HASH_MISMATCH" => "the server has other bytes than were sent; push it again",
        "PUBLISHER_MISMATCH" => "choose another name in manifest.json",
        "DUPLICATE_VERSION" => "raise the version in manifest.json and pack the bundle again",
        "RATE_LIMIT" => {
            let setting =
                "bundles.uploads.per_minute of the server says how many may begin in a minute";
            return Some(format!("{soon}; {setting}").into());
        }
        "OVERLOADED" | "COMPILER_UNAVAILABLE" | "REGISTRY_UNAVAILABLE" | "STORE_UNAVAILABLE" => {
            return Some(soon.into());
        }
        // Its message asks whether anybody is there.
        UNANSWERED if refused.is_unreachable => return None,
        UNANSWERED => return Some(soon.into()),
        "STORE_FAILED" | "INTERNAL_ERROR" => "the log of the server says why",
        "BUNDLE_OFFLINE" => "push to a server whose bundles.offline is not set",
        "MISDIRECTED" => "push to a server that runs extensions",
        _ => return None,
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_again_for_some_minutes() {
        let all: Duration = pauses().sum();
        assert!((Duration::from_mins(2)..PATIENCE).contains(&all), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_long_for_a_server_is_told_once() {
        let (sent, told) = (AtomicU64::new(0), Cell::new(0));
        let work = async {
            // Connecting takes its time.
            tokio::time::sleep(SILENCE * 2).await;
            // The bundle leaves slowly, and then not at all.
            for _ in 0..20 {
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(LOOK * 8).await;
            }
            assert_eq!(told.get(), 0);
            tokio::time::sleep(SILENCE * 4).await;
            "stored"
        };
        let done = watched(work, &sent, || told.set(told.get() + 1)).await;
        assert_eq!((done, told.get()), ("stored", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_moment_is_told_nothing() {
        let sent = AtomicU64::new(1);
        let work = tokio::time::sleep(LOOK * 9);
        watched(work, &sent, || panic!("told so soon")).await;
    }
}
