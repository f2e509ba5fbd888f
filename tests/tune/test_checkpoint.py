"""Checkpoints: no pickle, whole or not at all, and sealed ones that leave no plaintext and open for nobody else."""

import json
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stanch.crypto import SigningKey
from stanch.crypto.identity import generate_identity
from stanch.errors import InvalidInput, StanchError, VerificationError
from stanch.tune import CheckpointSeal, Keeping, run_folder, tune, verify_run
from stanch.tune.checkpoint_torch import (
    CHECKPOINT_FILES,
    CheckpointState,
    list_checkpoints,
    load_checkpoint,
    pack,
    save_checkpoint,
    unpack,
)
from stanch.tune.coverage_torch import check_optimizer
from stanch.tune.journal import JournalHead
from stanch.tune.refusals import PlanChanged, SelfCheckFailed

RUN = "ab" * 32
STATE = CheckpointState(RUN, 2, 3, JournalHead(4, "00" * 32, 3))
WEIGHTS = (0.125, -7.5, 3.1415926)


def trained() -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    """Two parameters after a step."""
    parameters = {"a": nn.Parameter(torch.tensor([WEIGHTS])), "b": nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1, fused=True)
    sum(parameter.square().sum() for parameter in parameters.values()).backward()
    optimizer.step()
    return parameters, optimizer


def fresh() -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    parameters = {"a": nn.Parameter(torch.zeros(1, 3)), "b": nn.Parameter(torch.zeros(2))}
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1, fused=True)


def same(one, other) -> bool:
    """Whether two pairs of parameters and optimizer hold the same numbers."""
    return all(
        torch.equal(one[0][name], other[0][name])
        and one[1].state[one[0][name]].keys() == other[1].state[other[0][name]].keys()
        and all(
            torch.equal(value, other[1].state[other[0][name]][slot])
            for slot, value in one[1].state[one[0][name]].items()
        )
        for name in one[0]
    )


@pytest.fixture(scope="module")
def keys() -> CheckpointSeal:
    identity = generate_identity()
    return CheckpointSeal((identity.recipient,), SigningKey.generate("ed25519"), (identity,))


def test_a_checkpoint_gives_everything_back_and_older_ones_go(tmp_path):
    before, after = trained(), fresh()
    (tmp_path / "checkpoint-2.partial").mkdir()
    save_checkpoint(tmp_path, STATE, *before)
    path = save_checkpoint(tmp_path, replace(STATE, elapsed=10), *before)
    assert list_checkpoints(tmp_path) == [path]
    assert sorted(one.name for one in path.iterdir()) == sorted(CHECKPOINT_FILES)
    assert load_checkpoint(path, *after, run=RUN) == replace(STATE, elapsed=10)
    assert same(before, after)
    for file in path.iterdir():
        assert not file.read_bytes().startswith((b"\x80\x02", b"\x80\x04", b"PK"))


def test_a_resumed_optimizer_takes_the_very_same_step(tmp_path):
    before, after = trained(), fresh()
    load_checkpoint(save_checkpoint(tmp_path, STATE, *before), *after, run=RUN)
    for parameters, optimizer in (before, after):
        for parameter in parameters.values():
            parameter.grad = torch.full_like(parameter, 0.25)
        optimizer.step()
    assert same(before, after)


@pytest.mark.parametrize("fused", [False, True])
def test_state_lies_where_a_fresh_optimizer_has_it(fused):
    """On a device that this machine need not have: tensors without storage stand for those of a GPU."""
    parameters, _ = fresh()
    away = {name: nn.Parameter(value.to("meta")) for name, value in parameters.items()}
    optimizer = torch.optim.AdamW(away.values(), lr=0.1)
    optimizer.param_groups[0]["fused"] = fused
    unpack(pack(STATE, *trained()), away, optimizer, run=RUN, what="it")
    for parameter in away.values():
        slots = optimizer.state[parameter]
        assert {slots["exp_avg"].device, slots["exp_avg_sq"].device} == {parameter.device}
        assert slots["step"].device.type == ("meta" if fused else "cpu")
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_an_optimizer_that_cannot_step_is_found_without_a_step():
    parameters, optimizer = trained()
    weights, state = {name: p.detach().clone() for name, p in parameters.items()}, deepcopy(optimizer.state_dict())
    check_optimizer(parameters, optimizer)
    assert all(torch.equal(weights[name], p) and p.grad is None for name, p in parameters.items())
    assert str(optimizer.state_dict()) == str(state)
    untouched = fresh()
    check_optimizer(*untouched)
    assert not untouched[1].state
    optimizer.state[parameters["a"]]["exp_avg"] = torch.zeros(1, 3, device="meta")
    with pytest.raises(SelfCheckFailed, match="a: the optimizer cannot step"):
        check_optimizer(parameters, optimizer)


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_checkpoint_that_lacks_a_file_is_refused(tmp_path, name):
    path = save_checkpoint(tmp_path, STATE, *trained())
    (path / name).unlink()
    with pytest.raises(InvalidInput, match="not a whole checkpoint"):
        load_checkpoint(path, *fresh(), run=RUN)


def test_a_checkpoint_of_something_else_is_refused():
    files = pack(STATE, *trained())
    with pytest.raises(PlanChanged, match="another run"):
        unpack(files, *fresh(), run="cd" * 32, what="it")
    other = {"a": nn.Parameter(torch.zeros(3)), "b": nn.Parameter(torch.zeros(2))}
    with pytest.raises(PlanChanged, match="other parameters"):
        unpack(files, other, torch.optim.AdamW(other.values()), run=RUN, what="it")
    wrong = {**files, "optimizer.safetensors": pack(STATE, other, trained()[1])["adapter_model.safetensors"]}
    with pytest.raises(PlanChanged, match="optimizer"):
        unpack(wrong, *fresh(), run=RUN, what="it")
    for state in ({"schema": "other"}, [], {**json.loads(files["state.json"]), "more": 1, "head": 3}):
        with pytest.raises(InvalidInput):
            unpack({**files, "state.json": json.dumps(state).encode()}, *fresh(), run=RUN, what="it")


def test_an_optimizer_state_without_its_count_of_steps_is_refused():
    files = pack(STATE, *trained())
    renamed = files["optimizer.safetensors"].replace(b"/step", b"/rtep")
    with pytest.raises(InvalidInput, match="it: expected the optimizer state of AdamW, found something else"):
        unpack({**files, "optimizer.safetensors": renamed}, *fresh(), run=RUN, what="it")


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(CHECKPOINT_FILES), data=st.data())
def test_damaged_files_are_refused_or_read_but_never_crash(name, data):
    files = pack(STATE, *trained())
    whole = files[name]
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = whole[:at] if data.draw(st.booleans()) else whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    with suppress(StanchError):
        unpack({**files, name: cut}, *fresh(), run=RUN, what="it")


def test_a_sealed_checkpoint_opens_for_its_recipient_alone_and_holds_no_plaintext(tmp_path, keys):
    before, after = trained(), fresh()
    path = save_checkpoint(tmp_path, STATE, *before, seal=keys)
    assert load_checkpoint(path, *after, run=RUN, seal=keys) == STATE
    assert same(before, after)
    weights = before[0]["a"].detach().numpy().tobytes()
    stored = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert stored
    assert not any(weights in data or b"exp_avg" in data or b"lora" in data for data in stored)
    stranger = generate_identity()
    for wrong in (replace(keys, identities=(stranger,)), replace(keys, signer=SigningKey.generate("ed25519"))):
        with pytest.raises(VerificationError):
            load_checkpoint(path, *fresh(), run=RUN, seal=wrong)
    with pytest.raises(InvalidInput, match="is sealed"):
        load_checkpoint(path, *fresh(), run=RUN)


def test_a_plain_checkpoint_cannot_take_the_place_of_a_sealed_one(tmp_path, keys):
    path = save_checkpoint(tmp_path, STATE, *trained())
    with pytest.raises(VerificationError):
        load_checkpoint(path, *fresh(), run=RUN, seal=keys)


def test_a_changed_byte_of_a_sealed_checkpoint_is_seen(tmp_path, keys):
    path = save_checkpoint(tmp_path, STATE, *trained(), seal=keys)
    for file in sorted(path.rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
            with pytest.raises(StanchError):
                load_checkpoint(path, *fresh(), run=RUN, seal=keys)
            file.write_bytes(data)
    assert load_checkpoint(path, *fresh(), run=RUN, seal=keys) == STATE


class Stop(Exception):
    pass


def test_a_run_with_sealed_checkpoints_resumes_and_writes_no_plaintext(make_spec, chats, keys):
    spec, seen = make_spec(privacy="epsilon = 1.0"), set()

    def stop_at_three(stage, done, _total):
        seen.update(file.name for file in run_folder(spec).rglob("*.safetensors"))
        if (stage, done) == ("tune", 3):
            raise Stop

    with pytest.raises(Stop):
        tune(spec, dataset=chats, progress=stop_at_three, keeping=Keeping(seal=keys))
    assert seen == set()
    assert [path.name for path in list_checkpoints(run_folder(spec))] == ["checkpoint-2"]
    with pytest.raises(InvalidInput, match="is sealed"):
        tune(spec, dataset=chats, resume=True)
    tuned = tune(spec, dataset=chats, resume=True, keeping=Keeping(seal=keys))
    assert verify_run(tuned.path).statement.fields["updates"] == 3
