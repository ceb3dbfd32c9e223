//! Answers as they are kept.

use alga_host_api::{Header, Response};
use alga_registry::{KeptAnswer, MAX_ANSWER_BYTES, RegistryError};
use serde::{Deserialize, Serialize};

/// What a kept answer begins with, in one line of JSON; the body follows as it is.
#[derive(Serialize, Deserialize)]
struct Head {
    headers: Vec<(String, String)>,
    has_body: bool,
}

/// The answer as it is kept, if it is; one that is too large as a mere mark, as what was done must
/// not be done again. What failed, or came too early, is worth another try.
pub(super) fn worth_keeping(response: &Response) -> Option<KeptAnswer> {
    let is_final = response.status != 429 && response.status < 500;
    is_final.then(|| {
        let content = encode(response);
        KeptAnswer {
            status: response.status,
            bytes: content.len() as u64,
            content: Some(content).filter(|content| content.len() <= MAX_ANSWER_BYTES),
        }
    })
}

pub(super) fn encode(response: &Response) -> Vec<u8> {
    let pair = |header: &Header| (header.name.clone(), header.value.clone());
    let head = Head {
        headers: response.headers.iter().map(pair).collect(),
        has_body: response.body.is_some(),
    };
    let mut content = serde_json::to_vec(&head).expect("texts can be written as JSON");
    content.push(b'\n');
    content.extend(response.body.as_deref().unwrap_or_default());
    content
}

pub(super) fn decode(status: u16, content: &[u8]) -> Result<Response, RegistryError> {
    let damaged =
        |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Internal { source };
    let end = content.iter().position(|byte| *byte == b'\n');
    let (head, body) = content.split_at(end.unwrap_or(content.len()));
    let head: Head = serde_json::from_slice(head).map_err(|error| damaged(error.into()))?;
    let headers = head.headers.into_iter();
    Ok(Response {
        status,
        headers: headers
            .map(|(name, value)| Header { name, value })
            .collect(),
        body: head
            .has_body
            .then(|| body.get(1..).unwrap_or_default().to_vec()),
    })
}
