"""All citations, links and paths in sources and documents lead to something that exists.

Property: each cited section of docs/mathematics.md is a heading there. Each cited equation, section, figure
or table of the paper is in that document's table of the paper. Documents that sources name exist. Relative
links of documents resolve, with their anchors. Paths in backticks exist.
"""

import re
from pathlib import Path

import pytest

import exodus_core as ec

ROOT = Path(__file__).parent.parent
FOLDERS = ("cpp", "python", "tests", "docs", "benchmarks", "examples", "experiments", "cuda")
SOURCES = (".hpp", ".cpp", ".cu", ".py", ".pyi")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def sources():
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SOURCES]
    return sorted(path for path in found if path != Path(__file__))


def prose(text):
    """A text on one line, without comment marks, since a citation may be broken between lines."""
    return " ".join(re.sub(r"^\s*(///?|#+ )?\s*", "", line) for line in text.splitlines())


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(text):
    return re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)


def anchor(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def cited_sections(text):
    return set(re.findall(r"mathematics\.md, ([^):;.,]+)", prose(text)))


def cited_of_the_paper(text):
    """The cited equations, sections, figures and tables of the appendix: S9, section 5, figure S2."""
    text = prose(text)
    numbered = re.findall(r"\b((?:section|figure|table|proposition) S?\d[\d.]*\b)", text, re.IGNORECASE)
    return {name.lower().replace("s", "S") for name in re.findall(r"\bS\d{1,2}\b", text)} | {
        name.lower() for name in numbered
    }


def links(text):
    """The relative links of a document."""
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(text))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def paths(text):
    """The paths in backticks that start with a folder of the repository."""
    tops = "|".join(map(re.escape, (*FOLDERS, ".ci")))
    return re.findall(rf"`((?:{tops})/[\w./-]*)`", without_code(text))


MATHEMATICS = (ROOT / "docs" / "mathematics.md").read_text()


def problems_of_citations(text):
    """The citations of a text that do not exist."""
    sections = cited_sections(text) - set(headings(MATHEMATICS))
    paper = cited_of_the_paper(text) - cited_of_the_paper(MATHEMATICS.partition("\n## The paper\n")[2])
    documents = {
        name
        for name in re.findall(r"\b(\w+\.md)\b", text)
        if not (ROOT / name).exists() and not (ROOT / "docs" / name).exists()
    }
    return sorted(sections | paper | documents)


def resolves(document, link):
    """Whether the target of a relative link exists, and has the link's anchor."""
    name, _, fragment = link.partition("#")
    target = document.parent / name if name else document
    if not target.exists():
        return False
    return not fragment or fragment in map(anchor, headings(target.read_text()))


def problems_of_links(document, text):
    """The links and paths of a document that lead nowhere."""
    broken = [link for link in links(text) if not resolves(document, link)]
    return broken + [path for path in paths(text) if not (ROOT / path).exists()]


def test_citations_of_sources_exist():
    texts = {path.relative_to(ROOT): path.read_text() for path in sources()}
    problems = {str(path): found for path, text in texts.items() if (found := problems_of_citations(text))}
    assert not problems
    # Make sure that citations are found at all.
    assert cited_sections(texts[Path("cpp/include/exodus/alif.hpp")]) == {"ALIF"}
    assert "S16" in cited_of_the_paper(texts[Path("cpp/include/exodus/lif.hpp")])
    assert any(cited_sections(text) for path, text in texts.items() if path.parts[0] == "python")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_lead_somewhere(document):
    text = document.read_text()
    assert not problems_of_citations(text) + problems_of_links(document, text)


@pytest.mark.parametrize(
    "text",
    [
        "/// as in mathematics.md,\n/// Nothing of this name).",
        "the exact form (S22)",
        "the paper's\n# table S9",
        "see nowhere.md",
    ],
)
def test_dangling_citations_are_noticed(text):
    assert len(problems_of_citations(text)) == 1


@pytest.mark.parametrize(
    "text", ["[a](nowhere.md)", "[a](README.md#nothing)", "[a](#nothing)", "`cpp/include/nothing.hpp`"]
)
def test_dangling_links_are_noticed(text):
    assert len(problems_of_links(ROOT / "README.md", text)) == 1


def test_every_document_is_reached_from_the_readme():
    reached, new = set(), [ROOT / "README.md"]
    while new:
        document = new.pop()
        reached.add(document)
        targets = (document.parent / link.partition("#")[0] for link in links(document.read_text()))
        pages = {path.resolve() for path in targets if path.suffix == ".md"}
        new += [path for path in pages if path not in reached and path not in new]
    assert reached == set(DOCUMENTS)


def test_citation_file_has_the_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [ec.__version__]
