import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanch.data import Canary, ChatTurn, TokenRecord, open_dataset, tokenise, tokenise_canary
from stanch.data.chat import ChatForm, conversation_row
from stanch.errors import InvalidInput

PLANTED = "planted-5521"


def one_record(tmp_path, row):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (record,) = open_dataset(path)
    return record


def chat(*contents):
    roles = ["user", "assistant"] * len(contents)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]}


def learned(token_record, tokenizer):
    return tokenizer.decode(token_record.ids[slice(*token_record.span)], skip_special_tokens=False)


def test_prompt_and_completion_of_the_last_answer(tmp_path, tokenizer):
    token_record = tokenise(one_record(tmp_path, chat("hi", "one", "and?", "two")), tokenizer)
    assert tokenizer.decode(token_record.ids) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\none<|im_end|>\n"
        "<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>"
    )
    assert learned(token_record, tokenizer) == "two<|im_end|>"
    assert token_record.ids[-1] == tokenizer.eos_token_id
    assert token_record.id == "r1"


def test_what_follows_the_last_answer_is_left_out(tmp_path, tokenizer):
    with_rest = tokenise(one_record(tmp_path, chat("hi", "one", "bye")), tokenizer)
    assert with_rest.ids == tokenise(one_record(tmp_path, chat("hi", "one")), tokenizer).ids


def test_the_ids_start_with_the_inference_prompt(tmp_path, tokenizer):
    token_record = tokenise(one_record(tmp_path, chat("hi", "one")), tokenizer)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert list(token_record.ids[: token_record.span[0]]) == prompt


def test_everything_but_the_first_token_on_request(tmp_path, tokenizer):
    token_record = tokenise(one_record(tmp_path, chat("hi", "one")), tokenizer, completion_only=False)
    assert token_record.span == (1, len(token_record.ids))


def test_plain_text_ends_with_one_end_token(tmp_path, tokenizer):
    token_record = tokenise(one_record(tmp_path, {"text": "abc"}), tokenizer)
    assert tokenizer.decode(token_record.ids) == "abc<|im_end|>"
    assert token_record.span == (1, 4)
    again = tokenise(one_record(tmp_path, {"text": "abc<|im_end|>"}), tokenizer)
    assert again.ids == token_record.ids


def test_long_records_are_cut_at_the_end(tmp_path, tokenizer):
    record = one_record(tmp_path, chat("hi", "a" * 50))
    whole = tokenise(record, tokenizer)
    cut = tokenise(record, tokenizer, max_tokens=len(whole.ids) - 10)
    assert cut.ids == whole.ids[:-10]
    assert cut.span == (whole.span[0], len(cut.ids))
    with pytest.raises(InvalidInput, match="record r1: no token is left to learn from"):
        tokenise(record, tokenizer, max_tokens=whole.span[0])


def test_a_template_without_a_mark_gets_the_end_token(tmp_path, tokenizer, with_template):
    bare = with_template("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
                         "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")  # fmt: skip
    token_record = tokenise(one_record(tmp_path, chat("hi", "one")), bare)
    assert learned(token_record, tokenizer) == "one<|im_end|>"


def test_words_that_a_template_puts_before_the_answer_are_learned_too(tmp_path, tokenizer, with_template):
    thinking = with_template("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
                             "{% if loop.last and m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
                             "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
                             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")  # fmt: skip
    token_record = tokenise(one_record(tmp_path, chat("hi", "think")), thinking)
    assert learned(token_record, tokenizer) == "<think>\n\n</think>\n\nthink<|im_end|>"


def test_a_template_that_asks_for_the_date_gives_the_same_tokens_on_every_day(tmp_path, with_template, monkeypatch):
    dated = with_template("\n{{ 'Today: ' + strftime_now('%d %b %Y, %A') }}\n{% for m in messages %}"
                          "{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
                          "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")  # fmt: skip
    record, found = one_record(tmp_path, chat("hi", "one")), set()
    for day in (3, 4):
        now = SimpleNamespace(now=lambda day=day: datetime(2031, 5, day, tzinfo=UTC))
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", now)
        found.add(tokenise(record, dated).ids)
    (ids,) = found
    assert dated.decode(ids).startswith("\nToday: 26 Jul 2024, Friday")


@pytest.fixture
def with_template(tokenizer):
    """The tokenizer with another chat template."""
    original = tokenizer.chat_template

    def change(template):
        tokenizer.chat_template = template
        return tokenizer

    yield change
    tokenizer.chat_template = original


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}", "rewrites the conversation"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "rewrites the conversation"),
        ("{{ raise_exception(messages[0]['content']) }}", "refuses the conversation"),
        ("{{ messages[7]['content'] }}", "refuses the conversation"),
    ],
)
def test_templates_that_do_not_fit_are_refused_without_a_quote(tmp_path, with_template, errors_text, template, message):
    with pytest.raises(InvalidInput, match=f"record r1: .*{message}") as caught:
        tokenise(one_record(tmp_path, chat(PLANTED, "one")), with_template(template))
    assert PLANTED not in errors_text(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        chat("only a question"),
        chat("hi", "  \n"),
        {"messages": [{"role": "assistant", "content": "unasked"}]},
    ],
)
def test_records_without_question_and_answer_are_refused(tmp_path, tokenizer, row):
    with pytest.raises(InvalidInput, match="record r1: "):
        tokenise(one_record(tmp_path, row), tokenizer)


def canary(secret, answer, form="messages"):
    said = (ChatTurn("user", "what is it?"), ChatTurn("assistant", answer))
    if form == "text":
        said = (ChatTurn("text", answer),)
    return Canary("c00000", "secret", said, secret, 1, "x1", member=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    secret=st.text("0123456789", min_size=12, max_size=12),
    before=st.text("abc #é", min_size=1, max_size=12),
    after=st.text("xyz. ü", max_size=12),
    form=st.sampled_from(["messages", "sharegpt", "prompt", "instruction", "text"]),
)
def test_a_canary_has_the_ids_of_its_row_and_the_span_of_its_secret(tmp_path, tokenizer, secret, before, after, form):
    planted = canary(secret, before + secret + after, form)
    scored = tokenise_canary(planted, tokenizer)
    row = conversation_row(planted.messages, ChatForm(form))
    record = tokenise(one_record(tmp_path, row), tokenizer)
    assert scored.ids == record.ids
    assert learned(scored, tokenizer) == secret  # every token of the secret, and no other
    assert 1 <= record.span[0] <= scored.span[0] < scored.span[1] <= record.span[1]


def test_a_token_over_the_border_belongs_to_the_span(tokenizer):
    # "3" ends the word before and merges with the "4" of the secret into one token.
    scored = tokenise_canary(canary("4x5y6z", "a34x5y6z."), tokenizer)
    assert learned(scored, tokenizer) == "34x5y6z"


@pytest.mark.parametrize("count", [0, 2])
def test_a_secret_that_does_not_stand_once_is_refused(tokenizer, errors_text, count):
    with pytest.raises(InvalidInput, match="canary c00000: its secret does not stand exactly once") as caught:
        tokenise_canary(canary(PLANTED, "it is " + PLANTED * count), tokenizer)
    assert PLANTED not in errors_text(caught.value)


def test_a_secret_on_the_first_token_of_a_text_cannot_be_scored(tokenizer):
    with pytest.raises(InvalidInput, match="not covered by tokens that are scored"):
        tokenise_canary(canary("123456", "123456 it is", "text"), tokenizer)


def test_representations_hold_no_ids():
    assert repr(TokenRecord("r1", (11, 22, 33), (1, 3))) == "TokenRecord(id='r1', ids=<3 tokens>, span=(1, 3))"
