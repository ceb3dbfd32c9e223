//! Requests made by hand.

use crate::bindings::exports::alga::extension::handler::{Header, Request};

impl Request {
    /// A request without headers and body. What follows a `?` in `target` is the query; both are
    /// percent-encoded already.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            headers: Vec::new(),
            body: None,
        }
    }

    /// The request with one header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (name, value) = (name.to_ascii_lowercase(), value.to_owned());
        self.headers.push(Header { name, value });
        self
    }

    /// The request with a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_what_follows_the_first_question_mark() {
        let parts = |target| {
            let request = Request::new("GET", target);
            (request.path, request.query)
        };
        assert_eq!(parts("/a"), ("/a".to_owned(), None));
        assert_eq!(parts("/a?"), ("/a".to_owned(), Some(String::new())));
        assert_eq!(parts("/a?b?c"), ("/a".to_owned(), Some("b?c".to_owned())));
    }

    #[test]
    fn names_of_headers_are_lowercase_and_may_repeat() {
        let request = Request::new("GET", "/")
            .header("Accept", "a/b")
            .header("accept", "c/d");
        let headers: Vec<_> = request
            .headers
            .iter()
            .map(|header| (header.name.as_str(), header.value.as_str()))
            .collect();
        assert_eq!(headers, [("accept", "a/b"), ("accept", "c/d")]);
    }
}
