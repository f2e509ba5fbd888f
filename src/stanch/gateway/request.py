"""What a client may ask: typed requests, in which a field that is not listed is refused by name.

What is forwarded is written again from these structures, so that the model's server reads what was checked.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from stanch.errors import InvalidInput

MAX_COMPLETION_TOKENS = 4096
"""How many tokens are reserved, and asked for, where the client names no limit."""

Text = Annotated[str, Meta(max_length=1 << 20)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Tokens = Annotated[int, Meta(ge=1, le=1 << 17)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[str, Meta(min_length=1, max_length=256)] | Annotated[list[Text], Meta(max_length=4)]


class _Strict(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of all request objects: what is not named is refused."""


class StreamOptions(_Strict, frozen=True):
    """How a stream is sent."""

    include_usage: bool = False


class TextPart(_Strict, frozen=True):
    """A piece of a message; there are no other kinds than text."""

    text: Text
    type: Literal["text"]


class CalledFunction(_Strict, frozen=True):
    """The function of a call that an assistant made earlier."""

    name: ToolName
    arguments: Text


class ToolCall(_Strict, frozen=True):
    """A call that an assistant made earlier in the conversation."""

    id: Name
    type: Literal["function"]
    function: CalledFunction


class Message(_Strict, frozen=True):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Meta(max_length=256)] | None = None
    name: Name | None = None
    refusal: Text | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=128)] | None = None
    tool_call_id: Name | None = None


class Function(_Strict, frozen=True):
    """A function that the model may call."""

    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Strict, frozen=True):
    """A tool; there are no other kinds than functions."""

    type: Literal["function"]
    function: Function


class ChosenFunction(_Strict, frozen=True):
    """The name of the function that must be called."""

    name: ToolName


class ToolChoice(_Strict, frozen=True):
    """The function that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class ResponseFormat(_Strict, frozen=True):
    """What form the answer shall have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class _Sampled(_Strict, frozen=True, kw_only=True):
    """What both endpoints that generate text take."""

    model: Name
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    n: Annotated[int, Meta(ge=1, le=8)] = 1
    stop: Stop | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: Name | None = None

    @property
    def with_usage(self) -> bool:
        """Whether the client wants a last frame with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(_Sampled, frozen=True, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=2048)]
    max_completion_tokens: Tokens | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None

    @property
    def tool_names(self) -> frozenset[str]:
        """The names that a call in the answer may have."""
        return frozenset(tool.function.name for tool in self.tools or ())

    @property
    def most_tokens(self) -> int:
        """How many tokens one choice may have."""
        return self.max_completion_tokens or self.max_tokens or MAX_COMPLETION_TOKENS


class CompletionRequest(_Sampled, frozen=True, kw_only=True):
    """``POST /v1/completions``; one prompt, since each has its own answer. ``echo`` would answer with chosen text."""

    prompt: Text
    suffix: Text | None = None

    @property
    def tool_names(self) -> frozenset[str]:
        """No tools are called here."""
        return frozenset()

    @property
    def most_tokens(self) -> int:
        """How many tokens one choice may have."""
        return self.max_tokens or MAX_COMPLETION_TOKENS


GenerateRequest = ChatRequest | CompletionRequest


def read_request(body: bytes, kind: type[ChatRequest] | type[CompletionRequest]) -> GenerateRequest:
    """Return a request.

    Raises:
        InvalidInput: Not JSON, or not such a request; the message names the place and nothing of the text.
    """
    try:
        request: GenerateRequest = msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the request was refused: {str(error)[:200]}") from None
    if request.stream_options is not None and not request.stream:
        raise InvalidInput("the request was refused: stream_options without stream")
    return request


def forwarded(request: GenerateRequest, model: str) -> bytes:
    """Return the body for the model's server: the same request under the name that the server knows the model by.

    A limit on tokens is always set; who the client says that its user is stays here.
    """
    limit = "max_completion_tokens" if getattr(request, "max_completion_tokens", None) else "max_tokens"
    changed = msgspec.structs.replace(request, model=model, user=None, **{limit: request.most_tokens})
    return msgspec.json.encode(changed)


def prompt_bytes(request: GenerateRequest) -> int:
    """Return how many bytes of text the client sends to the model."""
    return len(msgspec.json.encode(request))
