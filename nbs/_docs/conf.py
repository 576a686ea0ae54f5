"""How Sphinx makes the site from what build.py has laid out."""
from configparser import ConfigParser
from pathlib import Path
import sys

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from mathml import setup  # noqa: E402, F401

parser = ConfigParser(delimiters=["="])
parser.read(HERE.parent.parent / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]
project, author, version, copyright = settings["title"], settings["author"], settings["version"], settings["copyright"]
release, language = version, "en"

extensions = ["myst_nb", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_notebooks"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "Source", "Source"
nb_number_source_lines = False
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_all_links_external = False
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!aml_miner\b).*")]  # types in signatures, which other projects document
python_maximum_signature_line_length = 80
python_display_short_literal_types = True
add_module_names = False
toc_object_entries_show_parents = "hide"
suppress_warnings = [
    "ref.python",  # a type in a signature whose name several modules have: the link goes to the nearest
    "misc.highlighting_failure",  # SQL with parameters
]

html_theme = "pydata_sphinx_theme"
html_title = settings["title"]
html_static_path = [str(HERE / "static")]
html_extra_path = []
templates_path = [str(HERE / "templates")]
html_css_files, html_js_files = ["site.css"], ["site.js"]
html_context = {"default_mode": "auto"}
html_math_renderer = "mathml"
html_copy_source, html_show_sourcelink = False, False
html_show_sphinx = False
html_favicon = str(HERE / "static" / "icon.svg")
pygments_style = "default"
copybutton_selector = "div:not(.output) > div.highlight pre"
copybutton_exclude = ".linenos, .gp, .go"
icon = str(HERE / "static" / "icon.svg")
html_theme_options = {
    "logo": {"text": settings["title"], "image_light": icon, "image_dark": icon, "alt_text": "aml_miner, home"},
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "collapse_navigation": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "article_header_end": ["open-notebook"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "back_to_top_button": False,
}
html_sidebars = {"index": [], "glossary": [], "benchmarks": []}
