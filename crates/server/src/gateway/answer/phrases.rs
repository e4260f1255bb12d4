//! Refusals by their words: what providers do not mark, because the model just says no.
//!
//! Only the opening of an answer is looked at. A model says in its first words that it will not help; what comes later,
//! or what says that something was not found, is an answer. Both sides of a comparison are judged by the same words.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

/// The most bytes of an answer's opening that are kept.
pub(super) const OPENING: usize = 400;
/// Within so many characters the answer says no.
const REACH: usize = 160;

/// Words of regret before a refusal.
const REGRETS: &[&str] =
    &["sorry", "i apologize", "i apologise", "my apologies", "unfortunately", "as an ai", "i appreciate"];

/// Words that say no.
const NOS: &[&str] = &[
    "i can't ",
    "i cannot ",
    "i can not ",
    "i'm unable to ",
    "i am unable to ",
    "i'm not able to ",
    "i am not able to ",
    "i won't ",
    "i will not ",
    "i must decline",
    "i have to decline",
    "i'm not comfortable ",
    "i am not comfortable ",
];

/// What nobody says after a no but to refuse.
const STRONG: &[&str] = &[
    "help with that",
    "help you with that",
    "help with this",
    "help you with this",
    "help with your request",
    "assist",
    "comply",
    "fulfill",
    "fulfil",
    "engage in",
    "participate in",
    "do that",
    "decline",
    "comfortable",
];

/// What is a refusal after a word of regret, and may be an answer without one.
const WEAK: &[&str] = &[
    "help", "provide", "answer", "discuss", "create", "generate", "share", "write", "give", "support",
    "continue", "produce", "offer",
];

/// How refusals begin in other languages.
const ELSEWHERE: &[&str] = &[
    "dabei kann ich nicht helfen",
    "dabei kann ich dir nicht helfen",
    "dabei kann ich ihnen nicht helfen",
    "aber ich kann dir dabei nicht helfen",
    "aber ich kann ihnen dabei nicht helfen",
    "lo siento, pero no puedo",
    "no puedo ayudarte con",
    "no puedo ayudar con",
    "désolé, mais je ne peux pas",
    "désolée, mais je ne peux pas",
    "je ne peux pas vous aider",
    "je ne peux pas t'aider",
    "mi dispiace, ma non posso",
    "desculpe, mas não posso",
    "sinto muito, mas não posso",
    "het spijt me, maar ik kan",
    "申し訳ありませんが、その",
    "申し訳ございませんが、その",
    "抱歉，我无法",
    "抱歉，我不能",
    "对不起，我无法",
    "对不起，我不能",
];

/// Finds whichever phrase comes first, all of them in one pass.
fn any_of(phrases: &[&str]) -> AhoCorasick {
    let mut builder = AhoCorasick::builder();
    builder.match_kind(MatchKind::LeftmostFirst).build(phrases).expect("a few short phrases fit")
}

/// Whether an answer that opens like this refuses.
pub(super) fn is_refusal(opening: &str) -> bool {
    static ANY_ELSEWHERE: LazyLock<AhoCorasick> = LazyLock::new(|| any_of(ELSEWHERE));
    static ANY_NO: LazyLock<AhoCorasick> = LazyLock::new(|| any_of(NOS));
    static ANY_REGRET: LazyLock<AhoCorasick> = LazyLock::new(|| any_of(REGRETS));
    let opening = plain(opening);
    if ANY_ELSEWHERE.is_match(&opening) {
        return true;
    }
    let Some(found) = ANY_NO.find(&opening) else { return false };
    let (before, no, rest) = (&opening[..found.start()], &opening[found.range()], &opening[found.end()..]);
    let regret = ANY_REGRET.find(before);
    let has_regret = regret.is_some_and(|regret| !before[..regret.start()].contains(['.', '?', '!', ':']));
    // Without a word of regret the answer has to begin with its no.
    if !has_regret && before.contains(['.', '?', '!', ':', '\n']) {
        return false;
    }
    let clause = &rest[..rest.find(['.', '!', '?', ';']).unwrap_or(rest.len())];
    let follows = |words: &[&str]| words.iter().any(|word| clause.starts_with(word));
    no.contains("decline") || no.contains("comfortable") || follows(STRONG) || (has_regret && follows(WEAK))
}

/// The opening in small letters, with straight apostrophes and single spaces.
fn plain(opening: &str) -> String {
    let mut plain = Vec::with_capacity(opening.len());
    for c in opening.trim_start().trim_start_matches(['*', '_', '"', '#', '>', ' ']).chars().take(REACH) {
        match c {
            '\u{2019}' | '\u{2018}' | '`' => plain.push(b'\''),
            '!'..='~' => plain.push((c as u8).to_ascii_lowercase()),
            c if c.is_whitespace() => {
                if plain.last() != Some(&b' ') {
                    plain.push(b' ');
                }
            }
            c => c.to_lowercase().for_each(|c| plain.extend(c.encode_utf8(&mut [0; 4]).bytes())),
        }
    }
    String::from_utf8(plain).expect("it was made of characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_its_first_words() {
        for text in [
            "I'm sorry, but I can't help with that.",
            "I\u{2019}m sorry, but I can\u{2019}t assist with that request.",
            "**Sorry**, I cannot provide instructions for that.",
            "I cannot assist with creating malware.",
            "As an AI language model, I am not able to give medical advice.",
            "Unfortunately,\n\nI'm unable to share other customers' data.",
            "I must decline this request.",
            "Es tut mir leid, aber dabei kann ich nicht helfen.",
            "Lo siento, pero no puedo ayudarte con eso.",
            "Je suis désolé, mais je ne peux pas répondre à cette demande.",
            "抱歉，我无法协助您完成这个请求。",
        ] {
            assert!(is_refusal(text), "{text}");
        }
    }

    #[test]
    fn an_answer_that_says_no_to_something_else_is_none() {
        for text in [
            "",
            "Your order 17 is on its way.",
            "I'm sorry, I can't find order 17. Could you check the number?",
            "I'm sorry to hear that! Let me look into it.",
            "Unfortunately, the parcel was lost, so we send a new one.",
            "I can't wait to show you around.",
            "I cannot provide a refund here, but the form at the shop can.",
            "You asked: I can't assist my mother, what now? There are three things to try.",
            "Here is the letter. Dear Sir, I am sorry, I cannot help with that.",
            "{\"answer\": \"no\"}",
        ] {
            assert!(!is_refusal(text), "{text}");
        }
    }
}
