//! JSON in which nothing is said twice.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most repeated members that are reported; a pointer may be as long as the whole text.
const MAX_REPEATED: usize = 100;

/// Parses `bytes` and gives the JSON pointer of every member that its object already had, or of the
/// first hundred.
///
/// `serde_json` silently keeps the last of two equal members while other parsers keep the first, so
/// that what was reviewed need not be what runs.
pub fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
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

/// The JSON pointer of the member `name` of the value at `path`.
pub(super) fn member(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
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
            Self::Member(parent, name) => member(&parent.pointer(), name),
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
        let (value, repeated) = parse(text.as_bytes()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert!(repeated.is_empty());
    }

    #[test]
    fn a_repeated_member_is_found_at_any_depth_and_in_any_spelling() {
        let (_, repeated) =
            parse(br#"{"a": [{"b/c": 1, "b\u002fc": 2}], "a": 3, "a": 4}"#).unwrap();
        assert_eq!(repeated, ["/a/0/b~1c", "/a", "/a"]);
    }

    #[test]
    fn endless_nesting_and_trailing_text_are_syntax_errors() {
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse(b"{} {}").is_err());
        assert!(parse(b"{\"a\": 1e999}").is_err());
    }
}
