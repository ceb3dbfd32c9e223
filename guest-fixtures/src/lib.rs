//! Guests for tests: small components, each of which does one thing, most of them a bad one.
//!
//! A behaviour is a file of `behaviours/`, WebAssembly text that is made into a component when a
//! test asks for it. No compiler is needed, and the components are the same on every machine, so a
//! test may compare what they answer byte for byte. The build makes of every file a case of
//! [`Behaviour`] and a function with the file's name, whose parameters are those that the file names.
//!
//! A file begins with a comment that says what the guest does. Lines `;; {{name}}: value` in it are
//! its parameters and their values where a test gives none. The rest are the fields of a core module
//! that defines the function `$handle`, or a whole `(component …)` or `(module …)`, taken as it is.
//! `{{prelude}}` stands behind the imports, for the memory, its allocator and the exported handler,
//! which calls `$handle`; `{{memory}}`, `{{realloc}}` and `{{handler}}` are its parts, and
//! `{{request}}` the parameters of `$handle`.

mod headers;
mod heavy;

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

pub use self::headers::{answer_with, many_headers};
pub use self::heavy::{compile_bomb, long_function};

include!(concat!(env!("OUT_DIR"), "/behaviours.rs"));

/// What the guest of [`log_then_loop`] logs.
pub const LOOPING: &str = "now it loops";

/// The world of the guests: the extensions' own, WASI as far as guests use it, and an interface that
/// no runner offers. What a guest doesn't import isn't in its component.
const WORLD: &str = "alga:guest-fixtures/guest";

const PARTS: [(&str, &str); 5] = [
    ("prelude", "{{memory}} {{realloc}} {{handler}}"),
    ("memory", include_str!("../prelude/memory.wat")),
    ("realloc", include_str!("../prelude/realloc.wat")),
    ("handler", include_str!("../prelude/handler.wat")),
    ("request", include_str!("../prelude/request.wat")),
];

impl Behaviour {
    /// A guest that does this, with the values that its file names.
    pub fn component(self) -> Vec<u8> {
        self.with(&[])
    }

    fn with(self, given: &[(&str, String)]) -> Vec<u8> {
        let mut text = self.text().to_owned();
        for (name, part) in PARTS {
            text = text.replace(&placeholder(name), part);
        }
        for (name, value) in given {
            text = text.replace(&placeholder(name), value);
        }
        for (name, value) in self.parameters() {
            text = text.replace(&placeholder(name), value);
        }
        assert!(!text.contains("{{"), "a name is left in {text}");
        if is_whole(&text) {
            return assemble(&text);
        }
        component_of(&format!("(module {text})"))
    }
}

fn placeholder(name: &str) -> String {
    format!("{{{{{name}}}}}")
}

/// Whether a text is more than the fields of a module.
fn is_whole(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_start);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(";;"));
    first.is_some_and(|line| line.starts_with("(component") || line.starts_with("(module"))
}

fn assemble(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("the text is wrong: {error}\n{text}"))
}

fn component_of(module: &str) -> Vec<u8> {
    let (resolve, world) = world().expect("the guests' world is good");
    let mut wasm = assemble(module);
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8, false)
        .expect("a world that was parsed can be written");
    ComponentEncoder::default()
        .validate(true)
        .module(&wasm)
        .and_then(ComponentEncoder::encode)
        .unwrap_or_else(|error| panic!("the module is no component: {error:#}\n{module}"))
}

fn world() -> anyhow::Result<(Resolve, WorldId)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    resolve.push_dir(here.join("../wit"))?;
    let package = resolve.push_source("guest.wit", include_str!("../wit/guest.wit"))?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    Ok((resolve, world))
}
