//! What a request to a model means to the gateway.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;
use serin_core::ids::{PackName, PromptName};

use super::answer::{Expected, Offered};
use super::body::Object;
use super::json::{Json, Member, Node, SyntaxError};
use super::protocol::Protocol;
use super::refusal::Refusal;
use crate::tool_schema::ToolSchemas;

/// Names the prompt, `pack/prompt`, or `pack` where a pack has one prompt.
pub static PROMPT: HeaderName = HeaderName::from_static("x-serin-prompt");
/// A JSON object with the values of the prompt's variables.
pub static VARIABLES: HeaderName = HeaderName::from_static("x-serin-variables");
/// Names the version that an authorised caller wants to try.
pub static VERSION: HeaderName = HeaderName::from_static("x-serin-version");

/// The values of a prompt's variables.
pub(super) type Variables = BTreeMap<String, Value>;

/// The body of a request to a model, and where in it what concerns us lies.
///
/// Where a key comes more than once the last one is read, as providers do.
#[derive(Debug)]
pub(super) struct ModelRequest<'b> {
    /// How it is written.
    pub(super) protocol: Protocol,
    /// The body.
    pub(super) bytes: &'b Bytes,
    /// Its members.
    pub(super) object: Object,
    prompt: Option<Range<usize>>,
    /// The value of `model`.
    pub(super) model: Option<Range<usize>>,
    /// The value of `messages`, or of `input`.
    pub(super) messages: Option<Range<usize>>,
    /// The value of `instructions` or `system`, where the protocol has it.
    pub(super) system: Option<Range<usize>>,
    /// The value of `stream_options`.
    pub(super) stream_options: Option<Range<usize>>,
    stream: Option<Range<usize>>,
    metadata: Option<Range<usize>>,
    /// The value of `tools`.
    pub(super) tools: Option<Range<usize>>,
    functions: Option<Range<usize>>,
    format: Option<Range<usize>>,
    previous: Option<Range<usize>>,
    conversation: Option<Range<usize>>,
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

/// A tool that a request offers.
#[derive(Debug)]
pub(super) struct OwnTool {
    /// What the model calls it by; nothing for one that the provider runs.
    pub(super) name: Option<String>,
    /// Where the schema of its arguments stands.
    schema: Option<Range<usize>>,
    /// Where it stands.
    pub(super) place: Range<usize>,
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

impl<'b> ModelRequest<'b> {
    /// Scans a body.
    ///
    /// # Errors
    /// [`SyntaxError`] when it is no JSON object.
    pub(super) fn scan(protocol: Protocol, bytes: &'b Bytes) -> Result<Self, SyntaxError> {
        let object = Object::scan(bytes)?;
        let mut request = Self {
            protocol,
            bytes,
            object: Object { members: Vec::new(), open: object.open },
            prompt: None,
            model: None,
            messages: None,
            system: None,
            stream_options: None,
            stream: None,
            metadata: None,
            tools: None,
            functions: None,
            format: None,
            previous: None,
            conversation: None,
        };
        for member in &object.members {
            let place = match (protocol, &*member.name(bytes)) {
                (_, b"prompt") => &mut request.prompt,
                (_, b"model") => &mut request.model,
                (_, b"stream") => &mut request.stream,
                (_, b"metadata") => &mut request.metadata,
                (_, b"tools") => &mut request.tools,
                (Protocol::Chat | Protocol::Messages, b"messages") | (Protocol::Responses, b"input") => {
                    &mut request.messages
                }
                (Protocol::Responses, b"instructions") | (Protocol::Messages, b"system") => {
                    &mut request.system
                }
                (Protocol::Chat, b"stream_options") => &mut request.stream_options,
                (Protocol::Chat, b"functions") => &mut request.functions,
                (Protocol::Chat, b"response_format")
                | (Protocol::Responses, b"text")
                | (Protocol::Messages, b"output_format" | b"output_config") => &mut request.format,
                (Protocol::Responses, b"previous_response_id") => &mut request.previous,
                (Protocol::Responses, b"conversation") => &mut request.conversation,
                (Protocol::Chat | Protocol::Responses | Protocol::Messages, _) => continue,
            };
            *place = Some(member.value.clone());
        }
        request.object = object;
        Ok(request)
    }

    /// The prompt that the body names, when its pack is one that `is_ours`.
    ///
    /// What names no pack of ours, such as the ids of OpenAI's own prompts, is none of our business.
    pub(super) fn prompt(&self, is_ours: impl FnOnce(&PackName) -> bool) -> Option<PromptRef> {
        let (mut id, mut variables, mut version) = (None, VariablesSource::None, None);
        for member in self.json().node(self.prompt.as_ref()?).members() {
            match &*member.name() {
                b"id" => id = member.value.decoded(),
                b"variables" => variables = VariablesSource::Body(member.value.range()),
                b"version" => version = member.value.decoded(),
                _ => {}
            }
        }
        let (pack, prompt) = split_id(&id?)?;
        is_ours(&pack).then(|| PromptRef { pack, prompt, variables, version: version.map(Cow::into_owned) })
    }

    /// The body, to be read.
    pub(super) fn json(&self) -> Json<'b> {
        self.object.json(self.bytes)
    }

    /// The session that `metadata.session_id` names, as written.
    pub(super) fn session_id(&self) -> Option<Cow<'_, str>> {
        self.json().node(self.metadata.as_ref()?).member(b"session_id")?.decoded()
    }

    /// The model that the request names.
    pub(super) fn model(&self) -> Option<Cow<'_, str>> {
        self.json().node(self.model.as_ref()?).decoded()
    }

    /// Whether the answer shall be streamed.
    pub(super) fn is_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(|value| self.bytes[value.clone()] == *b"true")
    }

    /// The conversation that the request belongs to, by its id.
    pub(super) fn conversation(&self) -> Option<Cow<'_, str>> {
        let json = self.json();
        let conversation = json.node(self.conversation.as_ref()?);
        conversation.decoded().or_else(|| conversation.member(b"id")?.decoded())
    }

    /// The id of the response that the request goes on from.
    pub(super) fn previous_response(&self) -> Option<Cow<'_, str>> {
        self.json().node(self.previous.as_ref()?).decoded()
    }

    /// Whether the provider knows what was said before.
    pub(super) fn has_history_at_provider(&self) -> bool {
        let has = |value: &Option<Range<usize>>| {
            value.as_ref().is_some_and(|value| self.bytes[value.clone()] != *b"null")
        };
        has(&self.previous) || has(&self.conversation)
    }

    /// What the request leads one to expect of its answer.
    pub(super) fn expected(&self, schemas: &ToolSchemas) -> Expected {
        let tools = self.expected_tools(schemas);
        Expected { tools, json: self.asks_for_json(), ..Expected::nothing(self.protocol) }
    }

    fn asks_for_json(&self) -> bool {
        let Some(format) = &self.format else { return false };
        let json = self.json();
        let format = json.node(format);
        let inner = format.members().find(|member| member.key == b"format");
        let kind = inner.map_or(format, |inner| inner.value).member(b"type").and_then(Node::decoded);
        matches!(kind.as_deref(), Some("json_object" | "json_schema"))
    }

    /// The tools that the request offers in `tools`.
    pub(super) fn offered(&self) -> Vec<OwnTool> {
        self.tools_in(self.tools.as_ref())
    }

    /// Whether the request offers functions in the form that chats had before tools.
    pub(super) fn has_functions(&self) -> bool {
        self.functions.is_some()
    }

    /// Whether the body has a member of this name.
    pub(super) fn has_member(&self, name: &str) -> bool {
        self.object.members.iter().any(|member| *member.name(self.bytes) == *name.as_bytes())
    }

    fn tools_in(&self, list: Option<&Range<usize>>) -> Vec<OwnTool> {
        let Some(list) = list else { return Vec::new() };
        let json = self.json();
        let tools = json.node(list).elements().map(|element| {
            let mut tool = OwnTool { name: None, schema: None, place: element.range() };
            self.read_tool(element, &mut tool);
            tool
        });
        tools.collect()
    }

    /// Reads name and schema, which chats write one level deeper.
    fn read_tool(&self, value: Node<'_, '_>, tool: &mut OwnTool) {
        let is_outer = value.range() == tool.place;
        for Member { key, value, .. } in value.members() {
            match (self.protocol, key) {
                (_, b"name") => tool.name = value.decoded().map(Cow::into_owned),
                (Protocol::Chat | Protocol::Responses, b"parameters")
                | (Protocol::Messages, b"input_schema") => {
                    tool.schema = (!value.is_null()).then(|| value.range());
                }
                (_, b"function" | b"custom") if is_outer => self.read_tool(value, tool),
                (_, _) => {}
            }
        }
    }

    fn expected_tools(&self, schemas: &ToolSchemas) -> Vec<Offered> {
        let own = [&self.tools, &self.functions].into_iter().flat_map(|list| self.tools_in(list.as_ref()));
        own.filter_map(|tool| {
            let schema = tool.schema.map(|schema| schemas.of(&self.bytes[schema]));
            Some(Offered { name: tool.name?, schema: schema.into() })
        })
        .collect()
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

    fn with<T>(body: &Value, read: impl FnOnce(&ModelRequest<'_>) -> T) -> T {
        with_protocol(Protocol::Chat, body, read)
    }

    fn with_protocol<T>(protocol: Protocol, body: &Value, read: impl FnOnce(&ModelRequest<'_>) -> T) -> T {
        let bytes = Bytes::from(body.to_string());
        read(&ModelRequest::scan(protocol, &bytes).unwrap())
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

    fn names(expected: &Expected) -> Vec<String> {
        expected.tools.iter().map(|tool| tool.name.clone()).collect()
    }

    #[test]
    fn the_answer_is_expected_to_fit_tools_and_format() {
        let tools = json!([
            {"type": "function", "function": {"name": "search", "parameters": {"name": "x"}}},
            {"type": "custom", "custom": {"name": "shell"}},
        ]);
        let body = json!({"tools": tools, "functions": [{"name": "old"}], "response_format": {"type": "json_schema"}});
        let expected = with(&body, |body| body.expected(&ToolSchemas::default()));
        assert_eq!(
            (names(&expected), expected.json),
            (["search", "shell", "old"].map(String::from).to_vec(), true)
        );
        assert!(
            !with(&json!({"response_format": {"type": "text"}}), |body| body
                .expected(&ToolSchemas::default()))
            .json
        );
    }

    #[test]
    fn tools_and_formats_are_found_where_each_protocol_has_them() {
        let expected = |protocol, body: Value| {
            let expected = with_protocol(protocol, &body, |body| body.expected(&ToolSchemas::default()));
            (names(&expected), expected.json)
        };
        let search = || vec!["search".to_owned()];
        let json_text = json!({"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}});
        let tool = json!({"type": "function", "name": "search", "parameters": {}});
        let responses = json!({"tools": [tool], "text": json_text, "response_format": 1});
        assert_eq!(expected(Protocol::Responses, responses), (search(), true));
        assert_eq!(
            expected(Protocol::Responses, json!({"text": {"format": {"type": "text"}}})),
            (vec![], false)
        );
        let tool = json!({"name": "search", "input_schema": {"type": "object"}});
        for format in [json!({"type": "json_schema"}), json!({"format": {"type": "json_schema"}})] {
            let body = json!({"tools": [tool], "output_config": format});
            assert_eq!(expected(Protocol::Messages, body), (search(), true));
        }
    }

    #[test]
    fn a_conversation_is_named_by_its_id_or_an_object_with_it() {
        let named = |body: Value| {
            with_protocol(Protocol::Responses, &body, |body| {
                let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
                (owned(body.conversation()), body.has_history_at_provider())
            })
        };
        let conversation = Some("conv_1".to_owned());
        assert_eq!(named(json!({"conversation": "conv_1"})), (conversation.clone(), true));
        assert_eq!(named(json!({"conversation": {"id": "conv_1"}})), (conversation, true));
        assert_eq!(named(json!({"previous_response_id": "resp_1"})), (None, true));
        assert_eq!(named(json!({"previous_response_id": null, "conversation": null})), (None, false));
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
