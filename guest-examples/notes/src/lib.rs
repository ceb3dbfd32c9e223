//! An extension that keeps notes.
//!
//! The example to read first. A request comes in through [`Guest::handle`] below, [`routing`] says
//! what it asks for, [`notes`] does it with the help of [`store`], and [`answer`] turns what came
//! out, also every failure, into a response. [`json`] and [`heap`] are small because the component
//! is: no framework, no serialisation library, about 35 KB.
//!
//! It does without the standard library's half beyond `alloc`, which on this target would bring
//! the handling of panics, files and a console, as much code again as the extension itself.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

mod answer;
mod heap;
mod json;
mod notes;
mod panic;
mod routing;
mod store;

/// What `wit/` says, as Rust: the host's functions to call, and the trait to implement.
mod bindings {
    #![expect(unsafe_code, clippy::pedantic, reason = "generated")]

    wit_bindgen::generate!({
        path: "../../wit",
        world: "alga:extension/extension",
        generate_all,
    });

    use super::Notes;
    export!(Notes);
}

use bindings::exports::alga::extension::handler::{Guest, Request, Response};
use routing::{Refusal, Route};

struct Notes;

impl Guest for Notes {
    /// Runs in a fresh instance for every request: whatever has to last goes into storage.
    fn handle(request: Request) -> Response {
        respond(&request).unwrap_or_else(answer::failure)
    }
}

fn respond(request: &Request) -> Result<Response, answer::Failure> {
    let body = request.body.as_deref().unwrap_or_default();
    let query = request.query.as_deref().unwrap_or_default();
    match routing::route(&request.method, &request.path) {
        Ok(Route::Greet) => Ok(notes::greet()),
        Ok(Route::List) => notes::list(query),
        Ok(Route::Create) => notes::create(body),
        Ok(Route::Read(id)) => notes::read(&id),
        Ok(Route::Write(id)) => notes::write(&id, header(request, "if-match"), body),
        Ok(Route::Remove(id)) => notes::remove(&id),
        Ok(Route::AppendLine(id)) => notes::append_line(&id, body),
        Err(Refusal::UnknownPath) => Err(answer::Failure::UnknownPath),
        Err(Refusal::WrongMethod { allow }) => Err(answer::Failure::WrongMethod { allow }),
    }
}

/// The first header of this name. The host gives all names in lowercase.
fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|header| header.name == name)?;
    Some(&found.value)
}
