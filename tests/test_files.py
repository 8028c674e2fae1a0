"""Files are written whole and through no link, and what a stranger wrote is read in bounds or refused in a line."""

import json
import os
import stat

import pytest

from ltx.errors import Damaged, UserError
from ltx.files import append, fit, left_over, read_bytes, read_csv, read_json, read_yaml, write
from ltx.schema import MANIFEST, STATUS, SWEEP

# -- writing --------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_and_keeps_the_rights_that_a_new_one_has(tmp_path):
    write(tmp_path / "a" / "file", b"old")
    write(tmp_path / "a" / "file", b"new")
    assert (tmp_path / "a" / "file").read_bytes() == b"new"
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "a" / "file").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert left_over(tmp_path) == []


def test_nothing_is_written_through_a_link(tmp_path):
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious")
    run.mkdir()
    for name in ("levels.csv", ".levels.csv.tmp"):
        (run / name).symlink_to(victim)
    write(run / "levels.csv", b"ours")
    assert victim.read_text() == "precious"
    assert not (run / "levels.csv").is_symlink()
    (run / "curves.csv").symlink_to(victim)
    with pytest.raises(UserError, match=r"cannot write .*curves\.csv"):
        append(run / "curves.csv", b"ours")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("where", ["level_00", "level_00/ticket"])
def test_no_folder_below_the_root_may_be_a_link(where, tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / where).parent.mkdir(parents=True)
    outside.mkdir()
    (run / where).symlink_to(outside)
    file = run / "level_00" / "ticket" / "trained"
    with pytest.raises(UserError, match=r"cannot write .* is a link"):
        write(file, b"ours", root=run)
    assert list(outside.iterdir()) == []
    with pytest.raises(Damaged, match="a folder on the way to it is a link"):
        read_bytes(file, root=run)


def test_a_copy_that_was_tidied_away_is_written_again(tmp_path, monkeypatch):
    replace, tidied = os.replace, []

    def tidying(source, target):
        if not tidied:
            tidied.append(os.unlink(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", tidying)
    write(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert tidied


# -- reading --------------------------------------------------------------------------------------------------


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert read_bytes(tmp_path / "file") == b"{}"
    for name, why in {"link": "it is a link", "folder": "it is not", "pipe": "it is not"}.items():
        with pytest.raises(Damaged, match=f"{name} is damaged: {why}"):
            read_bytes(tmp_path / name)
    with pytest.raises(Damaged, match="it is not a regular file"):
        read_bytes(type(tmp_path)("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


def test_a_file_larger_than_it_may_be_is_not_read(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(3 << 20)
    assert len(read_bytes(tmp_path / "file", 3 << 20)) == 3 << 20
    with pytest.raises(Damaged, match="it has more than 2 MB"):
        read_bytes(tmp_path / "file", 2 << 20)


BAD_JSON = {
    "a list": ("[1]", "it is not a mapping"),
    "no json": ("{", "Expecting property name"),
    "not UTF-8": (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
    "deep": ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "too deep"),
    "a number of 5000 digits": ('{"seconds": 1' + "0" * 5000 + "}", "4300 digits"),
    "a number of 4000 digits": ('{"seconds": 1' + "0" * 4000 + "}", "seconds is not a number"),
    "NaN": ('{"seconds": NaN}', "NaN is not JSON"),
    "infinity by size": ('{"seconds": 1e999}', "seconds is not a number"),
    "a word for a number": ('{"seconds": "a while"}', "seconds is not a number"),
    "a truth for a number": ('{"checks": {"kept": true}}', "checks.kept is not a whole number"),
    "words for counts": ('{"checks": {"kept": "often"}}', "checks.kept is not a whole number"),
    "a word for counts": ('{"checks": "many"}', "checks is not a mapping"),
    "a number for seeds": ('{"seeds": 3}', "seeds is not a list"),
    "words for seeds": ('{"seeds": [0, "one"]}', r"seeds\[1\] is not a whole number"),
    "a list for versions": ('{"versions": []}', "versions is not a mapping"),
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_a_manifest_of_other_types_is_damaged(what, tmp_path):
    text, why = BAD_JSON[what]
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Damaged, match=why):
        read_json(tmp_path / "manifest.json", MANIFEST)


def test_json_of_the_right_form_is_read_as_it_is(tmp_path):
    said = {"state": "running", "level": None, "step": 3, "density": 1, "host": "here", "new": [{}]}
    (tmp_path / "status.json").write_text(json.dumps(said))
    assert read_json(tmp_path / "status.json", STATUS) == said
    assert read_json(tmp_path / "none.json", STATUS) == {}
    with pytest.raises(ValueError, match=r"jobs\[0\]\.overrides is not a list"):
        fit({"jobs": [{"overrides": 3}]}, SWEEP)


def bomb(levels, wide):
    lines = [f"a0: &a0 [{', '.join('x' * wide)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * wide)}]" for n in range(1, levels)]
    return "\n".join(lines)


BAD_YAML = {
    "an alias bomb": (bomb(9, 10), "more than 100,000 values"),
    "a list that holds itself": ("a: &a [*a]", r"\*a holds itself"),
    "a mapping that holds itself": ("a: &a {b: *a}", r"\*a holds itself"),
    "3,000 deep": ("a: " + "[" * 3000 + "]" * 3000, "too deep"),
    "20,000 deep, in blocks": ("\n".join(" " * n + "a:" for n in range(1000)), "too deep"),
    "20 MB of comment": ("#" * (20 << 20), "more than 1 MB"),
    "a list": ("[1, 2]", "it is not a mapping"),
    "code": ("a: !!python/object/apply:os.abort []", "could not determine a constructor"),
    "no YAML": ("a: [", "did not find|expected"),
}


@pytest.mark.parametrize("what", BAD_YAML)
def test_yaml_is_read_within_bounds(what, tmp_path):
    text, why = BAD_YAML[what]
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(Damaged, match=why) as refused:
        read_yaml(tmp_path / "config.yaml")
    assert "\n" not in str(refused.value)


def test_a_few_aliases_are_read(tmp_path):
    (tmp_path / "config.yaml").write_text("a: &a {lr: 0.1}\nb: *a\n")
    assert read_yaml(tmp_path / "config.yaml") == {"a": {"lr": 0.1}, "b": {"lr": 0.1}}


def test_a_table_is_read_without_its_last_line_if_that_was_cut_short(tmp_path):
    append(tmp_path / "levels.csv", b"level,density\n0,1.0\n")
    append(tmp_path / "levels.csv", b"1,0.")
    assert read_csv(tmp_path / "levels.csv") == [{"level": "0", "density": "1.0"}]
    append(tmp_path / "levels.csv", b"5\n2,0.25,7\n")
    with pytest.raises(Damaged, match="not every row has as many cells"):
        read_csv(tmp_path / "levels.csv")
    assert stat.S_ISREG((tmp_path / "levels.csv").stat().st_mode)
