"""Settings: safe defaults, layers with origins, and no value accepted by mistake."""

import tomllib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.config import Config, algorithms, find_settings, load_config
from stanch.config.origin import statement_lines
from stanch.errors import InvalidInput, UnknownSetting


def write(path, text):
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_nothing_configured_is_valid(tmp_path):
    config = load_config(tmp_path / "missing.toml", environ={})
    assert config == Config()
    assert config.access.profile == "solo"
    assert config.workspace.tables == "sqlite:./.stanch/stanch.db"
    assert config.origin("access.profile") == "default"
    assert config.chosen_algorithms().log_key == "ed25519"


def test_later_layers_win_and_origins_are_known(tmp_path):
    user = write(tmp_path / "user.toml", "[gateway]\ntokens_per_day = 7\nrequests_per_minute = 8\n")
    own = write(tmp_path / "stanch.toml", "[gateway]\nrequests_per_minute = 9\n[gate]\nmin_power = 0.5\n")
    config = load_config(own, environ={"STANCH_GATEWAY__VECTORS_PER_DAY": "5", "OTHER": "x"}, user_file=user)
    gateway = config.gateway
    assert (gateway.tokens_per_day, gateway.requests_per_minute, gateway.vectors_per_day) == (7, 9, 5)
    assert config.origin("gateway.tokens_per_day") == f"{user}:2"
    assert config.origin("gateway.requests_per_minute") == f"{own}:2"
    assert config.origin("gate.min_power") == f"{own}:4"
    assert config.origin("gateway.vectors_per_day") == "environment STANCH_GATEWAY__VECTORS_PER_DAY"
    assert config.gate == {"min_power": 0.5}


def test_a_list_replaces_the_list_of_a_lower_layer(tmp_path):
    def sink(name):
        return f'[[alerts.sinks]]\nname = "{name}"\nkind = "ocsf-file"\n'

    user = write(tmp_path / "user.toml", sink("a") + sink("b"))
    own = write(tmp_path / "stanch.toml", sink("c"))
    assert [one.name for one in load_config(own, environ={}, user_file=user).alerts.sinks] == ["c"]
    environ = {"STANCH_ALERTS__SINKS": '[{name = "d", kind = "ocsf-file"}]'}
    assert [one.name for one in load_config(own, environ=environ, user_file=user).alerts.sinks] == ["d"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("STANCH_ACCESS__PROFILE", "access.profile = 'solo'"), ("STANCH_LEDGER__WITNESSES", "ledger.witnesses = []"),
        ("STANCH_LEDGER__HIGHWATER", "[ledger]"), ("STANCH_GATE__MAX_AUC", "gate.max_auc = 1"),
    ],
)  # fmt: skip
def test_nobody_who_runs_a_command_sets_its_rules(tmp_path, name, line):
    own = write(tmp_path / "stanch.toml", "[access]\nprofile = 'team'\n")
    with pytest.raises(InvalidInput, match=f"environment {name}: .* own stanch.toml alone"):
        load_config(own, environ={name: "solo"})
    user = write(tmp_path / "user.toml", f"{line}\n")
    with pytest.raises(InvalidInput, match=r"user.toml:1: .* own stanch.toml alone"):
        load_config(own, environ={}, user_file=user)


def test_issuers_and_witnesses_are_tables(tmp_path):
    text = (
        '[[ledger.witnesses]]\nvkey = "w+1+x"\nurl = "https://w"\n[[access.issuers]]\nissuer = "https://i"\n'
        'client_secret = "file:secret"\n'
    )
    path = write(tmp_path / "stanch.toml", text)
    config = load_config(path, environ={})
    assert config.ledger.witnesses[0].url == "https://w"
    assert config.access.issuers[0].client_secret == "file:secret"
    assert config.origin("access.issuers") == f"{path}:4"


@pytest.mark.parametrize(
    ("text", "error", "named", "line"),
    [
        ("[acces]\n", UnknownSetting, "acces", 1),
        ("[access]\nprofil = 'solo'\n", UnknownSetting, "access.profil", 2),
        ("[access]\nprofile = 'both'\n", InvalidInput, "access.profile", 2),
        ("[access]\n\n# a comment\ngrant_days = 900\n", InvalidInput, "access.grant_days", 4),
        ("profile = 'solo'\n", UnknownSetting, "profile", 1),
        ("[access\n", InvalidInput, "not valid TOML", None),
        ("[origins]\nx = 'y'\n", UnknownSetting, "origins", 1),
        ("[algorithms]\nprofile = '1999'\n", InvalidInput, "algorithms.profile", 2),
        ("[workspace]\nengine = 'ray'\n", UnknownSetting, "workspace.engine", 2),
        ("[[access.issuers]]\nissuer = 'https://i'\nalgorithms = ['none']\n", InvalidInput, "access.issuers", 1),
        ("[[access.issuers]]\nissuer = 'https://i'\ncolour = 'red'\n", UnknownSetting, "colour", 1),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(tmp_path, text, error, named, line):
    path = write(tmp_path / "stanch.toml", text)
    with pytest.raises(error) as caught:
        load_config(path, environ={})
    assert named in caught.value.what
    assert (f"{path}:{line}: " if line else str(path)) in caught.value.what


def test_a_setting_that_is_gone_ends_nothing_with_its_one_value(tmp_path):
    path = write(tmp_path / "stanch.toml", "[workspace]\nengine = 'local'\nblobs = 'file:b'\n")
    config = load_config(path, environ={})
    assert (config.workspace.blobs, hasattr(config.workspace, "engine")) == ("file:b", False)
    with pytest.raises(UnknownSetting, match=r"STANCH_WORKSPACE__ENGINE: there is no setting workspace\.engine"):
        load_config(path, environ={"STANCH_WORKSPACE__ENGINE": "ray"})


@pytest.mark.parametrize("literal", ["hunter2-is-my-secret", "file:", "keyring:pepper", "env:9"])
def test_a_literal_secret_is_refused_and_not_shown(tmp_path, literal):
    text = f'[[access.issuers]]\nissuer = "https://i"\nclient_secret = "{literal}"\n'
    with pytest.raises(InvalidInput) as caught:
        load_config(write(tmp_path / "stanch.toml", text), environ={})
    shown = caught.value.what + caught.value.why + caught.value.next_step
    assert "client_secret is not a reference to a secret" in shown
    assert "hunter2" not in shown


def test_a_wrong_value_is_not_shown():
    with pytest.raises(InvalidInput) as caught:
        load_config(None, environ={"STANCH_GATEWAY__TOKENS_PER_DAY": "hunter2"})
    assert "hunter2" not in caught.value.what + caught.value.why


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
def test_a_file_that_others_may_write_is_refused(tmp_path, mode):
    path = write(tmp_path / "stanch.toml", "")
    path.chmod(mode)
    with pytest.raises(InvalidInput, match="others may write"):
        load_config(path, environ={})


def test_the_nearest_settings_are_found(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    outer = write(tmp_path / "stanch.toml", "")
    assert find_settings(inner) == outer
    nearer = write(tmp_path / "a" / "stanch.toml", "")
    assert find_settings(inner) == nearer


def test_numbers_carry_their_unit_in_their_name():
    def fields(struct, path=()):
        for field in msgspec.structs.fields(struct):
            default = field.default
            if isinstance(default, msgspec.Struct):
                yield from fields(type(default), (*path, field.name))
            elif isinstance(default, int) and not isinstance(default, bool):
                yield field.name

    names = list(fields(Config))
    assert len(names) >= 5
    units = (
        "_seconds",
        "_days",
        "_minutes",
        "_bytes",
        "_approvals",
        "_per_minute",
        "_per_day",
        "_in_total",
        "_windows",
        "_bits",
        "_hours",
    )
    assert all(name.endswith(units) for name in names)


def test_every_profile_of_the_settings_has_algorithms():
    (profile,) = msgspec.structs.fields(type(Config().algorithms))
    assert all(algorithms(name).profile == name for name in profile.type.__args__)


def test_lines_of_every_kind_of_statement():
    text = (
        "# head\n"
        'access.profile = "team"\n'
        "[ledger]\n"
        "anchors = [\n"
        '  "file:/a",  # [access]\n'
        "]\n"
        'origin = """\n'
        "[workspace]\n"
        'x"""\n'
        "\n"
        "[gate]\n"
        "min_power = 0.5\n"
        "[gate.more]\n"
        "x = 1"
    )
    assert statement_lines(text) == {
        "access": 2, "access.profile": 2, "ledger": 3, "ledger.anchors": 4, "ledger.origin": 7,
        "gate": 11, "gate.min_power": 12, "gate.more": 13,
    }  # fmt: skip


KEYS = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
VALUES = st.integers() | st.booleans() | st.lists(st.integers(), max_size=3)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.dictionaries(KEYS, VALUES, max_size=4), max_size=3))
def test_the_line_of_every_key_is_found(sections):
    lines = []
    expected = {}
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        expected[section] = len(lines)
        for key, value in keys.items():
            if isinstance(value, list):
                lines.append(f"{key} = [")
                expected[f"{section}.{key}"] = len(lines)
                lines += [*(f"  {item}," for item in value), "]"]
            else:
                lines.append(f"{key} = {str(value).lower()}")
                expected[f"{section}.{key}"] = len(lines)
    text = "\n".join(lines)
    tomllib.loads(text)
    assert statement_lines(text) == expected


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_break_the_reader(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "stanch.toml"
    path.write_bytes(data)
    with suppress(InvalidInput):
        load_config(path, environ={})


@given(st.dictionaries(st.from_regex(r"STANCH_(ACCESS|GATEWAY|X)__[A-Z_]{1,12}", fullmatch=True), st.text(max_size=40)))
def test_no_variable_breaks_the_reader(environ):
    with suppress(InvalidInput):
        load_config(None, environ=environ)
