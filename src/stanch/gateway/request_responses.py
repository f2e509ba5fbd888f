"""``POST /v1/responses``: what a client may ask. What the server would keep, or do by itself, cannot be asked."""

from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from stanch.gateway.request import MAX_COMPLETION_TOKENS, ChosenFunction, Name, Share, Strict, Text, Tokens, ToolName


class ItemPart(Strict, frozen=True):
    """A piece of an item; there are no other kinds than text. What annotates an answer is empty, as it came out."""

    type: Literal["input_text", "output_text", "refusal", "summary_text", "reasoning_text"]
    text: Text | None = None
    refusal: Text | None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    logprobs: Annotated[list[Any], Meta(max_length=0)] | None = None


Parts = Annotated[list[ItemPart], Meta(max_length=256)]


class Item(Strict, frozen=True):
    """One item of a conversation: a message, a call of a function and its result, or earlier reasoning."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] | None = None
    id: Name | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Text | Parts | None = None
    call_id: Name | None = None
    name: ToolName | None = None
    arguments: Text | None = None
    output: Text | None = None
    summary: Parts | None = None


class FunctionTool(Strict, frozen=True):
    """A function that the model may call; the tools that a server runs by itself are refused."""

    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenTool(ChosenFunction, frozen=True):
    """The function that must be called."""

    type: Literal["function"]


class TextFormat(Strict, frozen=True):
    """What form the text shall have."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: Text | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(Strict, frozen=True):
    """How text is written."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Strict, frozen=True):
    """How much the model reasons, and whether it tells."""

    effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesRequest(Strict, frozen=True, kw_only=True):
    """``POST /v1/responses``."""

    model: Name
    input: Text | Annotated[list[Item], Meta(min_length=1, max_length=2048)]
    instructions: Text | None = None
    stream: bool = False
    store: bool | None = None
    max_output_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    user: Name | None = None

    def __post_init__(self) -> None:
        if self.store:
            raise ValueError("store: what a server keeps cannot be guarded")

    @property
    def choices(self) -> int:
        """There is one answer."""
        return 1

    @property
    def tool_names(self) -> frozenset[str]:
        """The names that a call in the answer may have."""
        return frozenset(tool.name for tool in self.tools or ())

    @property
    def most_tokens(self) -> int:
        """How many tokens the answer may have."""
        return self.max_output_tokens or MAX_COMPLETION_TOKENS

    @property
    def with_usage(self) -> bool:
        """The last event says it always."""
        return True

    @property
    def alternatives(self) -> None:
        """There are no log-probabilities here."""
        return None

    def sent_as(self, model: str) -> Self:
        """Return the request for the model's server, which is told to keep nothing."""
        return msgspec.structs.replace(
            self, model=model, user=None, store=False, max_output_tokens=self.most_tokens
        )  # fmt: skip
