//! The libraries that apps have already, as users install them, against the real server.

mod interop {
    pub(crate) mod driver;
    mod flags;
    mod models;
    mod telemetry;
    mod tools;

    /// Says which TLS is meant, which the HTTP client of these tests wants to know.
    pub(crate) fn tls() {
        // An error means that it is said already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
#[expect(dead_code, reason = "each test program uses its own part")]
mod support;
