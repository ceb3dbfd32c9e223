//! Whom an HTTP client trusts to be the server that it is told to ask.

use reqwest::{Certificate, Client, ClientBuilder, Url};
use rustls::crypto::ring;

/// Certificates that can vouch for nobody.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuthorities {
    /// One can't be read: what is between the lines of PEM is no base64, or doesn't end.
    #[error("cannot use the certificates that shall vouch for the server")]
    Unreadable(#[source] reqwest::Error),
    /// There is none, whatever else the text is.
    #[error("cannot use the certificates that shall vouch for the server: there is none, as PEM")]
    Missing,
}

/// The beginnings of an HTTP client of the server at `url` that, at https, trusts whom the certificates in the PEM
/// text `authorities` vouch for, or else those of the system.
pub fn http_client_builder(
    url: &Url,
    authorities: Option<&[u8]>,
) -> Result<ClientBuilder, InvalidAuthorities> {
    // It fails where somebody did so before, and theirs is as good.
    let _ = ring::default_provider().install_default();
    let builder = Client::builder();
    let Some(pem) = authorities else {
        // Without TLS there is nobody to trust: reading whom the system trusts would be for nothing.
        return Ok(match url.scheme() {
            "https" => builder,
            _ => builder.tls_certs_only([]),
        });
    };
    let certificates = Certificate::from_pem_bundle(pem).map_err(InvalidAuthorities::Unreadable)?;
    if certificates.is_empty() {
        return Err(InvalidAuthorities::Missing);
    }
    Ok(builder.tls_certs_only(certificates))
}
