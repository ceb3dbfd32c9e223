//! The words of the contract: what a request may say and what an answer says.
//!
//! Every type here is parsed once, at a door, and is valid from then on.

mod cursor;
mod json;
mod limits;
mod name;
mod operation;
mod overrides;
mod range;
mod request;
mod response;
mod revision;

pub use cursor::CursorKey;
pub(crate) use cursor::CursorScope;
pub use json::{JsonError, JsonErrorKind, JsonText};
pub use limits::{Limits, QuotaName, Quotas, RateLimit, Rates, RequestLimits};
pub use name::{Key, Namespace};
pub use operation::OperationId;
pub use overrides::{InvalidLimits, LimitOverrides, LimitsOf};
pub use range::KeyRange;
pub use request::{
    BulkItem, BulkPutRequest, DeleteRequest, GetManyRequest, GetRequest, ListRequest, PutRequest,
};
pub use response::{Listed, NamespaceUsage, Page, Record, Usage, Written};
pub use revision::{Guard, Revision};
