//! Whose certificates others may show, and what is said when they show another.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// The issuers that are trusted instead of the public ones.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Reads a file of certificates in PEM form.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &str) -> Result<Self, String> {
        let wrong =
            |error: &dyn fmt::Display| format!("could not be read as certificates in PEM form: {error}");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots
                .add(certificate)
                .map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
        }
        if roots.is_empty() {
            Err("holds no certificate in PEM form".to_owned())
        } else {
            Ok(Self(Arc::new(roots)))
        }
    }
}

/// The versions of HTTP that are offered when a connection over TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 before HTTP/1.1; the other side chooses.
    Both,
    /// HTTP/2 alone.
    Http2,
}

/// Connects with TLS where the address asks for it, to whoever one of `roots` vouches for; without them one of
/// the public issuers.
///
/// # Errors
/// When TLS cannot be set up.
pub(crate) fn https<C>(roots: Option<&Roots>, offer: Offer, connector: C) -> io::Result<HttpsConnector<C>> {
    let provider = rustls::crypto::ring::default_provider();
    let tls = match roots {
        None => {
            HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider).map_err(io::Error::other)?
        }
        Some(Roots(roots)) => {
            let config = ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(io::Error::other)?;
            let config = config.with_root_certificates(Arc::clone(roots)).with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(config)
        }
    };
    let tls = tls.https_or_http();
    Ok(match offer {
        Offer::Http1 => tls.enable_http1().wrap_connector(connector),
        Offer::Both => tls.enable_all_versions().wrap_connector(connector),
        Offer::Http2 => tls.enable_http2().wrap_connector(connector),
    })
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

/// What TLS found wrong, if an error comes of that.
pub(crate) fn of_tls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error);
        }
        // An I/O error does not name what it carries as its source, but the source of that.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| of_tls(inner)) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The same in words, with what to do about it.
pub(crate) fn told(error: &rustls::Error) -> (String, &'static str) {
    if let rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) = error {
        let wrong = "it speaks none of the versions of HTTP that were offered".to_owned();
        return (wrong, "set the provider's `http2` to `auto`");
    }
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return (error.to_string(), "check that the address in `baseUrl` speaks TLS there");
    };
    match wrong {
        CertificateError::UnknownIssuer => (
            "its certificate is of an issuer that is not trusted".to_owned(),
            "name the issuer's certificate in the provider's `caFile`",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("its certificate has expired".to_owned(), "have it renewed, and check the clock of this machine")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "its certificate is for another host".to_owned(),
            "write the host into `baseUrl` by a name that the certificate has",
        ),
        // The library's list, which grows.
        other => (format!("its certificate is not accepted: {other}"), "check the certificate and its chain"),
    }
}
