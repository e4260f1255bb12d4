//! How a provider is reached: with TLS or without, and over which versions of HTTP.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How a provider is reached.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// The certificate that it shows; without one it speaks no TLS.
    pub tls: Option<Tls>,
    /// What it speaks.
    pub versions: Versions,
}

/// The versions of HTTP that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
    /// Both, as the client chooses.
    #[default]
    Both,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Tls {
    certificates: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is no PEM of what is needed.
    #[error("could not read {} as {what} in PEM form", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it could not be read.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key do not go together, or TLS does not take them.
    #[error("could not use the certificate with its key")]
    Unusable(#[source] rustls::Error),
}

impl Tls {
    /// A certificate with those that vouch for it behind it, and its key.
    pub fn new(certificates: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Tls {
        Tls { certificates, key: Arc::new(key) }
    }

    /// Reads both from files in PEM form.
    ///
    /// # Errors
    /// [`TlsError`] when a file holds something else.
    pub fn read(certificate: &Path, key: &Path) -> Result<Tls, TlsError> {
        let wrong = |path: &Path, what, source| TlsError::Read { path: path.to_owned(), what, source };
        let certificates = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|source| wrong(certificate, "certificates", source))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| wrong(key, "a key", source))?;
        Ok(Tls::new(certificates, key))
    }

    /// The settings of a server that offers these versions.
    pub(crate) fn server(&self, versions: Versions) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_single_cert(self.certificates.clone(), self.key.clone_key())
            .map_err(TlsError::Unusable)?;
        let (http1, http2) = (b"http/1.1".to_vec(), b"h2".to_vec());
        config.alpn_protocols = match versions {
            Versions::Http1 => vec![http1],
            Versions::Http2 => vec![http2],
            Versions::Both => vec![http2, http1],
        };
        Ok(config)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}
