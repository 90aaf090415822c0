"""Sphinx builds the site from the Markdown beside this file: ``make docs``."""

import re
from pathlib import Path

from sphinx.application import Sphinx

import manpp_mm

project = 'MAN++ for MMLab'
author = 'The MAN++ for MMLab authors'
release = manpp_mm.__version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode', 'sphinx_copybutton']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'{project} {release}'

# Links to headings are checked. A test runs the tutorial; the site does not.
myst_heading_anchors = 4
nb_execution_mode = 'off'

autodoc_typehints = 'description'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_use_rtype = False

_INCLUDED = {'data': 'data/README.md', 'contributing': 'CONTRIBUTING.md', 'changelog': 'CHANGELOG.md'}
"""Pages whose text lies outside of this folder, where the repository's readers look for it."""


def setup(app: Sphinx) -> None:
    """Fill in those pages, and let links to them stay inside the site."""
    root = Path(__file__).parents[1]

    def read(app: Sphinx, page: str, source: list[str]) -> None:
        if page in _INCLUDED:
            source[0] = (root / _INCLUDED[page]).read_text().replace('](../docs/', '](').replace('](docs/', '](')
        for inside, outside in _INCLUDED.items():
            source[0] = re.sub(rf'\]\((?:\.\./)?{outside}(?=[)#])', f']({inside}.md', source[0])

    app.connect('source-read', read)
