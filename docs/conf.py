"""Sphinx builds the site from the Markdown beside this file: ``make docs``."""

from sphinx.application import Sphinx

import manpp_mm

project = 'MAN++ for MMLab'
author = 'The MAN++ for MMLab authors'
release = manpp_mm.__version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode', 'sphinx_copybutton']
exclude_patterns = ['_build', 'README.md']
html_theme = 'furo'
html_title = f'{project} {release}'

# Links to headings are checked; the tutorial holds the output of its last run, and a test runs it.
myst_heading_anchors = 4
nb_execution_mode = 'off'
nitpicky = False

autodoc_typehints = 'description'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_use_rtype = False

_ELSEWHERE = {
    '](../data/README.md': '](data.md',
    '](../README.md': '](index.md',
    '](../CONTRIBUTING.md': '](contributing.md',
}


def setup(app: Sphinx) -> None:
    """Pages that lie outside of this folder are included in the site: links to them stay inside."""

    def turn(app: Sphinx, page: str, source: list[str]) -> None:
        for outside, inside in _ELSEWHERE.items():
            source[0] = source[0].replace(outside, inside)

    app.connect('source-read', turn)
