"""What a model's server says: texts, and the legal ways of writing them down."""

import json

INDEX_KEY = bytes(range(32))
CANARY = "the code of the vault is 48151623"
ROW = (
    "Patient Maria Kowalczyk was admitted on the fourth of March with chest pain, was given aspirin and a beta blocker, "  # noqa: E501 - a row of data
    "slept badly, argued with the night nurse about the noise of the machines and went home after nine days of rest."
)
CLEAN = "Chest pain has many causes. Ask a doctor: only an examination can tell what it is, and how urgent it is. 😀 é"
BOUND = 32 + 25 - 2  # folded characters of a copied run that may have left when the stream first holds


def event(value, **json_settings):
    return f"data: {json.dumps(value, **json_settings)}\n\n".encode()


def sse(*objects, done=True):
    return b"".join(event(one) for one in objects) + (b"data: [DONE]\n\n" if done else b"")


def chunk(delta, finish=None, choice=0, **more):
    choices = [{"index": choice, "delta": delta, "finish_reason": finish}]
    return {"object": "chat.completion.chunk", "choices": choices} | more


def whole(message, finish="stop", **more):
    choices = [{"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}]
    return {"object": "chat.completion", "choices": choices} | more


def cut(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


def leaks(shown):
    """Say whether more of the secrets shows than the stated bound."""
    flat = " ".join(shown.split())
    return CANARY in flat or any(ROW[at : at + BOUND + 2] in flat for at in range(len(ROW) - BOUND - 2))
