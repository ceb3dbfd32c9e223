//! What each endpoint does.

use alloc::string::String;

use crate::answer::{self, Failure};
use crate::bindings::alga::extension::context::{get_config, get_invocation};
use crate::bindings::alga::extension::logging::{Level, log};
use crate::bindings::alga::storage::types::{Error, PutGuard};
use crate::bindings::exports::alga::extension::handler::Response;
use crate::json::{self, Object, decimal};
use crate::{routing, store};

/// A note, as it is stored and as it comes in a body.
struct Note {
    title: String,
    text: String,
}

impl Note {
    fn from_json(value: &str) -> Option<Self> {
        let [title, text] = json::read_texts(value, ["title", "text"]).ok()?;
        Some(Self {
            title: title?,
            text: text?,
        })
    }

    fn to_json(&self) -> String {
        Object::new()
            .text("title", &self.title)
            .text("text", &self.text)
            .finish()
    }

    fn append(&mut self, line: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line);
    }
}

/// `GET /`: who is being greeted, by which version.
pub fn greet() -> Response {
    let invocation = get_invocation();
    let greeting = get_config("greeting");
    let body = Object::new()
        .text("greeting", greeting.as_deref().unwrap_or("Hello"))
        .text("tenant", &invocation.tenant_id)
        .text("extension", &invocation.extension)
        .text("version", &invocation.version)
        .finish();
    answer::json(200, body)
}

/// `GET /notes?limit=&cursor=&prefix=`: one page.
pub fn list(query: &str) -> Result<Response, Failure> {
    let limit = routing::parameter(query, "limit")
        .map(|limit| {
            limit
                .parse()
                .map_err(|_| Failure::BadRequest("limit must be a whole number"))
        })
        .transpose()?;
    let cursor = routing::parameter(query, "cursor");
    let prefix = routing::parameter(query, "prefix");

    let page = store::list(limit, cursor, prefix)?;
    let items = json::array(page.items.iter().map(|item| {
        // The page was asked for with values; `null` is what a value that is not there looks like.
        answer::note(
            &item.key,
            item.revision,
            item.value.as_deref().unwrap_or("null"),
        )
    }));
    let body = Object::new().raw("items", &items);
    let body = match &page.next_cursor {
        Some(cursor) => body.text("nextCursor", cursor),
        None => body.raw("nextCursor", "null"),
    };
    Ok(answer::json(200, body.finish()))
}

/// `POST /notes`: creates a note, never replaces one.
pub fn create(body: &[u8]) -> Result<Response, Failure> {
    let [id, title, text] = read_body(body, ["id", "title", "text"])?;
    let note = Note {
        title: required(title)?,
        text: required(text)?,
    };
    // An id for who brings none: unlike a random one, the request's own makes a request that is
    // sent again find the note it created the first time.
    let id = id.unwrap_or_else(|| get_invocation().request_id);

    let value = note.to_json();
    let written = store::put(&id, &value, PutGuard::Absent)?;
    log_change("created", &id, written.revision);
    let mut response = answer::saved(201, &id, written.revision, &value);
    // Relative to `…/notes`, for an extension doesn't know where it is mounted.
    let location = ["notes/", &routing::encode(&id)].concat();
    response.headers.push(answer::header("location", location));
    Ok(response)
}

/// `GET /notes/{id}`.
pub fn read(id: &str) -> Result<Response, Failure> {
    let entry = store::get(id)?;
    Ok(answer::saved(200, id, entry.revision, &entry.value))
}

/// `PUT /notes/{id}`: creates or replaces a note; with `if-match`, replaces that revision only.
pub fn write(id: &str, if_match: Option<&str>, body: &[u8]) -> Result<Response, Failure> {
    let guard = match if_match {
        None => PutGuard::None,
        Some(etag) => guard(etag).ok_or(Failure::BadRequest(
            "if-match must be one ETag as it was given, such as \"3\", or *",
        ))?,
    };
    let [title, text] = read_body(body, ["title", "text"])?;
    let note = Note {
        title: required(title)?,
        text: required(text)?,
    };

    let value = note.to_json();
    let unguarded = matches!(guard, PutGuard::None);
    let written = store::put(id, &value, guard)?;
    log_change("wrote", id, written.revision);
    let created = unguarded && written.previous.is_none();
    Ok(answer::saved(
        if created { 201 } else { 200 },
        id,
        written.revision,
        &value,
    ))
}

/// `DELETE /notes/{id}`.
pub fn remove(id: &str) -> Result<Response, Failure> {
    if !store::remove(id)? {
        return Err(Error::NotFound.into());
    }
    log(Level::Info, &["removed note ", id].concat());
    Ok(answer::no_content())
}

/// `POST /notes/{id}/lines`: appends a line, whoever else writes at the same time.
pub fn append_line(id: &str, body: &[u8]) -> Result<Response, Failure> {
    let [line] = read_body(body, ["line"])?;
    let line = required(line)?;

    let (written, value) = store::update(id, |value| {
        let mut note = Note::from_json(value).ok_or(Failure::NotANote)?;
        note.append(&line);
        Ok::<_, Failure>(note.to_json())
    })?;
    log_change("appended to", id, written.revision);
    Ok(answer::saved(200, id, written.revision, &value))
}

fn read_body<const N: usize>(
    body: &[u8],
    names: [&str; N],
) -> Result<[Option<String>; N], Failure> {
    let body = str::from_utf8(body).map_err(|_| Failure::BadRequest("the body must be UTF-8"))?;
    Ok(json::read_texts(body, names)?)
}

fn required(member: Option<String>) -> Result<String, Failure> {
    member.ok_or(Failure::BadRequest(
        "a member is missing: a note has title and text, a line has line",
    ))
}

/// The guard that an `if-match` header asks for; none where it is not understood.
fn guard(etag: &str) -> Option<PutGuard> {
    if etag == "*" {
        return Some(PutGuard::Exists);
    }
    let revision = etag.strip_prefix('"')?.strip_suffix('"')?;
    Some(PutGuard::Revision(revision.parse().ok()?))
}

fn log_change(what: &str, id: &str, revision: u64) {
    log(
        Level::Info,
        &[what, " note ", id, " at revision ", &decimal(revision)].concat(),
    );
}
