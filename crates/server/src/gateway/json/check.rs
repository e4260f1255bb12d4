//! Whether bytes are JSON: one pass, without recursion and without a tree.

use std::ops::Range;

use super::{MemberPlace, skip_space, string_end};

/// How deep values may be nested.
const DEEPEST: u32 = 128;

/// Bytes that are no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub(in crate::gateway) struct SyntaxError {
    /// Where, counted from 0.
    pub(in crate::gateway) at: usize,
    /// What is wrong there.
    pub(in crate::gateway) problem: &'static str,
}

/// Goes through the object at a position, tells of each of its members, and returns the position behind it.
///
/// # Errors
/// [`SyntaxError`] when it is no object, or a value in it is nested deeper than [`DEEPEST`].
pub(super) fn object(
    bytes: &[u8],
    start: usize,
    mut member: impl FnMut(MemberPlace),
) -> Result<usize, SyntaxError> {
    if bytes.get(start) != Some(&b'{') {
        return Err(SyntaxError { at: start, problem: "expected '{'" });
    }
    let mut at = skip_space(bytes, start + 1);
    if bytes.get(at) == Some(&b'}') {
        return Ok(at + 1);
    }
    loop {
        let (key, has_escapes, start) = key_and_colon(bytes, at)?;
        let end = value(bytes, start)?;
        member(MemberPlace { key, value: start..end, has_escapes });
        at = skip_space(bytes, end);
        match bytes.get(at) {
            Some(b',') => at = skip_space(bytes, at + 1),
            Some(b'}') => return Ok(at + 1),
            Some(_) | None => return Err(SyntaxError { at, problem: "expected ',' or the end of the list" }),
        }
    }
}

/// Reads `"key" :` and returns the key between its quotes, whether it has escapes, and where the value starts.
fn key_and_colon(bytes: &[u8], at: usize) -> Result<(Range<usize>, bool, usize), SyntaxError> {
    if bytes.get(at) != Some(&b'"') {
        return Err(SyntaxError { at, problem: "expected a key" });
    }
    let (end, has_escapes) = string(bytes, at)?;
    let colon = skip_space(bytes, end);
    if bytes.get(colon) != Some(&b':') {
        return Err(SyntaxError { at: colon, problem: "expected ':'" });
    }
    Ok((at + 1..end - 1, has_escapes, skip_space(bytes, colon + 1)))
}

/// From the opening quote to behind the closing one, and whether there are escapes in between.
fn string(bytes: &[u8], at: usize) -> Result<(usize, bool), SyntaxError> {
    string_end(bytes, at + 1).ok_or(SyntaxError { at, problem: "a string without an end" })
}

fn number(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let problem = "expected a digit";
    let whole = if bytes[at] == b'-' { at + 1 } else { at };
    let mut end = digits(whole);
    if end == whole {
        return Err(SyntaxError { at: end, problem });
    }
    if bytes[whole] == b'0' && end > whole + 1 {
        return Err(SyntaxError { at: whole, problem: "a number starts with 0" });
    }
    if bytes.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits(fraction);
        if end == fraction {
            return Err(SyntaxError { at: end, problem });
        }
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = end + 1 + sign;
        end = digits(exponent);
        if end == exponent {
            return Err(SyntaxError { at: end, problem });
        }
    }
    Ok(end)
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, SyntaxError> {
    let end = at + word.len();
    if bytes.get(at..end) == Some(word) {
        Ok(end)
    } else {
        Err(SyntaxError { at, problem: "expected a value" })
    }
}

/// From the first byte of a value to behind its last one.
fn value(bytes: &[u8], mut at: usize) -> Result<usize, SyntaxError> {
    // One bit for each open bracket: 1 is an object, 0 an array; the innermost is the lowest.
    let (mut open, mut depth) = (0_u128, 0_u32);
    loop {
        let close = match bytes.get(at) {
            Some(b'"') => {
                at = string(bytes, at)?.0;
                None
            }
            Some(b'-' | b'0'..=b'9') => {
                at = number(bytes, at)?;
                None
            }
            Some(b't') => {
                at = word(bytes, at, b"true")?;
                None
            }
            Some(b'f') => {
                at = word(bytes, at, b"false")?;
                None
            }
            Some(b'n') => {
                at = word(bytes, at, b"null")?;
                None
            }
            Some(b'{') => Some(b'}'),
            Some(b'[') => Some(b']'),
            Some(_) | None => return Err(SyntaxError { at, problem: "expected a value" }),
        };
        if let Some(close) = close {
            if depth == DEEPEST {
                return Err(SyntaxError { at, problem: "nested deeper than 128 levels" });
            }
            at = skip_space(bytes, at + 1);
            if bytes.get(at) == Some(&close) {
                at += 1;
            } else {
                depth += 1;
                open = open << 1 | u128::from(close == b'}');
                if close == b'}' {
                    at = key_and_colon(bytes, at)?.2;
                }
                continue;
            }
        }
        // Behind a value: on to the next one, or out of as many brackets as close here.
        loop {
            if depth == 0 {
                return Ok(at);
            }
            at = skip_space(bytes, at);
            let is_object = open & 1 == 1;
            match bytes.get(at) {
                Some(b',') => {
                    at = skip_space(bytes, at + 1);
                    if is_object {
                        at = key_and_colon(bytes, at)?.2;
                    }
                    break;
                }
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(_) | None => {
                    return Err(SyntaxError { at, problem: "expected ',' or a closing bracket" });
                }
            }
            depth -= 1;
            open >>= 1;
            at += 1;
        }
    }
}
