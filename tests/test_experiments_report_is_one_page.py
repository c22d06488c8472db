"""The experiments' command line writes a report that needs no other file.

Property: report.html is well-formed, has every picture and table in it, and refers to nothing outside. The
command line checks its arguments, --full says how long it will take, and every experiment is reachable.
Witness: Python's parser of HTML, and the bytes of the pictures.
"""

import base64
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
for needed in ("matplotlib", "scipy", "tqdm", "tonic"):
    pytest.importorskip(needed, reason=f"needs {needed}")

main, report, settings = (
    pytest.importorskip(f"experiments.{name}") for name in ("__main__", "report", "settings")
)
ROOT = Path(__file__).parent.parent
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects a page's pictures, links, ids and cells, and checks that tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.ids, self.text, self.viewport = [], [], [], [], [], False
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.viewport |= given.get("name") == "viewport"
        if tag == "img":
            assert given["alt"]
            self.images.append(given["src"])
        assert "src" not in given or tag == "img"
        if "href" in given:
            self.links.append(given["href"])
        if "id" in given:
            self.ids.append(given["id"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_report_holds_everything(tmp_path):
    done = command("--quick", "--only", "loop_example", "section_7", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "report.html"
    assert done.stdout.splitlines()[-1] == str(path)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.viewport
    assert page.links == ["#loop_example", "#section_7"] == [f"#{name}" for name in page.ids]
    files = ("loop_example/figure_s1.png", "section_7/section_7.png")
    for picture, file in zip(page.images, files, strict=True):
        kind, content = picture.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content) == (tmp_path / "quick" / file).read_bytes()
    assert "-1.000000000000" in "".join(page.text)
    assert "synthetic stand-ins" in "".join(page.text)
    for name in ("loop_example", "section_7"):
        assert (tmp_path / "quick" / name / "numbers.json").exists()


def test_text_is_escaped(tmp_path):
    table = settings.Table("a < b & c", ("<x>", "y"), [["1 < 2", "&amp;"]])
    outcome = settings.Outcome("h < 1", ["<script>alert(1)</script>"], [table])
    path = report.write_report(settings.Settings(tmp_path), {"one": outcome})
    page = Page(path.read_text(encoding="utf-8"))
    text = "".join(page.text)
    for part in ("a < b & c", "<x>", "1 < 2", "&amp;", "h < 1", "<script>alert(1)</script>"):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--quick --full"),
        (("--quick", "--full"), "not allowed with"),
        (("--quick", "--only", "nothing"), "invalid choice: 'nothing'"),
        (("--quick", "--workers", "0"), "1 or more, got '0'"),
        (("--quick", "--epochs", "many"), "1 or more, got 'many'"),
        (("--quick", "--data", "/no/such/folder"), "--data must be a folder, got /no/such/folder"),
    ],
)
def test_bad_arguments_are_refused(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.main(list(arguments))
    assert words in capsys.readouterr().err + str(stopped.value)


def test_a_full_run_says_how_long_it_takes(tmp_path, capsys, monkeypatch):
    class Long:
        """An experiment of an hour."""

        seconds = staticmethod(lambda _: 3720.0)
        run = staticmethod(lambda _: settings.Outcome("Long", ["text"], numbers={"one": 1}))

    monkeypatch.setattr(main, "experiment", lambda name: Long)
    main.main(["--full", "--only", "section_7", "loop_example", "--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "loop_example     about 1 h 02 min",
        "section_7        about 1 h 02 min",
        "all              about 2 h 04 min",
    ]


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", main.NAMES)
def test_every_experiment_estimates_its_time(name, quick, tmp_path):
    module = main.experiment(name)
    assert 0 < module.seconds(settings.Settings(tmp_path, quick=quick)) < 1e7
    assert module.__doc__ and callable(module.run)


def test_quick_runs_take_minutes(tmp_path):
    given = settings.Settings(tmp_path, data=tmp_path)
    assert sum(main.experiment(name).seconds(given) for name in main.NAMES) < 15 * 60
