//! Whose certificates a provider may show, and what is said when it shows another.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};

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

    /// The issuers, for a client.
    pub(crate) fn shared(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
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
