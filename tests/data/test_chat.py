import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.data import ChatForm, ChatTurn, Record, TextField, turns
from stanch.data.chat import conversation_row, recognise_form, slots
from stanch.errors import InvalidInput

TEXT = st.text(min_size=1, max_size=30)


def record_of(row, form, columns=()):
    fields = tuple(TextField(slot.path, slot.role, slot.text) for slot in slots(row, form, columns))
    return Record("r1", 0, "t.jsonl", fields, b"")


@given(
    system=st.none() | TEXT, question=TEXT, answer=TEXT, form=st.sampled_from(["messages", "sharegpt", "instruction"])
)
def test_a_conversation_survives_each_form(system, question, answer, form):
    said = (ChatTurn("user", question), ChatTurn("assistant", answer))
    said = said if system is None else (ChatTurn("system", system), *said)
    row = conversation_row(said, ChatForm(form))
    assert recognise_form([row]) == form
    assert turns(record_of(row, ChatForm(form))) == said


@given(question=TEXT, answer=TEXT)
def test_prompt_and_text_survive(question, answer):
    said = (ChatTurn("user", question), ChatTurn("assistant", answer))
    assert turns(record_of(conversation_row(said, ChatForm.PROMPT), ChatForm.PROMPT)) == said
    text = (ChatTurn("text", question),)
    assert turns(record_of(conversation_row(text, ChatForm.TEXT), ChatForm.TEXT)) == text
    columns = ("a", "b")
    assert turns(record_of(conversation_row(text, ChatForm.FIELDS, columns), ChatForm.FIELDS, columns)) == text


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ([("user", "q"), ("assistant", "a")], "text"),
        ([("system", "s"), ("user", "q"), ("assistant", "a")], "prompt"),
        ([("user", "q"), ("assistant", "a"), ("user", "q")], "instruction"),
        ([("text", "t")], "prompt"),
    ],
)
def test_a_form_that_cannot_hold_the_turns_is_refused(said, form):
    with pytest.raises(InvalidInput, match="cannot hold"):
        conversation_row(tuple(ChatTurn(*turn) for turn in said), ChatForm(form))


def test_instruction_order_is_that_of_speaking_not_of_the_row():
    row = {"output": "a", "input": "with this", "instruction": "do", "system": "be kind"}
    assert turns(record_of(row, ChatForm.INSTRUCTION)) == (
        ChatTurn("system", "be kind"),
        ChatTurn("user", "do\n\nwith this"),
        ChatTurn("assistant", "a"),
    )


def test_text_parts_of_one_turn_are_joined_and_neighbouring_turns_are_not():
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d"},
        ]
    }
    assert [turn.content for turn in turns(record_of(row, ChatForm.MESSAGES))] == ["ab", "c", "d"]


def test_every_string_of_the_row_is_a_field_but_structure():
    row = {
        "id": "x1",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}], "name": "ana"},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        ],
        "messages[0].content[0].text": "a key that looks like a path",
        "meta": {"tags": ["t", 3, None, True], "deep": [[{"k": "v"}]]},
    }
    fields = record_of(row, ChatForm.MESSAGES).fields
    assert [(field.path, field.role, field.text) for field in fields] == [
        ("messages[0].content[0].text", "user", "q"),
        ("id", "", "x1"),
        ("messages[0].name", "", "ana"),
        ("messages[1].tool_calls[0].function.name", "tool_call", "f"),
        ("messages[1].tool_calls[0].function.arguments", "tool_call", "{}"),
        ("messages[0].content[0].text", "", "a key that looks like a path"),
        ("meta.tags[0]", "", "t"),
        ("meta.deep[0][0].k", "", "v"),
    ]


def test_tool_calls_are_seen_but_not_turned_into_text():
    row = {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"arguments": "secret"}]}]}
    with pytest.raises(InvalidInput, match="record r1: a turn calls a tool"):
        turns(record_of(row, ChatForm.MESSAGES))


def test_slots_replace_in_place():
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "note": "n"}
    for slot in slots(row, ChatForm.SHAREGPT):
        slot.replace(slot.text.upper())
    assert row == {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "note": "N"}
    assert "Q" not in repr(slots(row, ChatForm.SHAREGPT)[0])


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("messages", {"messages": "x"}),
        ("messages", {"messages": []}),
        ("messages", {"messages": ["x"]}),
        ("messages", {"messages": [{"content": "x"}]}),
        ("messages", {"messages": [{"role": "user"}]}),
        ("messages", {"messages": [{"role": "user", "content": None}]}),
        ("messages", {"messages": [{"role": "user", "content": 3}]}),
        ("messages", {"messages": [{"role": "wizard", "content": "x"}]}),
        ("messages", {"messages": [{"role": ["user"], "content": "x"}]}),
        ("messages", {"messages": [{"role": "user", "content": ["x"]}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"text": "x"}]}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        ("sharegpt", {"conversations": [{"role": "user", "value": "x"}]}),
        ("sharegpt", {"conversations": [{"from": "human", "content": "x"}]}),
        ("prompt", {"prompt": "x"}),
        ("prompt", {"prompt": 1, "completion": "x"}),
        ("instruction", {"instruction": "x", "output": 1}),
        ("instruction", {"instruction": "x", "input": 1, "output": "x"}),
        ("text", {"text": ["x"]}),
    ],
)
def test_a_misshapen_row_is_refused(form, row):
    with pytest.raises(InvalidInput, match="expected"):
        slots(row, ChatForm(form))


def test_a_part_that_is_no_text_is_seen_and_not_tuned_on():
    row = {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": "https://a.example/x"}},
                    {"type": "tool_result", "content": [{"type": "text", "text": "42"}]},
                ],
            }
        ]
    }
    record = record_of(row, ChatForm.MESSAGES)
    assert [(field.role, field.text) for field in record.fields] == [
        ("user", "what is this?"),
        ("part", "image_url"),
        ("part", "https://a.example/x"),
        ("part", "tool_result"),
        ("part", "text"),
        ("part", "42"),
    ]
    with pytest.raises(InvalidInput, match="has a part that is no text"):
        turns(record)


@pytest.mark.parametrize(
    ("role", "said"), [("ipython", "tool"), ("model", "assistant"), ("bing", "assistant"), ("chatgpt", "assistant")]
)
def test_roles_of_other_makers_are_known(role, said):
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": role, "value": "a"}]}
    assert [turn.role for turn in turns(record_of(row, ChatForm.SHAREGPT))] == ["user", said]


def test_rows_of_no_form_are_every_string_with_the_turns_that_are_in_them_first():
    turn = {"role": "user", "content": "q"}
    row = {
        "note": "n",
        "chosen": [turn, {"role": "assistant", "content": "a"}],
        "rejected": [turn],
        "odd": [{"role": 1}],
    }
    fields = record_of(row, ChatForm.ANY).fields
    assert [(field.path, field.role) for field in fields] == [
        ("chosen[0].content", "user"),
        ("chosen[1].content", "assistant"),
        ("rejected[0].content", "user"),
        ("note", ""),
    ]
