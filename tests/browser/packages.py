"""Scripts of npm packages that tests run in pages, at the versions that `package-lock.json` here pins."""

from pathlib import Path

from server.stack.environments import Node, NodePackages
from server.stack.layout import Layout

SOURCE = Path(__file__).parent


async def supabase_js(data_dir: Path) -> str:
    """supabase-js as browsers load it, which defines `supabase`."""
    return await _script(data_dir, "@supabase/supabase-js/dist/umd/supabase.js")


async def axe(data_dir: Path) -> str:
    """axe-core, which defines `axe`: it finds what people with disabilities cannot use."""
    return await _script(data_dir, "axe-core/axe.min.js")


async def _script(data_dir: Path, name: str) -> str:
    """A file of the packages, which are installed once, beside the software of the stack in `data_dir`."""
    packages = NodePackages(Node(Layout(data_dir, api_port=0)), "browser-tests", SOURCE)
    await packages.install(lambda _: None)
    return (packages.folder / "node_modules" / name).read_text(encoding="utf-8")
