//! The storage API as JSON, both ways: a service reads requests and writes answers, a client the
//! reverse.
//!
//! Names are in camel case; times are RFC 3339 in UTC with milliseconds; values and metadata are the
//! JSON they are, not text. In a request, null means the same as absence, except for a value.

mod answer;
mod error;
mod request;
mod serve;

pub(crate) use answer::parse;
pub use answer::{
    Answer, DeletedBody, ExpiredBody, NamespaceUsageBody, QuotasBody, RecordBody, UsageBody,
    WrittenBody,
};
pub(crate) use answer::{ManyBody, PageBody, WrittenAllBody};
pub(crate) use error::told;
pub use error::{ErrorBody, ErrorDetails, ErrorMembers};
pub use request::{Asked, Request};
pub(crate) use request::{delete_body, get_body, get_many_body, list_body, put_body, usage_body};

use serde::{Deserialize, Deserializer};

/// Reads a member that may be null, which is then not its absence.
fn even_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}
