//! What an operation is. Each is declared once; the server's route, the request of a client and the
//! entry in the `OpenAPI` document follow from the declaration.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::AdminError;
use super::members::Members;
use super::{Admin, Author};
use alga_model::{ExtensionName, InstallId, TenantId};
use uuid::Uuid;

/// One thing that an administrator may ask for.
pub trait Operation: Sized + 'static {
    /// Its method.
    const METHOD: Method;
    /// Its path, with a placeholder for each part of the target.
    const PATH: &'static str;
    /// What it does, for the documentation.
    const SUMMARY: &'static str;
    /// Whether it looks at the generation of what it changes.
    const GUARD: Guard = Guard::None;
    /// The status of its success.
    const STATUS: u16 = 200;
    /// The codes of its refusals, beside those that every operation has.
    const REFUSALS: &'static [(u16, &'static str)] = &[];

    /// What the path names.
    type Target: Target;
    /// What the query says.
    type Query: Parameters;
    /// What the body says.
    type Body: Parameters;
    /// What it answers.
    type Answer: Answer;

    /// Does it.
    fn run(
        admin: &Admin,
        by: &Author,
        ask: Ask<Self>,
    ) -> impl Future<Output = Result<Self::Answer, AdminError>> + Send;
}

/// A request for an operation.
#[derive(Debug, Clone)]
pub struct Ask<O: Operation> {
    /// What it is about.
    pub target: O::Target,
    /// What the query says.
    pub query: O::Query,
    /// What the body says.
    pub body: O::Body,
    /// The generation that is to be changed; any where there is none.
    pub expected: Option<u64>,
}

impl<O: Operation> Ask<O> {
    /// A request that is about `target` and says nothing else.
    pub fn of(target: O::Target) -> Self
    where
        O::Query: Default,
        O::Body: Default,
    {
        Self::with(target, O::Body::default())
    }

    /// A request with a body.
    pub fn with(target: O::Target, body: O::Body) -> Self
    where
        O::Query: Default,
    {
        Self {
            target,
            query: O::Query::default(),
            body,
            expected: None,
        }
    }

    /// A request with a query.
    pub fn by(target: O::Target, query: O::Query) -> Self
    where
        O::Body: Default,
    {
        Self {
            target,
            query,
            body: O::Body::default(),
            expected: None,
        }
    }

    /// The same, only where that generation is to be changed.
    #[must_use]
    pub fn expecting(self, generation: u64) -> Self {
        Self {
            expected: Some(generation),
            ..self
        }
    }
}

/// The method of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Looks.
    Get,
    /// Makes, or does.
    Post,
    /// Replaces.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// Its name in HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Whether an operation looks at `If-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// There is nothing it could guard.
    None,
    /// Where it is there.
    Optional,
    /// It must be there: what is replaced as a whole was read before.
    Required,
}

/// What a path names: a text for each of its placeholders.
pub trait Target: Sized + Send {
    /// The texts.
    fn texts(&self) -> Vec<String>;

    /// What the texts name; nothing where there can't be such a thing.
    fn parse(texts: &[&str]) -> Option<Self>;
}

impl Target for () {
    fn texts(&self) -> Vec<String> {
        Vec::new()
    }

    fn parse(texts: &[&str]) -> Option<Self> {
        texts.is_empty().then_some(())
    }
}

macro_rules! target_of_one_text {
    ($($name:ty),*) => {$(
        impl Target for $name {
            fn texts(&self) -> Vec<String> {
                vec![self.to_string()]
            }

            fn parse(texts: &[&str]) -> Option<Self> {
                match texts {
                    [text] => text.parse().ok(),
                    _ => None,
                }
            }
        }
    )*};
}

target_of_one_text!(InstallId, TenantId, ExtensionName, Uuid);

impl Target for (InstallId, Uuid) {
    fn texts(&self) -> Vec<String> {
        vec![self.0.to_string(), self.1.to_string()]
    }

    fn parse(texts: &[&str]) -> Option<Self> {
        match texts {
            [install, id] => Some((install.parse().ok()?, id.parse().ok()?)),
            _ => None,
        }
    }
}

impl Target for (ExtensionName, String) {
    fn texts(&self) -> Vec<String> {
        vec![self.0.to_string(), self.1.clone()]
    }

    fn parse(texts: &[&str]) -> Option<Self> {
        match texts {
            [name, version] => Some((name.parse().ok()?, (*version).to_owned())),
            _ => None,
        }
    }
}

/// What a query or a body says.
pub trait Parameters: Serialize + Sized + Send {
    /// Reads every member, so that all mistakes are found; none where one that must be there isn't.
    fn read(members: &mut Members) -> Option<Self>;

    /// Its JSON schema, an object's.
    fn schema() -> Value;
}

impl Parameters for () {
    fn read(_: &mut Members) -> Option<Self> {
        Some(())
    }

    fn schema() -> Value {
        Value::Null
    }
}

/// What an operation answers.
pub trait Answer: Serialize + DeserializeOwned + Send {
    /// What its schema is called.
    const NAME: &'static str;

    /// The generation of what is shown, for the `ETag`.
    fn generation(&self) -> Option<u64> {
        None
    }

    /// Its JSON schema.
    fn schema() -> Value;
}

/// Something that is done with every operation there is.
pub trait Visitor {
    /// Does it with one.
    fn visit<O: Operation>(&mut self);
}
