"""Settings: safe defaults, layers with origins, and no value accepted by mistake."""

import pytest

from stanch.config import load_config
from stanch.errors import InvalidInput, UnknownSetting


def write(path, text):
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_nothing_configured_is_valid(tmp_path):
    config = load_config(tmp_path / "missing.toml", environ={})
    assert config.access.profile == "solo"
    assert config.workspace.tables == "sqlite:./.stanch/stanch.db"
    assert config.origin("access.profile") == "default"


def test_later_layers_win_and_origins_are_known(tmp_path):
    user = write(tmp_path / "user.toml", "[access]\nprofile = 'team'\ngrant_days = 7\n")
    own = write(tmp_path / "stanch.toml", "[access]\ngrant_days = 9\n[gate]\nmin_power = 0.5\n")
    config = load_config(own, environ={"STANCH_LEDGER__CHECKPOINT_SECONDS": "5", "OTHER": "x"}, user_file=user)
    assert (config.access.profile, config.access.grant_days, config.ledger.checkpoint_seconds) == ("team", 9, 5)
    assert config.origin("access.profile") == str(user)
    assert config.origin("access.grant_days") == str(own)
    assert config.origin("ledger.checkpoint_seconds") == "environment STANCH_LEDGER__CHECKPOINT_SECONDS"
    assert config.gate == {"min_power": 0.5}


@pytest.mark.parametrize(
    ("text", "error", "named"),
    [
        ("[acces]\n", UnknownSetting, "acces"),
        ("[access]\nprofil = 'solo'\n", UnknownSetting, "access"),
        ("[access]\nprofile = 'both'\n", InvalidInput, "access.profile"),
        ("[access]\ngrant_days = 900\n", InvalidInput, "access.grant_days"),
        ("profile = 'solo'\n", UnknownSetting, "profile"),
        ("[access\n", InvalidInput, "not valid TOML"),
        ("[origins]\nx = 'y'\n", UnknownSetting, "origins"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, error, named):
    path = write(tmp_path / "stanch.toml", text)
    with pytest.raises(error) as caught:
        load_config(path, environ={})
    assert named in caught.value.what
    assert str(path) in caught.value.what


def test_a_file_that_others_may_write_is_refused(tmp_path):
    path = write(tmp_path / "stanch.toml", "")
    path.chmod(0o664)
    with pytest.raises(InvalidInput, match="others may write"):
        load_config(path, environ={})
