//! Simulated users: conversations through the gateway, over real HTTP, with an outcome at the end of each.
//!
//! A user writes one to four times, follows a tool call up with its result, and leaves. How well the
//! model did is known from the stand-in's `x-stand-in-quality` header; from it follow, with noise,
//! whether the user reached the goal, had to be handed over, and how the user rates the conversation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// New conversations in a second.
const SESSIONS_PER_SECOND: u32 = 60;
/// Conversations at once; beyond it no new one begins.
const MOST_AT_ONCE: usize = 400;
/// Outcomes that wait to be sent; beyond it they are dropped and counted.
const MOST_WAITING: usize = 4_096;
/// Conversations whose outcomes are sent at once: fewer events than a request may hold.
const MOST_IN_BATCH: usize = 300;
/// How long a batch of outcomes is collected.
const BATCH_EVERY: Duration = Duration::from_millis(200);
/// How many users rate their conversation.
const RATES: f64 = 0.5;
/// How often an answer is streamed.
const STREAMED: f64 = 0.25;

/// What users ask.
const QUESTIONS: [&str; 8] = [
    "Where is my order A-1042?",
    "I would like my money back.",
    "I cannot sign in any more.",
    "The light of my device stays red.",
    "Can I change the address of my order?",
    "The parcel came without the charger.",
    "How do I cancel my subscription?",
    "That did not help. What else can I do?",
];

/// What the simulated users did so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Conversations that ended.
    pub(crate) sessions: AtomicU64,
    /// Requests answered, well or not.
    pub(crate) requests: AtomicU64,
    /// Requests that got no answer at all.
    pub(crate) unanswered: AtomicU64,
    /// Outcomes that the server took.
    pub(crate) outcomes: AtomicU64,
}

/// Users who keep talking until this is dropped.
#[derive(Debug)]
pub(crate) struct Traffic {
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

/// What one conversation came to.
struct Outcomes {
    session: String,
    events: Vec<(&'static str, f64)>,
}

impl Traffic {
    /// Lets users talk to `pack`'s prompt through the gateway at `base`, such as `http://127.0.0.1:8980`.
    pub(crate) fn start(base: String, prompt: &'static str, seed: u64) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(MOST_AT_ONCE)
            .timeout(Duration::from_secs(30))
            .build()?;
        let counts = Arc::new(Counts::default());
        let (outcomes, waiting) = mpsc::channel(MOST_WAITING);
        let pack = prompt.split('/').next().unwrap_or(prompt).to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(report(client.clone(), base.clone(), pack, waiting, Arc::clone(&counts)));
        let gateway = Gateway { client, url: format!("{base}/v1/chat/completions"), prompt };
        tasks.spawn(arrive(gateway, seed, outcomes, Arc::clone(&counts)));
        Ok(Self { counts, _tasks: tasks })
    }

    /// What the users did so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Where users send their messages.
#[derive(Clone)]
struct Gateway {
    client: reqwest::Client,
    url: String,
    prompt: &'static str,
}

/// Begins conversations at an even pace.
async fn arrive(gateway: Gateway, seed: u64, outcomes: mpsc::Sender<Outcomes>, counts: Arc<Counts>) {
    let mut clock = tokio::time::interval(Duration::from_secs(1) / SESSIONS_PER_SECOND);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut conversations = JoinSet::new();
    for number in 0_u64.. {
        clock.tick().await;
        while conversations.try_join_next().is_some() {}
        if conversations.len() >= MOST_AT_ONCE {
            continue;
        }
        let (gateway, outcomes, counts) = (gateway.clone(), outcomes.clone(), Arc::clone(&counts));
        conversations.spawn(async move {
            let dice = Pcg64::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let done = converse(&gateway, format!("user-{seed}-{number}"), dice, &counts).await;
            counts.sessions.fetch_add(1, Ordering::Relaxed);
            // A full queue drops: the outcome is missing then, as it may be in service.
            let _ = outcomes.try_send(done);
        });
    }
}

/// One conversation from the first question to the rating.
async fn converse(gateway: &Gateway, session: String, mut dice: Pcg64, counts: &Counts) -> Outcomes {
    let questions = dice.random_range(1..=4_usize);
    let mut messages: Vec<Value> = Vec::new();
    let mut quality = 0.0;
    let mut answers = 0.0;
    for question in 0..questions {
        let text = QUESTIONS[dice.random_range(0..QUESTIONS.len())];
        messages.push(json!({"role": "user", "content": text}));
        // A tool call and its result belong to the same question.
        loop {
            let streamed = dice.random_bool(STREAMED);
            let answer = gateway.ask(&session, &messages, streamed).await;
            answers += 1.0;
            let Some(answer) = answer else {
                counts.unanswered.fetch_add(1, Ordering::Relaxed);
                break;
            };
            counts.requests.fetch_add(1, Ordering::Relaxed);
            quality += answer.quality;
            match answer.tool_call {
                Some(id) => {
                    messages.push(answer.message);
                    messages.push(
                        json!({"role": "tool", "tool_call_id": id, "content": "{\"state\": \"on its way\"}"}),
                    );
                }
                None => {
                    messages.push(answer.message);
                    break;
                }
            }
        }
        if question + 1 < questions {
            tokio::time::sleep(Duration::from_millis(dice.random_range(50..200))).await;
        }
    }
    Outcomes { session, events: judged(quality / f64::max(answers, 1.0), &mut dice) }
}

/// What a user makes of a conversation of some quality, 0 to 1.
fn judged(quality: f64, dice: &mut Pcg64) -> Vec<(&'static str, f64)> {
    let reached = dice.random_bool(quality.clamp(0.0, 1.0));
    let handed_over = dice.random_bool((0.3 * (1.0 - quality)).clamp(0.0, 1.0));
    let mut events = vec![
        ("task_completion", f64::from(u8::from(reached))),
        ("escalation", f64::from(u8::from(handed_over))),
    ];
    // The sum of three dice is near enough to a bell for a mood.
    let mood: f64 = (0..3).map(|_| dice.random_range(-0.8..0.8)).sum();
    if dice.random_bool(RATES) {
        events.push(("user_satisfaction", (1.2 + 4.0 * quality + mood).round().clamp(1.0, 5.0)));
    }
    events
}

/// What came back.
struct Answer {
    /// How good it was, 0 to 1; 0 for an error.
    quality: f64,
    /// The message for the history.
    message: Value,
    /// The id of the tool call that waits for its result.
    tool_call: Option<String>,
}

impl Gateway {
    /// Sends the conversation; nothing when no answer came at all.
    async fn ask(&self, session: &str, messages: &[Value], streamed: bool) -> Option<Answer> {
        let body = json!({
            "model": "demo-model",
            "messages": messages,
            "stream": streamed,
            "prompt": {"id": self.prompt, "variables": {"company": "Acme"}},
            "tools": [{"type": "function", "function": {
                "name": "find_order",
                "parameters": {
                    "type": "object",
                    "properties": {"order_number": {"type": "string"}},
                    "required": ["order_number"],
                    "additionalProperties": false,
                },
            }}],
        });
        let request = self.client.post(&self.url).header("x-serin-session", session).json(&body);
        let response = request.send().await.ok()?;
        let quality = response.headers().get("x-stand-in-quality").and_then(|value| value.to_str().ok());
        let quality = quality.and_then(|value| value.parse().ok()).unwrap_or(0.0);
        let text = response.text().await.ok()?;
        let message = if streamed { None } else { serde_json::from_str::<Value>(&text).ok() };
        let message = message.as_ref().and_then(|answer| answer.pointer("/choices/0/message")).cloned();
        let tool_call = message.as_ref().and_then(|message| message.pointer("/tool_calls/0/id")?.as_str());
        let tool_call = tool_call.map(ToOwned::to_owned);
        // What was streamed need not be read again to go on talking.
        let message = message.unwrap_or_else(|| json!({"role": "assistant", "content": "…"}));
        Some(Answer { quality, message, tool_call })
    }
}

/// Sends outcomes in batches, until there are no more users.
async fn report(
    client: reqwest::Client,
    base: String,
    pack: String,
    mut waiting: mpsc::Receiver<Outcomes>,
    counts: Arc<Counts>,
) {
    let url = format!("{base}/v1/events");
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MOST_IN_BATCH).await > 0 {
        let events: Vec<Value> = batch
            .drain(..)
            .flat_map(|Outcomes { session, events }| {
                let pack = &pack;
                let event = move |(name, value)| {
                    let id = format!("{session}-{name}");
                    json!({"id": id, "pack": pack, "session": session, "name": name, "value": value})
                };
                events.into_iter().map(event).collect::<Vec<_>>()
            })
            .collect();
        let sent = client.post(&url).json(&json!({ "events": events })).send().await;
        if let Ok(answer) = sent.and_then(reqwest::Response::error_for_status) {
            let answer: Value = answer.json().await.unwrap_or_default();
            counts.outcomes.fetch_add(answer["accepted"].as_u64().unwrap_or(0), Ordering::Relaxed);
        }
        tokio::time::sleep(BATCH_EVERY).await;
    }
}
