"""The example of the guide runs as it stands there."""

import json
import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs/guides/incidents.md"


def test_the_example_of_the_guide_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-settings"))
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    exec(compile(example, "incidents.md", "exec"), {})  # noqa: S102 - the document's own example
    document = json.loads((tmp_path / "out/incident.json").read_text())
    assert document["incident"]["state"] == "closed"
    assert [one["action"] for one in document["incident"]["contained"]] == ["quarantine_model"]


def test_the_settings_of_the_guide_are_settings(tmp_path):
    from stanch.config import load_config  # noqa: PLC0415 - used here alone

    (text,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "stanch.toml").write_text(text)
    found = load_config(tmp_path / "stanch.toml", environ={}, user_file=None).alerts.sinks
    assert [sink.kind for sink in found] == ["apprise", "alertmanager", "syslog", "ocsf-http", "ocsf-file"]
