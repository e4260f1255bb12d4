//! What a chat request means to the gateway.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;
use serin_core::ids::{PackName, PromptName};
use serin_core::routing::Turn;

use super::answer::Expected;
use super::body::{Elements, Members, Object, SyntaxError, text};
use super::refusal::Refusal;

/// Names the prompt, `pack/prompt`, or `pack` where a pack has one prompt.
pub static PROMPT: HeaderName = HeaderName::from_static("x-serin-prompt");
/// A JSON object with the values of the prompt's variables.
pub static VARIABLES: HeaderName = HeaderName::from_static("x-serin-variables");
/// Names the version that an authorised caller wants to try.
pub static VERSION: HeaderName = HeaderName::from_static("x-serin-version");

/// The values of a prompt's variables.
pub(super) type Variables = BTreeMap<String, Value>;

/// The body of a chat request, and where in it what concerns us lies.
///
/// Where a key comes more than once the last one is read, as providers do.
#[derive(Debug)]
pub(super) struct ChatBody<'b> {
    /// The body.
    pub(super) bytes: &'b Bytes,
    /// Its members.
    pub(super) object: Object,
    prompt: Option<Range<usize>>,
    /// The value of `messages`.
    pub(super) messages: Option<Range<usize>>,
    /// The value of `stream_options`.
    pub(super) stream_options: Option<Range<usize>>,
    stream: Option<Range<usize>>,
    metadata: Option<Range<usize>>,
    tools: Option<Range<usize>>,
    functions: Option<Range<usize>>,
    response_format: Option<Range<usize>>,
}

/// The prompt as a request names it.
#[derive(Debug, PartialEq)]
pub(super) struct PromptRef {
    /// The pack.
    pub(super) pack: PackName,
    /// The prompt's name as written; nothing names the only prompt of the pack.
    pub(super) prompt: Option<String>,
    /// The values of its variables.
    pub(super) variables: VariablesSource,
    /// The version that the body asks for.
    pub(super) version: Option<String>,
}

/// Where the values of the variables are written.
#[derive(Debug, PartialEq)]
pub(super) enum VariablesSource {
    /// Nowhere.
    None,
    /// In the body.
    Body(Range<usize>),
    /// In the header.
    Header,
}

impl<'b> ChatBody<'b> {
    /// Scans a body.
    ///
    /// # Errors
    /// [`SyntaxError`] when it is no JSON object.
    pub(super) fn scan(bytes: &'b Bytes) -> Result<Self, SyntaxError> {
        let object = Object::scan(bytes)?;
        let mut body = Self {
            bytes,
            object: Object { members: Vec::new(), open: object.open },
            prompt: None,
            messages: None,
            stream_options: None,
            stream: None,
            metadata: None,
            tools: None,
            functions: None,
            response_format: None,
        };
        for member in &object.members {
            let place = match &*member.name(bytes) {
                b"prompt" => &mut body.prompt,
                b"messages" => &mut body.messages,
                b"stream_options" => &mut body.stream_options,
                b"stream" => &mut body.stream,
                b"metadata" => &mut body.metadata,
                b"tools" => &mut body.tools,
                b"functions" => &mut body.functions,
                b"response_format" => &mut body.response_format,
                _ => continue,
            };
            *place = Some(member.value.clone());
        }
        body.object = object;
        Ok(body)
    }

    /// The prompt that the body names, when its pack is one that `is_ours`.
    ///
    /// What names no pack of ours, such as the ids of OpenAI's own prompts, is none of our business.
    pub(super) fn prompt(&self, is_ours: impl FnOnce(&PackName) -> bool) -> Option<PromptRef> {
        let (mut id, mut variables, mut version) = (None, VariablesSource::None, None);
        for member in Members::of(self.bytes, self.prompt.as_ref()?)? {
            let member = member.ok()?;
            match &*member.name(self.bytes) {
                b"id" => id = text(self.bytes, &member.value),
                b"variables" => variables = VariablesSource::Body(member.value),
                b"version" => version = text(self.bytes, &member.value),
                _ => {}
            }
        }
        let (pack, prompt) = split_id(&id?)?;
        is_ours(&pack).then(|| PromptRef { pack, prompt, variables, version: version.map(Cow::into_owned) })
    }

    /// The session that `metadata.session_id` names, as written.
    pub(super) fn session_id(&self) -> Option<Cow<'_, str>> {
        self.member_text(self.metadata.as_ref()?, b"session_id")
    }

    /// Whether the answer shall be streamed.
    pub(super) fn is_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(|value| self.bytes[value.clone()] == *b"true")
    }

    /// What the request leads one to expect of its answer.
    pub(super) fn expected(&self) -> Expected {
        let json = self.response_format.as_ref().and_then(|format| self.member_text(format, b"type"));
        Expected {
            tools: self.tool_names(),
            json: matches!(json.as_deref(), Some("json_object" | "json_schema")),
        }
    }

    fn tool_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for list in [&self.tools, &self.functions].into_iter().flatten() {
            for tool in Elements::of(self.bytes, list).into_iter().flatten().flatten() {
                let mut name = self.member_text(&tool, b"name");
                for member in Members::of(self.bytes, &tool).into_iter().flatten().flatten() {
                    if matches!(&self.bytes[member.key.clone()], b"function" | b"custom") {
                        name = self.member_text(&member.value, b"name").or(name);
                    }
                }
                names.extend(name.map(Cow::into_owned));
            }
        }
        names
    }

    /// The text of a member of an object somewhere in the body.
    fn member_text(&self, object: &Range<usize>, name: &[u8]) -> Option<Cow<'_, str>> {
        let members = Members::of(self.bytes, object)?.flatten();
        let member = members.filter(|member| *member.name(self.bytes) == *name).last()?;
        text(self.bytes, &member.value)
    }
}

/// The messages of a request.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The position behind the bracket of the list.
    pub(super) open: usize,
    /// Where each message lies.
    pub(super) items: Vec<Range<usize>>,
    /// Which of them are system or developer messages.
    pub(super) system: Vec<usize>,
    /// Whether an answer or a tool's result is among them.
    pub(super) has_history: bool,
    /// Whether the last one is a tool's result.
    pub(super) ends_in_tool_result: bool,
}

impl Messages {
    /// Finds the messages of a request; nothing when it has none.
    ///
    /// # Errors
    /// 400 when `messages` is no list.
    pub(super) fn of(body: &ChatBody<'_>) -> Result<Option<Self>, Refusal> {
        let Some(value) = &body.messages else { return Ok(None) };
        let Some(elements) = Elements::of(body.bytes, value) else {
            return Err(Refusal::bad_request(
                "invalid_messages",
                "`messages` is no list; hint: write a JSON array",
            ));
        };
        let mut messages = Self { open: value.start + 1, ..Self::default() };
        for item in elements {
            let item = item.map_err(|error| bad_json(&error))?;
            let role = body.member_text(&item, b"role");
            messages.ends_in_tool_result = false;
            match role.as_deref() {
                Some("system" | "developer") => messages.system.push(messages.items.len()),
                Some("assistant") => messages.has_history = true,
                Some("tool" | "function") => {
                    (messages.has_history, messages.ends_in_tool_result) = (true, true)
                }
                Some(_) | None => {}
            }
            messages.items.push(item);
        }
        Ok(Some(messages))
    }

    /// Who sent the last message.
    pub(super) fn turn(&self) -> Turn {
        if self.ends_in_tool_result { Turn::ToolResult } else { Turn::User }
    }
}

/// The prompt that the header names.
///
/// # Errors
/// 400 when the header holds no prompt id.
pub(super) fn prompt_of_headers(headers: &HeaderMap) -> Result<Option<PromptRef>, Refusal> {
    let Some(value) = headers.get(&PROMPT) else { return Ok(None) };
    let Some((pack, prompt)) = value.to_str().ok().and_then(split_id) else {
        let message = format!(
            "header {} names no prompt; hint: write `pack/prompt`, such as `support/answer`",
            PROMPT.as_str()
        );
        return Err(Refusal::bad_request("invalid_prompt", message));
    };
    let variables =
        if headers.contains_key(&VARIABLES) { VariablesSource::Header } else { VariablesSource::None };
    Ok(Some(PromptRef { pack, prompt, variables, version: None }))
}

/// Splits `pack/prompt`; nothing when the first part is no pack name.
fn split_id(id: &str) -> Option<(PackName, Option<String>)> {
    let (pack, prompt) = match id.split_once('/') {
        Some((pack, prompt)) => (pack, Some(prompt.to_owned())),
        None => (id, None),
    };
    Some((PackName::parse(pack).ok()?, prompt))
}

impl PromptRef {
    /// Which of a pack's prompts is meant.
    ///
    /// # Errors
    /// 404 when no prompt is named and the pack has several; 400 when the name cannot be one.
    pub(super) fn choose<'p>(
        &self,
        mut known: impl ExactSizeIterator<Item = &'p PromptName>,
    ) -> Result<PromptName, Refusal> {
        match &self.prompt {
            Some(name) => PromptName::parse(name)
                .map_err(|error| Refusal::bad_request("invalid_prompt", error.to_string())),
            None => match (known.len(), known.next()) {
                (1, Some(only)) => Ok(only.clone()),
                (_, first) => {
                    let names: Vec<&str> = first.into_iter().chain(known).map(PromptName::as_str).collect();
                    let (pack, names) = (&self.pack, names.join(", "));
                    let message =
                        format!("pack {pack} has several prompts; hint: name one of {names} as {pack}/NAME");
                    Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_prompt", message))
                }
            },
        }
    }

    /// Reads the values of the variables.
    ///
    /// # Errors
    /// 400 when they are no JSON object.
    pub(super) fn variables(&self, body: &[u8], headers: &HeaderMap) -> Result<Variables, Refusal> {
        let (bytes, place) = match &self.variables {
            VariablesSource::None => return Ok(Variables::new()),
            VariablesSource::Body(range) => (&body[range.clone()], "`prompt.variables`"),
            VariablesSource::Header => {
                let value = headers.get(&VARIABLES).map(http::HeaderValue::as_bytes);
                (value.unwrap_or_default(), VARIABLES.as_str())
            }
        };
        if bytes == b"null" {
            return Ok(Variables::new());
        }
        serde_json::from_slice(bytes).map_err(|error| {
            let message = format!("could not read {place} as a JSON object: {error}");
            Refusal::bad_request("invalid_variables", message)
        })
    }
}

/// 400 for a body that is no JSON object.
pub(super) fn bad_json(error: &SyntaxError) -> Refusal {
    Refusal::bad_request("invalid_json", format!("could not read the request body as a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderValue;
    use serde_json::json;

    fn with<T>(body: &Value, read: impl FnOnce(&ChatBody<'_>) -> T) -> T {
        let bytes = Bytes::from(body.to_string());
        read(&ChatBody::scan(&bytes).unwrap())
    }

    #[test]
    fn a_prompt_is_ours_when_its_pack_is() {
        let prompt = |prompt: Value| {
            with(&json!({ "prompt": prompt }), |body| body.prompt(|pack| pack.as_str() == "support"))
                .map(|prompt| (prompt.prompt, prompt.version))
        };
        let named = Some((Some("answer".to_owned()), None));
        assert_eq!(prompt(json!({"id": "support/answer", "variables": {"a": 1}})), named);
        assert_eq!(
            prompt(json!({"id": "support", "version": "2.0.0"})),
            Some((None, Some("2.0.0".to_owned())))
        );
        for other in
            [json!({"id": "sales/answer"}), json!({"id": "pmpt_123"}), json!({}), json!("support"), json!(1)]
        {
            assert_eq!(prompt(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn messages_tell_the_turn_and_the_history() {
        let read = |roles: &[&str]| {
            let messages: Vec<Value> =
                roles.iter().map(|role| json!({"content": "x", "role": role})).collect();
            let messages =
                with(&json!({ "messages": messages }), |body| Messages::of(body).unwrap().unwrap());
            (messages.turn(), messages.has_history, messages.system)
        };
        assert_eq!(read(&[]), (Turn::User, false, vec![]));
        assert_eq!(read(&["system", "user"]), (Turn::User, false, vec![0]));
        assert_eq!(read(&["user", "assistant", "developer", "user"]), (Turn::User, true, vec![2]));
        assert_eq!(read(&["user", "assistant", "tool"]), (Turn::ToolResult, true, vec![]));
        let refused = with(&json!({"messages": "hi"}), |body| Messages::of(body).unwrap_err());
        assert_eq!(refused.code, "invalid_messages");
    }

    #[test]
    fn the_answer_is_expected_to_fit_tools_and_format() {
        let tools = json!([
            {"type": "function", "function": {"name": "search", "parameters": {"name": "x"}}},
            {"type": "custom", "custom": {"name": "shell"}},
        ]);
        let body = json!({"tools": tools, "functions": [{"name": "old"}], "response_format": {"type": "json_schema"}});
        let expected = with(&body, |body| body.expected());
        assert_eq!(
            (expected.tools, expected.json),
            (["search", "shell", "old"].map(String::from).to_vec(), true)
        );
        assert!(!with(&json!({"response_format": {"type": "text"}}), |body| body.expected()).json);
    }

    #[test]
    fn variables_come_from_the_body_or_the_header_and_must_be_an_object() {
        let mut headers = HeaderMap::new();
        headers.insert(&PROMPT, HeaderValue::from_static("support"));
        headers.insert(&VARIABLES, HeaderValue::from_static(r#"{"name": "Ann"}"#));
        let prompt = prompt_of_headers(&headers).unwrap().unwrap();
        assert_eq!(prompt.variables(b"", &headers).unwrap()["name"], "Ann");
        headers.insert(&VARIABLES, HeaderValue::from_static("Ann"));
        assert_eq!(prompt.variables(b"", &headers).unwrap_err().code, "invalid_variables");
        headers.insert(&PROMPT, HeaderValue::from_static("Support!"));
        assert_eq!(prompt_of_headers(&headers).unwrap_err().code, "invalid_prompt");
    }

    #[test]
    fn a_pack_with_several_prompts_needs_a_name() {
        let names = [PromptName::parse("a").unwrap(), PromptName::parse("b").unwrap()];
        let pack = PackName::parse("support").unwrap();
        let unnamed = PromptRef { pack, prompt: None, variables: VariablesSource::None, version: None };
        assert_eq!(unnamed.choose(names[..1].iter()).unwrap().as_str(), "a");
        let refused = unnamed.choose(names.iter()).unwrap_err();
        assert_eq!(
            refused.message,
            "pack support has several prompts; hint: name one of a, b as support/NAME"
        );
    }
}
