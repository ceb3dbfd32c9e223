//! Guests for the tests: small ones written as WebAssembly text against the world in `wit/`, made
//! into components when a test asks for them, and the notes example as it is committed.
//!
//! The small ones need no compiler, are about a kilobyte each, and do one thing, most of them a bad
//! one. They are the same on every machine, so a test may compare what they answer byte for byte.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use alga_model::{ContentHash, ContentHasher};
use anyhow::{Context as _, ensure};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

/// The world that extensions are written against.
const EXTENSION_WORLD: &str = "alga:extension/extension";

/// The longest body that an answer may have.
pub const MAX_BODY_BYTES: u32 = 10 * 1024 * 1024;

/// The most bytes that the names and values of an answer's headers may have together.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The most headers that an answer may have.
pub const MAX_HEADERS: usize = 64;

const PAGE_BYTES: u32 = 64 * 1024;

/// Where guests hand out memory from at first; what is below is theirs.
const HEAP: u32 = 1024;

const LOG: &str =
    r#"(import "alga:extension/logging@0.1.0" "log" (func $log (param i32 i32 i32)))"#;

/// The component that a core module in text form is, with the extension world's imports and exports.
pub fn component(wat: &str) -> Vec<u8> {
    component_of_world(wat, "", EXTENSION_WORLD)
}

/// Answers 200 with the headers and the body it was given.
pub fn echo() -> Vec<u8> {
    handler(
        "(i32.store16 (i32.const 16) (i32.const 200))
         (i32.store (i32.const 20) (local.get $headers))
         (i32.store (i32.const 24) (local.get $headers-length))
         (i32.store8 (i32.const 28) (local.get $has-body))
         (i32.store (i32.const 32) (local.get $body))
         (i32.store (i32.const 36) (local.get $body-length))",
    )
}

/// Answers 200 with the path it was asked for as body.
pub fn echo_request() -> Vec<u8> {
    handler(
        "(i32.store16 (i32.const 16) (i32.const 200))
         (i32.store8 (i32.const 28) (i32.const 1))
         (i32.store (i32.const 32) (local.get $path))
         (i32.store (i32.const 36) (local.get $path-length))",
    )
}

/// Traps.
pub fn trap() -> Vec<u8> {
    handler("unreachable")
}

/// Never returns, and calls nothing while it runs.
pub fn endless_loop() -> Vec<u8> {
    handler("(loop $again (br $again))")
}

/// Grows its memory, a megabyte at a time, until it is refused, then traps.
pub fn grow_memory() -> Vec<u8> {
    handler(
        "(loop $again
           (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         unreachable",
    )
}

/// Grows a table until it is refused, then traps.
pub fn grow_table() -> Vec<u8> {
    handler_with(
        "",
        "(table $grown 1 funcref)",
        "(loop $again
           (br_if $again
             (i32.ne (table.grow $grown (ref.null func) (i32.const 1024)) (i32.const -1))))
         unreachable",
    )
}

/// Answers with a status that HTTP doesn't have.
pub fn nonsense_status() -> Vec<u8> {
    handler("(i32.store16 (i32.const 16) (i32.const 9999))")
}

/// Calls itself until the stack ends.
pub fn deep_recursion() -> Vec<u8> {
    handler_with(
        "",
        "(func $deeper (param $depth i32) (result i32)
           (i32.add (local.get $depth) (call $deeper (i32.add (local.get $depth) (i32.const 1)))))",
        "(drop (call $deeper (i32.const 0)))",
    )
}

/// Logs `flood` at info `lines` times, then answers 200.
pub fn log_flood(lines: u32) -> Vec<u8> {
    handler_with(
        LOG,
        r#"(data (i32.const 64) "flood")"#,
        &format!(
            "(local $left i32)
             (local.set $left (i32.const {lines}))
             (block $done
               (loop $again
                 (br_if $done (i32.eqz (local.get $left)))
                 (call $log (i32.const 2) (i32.const 64) (i32.const 5))
                 (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                 (br $again)))
             (i32.store16 (i32.const 16) (i32.const 200))"
        ),
    )
}

/// Answers 200, and has a function that takes long to compile and much memory, both far more than its
/// bytes, which grow with `size`: each of so many nested loops may change each of as many variables, so the
/// compiler has to keep track of every variable anew in every loop.
pub fn compile_bomb(size: usize) -> Vec<u8> {
    let changes = (0..size)
        .map(|local| format!("(local.set {local} (i32.add (local.get {local}) (i32.const 1)))"));
    let function = format!(
        "(func $bomb (result i32) (local {locals}) {begin} {changes} {end} local.get 0)",
        locals = "i32 ".repeat(size),
        begin = "loop ".repeat(size),
        changes = changes.collect::<String>(),
        end = "local.get 0 br_if 0 end ".repeat(size),
    );
    handler_with(
        "",
        &function,
        "(if (local.get $has-query) (then (drop (call $bomb))))
         (i32.store16 (i32.const 16) (i32.const 200))",
    )
}

/// Answers 200, and has a function of so many steps. Time and memory to compile it grow with them.
pub fn long_function(steps: usize) -> Vec<u8> {
    let step = "local.get 0 local.get 1 i32.mul i32.const 1 i32.add local.set 0 ";
    let function = format!(
        "(func $long (param i32 i32) (result i32) {} local.get 0)",
        step.repeat(steps)
    );
    handler_with(
        "",
        &function,
        "(i32.store16 (i32.const 16) (i32.const 200))
         (if (local.get $has-query)
           (then (drop (call $long (local.get $query) (local.get $query-length)))))",
    )
}

/// What [`log_then_loop`] logs.
pub const LOOPING: &str = "now it loops";

/// Logs [`LOOPING`] at info, then never returns, and calls nothing more.
pub fn log_then_loop() -> Vec<u8> {
    handler_with(
        LOG,
        &format!(r#"(data (i32.const 64) "{LOOPING}")"#),
        &format!(
            "(call $log (i32.const 2) (i32.const 64) (i32.const {}))
             (loop $again (br $again))",
            LOOPING.len()
        ),
    )
}

/// Reads the record `storm` of the namespace `notes`, again and again, whatever the answer is.
pub fn storage_storm() -> Vec<u8> {
    handler_with(
        r#"(import "alga:storage/records@0.1.0" "get"
             (func $get (param i32 i32 i32 i32 i32 i64 i32)))"#,
        r#"(data (i32.const 64) "notesstorm")"#,
        // What a call brought is forgotten before the next one, so that memory is not what ends it.
        "(local $before i32)
         (local.set $before (global.get $free))
         (loop $again
           (global.set $free (local.get $before))
           (call $get
             (i32.const 64) (i32.const 5) (i32.const 69) (i32.const 5)
             (i32.const 0) (i64.const 0)
             (i32.const 128))
           (br $again))",
    )
}

/// Traps while it is instantiated.
pub fn trap_in_start() -> Vec<u8> {
    handler_with("", "(func $start unreachable) (start $start)", "")
}

/// Answers 200 with a body one byte longer than an answer may have.
pub fn large_body() -> Vec<u8> {
    body_of(MAX_BODY_BYTES + 1)
}

/// Answers 200 with a body of `bytes` zeros.
pub fn body_of(bytes: u32) -> Vec<u8> {
    let pages = bytes.div_ceil(PAGE_BYTES);
    handler(&format!(
        "(local $start i32)
         (local.set $start (i32.mul (memory.grow (i32.const {pages})) (i32.const {PAGE_BYTES})))
         (i32.store16 (i32.const 16) (i32.const 200))
         (i32.store8 (i32.const 28) (i32.const 1))
         (i32.store (i32.const 32) (local.get $start))
         (i32.store (i32.const 36) (i32.const {bytes}))"
    ))
}

/// Answers 200 with `count` headers of different names.
pub fn many_headers(count: usize) -> Vec<u8> {
    let names: Vec<_> = (0..count).map(|i| format!("x-{i:04}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    answer_with(&headers)
}

/// Answers 200 with these headers, whatever it was asked. They must fit into a page of memory.
pub fn answer_with(headers: &[(&str, &str)]) -> Vec<u8> {
    let parts = || headers.iter().flat_map(|(name, value)| [*name, *value]);
    let text: String = parts().collect();
    let entries = HEAP + length(text.len().next_multiple_of(4));
    let end = entries + length(headers.len() * 16);
    assert!(end <= PAGE_BYTES, "the headers need more than a page");
    let mut address = HEAP;
    let mut list = Vec::new();
    for part in parts() {
        list.extend(address.to_le_bytes());
        list.extend(length(part.len()).to_le_bytes());
        address += length(part.len());
    }
    let (text, list, count) = (literal(text.as_bytes()), literal(&list), headers.len());
    handler_with(
        "",
        &format!(
            "(data (i32.const {HEAP}) {text})
             (data (i32.const {entries}) {list})
             (func $keep (global.set $free (i32.const {end})))
             (start $keep)"
        ),
        &format!(
            "(i32.store16 (i32.const 16) (i32.const 200))
             (i32.store (i32.const 20) (i32.const {entries}))
             (i32.store (i32.const 24) (i32.const {count}))"
        ),
    )
}

/// Has the handler, and imports an interface that no runner offers: `evil:host/shell`.
pub fn unknown_import() -> Vec<u8> {
    component_of_world(
        &handler_module(
            r#"(import "evil:host/shell" "run" (func $run))"#,
            "",
            "(call $run)",
        ),
        "package evil:host;
         interface shell { run: func(); }
         world guest { include alga:extension/extension@0.1.0; import shell; }",
        "evil:host/guest",
    )
}

/// A good component that exports `other:guest/greeter` and no handler.
pub fn without_handler() -> Vec<u8> {
    component_of_world(
        r#"(module
             (func (export "other:guest/greeter#greet") (result i32) (i32.const 42)))"#,
        "package other:guest;
         interface greeter { greet: func() -> u32; }
         world guest { export greeter; }",
        "other:guest/guest",
    )
}

/// WebAssembly, but no component.
pub fn core_module() -> Vec<u8> {
    module(r#"(module (func (export "handle") (result i32) (i32.const 200)))"#)
}

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

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a guest is small")
}

/// Bytes as WebAssembly text writes them.
fn literal(bytes: &[u8]) -> String {
    let escaped = bytes.iter().map(|byte| format!("\\{byte:02x}"));
    format!("\"{}\"", escaped.collect::<String>())
}

/// An extension whose handler runs `body`.
fn handler(body: &str) -> Vec<u8> {
    handler_with("", "", body)
}

fn handler_with(imports: &str, items: &str, body: &str) -> Vec<u8> {
    component(&handler_module(imports, items, body))
}

/// A core module that exports the handler as the canonical ABI wants it.
///
/// The answer lies at address 16: status at 16, headers (address, length) at 20, the body's flag at
/// 28 and the body (address, length) at 32. All are zero until `body` stores something. Addresses
/// from 64 on are for the data of `items`.
fn handler_module(imports: &str, items: &str, body: &str) -> String {
    format!(
        r#"(module
          {imports}
          (memory (export "memory") 1)
          (global $free (mut i32) (i32.const {HEAP}))
          {items}

          ;; Hands out memory from front to back; the instance ends before it could matter.
          (func (export "cabi_realloc")
            (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
            (local $start i32) (local $missing i32)
            (local.set $start
              (i32.and
                (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
                (i32.sub (i32.const 0) (local.get $align))))
            (global.set $free (i32.add (local.get $start) (local.get $size)))
            (local.set $missing
              (i32.sub (global.get $free) (i32.mul (memory.size) (i32.const {PAGE_BYTES}))))
            (if (i32.gt_s (local.get $missing) (i32.const 0))
              (then
                (if (i32.eq
                      (memory.grow
                        (i32.add (i32.div_u (local.get $missing) (i32.const {PAGE_BYTES})) (i32.const 1)))
                      (i32.const -1))
                  (then unreachable))))
            (memory.copy (local.get $start) (local.get $old) (local.get $old-size))
            (local.get $start))

          (func (export "alga:extension/handler@0.1.0#handle")
            (param $method i32) (param $method-length i32)
            (param $path i32) (param $path-length i32)
            (param $has-query i32) (param $query i32) (param $query-length i32)
            (param $headers i32) (param $headers-length i32)
            (param $has-body i32) (param $body i32) (param $body-length i32)
            (result i32)
            {body}
            (i32.const 16)))"#
    )
}

/// The component of `world`, which is in `wit/` or in the package `more`.
fn component_of_world(wat: &str, more: &str, world: &str) -> Vec<u8> {
    let (resolve, world) = parse_world(more, world).expect("the guest's world is good");
    let mut module = module(wat);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
        .expect("a world that was parsed can be written");
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(ComponentEncoder::encode)
        .unwrap_or_else(|error| panic!("the module is no component of its world: {error:#}\n{wat}"))
}

fn module(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap_or_else(|error| panic!("the module's text is wrong: {error}\n{wat}"))
}

fn parse_world(more: &str, world: &str) -> anyhow::Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (mut package, _) = resolve.push_dir(wit_dir())?;
    if !more.is_empty() {
        package = resolve.push_source("guest.wit", more)?;
    }
    let world = resolve.select_world(&[package], Some(world))?;
    Ok((resolve, world))
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

    const HANDLER: &str = "alga:extension/handler@0.1.0";

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
    fn guests_export_the_handler_and_import_what_they_call() {
        let logging = "alga:extension/logging@0.1.0";
        let records = "alga:storage/records@0.1.0";
        for (name, guest, import) in [
            ("echo", echo(), None),
            ("echo_request", echo_request(), None),
            ("trap", trap(), None),
            ("endless_loop", endless_loop(), None),
            ("grow_memory", grow_memory(), None),
            ("grow_table", grow_table(), None),
            ("nonsense_status", nonsense_status(), None),
            ("deep_recursion", deep_recursion(), None),
            ("log_flood", log_flood(3), Some(logging)),
            ("log_then_loop", log_then_loop(), Some(logging)),
            ("many_headers", many_headers(3), None),
            ("storage_storm", storage_storm(), Some(records)),
            ("trap_in_start", trap_in_start(), None),
            ("large_body", large_body(), None),
            ("unknown_import", unknown_import(), Some("evil:host/shell")),
        ] {
            let (imports, exports) = interfaces(&guest);
            assert_eq!(exports, [HANDLER], "{name}");
            match import {
                Some(import) => assert!(
                    imports.iter().any(|name| name == import),
                    "{name}: {imports:?}"
                ),
                None => assert_eq!(imports, Vec::<String>::new(), "{name}"),
            }
        }
    }

    #[test]
    fn guests_are_small() {
        for guest in [echo(), large_body(), storage_storm()] {
            assert!(guest.len() < 4096, "{} bytes", guest.len());
        }
    }

    #[test]
    fn a_guest_without_a_handler_exports_something_else() {
        let (imports, exports) = interfaces(&without_handler());
        assert_eq!(imports, Vec::<String>::new());
        assert_eq!(exports, ["other:guest/greeter"]);
    }

    #[test]
    fn a_core_module_is_no_component() {
        // The last half of the header tells modules and components apart.
        assert_eq!(&core_module()[..8], b"\0asm\x01\0\0\0");
        assert_eq!(&trap()[..8], b"\0asm\x0d\0\x01\0");
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
        assert_eq!(exports, [HANDLER]);
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
