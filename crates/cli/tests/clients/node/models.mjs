// Does with the official OpenAI and Anthropic clients what it is told, one JSON document per line.
// What it is told is described in the Python driver beside it.

import { createInterface } from 'node:readline';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const SCHEMA = { type: 'object', properties: { q: { type: 'string' } }, required: ['q'] };
const data = process.argv[2];

// Without retries: each request that is asked for is one request.
const options = { apiKey: 'not-a-key', maxRetries: 0, timeout: 20_000 };
const openai = new OpenAI({ ...options, baseURL: `${data}/v1` });
const anthropic = new Anthropic({ ...options, baseURL: data });

function prompt(ask) {
  const named = { id: 'support/answer', variables: ask.variables ?? {} };
  return ask.version ? { ...named, version: ask.version } : named;
}

function headers(ask) {
  return { ...(ask.session ? { 'x-serin-session': ask.session } : {}), ...ask.headers };
}

const apis = {
  chat: {
    create(ask, stream) {
      const messages = [{ role: 'user', content: ask.text ?? 'hello' }];
      const body = { model: 'demo-model', messages, prompt: prompt(ask), stream };
      if (ask.tools) {
        body.tools = [{ type: 'function', function: { name: 'search', parameters: SCHEMA } }];
      }
      return openai.chat.completions.create(body, { headers: headers(ask) });
    },
    async read(answer, streamed) {
      const told = { id: answer.id ?? null, text: '', calls: [], ended: null, tokens: 0, events: 0 };
      if (!streamed) {
        const [{ message, finish_reason: ended }] = answer.choices;
        const functions = (message.tool_calls ?? []).map((call) => call.function);
        const calls = functions.map(({ name, arguments: text }) => [name, JSON.parse(text)]);
        return { ...told, text: message.content ?? '', calls, ended, tokens: answer.usage.prompt_tokens };
      }
      const calls = new Map();
      for await (const chunk of answer) {
        told.events += 1;
        told.id = chunk.id;
        for (const { delta, finish_reason: ended } of chunk.choices) {
          told.text += delta.content ?? '';
          told.ended = ended ?? told.ended;
          for (const call of delta.tool_calls ?? []) {
            const known = calls.get(call.index) ?? ['', ''];
            calls.set(call.index, [
              known[0] + (call.function.name ?? ''),
              known[1] + (call.function.arguments ?? ''),
            ]);
          }
        }
      }
      told.calls = [...calls.values()].map(([name, text]) => [name, JSON.parse(text)]);
      return told;
    },
  },
  responses: {
    create(ask, stream) {
      const body = { model: 'demo-model', input: ask.text ?? 'hello', prompt: prompt(ask), stream };
      if (ask.tools) {
        body.tools = [{ type: 'function', name: 'search', parameters: SCHEMA, strict: true }];
      }
      if (ask.previous) body.previous_response_id = ask.previous;
      return openai.responses.create(body, { headers: headers(ask) });
    },
    async read(answer, streamed) {
      let events = 0;
      let response = answer;
      if (streamed) {
        for await (const event of answer) {
          events += 1;
          if (['response.completed', 'response.incomplete'].includes(event.type)) response = event.response;
        }
      }
      const calls = response.output.filter((item) => item.type === 'function_call');
      const messages = response.output.filter((item) => item.type === 'message');
      return {
        id: response.id,
        text: messages.flatMap((item) => item.content.map((part) => part.text ?? '')).join(''),
        calls: calls.map((call) => [call.name, JSON.parse(call.arguments)]),
        ended: response.status,
        tokens: response.usage.input_tokens,
        events,
      };
    },
  },
  messages: {
    create(ask, stream) {
      const messages = [{ role: 'user', content: ask.text ?? 'hello' }];
      const body = { model: 'demo-model', max_tokens: 500, messages, stream, prompt: prompt(ask) };
      if (ask.tools) body.tools = [{ name: 'search', input_schema: SCHEMA }];
      return anthropic.messages.create(body, { headers: headers(ask) });
    },
    async read(answer, streamed) {
      const told = { id: answer.id ?? null, text: '', calls: [], ended: null, tokens: 0, events: 0 };
      if (!streamed) {
        for (const block of answer.content) {
          if (block.type === 'text') told.text += block.text;
          if (block.type === 'tool_use') told.calls.push([block.name, block.input]);
        }
        return { ...told, ended: answer.stop_reason, tokens: answer.usage.input_tokens };
      }
      const inputs = new Map();
      for await (const event of answer) {
        told.events += 1;
        if (event.type === 'message_start') {
          told.id = event.message.id;
          told.tokens = event.message.usage.input_tokens;
        } else if (event.type === 'content_block_start' && event.content_block.type === 'tool_use') {
          inputs.set(event.index, [event.content_block.name, '']);
        } else if (event.type === 'content_block_delta' && event.delta.type === 'text_delta') {
          told.text += event.delta.text;
        } else if (event.type === 'content_block_delta' && event.delta.type === 'input_json_delta') {
          inputs.get(event.index)[1] += event.delta.partial_json;
        } else if (event.type === 'message_delta') {
          told.ended = event.delta.stop_reason;
        }
      }
      told.calls = [...inputs.values()].map(([name, text]) => [name, JSON.parse(text)]);
      return told;
    },
  },
};

const deeds = {
  async ask(api, ask) {
    const streamed = ask.stream ?? false;
    const { data: answer, response } = await api.create(ask, streamed).withResponse();
    const told = await api.read(answer, streamed);
    for (const name of ['version', 'variant', 'session']) {
      told[name] = response.headers.get(`x-serin-${name}`);
    }
    return told;
  },
  async leave(api, ask) {
    const stream = await api.create(ask, true);
    for await (const event of stream) {
      stream.controller.abort();
      return { left_after: event.type };
    }
    throw new Error('the stream had no event');
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line);
  let told;
  try {
    told = await deeds[ask.do](apis[ask.api], ask);
  } catch (error) {
    if (!(error instanceof OpenAI.OpenAIError || error instanceof Anthropic.AnthropicError)) throw error;
    told = { error: error.constructor.name, status: error.status ?? null, message: error.message };
  }
  console.log(JSON.stringify(told));
}
