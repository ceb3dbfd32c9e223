//! What is asked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer as _, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::even_null;
use crate::contract::{
    BulkItem, BulkPutRequest, DeleteRequest, GetManyRequest, GetRequest, Guard, JsonText, Key,
    KeyRange, ListRequest, Namespace, OperationId, PutRequest, Revision,
};
use crate::error::{BulkError, Error, FailedItem, Violation};
use crate::service::{CheckedItem, CheckedList, Put};

/// More than any request may have elements of a list, however it is configured.
const TOO_MANY: usize = 1_001;

/// A request as it was read.
#[derive(Debug)]
pub struct Asked {
    /// What is asked for.
    pub request: Request,
    /// What it is known by, where it is a write that may be repeated.
    pub operation_id: Option<OperationId>,
}

/// What is asked for.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is what its request says")]
pub enum Request {
    Put(PutRequest),
    Get(GetRequest),
    List(ListRequest),
    Delete(DeleteRequest),
    BulkPut(BulkPutRequest),
    GetMany(GetManyRequest),
    Usage,
}

impl Asked {
    /// Reads a JSON object with the member `operation` and those that the operation needs. One that it
    /// doesn't know is refused: a guard that is spelt wrongly must not be taken for none.
    ///
    /// # Errors
    /// [`Error::ValidationFailed`] names the member that is wrong, and the item of several that has it.
    pub fn parse(body: &[u8]) -> Result<Self, BulkError> {
        // Members in a list, without their names, would be read as well.
        if body.trim_ascii_start().starts_with(b"[") {
            return Err(Violation::argument("body", "it is no JSON object").into());
        }
        let mut members: Members<'_> = serde_json::from_slice(body)
            .map_err(|error| Violation::argument("body", error.to_string()))?;
        let operation = required(&mut members.operation, "operation")?;
        let request = match &*operation {
            "put" => Request::Put(members.put()?),
            "get" => Request::Get(members.get()?),
            "list" => Request::List(members.list()?),
            "delete" => Request::Delete(members.delete()?),
            "bulkPut" => Request::BulkPut(members.bulk_put()?),
            "getMany" => Request::GetMany(members.get_many()?),
            "usage" => Request::Usage,
            _ => {
                let known = "it is put, get, list, delete, bulkPut, getMany or usage";
                return Err(Violation::argument("operation", known).into());
            }
        };
        let operation_id = match request {
            Request::Put(_) | Request::Delete(_) | Request::BulkPut(_) => {
                let id = members.operation_id.take();
                id.map(|id| OperationId::parse(&id)).transpose()?
            }
            _ => None,
        };
        members.ensure_all_read(&operation)?;
        Ok(Self {
            request,
            operation_id,
        })
    }
}

/// Declares members that may all be absent.
macro_rules! members {
    ($(#[$meta:meta])* struct $name:ident<$a:lifetime> { $($(#[$attribute:meta])* $member:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Default, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub(crate) struct $name<$a> {
            $(
                $(#[$attribute])*
                #[serde(skip_serializing_if = "Option::is_none")]
                $member: Option<$type>,
            )*
        }
    };
}

members! {
    /// The members of any request, and of an item of one.
    struct Members<'a> {
        operation: Cow<'a, str>,
        operation_id: Cow<'a, str>,
        namespace: Cow<'a, str>,
        key: Cow<'a, str>,
        #[serde(borrow, deserialize_with = "even_null")]
        value: &'a RawValue,
        #[serde(borrow)]
        metadata: &'a RawValue,
        ttl_seconds: u64,
        if_revision: u64,
        if_exists: bool,
        schema_version: u32,
        return_previous: bool,
        return_current: bool,
        #[serde(borrow)]
        items: &'a RawValue,
        #[serde(borrow)]
        keys: &'a RawValue,
        limit: u32,
        cursor: Cow<'a, str>,
        key_prefix: Cow<'a, str>,
        start_key: Cow<'a, str>,
        end_key: Cow<'a, str>,
        reverse: bool,
        include_values: bool,
        include_metadata: bool,
    }
}

/// Reading: each member that is read is taken, so that what nobody reads is left.
impl<'a> Members<'a> {
    fn put(&mut self) -> Result<PutRequest, Error> {
        let key = self.key.take();
        Ok(PutRequest {
            namespace: self.namespace()?,
            item: self.item(key.as_deref())?,
            return_previous: flag(&mut self.return_previous),
            return_current: flag(&mut self.return_current),
        })
    }

    fn get(&mut self) -> Result<GetRequest, Error> {
        Ok(GetRequest {
            namespace: self.namespace()?,
            key: self.key()?,
            if_revision: self.if_revision.take().map(Revision::parse).transpose()?,
        })
    }

    fn list(&mut self) -> Result<ListRequest, Error> {
        let [prefix, start, end] = [
            self.key_prefix.take(),
            self.start_key.take(),
            self.end_key.take(),
        ];
        Ok(ListRequest {
            namespace: self.namespace()?,
            range: KeyRange::parse(prefix.as_deref(), start.as_deref(), end.as_deref())?,
            reverse: flag(&mut self.reverse),
            limit: self.limit.take(),
            cursor: self.cursor.take().map(Cow::into_owned),
            include_values: flag(&mut self.include_values),
            include_metadata: flag(&mut self.include_metadata),
        })
    }

    fn delete(&mut self) -> Result<DeleteRequest, Error> {
        Ok(DeleteRequest {
            namespace: self.namespace()?,
            key: self.key()?,
            guard: self.guard()?,
        })
    }

    fn bulk_put(&mut self) -> Result<BulkPutRequest, BulkError> {
        let items: Vec<Members<'a>> = list(required(&mut self.items, "items")?, "items")?;
        let items = items.into_iter().enumerate().map(|(index, mut members)| {
            let key = members.key.take();
            members.whole_item(key.as_deref()).map_err(|error| {
                let item = FailedItem::new(index, &key.unwrap_or_default());
                BulkError {
                    item: Some(item),
                    error,
                }
            })
        });
        Ok(BulkPutRequest {
            namespace: self.namespace()?,
            items: items.collect::<Result<_, BulkError>>()?,
        })
    }

    fn get_many(&mut self) -> Result<GetManyRequest, Error> {
        let keys: Vec<String> = list(required(&mut self.keys, "keys")?, "keys")?;
        let keys = keys.into_iter().map(Key::parse);
        Ok(GetManyRequest {
            namespace: self.namespace()?,
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// An item with that key, and nothing else.
    fn whole_item(&mut self, key: Option<&str>) -> Result<BulkItem, Error> {
        let item = self.item(key)?;
        self.ensure_all_read("an item")?;
        Ok(item)
    }

    fn item(&mut self, key: Option<&str>) -> Result<BulkItem, Error> {
        let text = |json: &RawValue| json.get().to_owned();
        Ok(BulkItem {
            key: required_key(key)?,
            value: required(&mut self.value, "value").map(text)?,
            metadata: self.metadata.take().map(text),
            ttl_seconds: self.ttl_seconds.take(),
            schema_version: self.schema_version.take(),
            guard: self.guard()?,
        })
    }

    fn namespace(&mut self) -> Result<Namespace, Error> {
        Namespace::parse(required(&mut self.namespace, "namespace")?)
    }

    fn key(&mut self) -> Result<Key, Error> {
        required_key(self.key.take().as_deref())
    }

    fn guard(&mut self) -> Result<Guard, Error> {
        match (self.if_revision.take(), flag(&mut self.if_exists)) {
            (None, false) => Ok(Guard::Any),
            (None, true) => Ok(Guard::Exists),
            (Some(0), false) => Ok(Guard::Absent),
            (Some(revision), false) => Revision::parse(revision).map(Guard::Exactly),
            (Some(_), true) => Err(Violation::argument(
                "ifExists",
                "there is one of ifRevision and ifExists, not both",
            )),
        }
    }

    /// Fails where a member is left that `whose` doesn't have.
    fn ensure_all_read(&self, whose: &str) -> Result<(), Error> {
        let left = String::from_utf8(self.written()).unwrap_or_default();
        let left: BTreeMap<&str, &RawValue> = serde_json::from_str(&left).map_err(nonsense)?;
        left.keys().next().map_or(Ok(()), |member| {
            Err(Violation::argument(
                member,
                format!("{whose} has no such member"),
            ))
        })
    }
}

/// The elements of a list, or as many of them as tell that they are too many: what is behind those is not
/// kept in memory.
fn list<'a, T: Deserialize<'a>>(json: &'a RawValue, name: &str) -> Result<Vec<T>, Error> {
    struct Elements<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while elements.len() < TOO_MANY {
                let Some(element) = list.next_element()? else {
                    return Ok(elements);
                };
                elements.push(element);
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(elements)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json.get());
    let elements = reader.deserialize_seq(Elements(PhantomData));
    elements.map_err(|error| Violation::argument(name, error.to_string()))
}

fn required_key(mut key: Option<&str>) -> Result<Key, Error> {
    Key::parse(required(&mut key, "key")?)
}

fn required<T>(member: &mut Option<T>, name: &str) -> Result<T, Error> {
    member
        .take()
        .ok_or_else(|| Violation::argument(name, "it is missing"))
}

fn flag(member: &mut Option<bool>) -> bool {
    member.take().unwrap_or_default()
}

/// A put of one record, or of several.
pub(crate) fn put_body(put: &Put, id: OperationId) -> Result<Vec<u8>, Error> {
    let id = Some(id.to_string().into());
    let namespace = Some(put.namespace.as_str().into());
    let asked = if let [item] = put.items.as_slice() {
        Members {
            operation: Some("put".into()),
            operation_id: id,
            namespace,
            return_previous: put.return_previous.then_some(true),
            return_current: put.return_current.then_some(true),
            ..item_members(item)?
        }
    } else {
        let items = put.items.iter().map(item_members);
        let items = to_raw_value(&items.collect::<Result<Vec<_>, _>>()?).map_err(nonsense)?;
        let asked = Members {
            operation: Some("bulkPut".into()),
            operation_id: id,
            namespace,
            items: Some(&items),
            ..Members::default()
        };
        return Ok(asked.written());
    };
    Ok(asked.written())
}

pub(crate) fn get_body(request: &GetRequest) -> Vec<u8> {
    let asked = Members {
        operation: Some("get".into()),
        namespace: Some(request.namespace.as_str().into()),
        key: Some(request.key.as_str().into()),
        if_revision: request.if_revision.map(Revision::get),
        ..Members::default()
    };
    asked.written()
}

pub(crate) fn get_many_body(request: &GetManyRequest) -> Result<Vec<u8>, Error> {
    let keys = request.keys.iter().map(Key::as_str);
    let keys = to_raw_value(&keys.collect::<Vec<_>>()).map_err(nonsense)?;
    let asked = Members {
        operation: Some("getMany".into()),
        namespace: Some(request.namespace.as_str().into()),
        keys: Some(&keys),
        ..Members::default()
    };
    Ok(asked.written())
}

pub(crate) fn delete_body(request: &DeleteRequest, id: OperationId) -> Vec<u8> {
    let asked = Members {
        operation: Some("delete".into()),
        operation_id: Some(id.to_string().into()),
        namespace: Some(request.namespace.as_str().into()),
        key: Some(request.key.as_str().into()),
        ..guard_members(request.guard)
    };
    asked.written()
}

pub(crate) fn list_body(list: &CheckedList) -> Vec<u8> {
    fn text(text: Option<&String>) -> Option<Cow<'_, str>> {
        text.map(|text| text.as_str().into())
    }
    let request = &list.request;
    let asked = request.range.asked();
    let asked = Members {
        operation: Some("list".into()),
        namespace: Some(request.namespace.as_str().into()),
        limit: Some(list.limit),
        cursor: text(request.cursor.as_ref()),
        key_prefix: text(asked.prefix.as_ref()),
        start_key: text(asked.start.as_ref()),
        end_key: text(asked.end.as_ref()),
        reverse: request.reverse.then_some(true),
        include_values: request.include_values.then_some(true),
        include_metadata: request.include_metadata.then_some(true),
        ..Members::default()
    };
    asked.written()
}

pub(crate) fn usage_body() -> Vec<u8> {
    let asked = Members {
        operation: Some("usage".into()),
        ..Members::default()
    };
    asked.written()
}

fn item_members(item: &CheckedItem) -> Result<Members<'_>, Error> {
    Ok(Members {
        key: Some(item.key.as_str().into()),
        value: Some(raw(&item.value)?),
        metadata: Some(raw(&item.metadata)?),
        ttl_seconds: item.ttl.map(|ttl| ttl.as_secs()),
        schema_version: item.schema_version,
        ..guard_members(item.guard)
    })
}

fn guard_members(guard: Guard) -> Members<'static> {
    let (if_revision, if_exists) = match guard {
        Guard::Any => (None, None),
        Guard::Absent => (Some(0), None),
        Guard::Exists => (None, Some(true)),
        Guard::Exactly(revision) => (Some(revision.get()), None),
    };
    Members {
        if_revision,
        if_exists,
        ..Members::default()
    }
}

/// The text as it is, within other JSON.
fn raw(text: &JsonText) -> Result<&RawValue, Error> {
    serde_json::from_str(text.as_str()).map_err(nonsense)
}

fn nonsense(error: serde_json::Error) -> Error {
    Error::Internal(error.into())
}

impl Members<'_> {
    fn written(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text, numbers and lists of them are always JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        Asked::parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        let body = r#"{"operation": "put", "namespace": "notes", "key": "a", "value": [ 1e5, -0,
            {"b": "\u00e9", "a": 1e100000} ], "metadata": null, "ifRevision": null, "ttlSeconds": 60}"#;
        let Request::Put(put) = Asked::parse(body.as_bytes()).unwrap().request else {
            panic!("it is no put");
        };
        let value = "[ 1e5, -0,\n            {\"b\": \"\\u00e9\", \"a\": 1e100000} ]";
        assert_eq!(put.item.value, value);
        assert_eq!((put.item.metadata, put.item.ttl_seconds), (None, Some(60)));
        assert_eq!(put.item.guard, Guard::Any);
        let null = br#"{"operation": "put", "namespace": "notes", "key": "a", "value": null}"#;
        let Request::Put(put) = Asked::parse(null).unwrap().request else {
            panic!("it is no put");
        };
        assert_eq!(put.item.value, "null");
    }

    #[test]
    fn what_is_missing_misspelt_or_of_another_operation_is_named() {
        for (body, reason) in [
            ("", "body: EOF"),
            ("[]", "body: "),
            (r#"{"namespace": "notes"}"#, "operation: it is missing"),
            (r#"{"operation": "drop"}"#, "operation: it is put"),
            (
                r#"{"operation": "get", "key": "a"}"#,
                "namespace: it is missing",
            ),
            (
                r#"{"operation": "put", "namespace": "notes", "key": "a"}"#,
                "value: it is missing",
            ),
            (
                r#"{"operation": "get", "namespace": "notes", "key": "a", "ifrevision": 1}"#,
                "`ifrevision`",
            ),
            (
                r#"{"operation": "list", "namespace": "notes", "ifRevision": 1}"#,
                "ifRevision: list has no such member",
            ),
            (
                r#"{"operation": "bulkPut", "namespace": "notes", "items": [{"key": "a", "value": 1, "returnCurrent": true}]}"#,
                "returnCurrent: an item has no such member",
            ),
            (
                r#"{"operation": "delete", "namespace": "notes", "key": "a", "ifRevision": 1, "ifExists": true}"#,
                "not both",
            ),
            (
                r#"{"operation": "delete", "namespace": "notes", "key": "a", "operationId": "1"}"#,
                "operationId: an operation id is a UUID",
            ),
            (
                r#"{"operation": "get", "namespace": "notes", "key": "a", "key": "b"}"#,
                "duplicate field",
            ),
        ] {
            let said = refused(body);
            assert!(said.contains(reason), "{body}: {said}");
        }
    }

    #[test]
    fn an_item_that_is_wrong_is_named() {
        for (item, key) in [
            (r#"{"key": "b", "value": 1, "returnCurrent": true}"#, "b"),
            (
                r#"{"key": "b", "value": 1, "ifRevision": 1, "ifExists": true}"#,
                "b",
            ),
            (r#"{"key": "b"}"#, "b"),
            (r#"{"key": "", "value": 1}"#, ""),
            (r#"{"value": 1}"#, ""),
            // Not more of it than a key may have, and no part of a character.
            (
                &format!(r#"{{"key": "{}", "value": 1}}"#, "k".repeat(300)),
                &"k".repeat(256),
            ),
            (
                &format!(r#"{{"key": "k{}", "value": 1}}"#, "ä".repeat(200)),
                &format!("k{}", "ä".repeat(127)),
            ),
        ] {
            let body = format!(
                r#"{{"operation": "bulkPut", "namespace": "notes", "items": [{{"key": "a", "value": 1}}, {item}]}}"#
            );
            let failed = Asked::parse(body.as_bytes()).unwrap_err();
            let (index, key) = (1, key.to_owned());
            assert_eq!(failed.item, Some(FailedItem { index, key }), "{item}");
        }
        // It is the request that is wrong.
        let body = r#"{"operation": "bulkPut", "items": []}"#;
        assert_eq!(Asked::parse(body.as_bytes()).unwrap_err().item, None);
    }

    #[test]
    fn nesting_of_a_body_is_not_followed_to_the_end_of_the_stack() {
        let deep = "[".repeat(1_000_000);
        let body =
            format!(r#"{{"operation": "put", "namespace": "notes", "key": "a", "value": {deep}"#);
        assert!(refused(&body).contains("EOF"));
        let items = r#"{"items": ["#.repeat(100_000);
        assert!(refused(&items).contains("EOF"));
    }

    #[test]
    fn of_a_list_no_more_is_kept_than_tells_that_it_is_too_long() {
        let keys = vec!["k"; 100_000];
        let body = serde_json::json!({"operation": "getMany", "namespace": "notes", "keys": keys});
        let Request::GetMany(many) = Asked::parse(body.to_string().as_bytes()).unwrap().request
        else {
            panic!("it is no getMany");
        };
        assert_eq!(many.keys.len(), TOO_MANY);
        let items = format!(
            r#"{{"operation": "bulkPut", "namespace": "notes", "items": [{}1]}}"#,
            r#"{"key": "a", "value": 1},"#.repeat(TOO_MANY)
        );
        let Request::BulkPut(bulk) = Asked::parse(items.as_bytes()).unwrap().request else {
            panic!("it is no bulkPut");
        };
        assert_eq!(bulk.items.len(), TOO_MANY);
        let text = r#"{"operation": "getMany", "namespace": "notes", "keys": "a"}"#;
        assert!(refused(text).contains("keys: "));
    }

    #[test]
    fn a_member_too_much_is_refused_whatever_it_holds() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for value in ["1e400", r#""\ud800""#, deep.as_str()] {
            let body = format!(
                r#"{{"operation": "get", "namespace": "notes", "key": "a", "value": {value}}}"#
            );
            let said = refused(&body);
            assert!(said.contains("value: get has no such member"), "{said}");
        }
    }
}
