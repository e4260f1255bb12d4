// Does with the official OpenAI client what it is told, one JSON document per line, and tells what came of it.
// What it is told is described in the Python driver beside it.

import { createInterface } from 'node:readline';
import OpenAI from 'openai';

const PROMPT = 'support/answer';

// Without retries: each request that is asked for is one request.
const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'not-a-key', maxRetries: 0, timeout: 20_000 });

function request(ask, stream) {
  const body = {
    model: 'demo-model',
    messages: [{ role: 'user', content: ask.text ?? 'hello' }],
    prompt: { id: ask.prompt ?? PROMPT, variables: ask.variables ?? {} },
    stream,
  };
  return client.chat.completions.create(body, { headers: { 'x-serin-session': ask.session, ...ask.headers } });
}

const deeds = {
  async chat(ask) {
    const streamed = ask.stream ?? false;
    const { data, response } = await request(ask, streamed).withResponse();
    const chunks = [];
    let text = '';
    if (streamed) {
      for await (const chunk of data) {
        chunks.push(chunk);
        for (const choice of chunk.choices) text += choice.delta.content ?? '';
      }
    } else {
      text = data.choices[0].message.content;
    }
    return {
      version: response.headers.get('x-serin-version'),
      variant: response.headers.get('x-serin-variant'),
      session: response.headers.get('x-serin-session'),
      text,
      chunks: chunks.length,
      chunks_without_choices: chunks.filter((chunk) => chunk.choices.length === 0).length,
    };
  },
  async leave(ask) {
    const stream = await request(ask, true);
    for await (const chunk of stream) {
      stream.controller.abort();
      return { left_after: chunk.id };
    }
    throw new Error('the stream had no chunk');
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line);
  let told;
  try {
    told = await deeds[ask.do](ask);
  } catch (error) {
    if (!(error instanceof OpenAI.OpenAIError)) throw error;
    told = { error: error.constructor.name, status: error.status ?? null, message: error.message };
  }
  console.log(JSON.stringify(told));
}
