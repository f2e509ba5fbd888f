"""What a client may ask: typed requests, in which a field that is not listed is refused by name.

What is forwarded is written again from these structures, so that the model's server reads what was checked.
"""

from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

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
Alternatives = Annotated[int, Meta(ge=0, le=5)]
Stop = Annotated[str, Meta(min_length=1, max_length=256)] | Annotated[list[Text], Meta(max_length=4)]


class Strict(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of all request objects: what is not named is refused."""


class GenerateRequest(Protocol):
    """What the gateway asks of every request for text."""

    @property
    def model(self) -> str:
        """What the client calls the model."""
        ...

    @property
    def stream(self) -> bool:
        """Whether the answer is to come as an event stream."""
        ...

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        ...

    @property
    def tool_names(self) -> frozenset[str]:
        """The names that a call in the answer may have."""
        ...

    @property
    def most_tokens(self) -> int:
        """How many tokens one answer may have."""
        ...

    @property
    def with_usage(self) -> bool:
        """Whether the client wants the usage at the end of a stream."""
        ...

    @property
    def alternatives(self) -> int | None:
        """How many alternatives each token's log-probability comes with; None: no log-probabilities."""
        ...

    def sent_as(self, model: str) -> Self:
        """Return the request for the model's server, under the name that the server knows the model by.

        A limit on tokens is always set, and a stream is always to say what it used; who the client says that its user
        is stays here.
        """
        ...


class StreamOptions(Strict, frozen=True):
    """How a stream is sent."""

    include_usage: bool = False


class TextPart(Strict, frozen=True):
    """A piece of a message; there are no other kinds than text."""

    text: Text
    type: Literal["text"]


class CalledFunction(Strict, frozen=True):
    """The function of a call that an assistant made earlier."""

    name: ToolName
    arguments: Text


class ToolCall(Strict, frozen=True):
    """A call that an assistant made earlier in the conversation."""

    id: Name
    type: Literal["function"]
    function: CalledFunction
    index: Annotated[int, Meta(ge=0, lt=128)] | None = None


class Message(Strict, frozen=True):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Meta(max_length=256)] | None = None
    name: Name | None = None
    refusal: Text | None = None
    reasoning: Text | None = None
    reasoning_content: Text | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=128)] | None = None
    tool_call_id: Name | None = None


class Function(Strict, frozen=True):
    """A function that the model may call."""

    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict, frozen=True):
    """A tool; there are no other kinds than functions."""

    type: Literal["function"]
    function: Function


class ChosenFunction(Strict, frozen=True):
    """The name of the function that must be called."""

    name: ToolName


class ToolChoice(Strict, frozen=True):
    """The function that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class ResponseFormat(Strict, frozen=True):
    """What form the answer shall have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class _Sampled(Strict, frozen=True, kw_only=True):
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

    def __post_init__(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options without stream")

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return self.n

    @property
    def with_usage(self) -> bool:
        """Whether the client wants a last frame with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def most_tokens(self) -> int:
        """How many tokens one choice may have."""
        return self.max_tokens or MAX_COMPLETION_TOKENS

    def sent_as(self, model: str) -> Self:
        """Return the request for the model's server; see :class:`GenerateRequest`."""
        options = StreamOptions(include_usage=True) if self.stream else None
        most = self.most_tokens
        return msgspec.structs.replace(self, model=model, user=None, stream_options=options, max_tokens=most)


class ChatRequest(_Sampled, frozen=True, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=2048)]
    max_completion_tokens: Tokens | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool = False
    top_logprobs: Alternatives | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs without logprobs")

    @property
    def alternatives(self) -> int | None:
        """How many alternatives each token's log-probability comes with; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def tool_names(self) -> frozenset[str]:
        """The names that a call in the answer may have."""
        return frozenset(tool.function.name for tool in self.tools or ())

    @property
    def most_tokens(self) -> int:
        """How many tokens one choice may have: both fields limit it."""
        given = (self.max_tokens, self.max_completion_tokens)
        return min((most for most in given if most is not None), default=MAX_COMPLETION_TOKENS)

    def sent_as(self, model: str) -> Self:
        """Return the request for the model's server, with the one limit that every server reads."""
        return msgspec.structs.replace(super().sent_as(model), max_completion_tokens=None)


class CompletionRequest(_Sampled, frozen=True, kw_only=True):
    """``POST /v1/completions``; one prompt, since each has its own answer. ``echo`` would answer with chosen text."""

    prompt: Text
    suffix: Text | None = None
    logprobs: Alternatives | None = None

    @property
    def alternatives(self) -> int | None:
        """How many alternatives each token's log-probability comes with; None: no log-probabilities."""
        return self.logprobs

    @property
    def tool_names(self) -> frozenset[str]:
        """No tools are called here."""
        return frozenset()


class EmbeddingsRequest(Strict, frozen=True):
    """``POST /v1/embeddings``, of texts; token ids are refused, since they are not what a reader can check."""

    model: Name
    input: Text | Annotated[list[Text], Meta(min_length=1, max_length=512)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1, le=16_384)] | None = None
    user: Name | None = None

    @property
    def vectors(self) -> int:
        """How many vectors are wanted."""
        return len(self.input) if isinstance(self.input, list) else 1

    def sent_as(self, model: str) -> Self:
        """Return the request for the model's server; see :class:`GenerateRequest`."""
        return msgspec.structs.replace(self, model=model, user=None)


R = TypeVar("R", bound=Strict)


def read_request(body: bytes, kind: type[R]) -> R:
    """Return a request.

    Raises:
        InvalidInput: Not JSON, or not such a request; the message names the place and nothing of the text.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the request was refused: {str(error)[:200]}") from None


def forwarded(request: GenerateRequest | EmbeddingsRequest, model: str) -> bytes:
    """Return the body for the model's server: the same request under the name that the server knows the model by."""
    return msgspec.json.encode(request.sent_as(model))


def prompt_bytes(request: GenerateRequest | EmbeddingsRequest) -> int:
    """Return how many bytes of text the client sends to the model."""
    return len(msgspec.json.encode(request))
