//! Makes a Rust function and a case of `Behaviour` of every file in `behaviours/`.

use std::path::Path;
use std::{env, fs};

/// A file of `behaviours/`.
struct Fixture {
    name: String,
    file: String,
    docs: Vec<String>,
    /// Names of what is substituted, and what by unless a test says otherwise.
    parameters: Vec<(String, String)>,
}

impl Fixture {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a file that was listed can be read");
        let mut fixture = Self {
            name: path
                .file_stem()
                .expect("a file has a name")
                .to_string_lossy()
                .into_owned(),
            file: path.display().to_string(),
            docs: Vec::new(),
            parameters: Vec::new(),
        };
        for line in text.lines().map_while(|line| line.strip_prefix(";;")) {
            let line = line.trim();
            match line
                .strip_prefix("{{")
                .and_then(|line| line.split_once("}}: "))
            {
                Some((name, value)) => fixture.parameters.push((name.into(), value.into())),
                None => fixture.docs.push(line.into()),
            }
        }
        assert!(
            fixture.docs.first().is_some_and(|line| !line.is_empty()),
            "{} doesn't begin with what it does",
            fixture.file
        );
        while fixture.docs.last().is_some_and(String::is_empty) {
            fixture.docs.pop();
        }
        fixture
    }

    /// `EndlessLoop` of `endless_loop`.
    fn case(&self) -> String {
        let words = self.name.split('_').map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        });
        words.collect()
    }

    fn docs(&self) -> String {
        let lines = self.docs.iter().map(|line| format!("#[doc = {line:?}]\n"));
        lines.collect()
    }

    fn function(&self) -> String {
        let (name, case, docs) = (&self.name, self.case(), self.docs());
        let names = || self.parameters.iter().map(|(name, _)| name);
        let parameters: Vec<_> = names()
            .map(|name| format!("{name}: impl std::fmt::Display"))
            .collect();
        let given: Vec<_> = names()
            .map(|name| format!("({name:?}, {name}.to_string())"))
            .collect();
        format!(
            "{docs}pub fn {name}({}) -> Vec<u8> {{ Behaviour::{case}.with(&[{}]) }}\n",
            parameters.join(", "),
            given.join(", ")
        )
    }
}

fn main() {
    println!("cargo::rerun-if-changed=behaviours");
    let folder =
        Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("behaviours");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    paths.sort();
    let fixtures: Vec<_> = paths.iter().map(|path| Fixture::read(path)).collect();
    let out = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("behaviours.rs");
    fs::write(out, generated(&fixtures)).expect("the folder for what is made can be written");
}

fn generated(fixtures: &[Fixture]) -> String {
    let each = |part: fn(&Fixture) -> String| fixtures.iter().map(part).collect::<String>();
    let cases = each(|fixture| format!("{}{},\n", fixture.docs(), fixture.case()));
    let all = each(|fixture| format!("Self::{},\n", fixture.case()));
    let names = each(|fixture| format!("Self::{} => {:?},\n", fixture.case(), fixture.name));
    let texts = each(|fixture| {
        let file = &fixture.file;
        format!("Self::{} => include_str!({file:?}),\n", fixture.case())
    });
    let parameters = each(|fixture| {
        let parameters = &fixture.parameters;
        format!("Self::{} => &{parameters:?},\n", fixture.case())
    });
    let functions = each(Fixture::function);
    let count = fixtures.len();
    format!(
        "/// What a guest does: a case for every file of `behaviours/`.
         #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
         pub enum Behaviour {{ {cases} }}
         impl Behaviour {{
             /// Every behaviour there is.
             pub const ALL: [Self; {count}] = [{all}];
             /// The name of its file, without the ending.
             pub const fn name(self) -> &'static str {{ match self {{ {names} }} }}
             const fn text(self) -> &'static str {{ match self {{ {texts} }} }}
             #[expect(clippy::match_same_arms, reason = \"an arm for each file\")]
             const fn parameters(self) -> &'static [(&'static str, &'static str)] {{
                 match self {{ {parameters} }}
             }}
         }}
         {functions}"
    )
}
