//! The form of Chat Completions, as far as a judge is asked by it.

use serde::Deserialize;
use serde_json::json;
use serin_core::judge::Question;

use crate::gateway::Price;

/// The body of a request: what every API like OpenAI's understands, and nothing more.
pub(super) fn request(model: &str, question: &Question) -> Vec<u8> {
    let body = json!({
        "model": model,
        "messages": [
            {"role": "system", "content": question.system},
            {"role": "user", "content": question.user},
        ],
    });
    body.to_string().into_bytes()
}

/// What an answer cost in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Usage {
    input: f64,
    cached: f64,
    output: f64,
}

impl Usage {
    /// The price in millionths of a US dollar.
    pub(super) fn cost_micros(self, price: &Price) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a price of tokens is a small number above 0"
        )]
        let micros = (price.of(self.input, self.cached, self.output) * 1e6).ceil() as u64;
        micros
    }
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: f64,
    #[serde(default)]
    completion_tokens: f64,
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: f64,
}

/// The text of an answer, if it has one, and what it took.
pub(super) fn read(answer: &[u8]) -> (Option<String>, Usage) {
    let Ok(Answer { choices, usage }) = serde_json::from_slice(answer) else {
        return (None, Usage::default());
    };
    let usage = usage.map_or(Usage::default(), |tokens| Usage {
        input: tokens.prompt_tokens,
        cached: tokens.prompt_tokens_details.map_or(0.0, |details| details.cached_tokens),
        output: tokens.completion_tokens,
    });
    let text = choices.into_iter().next().and_then(|choice| choice.message.content);
    (text, usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_text_and_its_price_and_garbage_has_neither() {
        let answer = json!({
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "{\"verdict\": \"pass\"}"}}],
            "usage": {"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}},
        });
        let (text, usage) = read(answer.to_string().as_bytes());
        assert_eq!(text.as_deref(), Some(r#"{"verdict": "pass"}"#));
        // 600 at 1 dollar a million, 400 at 0.1, 100 at 10.
        assert_eq!(usage.cost_micros(&Price { input: 1.0, cached: 0.1, output: 10.0 }), 1_640);
        for garbage in
            ["", "<html>", r#"{"choices": []}"#, r#"{"choices": [{"message": {"content": null}}]}"#]
        {
            assert_eq!(read(garbage.as_bytes()), (None, Usage::default()), "{garbage}");
        }
    }
}
