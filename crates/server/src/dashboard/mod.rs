//! The dashboard: pages that were built from `ui/` and are part of the program.
//!
//! They are static and hold nothing secret; everything they show comes from the API, with its keys. Every
//! path that is no file leads to the same page, so that a view can be linked to.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;

/// One file of the dashboard.
struct File {
    /// Its path, such as `/assets/index-1a2b3c.js`.
    path: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

// `FILES`, by path.
include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// Nothing but files of ours, no script or style within a page, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The pages of the API are none of ours, nor are health and metrics.
const OTHERS: [&str; 5] = ["/api/", "/v1/", "/healthz", "/readyz", "/metrics"];
const INDEX: &str = "/index.html";

/// Answers a request for a page or a file of the dashboard; nothing where it is for something else.
pub fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Option<Response> {
    if !matches!(*method, Method::GET | Method::HEAD) || OTHERS.iter().any(|other| path.starts_with(other)) {
        return None;
    }
    let asked = if path == "/" { INDEX } else { path };
    let file = match file(asked) {
        Some(file) => file,
        // A page of ours has no dot in its last part, and a browser asks for it.
        None if wants_page(headers) && !path.starts_with("/assets/") => file(INDEX)?,
        None => return None,
    };
    Some(served(file, method, headers))
}

fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains("text/html"))
}

fn served(file: &'static File, method: &Method, headers: &HeaderMap) -> Response {
    let tag = tag(file.plain);
    // Names of built files change with their content.
    let is_named_by_content = file.path.starts_with("/assets/");
    let caching = if is_named_by_content { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = Response::builder()
        .header(CONTENT_TYPE, media_type(file.path))
        .header(CACHE_CONTROL, caching)
        .header(ETAG, &tag)
        .header(VARY, ACCEPT_ENCODING)
        .header(CONTENT_SECURITY_POLICY, POLICY)
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(REFERRER_POLICY, "no-referrer")
        .header(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.contains(&tag)) {
        let unchanged = response.status(StatusCode::NOT_MODIFIED).body(Body::empty());
        return unchanged.expect("the headers above are valid");
    }
    let takes_gzip = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    let body = if takes_gzip.is_some_and(|encodings| encodings.contains("gzip")) {
        response = response.header(CONTENT_ENCODING, "gzip");
        file.gzip
    } else {
        file.plain
    };
    let body = if *method == Method::HEAD { Body::empty() } else { Body::from(Bytes::from_static(body)) };
    response.body(body).expect("the headers above are valid")
}

/// Names a content.
fn tag(content: &[u8]) -> String {
    let mut tag = String::from("\"");
    for byte in &blake3::hash(content).as_bytes()[..12] {
        write!(tag, "{byte:02x}").expect("text takes text");
    }
    tag + "\""
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some(_) | None => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a first visit loads, compressed, in bytes.
    const LARGEST_FIRST_LOAD: usize = 150_000;

    fn asked(path: &str, headers: &[(HeaderName, &str)]) -> Option<Response> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        answer(&Method::GET, path, &headers)
    }

    fn header(response: &Response, name: HeaderName) -> &str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[test]
    fn a_first_visit_loads_less_than_150_kilobytes() {
        let sum: usize = FILES.iter().map(|file| file.gzip.len()).sum();
        assert!(sum < LARGEST_FIRST_LOAD, "all files together have {sum} bytes, compressed");
    }

    #[test]
    fn every_path_of_a_browser_leads_to_the_page_and_nothing_else_does() {
        let browser = [(ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")];
        for path in ["/", "/oncall", "/packs/support", "/packs/a.b/versions", "/packs/1.0.0/diff"] {
            let page = asked(path, &browser).expect(path);
            assert_eq!(header(&page, CONTENT_TYPE), "text/html; charset=utf-8", "{path}");
            assert_eq!(header(&page, CACHE_CONTROL), "no-cache", "{path}");
        }
        for path in ["/api/v1/nothing", "/assets/gone.js", "/v1/chat/completions", "/metrics"] {
            assert!(asked(path, &browser).is_none(), "{path}");
        }
        assert!(asked("/oncall", &[(ACCEPT, "application/json")]).is_none());
        assert!(answer(&Method::POST, "/", &HeaderMap::new()).is_none());
    }

    #[test]
    fn files_named_by_their_content_are_kept_for_good_and_come_compressed() {
        for file in FILES.iter().filter(|file| file.path.starts_with("/assets/")) {
            let plain = asked(file.path, &[]).unwrap();
            assert_eq!(header(&plain, CACHE_CONTROL), "public, max-age=31536000, immutable");
            assert_eq!(header(&plain, CONTENT_ENCODING), "");
            let small = asked(file.path, &[(ACCEPT_ENCODING, "br, gzip")]).unwrap();
            assert_eq!(header(&small, CONTENT_ENCODING), "gzip");
            let again = asked(file.path, &[(IF_NONE_MATCH, header(&small, ETAG))]).unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        }
    }

    #[test]
    fn pages_bring_no_script_and_no_style_of_their_own_and_name_no_other_host() {
        let page = asked("/", &[]).unwrap();
        let policy = header(&page, CONTENT_SECURITY_POLICY);
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        let index = std::str::from_utf8(file(INDEX).unwrap().plain).unwrap();
        assert!(!index.contains("<style") && !index.contains(" style="), "{index}");
        assert!(!index.contains("http://") && !index.contains("https://"), "{index}");
        for script in index.split("<script").skip(1) {
            assert!(script.contains("src=\"/"), "{script}");
        }
    }
}
