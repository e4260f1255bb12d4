"""Does with the official OpenAI client what it is told, one JSON document per line, and tells what came of it.

    {"do": "chat", "session": "s1", "stream": false, "text": "hello", "variables": {"company": "Acme"}}
    {"do": "leave", "session": "s2", ...}   begins a streamed answer and leaves after its first chunk
"""

import json
import sys

import openai

PROMPT = "support/answer"


def arguments(ask):
    session = ask.get("session")
    return {
        "model": "demo-model",
        "messages": [{"role": "user", "content": ask.get("text", "hello")}],
        "extra_headers": {"x-serin-session": session, **ask.get("headers", {})},
        "extra_body": {"prompt": {"id": ask.get("prompt", PROMPT), "variables": ask.get("variables", {})}},
    }


def chat(client, ask):
    streamed = ask.get("stream", False)
    raw = client.chat.completions.with_raw_response.create(stream=streamed, **arguments(ask))
    answer = raw.parse()
    if streamed:
        chunks = list(answer)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        extra = sum(1 for chunk in chunks if not chunk.choices)
    else:
        chunks, extra = [], 0
        text = answer.choices[0].message.content
    return {
        "version": raw.headers.get("x-serin-version"),
        "variant": raw.headers.get("x-serin-variant"),
        "session": raw.headers.get("x-serin-session"),
        "text": text,
        "chunks": len(chunks),
        "chunks_without_choices": extra,
    }


def leave(client, ask):
    stream = client.chat.completions.create(stream=True, **arguments(ask))
    first = next(iter(stream))
    stream.close()
    return {"left_after": first.id}


def main():
    # Without retries: each request that is asked for is one request.
    client = openai.OpenAI(base_url=sys.argv[1], api_key="not-a-key", max_retries=0, timeout=20)
    deeds = {"chat": chat, "leave": leave}
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            told = deeds[ask["do"]](client, ask)
        except openai.APIStatusError as error:
            told = {"error": type(error).__name__, "status": error.status_code, "message": str(error)}
        except openai.APIError as error:
            told = {"error": type(error).__name__, "status": None, "message": str(error)}
        print(json.dumps(told), flush=True)


main()
