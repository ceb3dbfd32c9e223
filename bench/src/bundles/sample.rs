//! A bundle as it is published.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use alga_bundles::{Limits, pack};
use alga_model::ContentHash;
use tokio::task::spawn_blocking;

use super::mebibytes;
use crate::report::rounded;
use crate::session::Bench;

/// Bytes of the component, as of one that holds a JavaScript engine; a third of them packed.
pub(super) const COMPONENT: usize = 12 << 20;
/// Where it is in the bundle.
pub(super) const COMPONENT_FILE: &str = "dist/main.wasm";

/// A bundle in a file.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub(super) hash: ContentHash,
    pub(super) file: PathBuf,
}

impl Packed {
    /// Packs one of six files in the folder of a benchmark.
    pub(super) async fn new(bench: &Bench) -> anyhow::Result<Self> {
        let (folder, file) = (bench.path("bundle"), bench.path("bundle.tar.zst"));
        spawn_blocking(move || {
            write_bundle(&folder)?;
            let hash = pack(&folder, &file, &Limits::default())?.hash;
            Ok(Self { hash, file })
        })
        .await?
    }

    /// How large it is.
    pub(super) fn note(&self) -> anyhow::Result<String> {
        let bytes = usize::try_from(self.file.metadata()?.len())?;
        Ok(format!("{} MiB packed", rounded(mebibytes(bytes))))
    }
}

fn write_bundle(folder: &Path) -> anyhow::Result<()> {
    let manifest = r#"{
        "name": "com.example.bench",
        "publisher": "Benchmarks",
        "version": "1.0.0",
        "runtime": "wasm-component@1"
    }"#;
    fs::create_dir_all(folder.join("dist"))?;
    fs::create_dir_all(folder.join("ui"))?;
    fs::write(folder.join("manifest.json"), manifest)?;
    fs::write(folder.join(COMPONENT_FILE), script(COMPONENT))?;
    for file in ["index.html", "index.js", "index.css", "logo.svg"] {
        fs::write(folder.join("ui").join(file), script(20_000))?;
    }
    Ok(())
}

/// So many bytes that look like a script, of which about a third can't be foreseen.
fn script(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 128);
    let mut state = 1_u64;
    while text.len() < bytes {
        // Knuth's, of which the upper half is good enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = state >> 32;
        let _ = writeln!(text, "let v{word:08x}={:08x};", (state >> 16) & 0xffff_ffff);
    }
    text.truncate(bytes);
    text
}
