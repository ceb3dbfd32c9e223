//! Guests for the tests: the fixtures, each of which does one thing, and the notes example as it is
//! committed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use alga_model::{ContentHash, ContentHasher};
use anyhow::{Context as _, ensure};

pub use alga_guest_fixtures::*;

/// The longest body that an answer may have.
pub const MAX_BODY_BYTES: u32 = 10 * 1024 * 1024;

/// The most bytes that the names and values of an answer's headers may have together.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The most headers that an answer may have.
pub const MAX_HEADERS: usize = 64;

/// The component of the notes example, as committed.
pub fn notes_component() -> Vec<u8> {
    let path = notes_bundle_dir().join("dist/main.wasm");
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The folder that the notes example is packed from.
pub fn notes_bundle_dir() -> PathBuf {
    notes_dir().join("bundle")
}

/// What `component.digest` of the notes example says.
#[derive(Debug, PartialEq, Eq)]
pub struct NotesDigest {
    /// The source that the committed component was built from.
    pub source: ContentHash,
    /// The committed component.
    pub component: ContentHash,
}

/// Reads `component.digest` of the notes example.
pub fn notes_digest() -> anyhow::Result<NotesDigest> {
    let path = notes_dir().join("component.digest");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let digest = |of: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_suffix(of)?.strip_suffix("  "));
        line.with_context(|| format!("cannot find {of} in {}", path.display()))?
            .parse()
            .with_context(|| format!("cannot read the digest of {of} in {}", path.display()))
    };
    Ok(NotesDigest {
        source: digest("source")?,
        component: digest("component")?,
    })
}

/// The digest of the notes example's source as it is now, defined by `scripts/build-guest --help`.
pub fn source_digest() -> anyhow::Result<ContentHash> {
    let mut files = Vec::new();
    for name in ["Cargo.toml", "Cargo.lock", "build.rs"] {
        let file = notes_dir().join(name);
        if file.is_file() {
            files.push(file);
        }
    }
    collect_files(&notes_dir().join("src"), &mut files)?;
    collect_files(&wit_dir(), &mut files)?;

    let mut lines = Vec::new();
    for file in files {
        let name = file
            .strip_prefix(repository())?
            .to_str()
            .context("a file name isn't UTF-8")?
            .to_owned();
        let hash = ContentHash::of(&fs::read(&file)?).to_hex();
        lines.push((name, hash));
    }
    lines.sort();
    let mut listing = ContentHasher::new();
    for (name, hash) in lines {
        listing.update(format!("{hash}  {name}\n").as_bytes());
    }
    Ok(listing.finish())
}

/// Builds the notes example from its source into the folder `out`, and gives the component.
///
/// It takes minutes where the compiler has to be fetched first, a second or two afterwards.
pub fn rebuild_notes(out: &Path) -> anyhow::Result<Vec<u8>> {
    let component = build(&notes_dir(), out)?;
    fs::read(&component).with_context(|| format!("cannot read {}", component.display()))
}

/// The folder of an example in any language.
pub fn example_dir(name: &str) -> PathBuf {
    repository().join("guest-examples").join(name)
}

/// Builds the guest in a folder with `scripts/build-guest`, and gives the path of the component,
/// which is in the folder `out`.
///
/// What the build says is on standard error. It fails where the tools of the guest's language are
/// not there and can't be had, and then says which.
pub fn build(guest: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let built = Command::new(repository().join("scripts/build-guest"))
        .args([guest, out])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run scripts/build-guest")?;
    ensure!(
        built.status.success(),
        "cannot build {}: {}; what is missing is said above",
        guest.display(),
        built.status
    );
    let printed = String::from_utf8(built.stdout)?;
    let component = printed.lines().last();
    Ok(component
        .context("scripts/build-guest named no component")?
        .into())
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn repository() -> PathBuf {
    let mut folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.pop();
    folder
}

fn wit_dir() -> PathBuf {
    repository().join("wit")
}

fn notes_dir() -> PathBuf {
    example_dir("notes")
}

#[cfg(test)]
mod tests {
    use wit_component::DecodedWasm;

    use super::*;

    /// Names of what a component imports and exports.
    fn interfaces(wasm: &[u8]) -> (Vec<String>, Vec<String>) {
        let DecodedWasm::Component(resolve, world) = wit_component::decode(wasm).unwrap() else {
            panic!("a package, not a component");
        };
        let world = &resolve.worlds[world];
        (
            world
                .imports
                .keys()
                .map(|key| resolve.name_world_key(key))
                .collect(),
            world
                .exports
                .keys()
                .map(|key| resolve.name_world_key(key))
                .collect(),
        )
    }

    #[test]
    fn every_behaviour_is_webassembly_and_small() {
        for behaviour in Behaviour::ALL {
            let wasm = behaviour.component();
            assert!(wasm.starts_with(b"\0asm"), "{behaviour:?}");
            assert!(wasm.len() < 8192, "{behaviour:?}: {} bytes", wasm.len());
            // The last half of the preamble tells modules and components apart.
            let is_component = wasm[4..8] == *b"\x0d\0\x01\0";
            assert_eq!(
                is_component,
                behaviour != Behaviour::CoreModule,
                "{behaviour:?}"
            );
        }
    }

    #[test]
    fn behaviours_export_the_handler_and_import_no_more_than_they_call() {
        let handler = ["alga:extension/handler@0.1.0"];
        let (imports, exports) = interfaces(&echo());
        assert_eq!(
            (imports.len(), exports),
            (0, handler.map(str::to_owned).into())
        );
        let (imports, _) = interfaces(&log_flood(1));
        assert_eq!(imports, ["alga:extension/logging@0.1.0"]);
        let (imports, _) = interfaces(&unknown_import());
        assert_eq!(imports, ["evil:host/shell"]);
    }

    #[test]
    fn what_a_test_gives_stands_where_the_file_names_it() {
        assert_eq!(log_flood(10_000), Behaviour::LogFlood.component());
        assert_ne!(log_flood(9_999), Behaviour::LogFlood.component());
    }

    #[test]
    fn the_notes_component_imports_only_the_world() {
        let (imports, exports) = interfaces(&notes_component());
        assert_eq!(
            imports,
            [
                "alga:storage/types@0.1.0",
                "alga:storage/records@0.1.0",
                "alga:extension/context@0.1.0",
                "alga:extension/logging@0.1.0",
            ]
        );
        assert_eq!(exports, ["alga:extension/handler@0.1.0"]);
    }

    #[test]
    fn the_committed_component_belongs_to_the_source_beside_it() {
        let now = NotesDigest {
            source: source_digest().unwrap(),
            component: ContentHash::of(&notes_component()),
        };
        assert_eq!(
            now,
            notes_digest().unwrap(),
            "run scripts/build-guest guest-examples/notes --update"
        );
    }

    #[test]
    fn every_file_of_the_bundle_that_the_manifest_names_is_there() {
        let manifest = fs::read(notes_bundle_dir().join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        for pointer in ["/entry", "/ui/entry"] {
            let file = manifest
                .pointer(pointer)
                .and_then(serde_json::Value::as_str)
                .unwrap();
            assert!(notes_bundle_dir().join(file).is_file(), "{file}");
        }
    }
}
