"""What the documents point at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / 'README.md', ROOT / 'data/README.md', *sorted((ROOT / 'docs').glob('*.md'))]


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_links_and_files(document):
    text = document.read_text()
    links = [link for link in re.findall(r'\]\(([^)]+)\)', text) if '://' not in link]
    anchors = {
        re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in re.findall(r'^#+ (.+)$', text, re.M)
    }
    for link in links:
        path, _, anchor = link.partition('#')
        assert (document.parent / path).exists(), link
        if not path:
            assert anchor in anchors, link
    for path in re.findall(r'`((?:tests|configs|tools|manpp_mm|docs)/[\w./-]+\.\w+)`', text):
        assert (ROOT / path).exists(), path


def test_every_guarantee_names_its_test():
    rows = re.findall(r'^\| (?!regime|---)(.+)$', (ROOT / 'docs/guarantees.md').read_text(), re.M)
    assert len(rows) > 20
    assert all('`tests/' in row for row in rows)
