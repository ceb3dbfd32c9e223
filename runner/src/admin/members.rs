//! Reads the members of a JSON object, or the parameters of a query, and names every mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use alga_model::{ExtensionName, TenantId};
use alga_registry::{Grants, InstallState};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::AdminError;
use super::mistakes::{Mistakes, Name};
use super::operation::Parameters;

/// The members that nobody has asked for yet, and what was wrong with the others.
#[derive(Debug)]
pub struct Members {
    left: Map<String, Value>,
    mistakes: Mistakes,
}

/// What a member can be.
pub trait Member: DeserializeOwned {
    /// What it must be, for people. What serde says would quote the value.
    const EXPECTED: &'static str;
}

macro_rules! members {
    ($($kind:ty: $expected:literal,)*) => {$(
        impl Member for $kind {
            const EXPECTED: &'static str = $expected;
        }
    )*};
}

members! {
    bool: "true or false",
    u32: "a whole number",
    u64: "a whole number",
    String: "text",
    Value: "JSON",
    TenantId: "a UUID",
    ExtensionName: "the name of an extension such as com.example.notes",
    BTreeSet<ExtensionName>: "a list of names of extensions such as com.example.notes",
    InstallState: "enabled or disabled",
    Grants: "an object of grants by capability",
}

impl Members {
    /// Reads parameters from the members of an object. What none of them is called is a mistake.
    pub fn parse<P: Parameters>(object: Map<String, Value>) -> Result<P, AdminError> {
        let mut members = Self {
            left: object,
            mistakes: Mistakes::default(),
        };
        let parameters = P::read(&mut members);
        let Self { left, mut mistakes } = members;
        let unknown = left.keys().map(|name| Name(name));
        mistakes.extend(unknown.map(|name| format!("there is no `{name}`")));
        mistakes.ensure_none("the request is")?;
        parameters.ok_or_else(|| AdminError::invalid("the request is", Mistakes::default()))
    }

    /// A member that may be absent or null.
    pub fn optional<T: Member>(&mut self, name: &str) -> Option<T> {
        let value = self.left.remove(name).filter(|value| !value.is_null())?;
        self.decoded(name, value)
    }

    /// A member that must be there.
    pub fn required<T: Member>(&mut self, name: &str) -> Option<T> {
        match self.left.remove(name) {
            None | Some(Value::Null) => self.missing(name),
            Some(value) => self.decoded(name, value),
        }
    }

    /// A member that must be there and may be null.
    pub fn nullable<T: Member>(&mut self, name: &str) -> Option<Option<T>> {
        match self.left.remove(name) {
            None => self.missing(name),
            Some(Value::Null) => Some(None),
            Some(value) => self.decoded(name, value).map(Some),
        }
    }

    /// Settings by name, which must be there.
    pub fn settings(&mut self, name: &str) -> Option<BTreeMap<String, Option<String>>> {
        let settings = match self.left.remove(name) {
            None | Some(Value::Null) => return self.missing(name),
            Some(Value::Object(settings)) => settings,
            Some(_) => {
                self.mistake(name, "expected an object");
                return None;
            }
        };
        let mut read = BTreeMap::new();
        for (setting, value) in settings {
            match value {
                Value::String(value) => drop(read.insert(setting, Some(value))),
                Value::Null => drop(read.insert(setting, None)),
                _ => self.mistake(
                    format_args!("{name}.{}", Name(&setting)),
                    "expected text or null",
                ),
            }
        }
        Some(read)
    }

    /// Whether a member is there.
    pub fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// Leaves a member alone: what is wrong with it is said otherwise.
    pub fn ignore(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// A parameter of a query, which is always text.
    pub fn text<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text: String = self.optional(name)?;
        text.parse().map_err(|error| self.mistake(name, error)).ok()
    }

    /// Says what is wrong with a member.
    pub fn mistake(&mut self, name: impl Display, what: impl Display) {
        self.mistakes.add(format_args!("{name}: {what}"));
    }

    fn decoded<T: Member>(&mut self, name: &str, value: Value) -> Option<T> {
        let decoded = serde_json::from_value(value).ok();
        if decoded.is_none() {
            self.mistake(name, format_args!("expected {}", T::EXPECTED));
        }
        decoded
    }

    fn missing<T>(&mut self, name: &str) -> Option<T> {
        self.mistakes.add(format_args!("`{name}` is missing"));
        None
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::json;

    use super::*;

    members! {
        u8: "a small number",
        Vec<u8>: "a list of small numbers",
    }

    #[derive(Debug, PartialEq, Serialize)]
    struct Three {
        number: u8,
        text: Option<String>,
        list: Option<Vec<u8>>,
    }

    impl Parameters for Three {
        fn read(members: &mut Members) -> Option<Self> {
            let number = members.required("number");
            let text = members.optional("text");
            let list = members.nullable("list");
            Some(Self {
                number: number?,
                text,
                list: list?,
            })
        }

        fn schema() -> Value {
            Value::Null
        }
    }

    fn read(json: Value) -> Result<Three, Vec<String>> {
        let Value::Object(object) = json else {
            panic!("{json} is no object")
        };
        Members::parse(object).map_err(|error| match error {
            AdminError::Invalid { mistakes, .. } => mistakes.texts(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn null_is_absent_unless_it_means_something() {
        let three = Three {
            number: 1,
            text: None,
            list: None,
        };
        for json in [
            json!({"number": 1, "list": null}),
            json!({"number": 1, "list": null, "text": null}),
        ] {
            assert_eq!(read(json).unwrap(), three);
        }
        let mistakes = read(json!({"number": null})).unwrap_err();
        assert_eq!(mistakes, ["`number` is missing", "`list` is missing"]);
    }

    #[test]
    fn a_hostile_request_is_not_answered_at_its_length() {
        let name = |number: u32| format!("{number}{}", "m".repeat(10_000));
        let members = (0..1_000).map(|number| (name(number), Value::Null));
        let mistakes = read(Value::Object(members.collect())).unwrap_err();
        let bytes = mistakes.iter().map(String::len).sum::<usize>();
        assert!(mistakes.len() == 101 && bytes < 10_000, "{bytes}");
    }

    #[test]
    fn no_mistake_quotes_a_value() {
        let secret = json!("hunter2");
        let all = json!({"number": secret, "text": [secret], "list": {"a": secret}});
        let mistakes = read(all).unwrap_err();
        let expected = [
            "number: expected a small number",
            "text: expected text",
            "list: expected a list of small numbers",
        ];
        assert_eq!(mistakes, expected);
    }

    #[test]
    fn every_mistake_is_named() {
        let mistakes = read(json!({"number": 256, "text": 1, "lists": []})).unwrap_err();
        let about: Vec<_> = ["number", "text", "`list` is missing", "`lists`"]
            .into_iter()
            .zip(&mistakes)
            .filter(|(about, mistake)| mistake.contains(about))
            .collect();
        assert_eq!((about.len(), mistakes.len()), (4, 4), "{mistakes:?}");
    }
}
