//! Whose request it is: the session and its attributes, from headers and W3C baggage.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use serin_core::ids::SessionKey;
pub use serin_core::segment::Attributes;

use super::refusal::Refusal;

/// Names the session.
pub static SESSION: HeaderName = HeaderName::from_static("x-serin-session");
/// A JSON object with the attributes of the session.
pub static ATTRIBUTES: HeaderName = HeaderName::from_static("x-serin-attributes");
static BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// The member of the baggage that names the session.
const CONVERSATION: &str = "gen_ai.conversation.id";
/// The most members of the baggage that are read.
const MOST_BAGGAGE: usize = 64;

/// The session that the headers name: `x-serin-session`, then the configured ones.
///
/// # Errors
/// 400 when such a header holds no session key.
pub(super) fn session_of_headers(
    headers: &HeaderMap,
    also: &[HeaderName],
) -> Result<Option<SessionKey>, Refusal> {
    let mut names = std::iter::once(&SESSION).chain(also);
    let Some((name, value)) = names.find_map(|name| Some((name, headers.get(name)?))) else {
        return Ok(None);
    };
    let name = name.as_str();
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Refusal::bad_request("invalid_session", format!("header {name} is no UTF-8")))?;
    session(text, name).map(Some)
}

/// Reads a session key that was found somewhere.
///
/// # Errors
/// 400 when it is none.
pub(super) fn session(text: &str, place: &str) -> Result<SessionKey, Refusal> {
    SessionKey::parse(text)
        .map_err(|error| Refusal::bad_request("invalid_session", format!("{place}: {error}")))
}

/// The session that the baggage names; what is no session key there is passed over, because others write it too.
pub(super) fn session_of_baggage(headers: &HeaderMap) -> Option<SessionKey> {
    let (_, value) = baggage(headers).find(|(key, _)| key == CONVERSATION)?;
    SessionKey::parse(&value).ok()
}

/// The attributes: those of `x-serin-attributes`, else the members of the baggage as text.
///
/// # Errors
/// 400 when the header is no JSON object.
pub fn attributes(headers: &HeaderMap) -> Result<Attributes, Refusal> {
    match headers.get(&ATTRIBUTES) {
        Some(value) => serde_json::from_slice(value.as_bytes()).map_err(|error| {
            let message = format!("could not read header {} as a JSON object: {error}", ATTRIBUTES.as_str());
            Refusal::bad_request("invalid_attributes", message)
        }),
        None => Ok(baggage(headers)
            .filter(|(key, _)| key != CONVERSATION)
            .map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())))
            .collect()),
    }
}

/// The members of the baggage with their values decoded; properties are passed over.
fn baggage(headers: &HeaderMap) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let lists = headers.get_all(&BAGGAGE).into_iter().filter_map(|value| value.to_str().ok());
    let members = lists.flat_map(|list| list.split(',')).take(MOST_BAGGAGE);
    members.filter_map(|member| {
        let pair = member.split(';').next().unwrap_or(member);
        let (key, value) = pair.split_once('=')?;
        Some((Cow::Borrowed(key.trim()), decoded(value.trim())))
    })
}

/// Resolves `%41` to `A`; what is no such code stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            Some(_) | None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_session_header_comes_before_the_configured_ones() {
        let also = [HeaderName::from_static("x-chat-id"), HeaderName::from_static("x-user")];
        let session = |pairs: &[(&'static str, &'static str)]| {
            session_of_headers(&headers(pairs), &also).unwrap().map(|key| key.as_str().to_owned())
        };
        assert_eq!(
            session(&[("x-user", "u"), ("x-chat-id", "c"), ("x-serin-session", "s")]).as_deref(),
            Some("s")
        );
        assert_eq!(session(&[("x-user", "u"), ("x-chat-id", "c")]).as_deref(), Some("c"));
        assert_eq!(session(&[("x-other", "o")]), None);
    }

    #[test]
    fn a_header_that_is_no_session_key_is_refused() {
        let refused = session_of_headers(&headers(&[("x-serin-session", "")]), &[]).unwrap_err();
        assert_eq!(refused.message, "x-serin-session: session key \"\" must hold 1 to 256 bytes");
    }

    #[test]
    fn baggage_names_session_and_attributes() {
        let baggage =
            headers(&[("baggage", "gen_ai.conversation.id=c%2F1;ttl=3 , segment = beta ,x=%zz,broken")]);
        assert_eq!(session_of_baggage(&baggage).unwrap().as_str(), "c/1");
        let attributes = attributes(&baggage).unwrap();
        assert_eq!(Value::Object(attributes), serde_json::json!({"segment": "beta", "x": "%zz"}));
    }

    #[test]
    fn the_attributes_header_wins_and_must_be_an_object() {
        let both = headers(&[("x-serin-attributes", r#"{"segment": "a"}"#), ("baggage", "segment=b")]);
        assert_eq!(attributes(&both).unwrap()["segment"], "a");
        let refused = attributes(&headers(&[("x-serin-attributes", "[1]")])).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (400, "invalid_attributes"));
    }
}
