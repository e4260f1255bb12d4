"""Does with the official OpenAI and Anthropic clients what it is told, one JSON document per line.

    {"do": "ask", "api": "responses", "session": "s1", "stream": false, "variables": {"company": "Acme"}}
    {"do": "leave", "api": "messages", ...}   begins a streamed answer and leaves after its first event

`api` is `chat` or `responses` (OpenAI) or `messages` (Anthropic); `tools` offers a tool; `previous` goes on from a response.
"""

import json
import sys

import anthropic
import openai

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}


def prompt(ask):
    named = {"id": "support/answer", "variables": ask.get("variables", {})}
    if "version" in ask:
        named["version"] = ask["version"]
    return named


def headers(ask):
    own = {"x-serin-session": ask["session"]} if "session" in ask else {}
    return {**own, **ask.get("headers", {})}


class Chat:
    def __init__(self, data):
        # Without retries: each request that is asked for is one request.
        self.client = openai.OpenAI(base_url=f"{data}/v1", api_key="not-a-key", max_retries=0, timeout=20)

    def create(self, ask, stream):
        more = {}
        if ask.get("tools"):
            more["tools"] = [{"type": "function", "function": {"name": "search", "parameters": SCHEMA}}]
        return self.client.chat.completions.with_raw_response.create(
            model="demo-model",
            messages=[{"role": "user", "content": ask.get("text", "hello")}],
            stream=stream,
            extra_headers=headers(ask),
            extra_body={"prompt": prompt(ask)},
            **more,
        )

    def read(self, answer, stream):
        if not stream:
            message = answer.choices[0].message
            functions = [call.function for call in message.tool_calls or []]
            return {
                "id": answer.id,
                "text": message.content or "",
                "calls": [[function.name, json.loads(function.arguments)] for function in functions],
                "ended": answer.choices[0].finish_reason,
                "tokens": answer.usage.prompt_tokens,
                "events": 0,
            }
        told = {"id": None, "text": "", "calls": [], "ended": None, "tokens": 0, "events": 0}
        calls = {}
        for chunk in answer:
            told["events"] += 1
            told["id"] = chunk.id
            for choice in chunk.choices:
                told["text"] += choice.delta.content or ""
                told["ended"] = choice.finish_reason or told["ended"]
                for call in choice.delta.tool_calls or []:
                    known = calls.setdefault(call.index, ["", ""])
                    known[0] += call.function.name or ""
                    known[1] += call.function.arguments or ""
        told["calls"] = [[name, json.loads(text)] for name, text in calls.values()]
        return told


class Responses:
    def __init__(self, data):
        self.client = openai.OpenAI(base_url=f"{data}/v1", api_key="not-a-key", max_retries=0, timeout=20)

    def create(self, ask, stream):
        more = {}
        if ask.get("tools"):
            more["tools"] = [{"type": "function", "name": "search", "parameters": SCHEMA, "strict": True}]
        if ask.get("previous"):
            more["previous_response_id"] = ask["previous"]
        return self.client.responses.with_raw_response.create(
            model="demo-model",
            input=ask.get("text", "hello"),
            prompt=prompt(ask),
            stream=stream,
            extra_headers=headers(ask),
            **more,
        )

    def read(self, answer, stream):
        n_events = 0
        if stream:
            for event in answer:
                n_events += 1
                if event.type in ("response.completed", "response.incomplete"):
                    answer = event.response
        calls = [item for item in answer.output if item.type == "function_call"]
        return {
            "id": answer.id,
            "text": answer.output_text,
            "calls": [[call.name, json.loads(call.arguments)] for call in calls],
            "ended": answer.status,
            "tokens": answer.usage.input_tokens,
            "events": n_events,
        }


class Messages:
    def __init__(self, data):
        self.client = anthropic.Anthropic(base_url=data, api_key="not-a-key", max_retries=0, timeout=20)

    def create(self, ask, stream):
        more = {"tools": [{"name": "search", "input_schema": SCHEMA}]} if ask.get("tools") else {}
        return self.client.messages.with_raw_response.create(
            model="demo-model",
            max_tokens=500,
            messages=[{"role": "user", "content": ask.get("text", "hello")}],
            stream=stream,
            extra_headers=headers(ask),
            extra_body={"prompt": prompt(ask)},
            **more,
        )

    def read(self, answer, stream):
        if not stream:
            text = "".join(block.text for block in answer.content if block.type == "text")
            calls = [[block.name, block.input] for block in answer.content if block.type == "tool_use"]
            return {
                "id": answer.id,
                "text": text,
                "calls": calls,
                "ended": answer.stop_reason,
                "tokens": answer.usage.input_tokens,
                "events": 0,
            }
        told = {"id": None, "text": "", "calls": [], "ended": None, "tokens": 0, "events": 0}
        inputs = {}
        for event in answer:
            told["events"] += 1
            if event.type == "message_start":
                told["id"] = event.message.id
                told["tokens"] = event.message.usage.input_tokens
            elif event.type == "content_block_start" and event.content_block.type == "tool_use":
                inputs[event.index] = [event.content_block.name, ""]
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                told["text"] += event.delta.text
            elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                inputs[event.index][1] += event.delta.partial_json
            elif event.type == "message_delta":
                told["ended"] = event.delta.stop_reason
        told["calls"] = [[name, json.loads(text)] for name, text in inputs.values()]
        return told


def ask_model(api, ask):
    stream = ask.get("stream", False)
    raw = api.create(ask, stream)
    told = api.read(raw.parse(), stream)
    for name in ("version", "variant", "session"):
        told[name] = raw.headers.get(f"x-serin-{name}")
    return told


def leave(api, ask):
    stream = api.create(ask, True).parse()
    first = next(iter(stream))
    stream.close()
    return {"left_after": first.type}


def main():
    data = sys.argv[1]
    apis = {"chat": Chat(data), "responses": Responses(data), "messages": Messages(data)}
    deeds = {"ask": ask_model, "leave": leave}
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            told = deeds[ask["do"]](apis[ask["api"]], ask)
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            told = {"error": type(error).__name__, "status": error.status_code, "message": str(error)}
        except (openai.APIError, anthropic.APIError) as error:
            told = {"error": type(error).__name__, "status": None, "message": str(error)}
        print(json.dumps(told), flush=True)


main()
