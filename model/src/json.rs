//! JSON from outside: nothing is said twice, and nothing but what is written there.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most repeated members that are reported; a pointer may be long.
const MAX_REPEATED: usize = 100;

/// The most characters of a name in a pointer, which may be repeated for each of many mistakes.
const MAX_NAME_CHARS: usize = 64;

/// What the names of members begin with by which `serde_json` tells itself that a value is none of JSON's
/// own, whichever of its features are on.
const RESERVED: &str = "$serde_json::private::";

/// Parses `bytes` and gives the JSON pointer of every member that its object already had, or of the
/// first hundred.
///
/// `serde_json` silently keeps the last of two equal members while other parsers keep the first, so
/// that what was reviewed need not be what runs. And wherever it makes a [`Value`] it takes an object with a
/// member `$serde_json::private::RawValue` for the JSON text in that member, which nobody has looked at
/// then: such a name is an error here, as is any other that begins so.
pub fn parse_json(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let repeated = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict {
        place: &Place::Root,
        repeated: &repeated,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, repeated.into_inner()))
}

/// Whether a member of this name would make a [`Value`] something else when it is read again.
pub fn is_reserved_member(name: &str) -> bool {
    name.starts_with(RESERVED)
}

/// Whether `value` has such a member at any depth, and so would not be read as it was written.
pub fn has_reserved_member(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_reserved_member),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| is_reserved_member(name) || has_reserved_member(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The JSON pointer of the member `name` of the value at `path`. A name longer than 64 characters is cut,
/// and ends with `…` then.
pub fn member_pointer(path: &str, name: &str) -> String {
    let (name, cut) = match name.char_indices().nth(MAX_NAME_CHARS) {
        Some((end, _)) => (name.get(..end).unwrap_or_default(), "…"),
        None => (name, ""),
    };
    let name = name.replace('~', "~0").replace('/', "~1");
    format!("{path}/{name}{cut}")
}

/// Where a value stands. Only a repeated member is worth the price of writing its pointer.
enum Place<'a> {
    Root,
    Member(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Member(parent, name) => member_pointer(&parent.pointer(), name),
            Self::Item(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

struct Strict<'a> {
    place: &'a Place<'a>,
    repeated: &'a RefCell<Vec<String>>,
}

impl<'a> Strict<'a> {
    fn at<'b>(&self, place: &'b Place<'b>) -> Strict<'b>
    where
        'a: 'b,
    {
        Strict {
            place,
            repeated: self.repeated,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) =
            items.next_element_seed(self.at(&Place::Item(self.place, array.len())))?
        {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if is_reserved_member(&name) {
                let message = format_args!("the name of a member must not begin with {RESERVED}");
                return Err(A::Error::custom(message));
            }
            let place = Place::Member(self.place, &name);
            let value = members.next_value_seed(self.at(&place))?;
            if object.contains_key(&name) && self.repeated.borrow().len() < MAX_REPEATED {
                self.repeated.borrow_mut().push(place.pointer());
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_serde_json_gives() {
        let text = r#" {"a": [1, -2, 3.5, "x\u0041", true, null, {}], "b/c~": {"d": 1e3}} "#;
        let (value, repeated) = parse_json(text.as_bytes()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert!(repeated.is_empty());
    }

    #[test]
    fn a_repeated_member_is_found_at_any_depth_and_in_any_spelling() {
        let (_, repeated) =
            parse_json(br#"{"a": [{"b/c": 1, "b\u002fc": 2}], "a": 3, "a": 4}"#).unwrap();
        assert_eq!(repeated, ["/a/0/b~1c", "/a", "/a"]);
    }

    #[test]
    fn what_would_be_read_as_something_else_is_refused_at_any_depth_and_in_any_spelling() {
        // What serde_json does by itself.
        let smuggled = r#"{"$serde_json::private::RawValue": "7"}"#;
        assert_eq!(serde_json::from_str::<Value>(smuggled).unwrap(), 7);
        for text in [
            smuggled.to_owned(),
            format!(r#"{{"a": [{{"b": {smuggled}}}]}}"#),
            r#"{"a": 1, "\u0024serde_json::private::RawValue": "7"}"#.to_owned(),
            r#"{"$serde_json::private::Number": "7"}"#.to_owned(),
            r#"{"$serde_json::private::": null}"#.to_owned(),
        ] {
            let refused = parse_json(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains("must not begin with"), "{text}: {refused}");
            assert!(refused.contains("at line 1 column"), "{refused}");
        }
        for fine in [
            r#"{"$serde_json": 1}"#,
            r#"["$serde_json::private::RawValue"]"#,
        ] {
            let (value, _) = parse_json(fine.as_bytes()).unwrap();
            assert_eq!(value.to_string(), fine.replace(' ', ""));
        }
    }

    #[test]
    fn a_value_that_would_be_read_as_something_else_is_known() {
        let reserved = serde_json::json!({ "$serde_json::private::RawValue": "7" });
        assert!(has_reserved_member(&reserved));
        assert!(has_reserved_member(&serde_json::json!([{ "a": reserved }])));
        assert!(!has_reserved_member(
            &serde_json::json!({ "a": ["$serde_json::private::RawValue"] })
        ));
    }

    #[test]
    fn a_name_in_a_pointer_is_cut() {
        for (chars, expected) in [(64, "ä".repeat(64)), (65, format!("{}…", "ä".repeat(64)))] {
            let pointer = member_pointer("/a", &"ä".repeat(chars));
            assert_eq!(pointer, format!("/a/{expected}"));
        }
        assert_eq!(member_pointer("", "a/b~"), "/a~1b~0");
    }

    #[test]
    fn endless_nesting_and_trailing_text_are_syntax_errors() {
        assert!(parse_json("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse_json(b"{} {}").is_err());
        assert!(parse_json(b"{\"a\": 1e999}").is_err());
    }
}
