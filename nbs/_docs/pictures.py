"""Pictures of every page of the built site: build/docs/pictures/<desktop|phone>-<light|dark>/<page>.png.

    python nbs/_docs/pictures.py [--only howto/ index.html] [--themes light dark]
"""
import argparse

from browser import SITE, SIZES, browsing, chromium, new_page, page_names, serving, settle


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="pages whose path begins so")
    parser.add_argument("--themes", nargs="+", default=["light", "dark"], choices=["light", "dark"])
    args = parser.parse_args()
    if not chromium(): raise SystemExit("no Chromium on this machine: Debian's package is chromium")
    names = [n for n in page_names() if n.startswith(tuple(args.only))]
    folder = SITE.parent / "pictures"
    with serving() as address, browsing() as browser:
        for size, viewport in SIZES.items():
            for theme in args.themes:
                page = new_page(browser, viewport=viewport, color_scheme=theme)
                for name in names:
                    page.goto(address + name)
                    settle(page)
                    to = folder / f"{size}-{theme}" / f"{name.removesuffix('.html').replace('/', '__')}.png"
                    to.parent.mkdir(parents=True, exist_ok=True)
                    page.screenshot(path=to, full_page=True)
                page.context.close()
                print(f"{size}, {theme}: {len(names)} pages", flush=True)
    print(f"wrote {folder}")


if __name__ == "__main__": main()
