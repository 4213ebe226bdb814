"""Gets one whole and one streamed response with an SDK, with the placeholder as its key.

sdk.py SDK [BASE_URL]
"""

import sys

ASKED = "Say hello."
PLACEHOLDER = "sidentity"


def openai(base):
    from openai import OpenAI

    client = OpenAI(base_url=base, api_key=PLACEHOLDER, max_retries=0)
    asked = {"model": "google/gemini-2.5-flash", "messages": [{"role": "user", "content": ASKED}]}
    yield client.chat.completions.create(**asked).choices[0].message.content
    for chunk in client.chat.completions.create(**asked, stream=True):
        yield chunk.choices[0].delta.content


def genai(base):
    from google import genai

    options = {"base_url": base} if base else None
    client = genai.Client(vertexai=True, api_key=PLACEHOLDER, http_options=options)
    asked = {"model": "gemini-2.5-flash", "contents": ASKED}
    yield client.models.generate_content(**asked).text
    for chunk in client.models.generate_content_stream(**asked):
        yield chunk.text


def anthropic(base):
    from anthropic import AnthropicVertex

    client = AnthropicVertex(
        project_id="p", region="us-east5", access_token=PLACEHOLDER, base_url=base, max_retries=0
    )
    asked = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": ASKED}]}
    yield client.messages.create(**asked).content[0].text
    for event in client.messages.create(**asked, stream=True):
        yield event.delta.text


sdk, base = sys.argv[1], (sys.argv[2:] or [None])[0]
for text in {"openai": openai, "genai": genai, "anthropic": anthropic}[sdk](base):
    print(text, flush=True)
