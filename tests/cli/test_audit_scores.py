"""``stanch audit scores``: a table of another tool, whichever way its scores run."""

import random


def table(path, sign):
    """A leak of AUC about 0.9, members first; ``sign`` says which way the scores run."""
    draws = random.Random(1)
    rows = [(sign * draws.gauss(1.8 * member, 1), member) for member in (1, 0) for _ in range(300)]
    path.write_text("score,member\n" + "".join(f"{score:.17g},{member}\n" for score, member in rows))
    return path


def figures(shown):
    report = shown.json["data"]
    (score,) = report["scores"]
    return report["epsilon"]["lower"], report["epsilon"]["alpha"], score["auc"]["estimate"]


def test_losses_are_turned_round(stanch, tmp_path):
    scores, losses = table(tmp_path / "scores.csv", 1), table(tmp_path / "losses.csv", -1)
    upright = stanch("audit", "scores", scores, "--coins", "--json")
    turned = stanch("audit", "scores", losses, "--coins", "--lower-is-member", "--json")
    assert (upright.code, turned.code) == (1, 1)
    assert figures(turned) == figures(upright)
    assert float(figures(turned)[2]) > 0.8
    assert float(figures(stanch("audit", "scores", losses, "--coins", "--json"))[2]) < 0.2


def test_a_smaller_error_gives_a_smaller_bound(stanch, tmp_path):
    scores = table(tmp_path / "scores.csv", 1)
    usual, sure = (
        figures(stanch("audit", "scores", scores, "--coins", *flags, "--json")) for flags in ((), ("--alpha", "0.001"))
    )
    assert (float(usual[1]), float(sure[1])) == (0.05, 0.001)
    assert 0 < float(sure[0]) < float(usual[0])
