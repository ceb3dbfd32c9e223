//! Reads the members of a JSON object, or the parameters of a query, and names every mistake.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::AdminError;
use super::operation::Parameters;

/// The most mistakes that are named: an answer must not grow with a hostile request.
const MOST_MISTAKES: usize = 100;

/// The members that nobody has asked for yet, and what was wrong with the others.
#[derive(Debug)]
pub struct Members {
    left: Map<String, Value>,
    mistakes: Vec<String>,
}

impl Members {
    /// Reads parameters from the members of an object. What none of them is called is a mistake.
    pub fn parse<P: Parameters>(object: Map<String, Value>) -> Result<P, AdminError> {
        let mut members = Self {
            left: object,
            mistakes: Vec::new(),
        };
        let parameters = P::read(&mut members);
        let Self { left, mut mistakes } = members;
        mistakes.extend(left.keys().map(|name| format!("there is no `{name}`")));
        mistakes.truncate(MOST_MISTAKES);
        match parameters {
            Some(parameters) if mistakes.is_empty() => Ok(parameters),
            _ => Err(AdminError::invalid("the request is", mistakes)),
        }
    }

    /// A member that may be absent or null.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.left.remove(name).filter(|value| !value.is_null())?;
        self.decoded(name, value)
    }

    /// A member that must be there.
    pub fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        match self.left.remove(name) {
            None | Some(Value::Null) => self.missing(name),
            Some(value) => self.decoded(name, value),
        }
    }

    /// A member that must be there and may be null.
    pub fn nullable<T: DeserializeOwned>(&mut self, name: &str) -> Option<Option<T>> {
        match self.left.remove(name) {
            None => self.missing(name),
            Some(value) => self.decoded(name, value),
        }
    }

    /// Settings by name, which must be there. No message holds a value, as serde's would.
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
                _ => self.mistake(&format!("{name}.{setting}"), "expected text or null"),
            }
        }
        Some(read)
    }

    /// Whether a member is there.
    pub fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// A parameter of a query, which is always text.
    pub fn text<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text: String = self.optional(name)?;
        text.parse().map_err(|error| self.mistake(name, error)).ok()
    }

    /// Says what is wrong with a member.
    pub fn mistake(&mut self, name: &str, what: impl Display) {
        self.mistakes.push(format!("{name}: {what}"));
    }

    fn decoded<T: DeserializeOwned>(&mut self, name: &str, value: Value) -> Option<T> {
        serde_json::from_value(value)
            .map_err(|error| self.mistake(name, error))
            .ok()
    }

    fn missing<T>(&mut self, name: &str) -> Option<T> {
        self.mistakes.push(format!("`{name}` is missing"));
        None
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::json;

    use super::*;

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
            AdminError::Invalid { mistakes, .. } => mistakes,
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
        let members = (0..MOST_MISTAKES * 2).map(|number| (format!("m{number}"), Value::Null));
        let mistakes = read(Value::Object(members.collect())).unwrap_err();
        assert_eq!(mistakes.len(), MOST_MISTAKES);
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
