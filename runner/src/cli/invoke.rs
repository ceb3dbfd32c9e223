//! `alga-runner invoke`: a whole deployment in a temporary folder, for one call.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alga_bundles::{Limits, Manifest, pack};
use alga_host_api::{Header, Request};
use alga_model::{ContentHash, TenantId};
use alga_registry::{Config as InstallConfig, NewInstall, VersionKey};
use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::install::{change, name_and_value};
use super::{bundle, output};
use crate::app::App;
use crate::config::{Config, DatabaseConfig, KeysConfig, Role, S3Config, StorageApiConfig};
use crate::engine::RunError;
use crate::engine::RunLimits;
use crate::execute::{Call, ExecuteError};

/// What a WebAssembly component or module starts with.
const WASM_MAGIC: &[u8] = b"\0asm";

#[derive(Debug, Args)]
pub(super) struct Invoke {
    /// A bundle, or a component alone
    file: PathBuf,
    /// The method of the request
    #[arg(long, short = 'X', default_value = "GET")]
    method: String,
    /// The path of the request, with its query
    #[arg(long, default_value = "/")]
    path: String,
    /// A header of the request; may be given several times
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// The body of the request
    #[arg(long, short, value_name = "TEXT")]
    body: Option<String>,
    /// A setting of the install; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    settings: Vec<(String, String)>,
    /// A namespace that a component alone may use; may be given several times
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,
    /// Print the status and the headers of the answer too
    #[arg(long, short)]
    include: bool,
}

impl Invoke {
    /// Prints the body of the answer; fails where the extension does.
    pub(super) async fn run(self, mut config: Config) -> anyhow::Result<ExitCode> {
        bundle::ensure_file(&self.file).await?;
        let folder = tempfile::tempdir()?;
        // What is configured for others to use is not for this.
        config.data.dir = folder.path().join("data");
        config.database = DatabaseConfig::default();
        config.keys = KeysConfig::default();
        config.storage_api = StorageApiConfig::default();
        config.s3 = S3Config::default();
        config.bundles.share_code = None;
        config.server.role = Some(Role::All);
        let app = App::build(&config).await?;
        let executor = &app.extensions()?.executor;
        let bundle = self.bundle(folder.path()).await?;
        let publication = bundle::Publication {
            // What it is published for is here and gone afterwards.
            refusal: |file| format!("{file} can't be used as a bundle"),
            ..bundle::Publication::new(&bundle)
        };
        let published = bundle::add(&app.stores, executor.engine(), publication).await?;
        let install = self.install(&app, published.content_hash).await?;
        let answer = executor.execute(self.call(install)).await;
        app.stores.close().await;
        match answer {
            Ok(response) => {
                if self.include {
                    output::line(format_args!("HTTP {}", response.status))?;
                    for header in &response.headers {
                        output::line(format_args!("{}: {}", header.name, header.value))?;
                    }
                    output::line("")?;
                }
                let mut out = io::stdout().lock();
                out.write_all(&response.body.unwrap_or_default())?;
                out.flush()?;
                Ok(ExitCode::SUCCESS)
            }
            // The author is here to see it; callers of a server are not.
            Err(ExecuteError::Run(RunError::Trap { backtrace, reason })) => {
                output::note(backtrace);
                anyhow::bail!("the extension trapped: {reason}")
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The bundle, or one made around a component alone.
    async fn bundle(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let file = self.file.clone();
        let is_wasm = spawn_blocking(move || starts_with(&file, WASM_MAGIC))
            .await?
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        if !is_wasm {
            bundle::ensure_archive(&self.file)?;
            return Ok(self.file.clone());
        }
        let namespaces: Vec<_> = self
            .namespace
            .iter()
            .map(|name| json!({ "name": name, "access": ["read", "write"] }))
            .collect();
        let manifest = json!({
            "name": "local.component",
            "publisher": "local",
            "version": "0.0.0",
            "runtime": "wasm-component@1",
            "entry": "dist/main.wasm",
            "capabilities": { "alga.storage": { "namespaces": namespaces } },
        });
        let (source, bundle) = (folder.join("component"), folder.join("component.tar.zst"));
        let (file, target) = (self.file.clone(), bundle.clone());
        spawn_blocking(move || -> anyhow::Result<()> {
            std::fs::create_dir_all(source.join("dist"))?;
            std::fs::write(source.join("manifest.json"), manifest.to_string())?;
            std::fs::copy(file, source.join("dist/main.wasm"))?;
            pack(&source, &target, &Limits::default())?;
            Ok(())
        })
        .await??;
        Ok(bundle)
    }

    async fn install(
        &self,
        app: &App,
        hash: ContentHash,
    ) -> anyhow::Result<std::sync::Arc<crate::installs::KnownInstall>> {
        let registry = &app.stores.registry;
        let version = registry
            .version(&VersionKey::Content(hash))
            .await?
            .context("the version is gone")?;
        let manifest = Manifest::parse(version.manifest.as_bytes())?.manifest;
        let new = NewInstall {
            grants: manifest.capabilities(),
            config: InstallConfig::from(self.settings.iter().cloned().collect::<BTreeMap<_, _>>()),
            ..NewInstall::new(TenantId::generate(), version.id)
        };
        let install = registry.create_install(&new, change(&app.stores)).await?;
        app.installs
            .find(install.id)
            .await?
            .context("the install is gone")
    }

    fn call(&self, install: std::sync::Arc<crate::installs::KnownInstall>) -> Call {
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (self.path.as_str(), None),
        };
        let headers = self.header.iter().map(|(name, value)| Header {
            name: name.clone(),
            value: value.clone(),
        });
        Call {
            install,
            request: Request {
                method: self.method.to_ascii_uppercase(),
                path: format!("/{}", path.trim_start_matches('/')),
                query,
                headers: headers.collect(),
                body: self.body.clone().map(String::into_bytes),
            },
            timeout: None,
            limits: RunLimits::default(),
            providers: None,
            config: None,
            request_id: Uuid::now_v7().to_string().into(),
        }
    }
}

fn starts_with(file: &Path, magic: &[u8]) -> io::Result<bool> {
    let mut start = Vec::new();
    io::Read::read_to_end(
        &mut io::Read::take(std::fs::File::open(file)?, magic.len() as u64),
        &mut start,
    )?;
    Ok(start == magic)
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
