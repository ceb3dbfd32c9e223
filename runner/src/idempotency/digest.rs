//! What makes two calls the same.

use alga_model::{ContentHash, ContentHasher};

use crate::execute::Call;
use crate::headers;

/// The digest of a call: its install, and what of it can change what the guest sees or may do.
///
/// Left out is what an honest repeat changes: the request id, headers of tracing and of proxies, and
/// the limits. More time or memory doesn't make it another request.
pub(super) fn digest(call: &Call) -> ContentHash {
    let request = &call.request;
    let mut parts = Parts(ContentHasher::new());
    parts.add(call.install.install.id.as_bytes());
    parts.add(request.method.as_bytes());
    parts.add(request.path.as_bytes());
    parts.add_optional(request.query.as_deref().map(str::as_bytes));
    parts.add_optional(request.body.as_deref());
    let headers = headers::to_guest(request.headers.clone());
    parts.add_list(
        headers
            .iter()
            .filter(|header| !headers::changes_on_the_way(&header.name))
            .map(|header| [header.name.as_str(), header.value.as_str()]),
    );
    // Whether they count is for the install to say; they are part of what was asked.
    parts.add_optional_list(call.config.as_ref().map(|config| {
        let settings = config.iter();
        settings.map(|(name, value)| [name.as_str(), value.as_str()])
    }));
    let mut providers = call.providers.clone();
    if let Some(providers) = &mut providers {
        providers.sort_unstable();
        providers.dedup();
    }
    let names = providers.as_ref().map(|providers| providers.iter());
    parts.add_optional_list(names.map(|names| names.map(|name| [name.as_str()])));
    parts.0.finish()
}

/// Parts, each with its length, so that no two sequences of them are the same bytes.
struct Parts(ContentHasher);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    /// None and empty are different.
    fn add_optional(&mut self, part: Option<&[u8]>) {
        self.add(&[u8::from(part.is_some())]);
        self.add(part.unwrap_or_default());
    }

    fn add_list<'a, const N: usize>(&mut self, list: impl Iterator<Item = [&'a str; N]>) {
        for item in list {
            self.add(&[1]);
            for part in item {
                self.add(part.as_bytes());
            }
        }
        self.add(&[0]);
    }

    fn add_optional_list<'a, const N: usize>(
        &mut self,
        list: Option<impl Iterator<Item = [&'a str; N]>>,
    ) {
        self.add(&[u8::from(list.is_some())]);
        self.add_list(list.into_iter().flatten());
    }
}
