"""The commands of a delivery, as a publisher and a recipient type them."""

import shutil


def test_a_bundle_goes_to_a_store_and_comes_back_until_it_is_revoked(stanch, files, tmp_path):
    for name in ("acme.key", "sign.pub.pem"):
        shutil.copy(files.place / name, tmp_path)
    sent = stanch("release", "deliver", files.sealed, "file:store", "--trust", "sign.pub.pem")
    assert sent.code == 0, sent
    again = stanch("release", "deliver", files.sealed, "file:store/", "--trust", "sign.pub.pem", "--json").json["data"]
    assert again["sent"] == 0
    assert again["skipped"] > 4
    uri = again["uri"]
    assert f"next       the recipient: stanch release fetch {uri} --trust sign.pub.pem --out DIR" in sent.out
    words = ("release", "fetch", uri, "--trust", "sign.pub.pem", "--out")
    assert stanch(*words, "got").code == 0
    assert stanch(*words, "got").code == 4
    assert stanch(*words, "more", "--json").json["data"]["release_number"] == 1
    open_ = ("release", "open", "got", "--identity", "acme.key", "--trust", "sign.pub.pem")
    assert stanch(*open_).code == 0
    shown = stanch("release", "revoke", uri, files.recipient, "--sign-key", files.sign_pem, "--reason", "left")
    assert shown.code == 0, shown
    assert "revoking does not un-share" in shown.out
    assert stanch(*words, "late").code == 3
    assert not (tmp_path / "late.partial").exists()
    assert stanch(*open_).code == 0
    refused = stanch(*open_, "--revocations", "store/revocations.json")
    assert refused.code == 3
    assert "was revoked at" in refused.err
    assert (tmp_path / "sign.pub.releases").is_file()
