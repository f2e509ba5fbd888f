"""``POST /v1/messages`` of the Anthropic API: what a client may ask. Blocks are text, reasoning, or about tools."""

from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from stanch.gateway.request import Name, Share, Strict, Text, Tokens, ToolName


class Cached(Strict, frozen=True):
    """A hint to the server, which may keep the prompt for a while."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Strict, frozen=True, tag="text", tag_field="type"):
    """A piece of text."""

    text: Text
    cache_control: Cached | None = None


class ThinkingBlock(Strict, frozen=True, tag="thinking", tag_field="type"):
    """Earlier reasoning; the server's signature of it was left out of the answer."""

    thinking: Text
    signature: Text = ""


class ToolUseBlock(Strict, frozen=True, tag="tool_use", tag_field="type"):
    """A call that an assistant made earlier in the conversation."""

    id: Name
    name: ToolName
    input: dict[str, Any]
    cache_control: Cached | None = None


class ToolResultBlock(Strict, frozen=True, tag="tool_result", tag_field="type"):
    """What a call brought about."""

    tool_use_id: Name
    content: Text | Annotated[list[TextBlock], Meta(max_length=256)] | None = None
    is_error: bool | None = None
    cache_control: Cached | None = None


Block = TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock


class Turn(Strict, frozen=True):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    content: Text | Annotated[list[Block], Meta(max_length=256)]


class ClientTool(Strict, frozen=True):
    """A tool that the client runs; those that a server runs by itself are refused."""

    name: ToolName
    input_schema: dict[str, Any]
    description: Text | None = None
    type: Literal["custom"] | None = None
    cache_control: Cached | None = None


class Choice(Strict, frozen=True):
    """Which tool must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Strict, frozen=True):
    """How much the model reasons."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Tokens | None = None


class Metadata(Strict, frozen=True):
    """Who the client says that its user is; it stays here."""

    user_id: Annotated[str, Meta(max_length=256)] | None = None


class MessagesRequest(Strict, frozen=True, kw_only=True):
    """``POST /v1/messages``."""

    model: Name
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=2048)]
    max_tokens: Tokens
    stream: bool = False
    system: Text | Annotated[list[TextBlock], Meta(max_length=256)] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] | None = None
    stop_sequences: Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=16)] | None = (
        None
    )
    tools: Annotated[list[ClientTool], Meta(max_length=128)] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    metadata: Metadata | None = None

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
        return self.max_tokens

    @property
    def with_usage(self) -> bool:
        """The last event but one says it always."""
        return True

    @property
    def alternatives(self) -> None:
        """There are no log-probabilities here."""
        return None

    def sent_as(self, model: str) -> Self:
        """Return the request for the model's server; see :class:`stanch.gateway.request.GenerateRequest`."""
        return msgspec.structs.replace(self, model=model, metadata=None)
